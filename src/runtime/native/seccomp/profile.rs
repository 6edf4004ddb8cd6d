//! Docker's default profile, evaluated for a set of capabilities, this architecture and this kernel.

use std::sync::{LazyLock, Mutex, PoisonError};

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompOperator, LinuxSyscall,
};
use serde::Deserialize;

use crate::runtime::caps::CapabilitySet;

/// The data with its origin: see `NOTICE` beside it.
static DEFAULT: LazyLock<Vec<Group>> = LazyLock::new(|| {
    // The text is part of the program, and a test parses it.
    serde_json::from_slice(include_bytes!("default.json")).unwrap_or_default()
});

/// Calls that are treated alike, and when.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    action: Action,
    errno: Option<u32>,
    /// All of these must be in the bounding set.
    #[serde(default)]
    caps: Vec<String>,
    /// None of these may be.
    #[serde(default)]
    without_caps: Vec<String>,
    /// In Go's words: `amd64`, `arm64`.
    #[serde(default)]
    arches: Vec<String>,
    #[serde(default)]
    without_arches: Vec<String>,
    min_kernel: Option<String>,
    #[serde(default)]
    args: Vec<Argument>,
    /// Separated by blanks.
    names: Vec<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    Allow,
    Errno,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Argument {
    index: usize,
    op: Operator,
    value: u64,
    value_two: Option<u64>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Operator {
    Eq,
    Lt,
    Gt,
    MaskedEq,
}

#[cfg(target_arch = "x86_64")]
pub(super) const NATIVE: (&str, Arch) = ("amd64", Arch::ScmpArchX86_64);
#[cfg(target_arch = "aarch64")]
pub(super) const NATIVE: (&str, Arch) = ("arm64", Arch::ScmpArchAarch64);

/// Docker's default profile for a container with this bounding set, on this architecture and kernel.
///
/// It names this architecture only: see the compiler for what that means to 32-bit programs.
pub fn default_profile(caps: &CapabilitySet) -> LinuxSeccomp {
    /// The last one asked for: nearly all containers have the same capabilities.
    static LAST: Mutex<Option<(CapabilitySet, LinuxSeccomp)>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, profile)) = last.as_ref().filter(|(known, _)| known == caps) {
        return profile.clone();
    }
    let profile = profile_for(*caps, *KERNEL);
    *last = Some((*caps, profile.clone()));
    profile
}

/// The kernel's version, which does not change under a running program.
pub(super) static KERNEL: LazyLock<(u32, u32)> = LazyLock::new(|| {
    let release = nix::sys::utsname::uname().ok();
    let release = release.as_ref().and_then(|name| name.release().to_str());
    version(release.unwrap_or_default())
});

fn profile_for(caps: CapabilitySet, kernel: (u32, u32)) -> LinuxSeccomp {
    let holds = |group: &&Group| group.holds(caps, kernel);
    let syscalls: Vec<LinuxSyscall> = DEFAULT.iter().filter(holds).map(Group::to_oci).collect();
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_default_errno_ret(Some(libc::EPERM as u32))
        .set_architectures(Some(vec![NATIVE.1]))
        .set_syscalls(Some(syscalls));
    profile
}

impl Group {
    fn holds(&self, caps: CapabilitySet, kernel: (u32, u32)) -> bool {
        let has = |name: &String| name.parse().is_ok_and(|one| caps.contains(one));
        let here = |arch: &String| arch == NATIVE.0;
        self.caps.iter().all(has)
            && !self.without_caps.iter().any(has)
            && (self.arches.is_empty() || self.arches.iter().any(here))
            && !self.without_arches.iter().any(here)
            && self.min_kernel.as_deref().is_none_or(|least| kernel >= version(least))
    }

    fn to_oci(&self) -> LinuxSyscall {
        let names = self
            .names
            .iter()
            .flat_map(|line| line.split(' '))
            .map(str::to_owned)
            .collect();
        let args: Vec<_> = self.args.iter().map(Argument::to_oci).collect();
        let mut syscall = LinuxSyscall::default();
        syscall
            .set_names(names)
            .set_action(match self.action {
                Action::Allow => LinuxSeccompAction::ScmpActAllow,
                Action::Errno => LinuxSeccompAction::ScmpActErrno,
            })
            .set_errno_ret(self.errno)
            .set_args(Some(args).filter(|args| !args.is_empty()));
        syscall
    }
}

impl Argument {
    fn to_oci(&self) -> LinuxSeccompArg {
        let op = match self.op {
            Operator::Eq => LinuxSeccompOperator::ScmpCmpEq,
            Operator::Lt => LinuxSeccompOperator::ScmpCmpLt,
            Operator::Gt => LinuxSeccompOperator::ScmpCmpGt,
            Operator::MaskedEq => LinuxSeccompOperator::ScmpCmpMaskedEq,
        };
        let arg = LinuxSeccompArgBuilder::default()
            .index(self.index)
            .op(op)
            .value(self.value);
        let arg = if let Some(two) = self.value_two {
            arg.value_two(two)
        } else {
            arg
        };
        arg.build().expect("a builder whose fields all have defaults")
    }
}

/// The first two numbers of a kernel release (`6.1.0-18-amd64`).
pub(super) fn version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::rules;
    use super::*;

    fn allowed(caps: CapabilitySet, kernel: (u32, u32)) -> BTreeSet<String> {
        let profile = profile_for(caps, kernel);
        let allows = |rule: &&LinuxSyscall| rule.action() == LinuxSeccompAction::ScmpActAllow && rule.args().is_none();
        profile
            .syscalls()
            .iter()
            .flatten()
            .filter(allows)
            .flat_map(|rule| rule.names().clone())
            .collect()
    }

    #[test]
    fn the_data_parses() {
        let groups: Vec<Group> = serde_json::from_str(include_str!("default.json")).unwrap();
        assert_eq!(groups.len(), 33);
        let names: usize = groups
            .iter()
            .flat_map(|group| &group.names)
            .map(|line| line.split(' ').count())
            .sum();
        assert_eq!(
            groups[0]
                .names
                .iter()
                .map(|line| line.split(' ').count())
                .sum::<usize>(),
            361
        );
        assert!(names > 430, "{names}");
        for name in groups
            .iter()
            .flat_map(|group| group.caps.iter().chain(&group.without_caps))
        {
            assert!(name.parse::<CapabilitySet>().is_ok(), "{name}");
        }
    }

    #[test]
    fn capabilities_open_calls() {
        let plain = allowed(CapabilitySet::docker(), (6, 1));
        assert!(plain.contains("read") && plain.contains("chroot") && plain.contains("ptrace"));
        for shut in [
            "mount",
            "unshare",
            "setns",
            "bpf",
            "keyctl",
            "io_uring_setup",
            "userfaultfd",
            "reboot",
            "clone",
        ] {
            assert!(!plain.contains(shut), "{shut}");
        }
        let admin = allowed("SYS_ADMIN".parse().unwrap(), (6, 1));
        for open in ["mount", "unshare", "setns", "bpf", "clone", "clone3"] {
            assert!(admin.contains(open), "{open}");
        }
        assert!(!admin.contains("chroot") && !admin.contains("keyctl"));
        assert!(!allowed(CapabilitySet::EMPTY, (4, 7)).contains("ptrace"));
        assert!(allowed("SYS_PTRACE".parse().unwrap(), (4, 7)).contains("ptrace"));
    }

    #[test]
    fn clone3_is_answered_as_missing() {
        let profile = default_profile(&CapabilitySet::docker());
        let clone3 = profile
            .syscalls()
            .iter()
            .flatten()
            .find(|rule| rule.names().iter().any(|name| name == "clone3"));
        assert_eq!(clone3.unwrap().errno_ret(), Some(libc::ENOSYS as u32));
    }

    #[test]
    fn most_names_are_known_here() {
        // Those that are not belong to 32-bit or other architectures.
        let profile = default_profile(&CapabilitySet::ALL);
        let names = profile.syscalls().iter().flatten().flat_map(|rule| rule.names());
        let unknown: BTreeSet<_> = names.filter(|name| rules::number(name).is_none()).collect();
        assert!(unknown.len() < 130, "{unknown:?}");
        for needed in [
            "newfstatat",
            "clock_nanosleep",
            "pidfd_send_signal",
            "statx",
            "rseq",
            "openat2",
            "close_range",
        ] {
            assert!(rules::number(needed).is_some(), "{needed}");
        }
    }

    #[test]
    fn releases() {
        assert_eq!(version("6.1.0-18-amd64"), (6, 1));
        assert_eq!(version("5.14"), (5, 14));
        assert_eq!(version("7"), (7, 0));
        assert_eq!(version(""), (0, 0));
    }
}
