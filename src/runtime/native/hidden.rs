//! Whether this process, in a user namespace, could mount a `proc` and a `sysfs` anew. The kernel refuses where something is
//! mounted over a part of those that are there, as the masks of a container around this process are: it would be seen again.
//! Source: `mount_too_revealing()` of Linux's fs/namespace.c; user_namespaces(7) does not tell of it.

use crate::error::{Error, Result};
use crate::runtime::caps::CapabilitySet;

/// What cannot be mounted anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Hidden {
    pub(crate) proc: bool,
    pub(crate) sys: bool,
}

/// Directories that are made for something to be mounted there, and have nothing in them to hide.
const PLACES: [&str; 16] = [
    "/proc/fs/nfsd",
    "/proc/sys/fs/binfmt_misc",
    "/sys/firmware/efi/efivars",
    "/sys/fs/bpf",
    "/sys/fs/cgroup",
    "/sys/fs/fuse/connections",
    "/sys/fs/pstore",
    "/sys/fs/resctrl",
    "/sys/fs/selinux",
    "/sys/fs/smackfs",
    "/sys/hypervisor/s390",
    "/sys/kernel/config",
    "/sys/kernel/debug",
    "/sys/kernel/dlm",
    "/sys/kernel/security",
    "/sys/kernel/tracing",
];

impl Hidden {
    /// Of this process. What cannot be read counts as seen whole.
    pub(crate) fn here() -> Self {
        Self::of(&std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
    }

    /// Whether it matters: the initial user namespace may mount all.
    pub(crate) fn matters() -> bool {
        !super::has_admin() || !super::in_initial_userns()
    }

    /// Whether a program with these capabilities may share what is hidden.
    ///
    /// # Errors
    /// `Unsupported` for one that may trace: the engine's helper is in the `/proc` that it would see.
    pub(crate) fn check(self, caps: CapabilitySet) -> Result<()> {
        let tracing = CapabilitySet::docker().tweak(&["SYS_PTRACE"], &["ALL"])?;
        if !self.proc || !caps.contains(tracing) {
            return Ok(());
        }
        Err(Error::unsupported(
            "CAP_SYS_PTRACE, alone or with all others, for a container that shares its /proc with the engine",
            "a host whose /proc is not partly hidden (a container around this process hides it)",
        ))
    }

    /// Of a table of mounts, see proc_pid_mountinfo(5).
    fn of(mountinfo: &str) -> Self {
        Self {
            proc: is_hidden(mountinfo, "/proc", true),
            sys: is_hidden(mountinfo, "/sys", false),
        }
    }
}

/// Whether no mount of the whole of it is free of others, or only ones that cannot be written to where that is `wanted`.
fn is_hidden(mountinfo: &str, place: &str, writable: bool) -> bool {
    let mut covered = false;
    for line in mountinfo.lines() {
        let mut words = line.split(' ').skip(3);
        let (Some(root), Some(point), Some(options)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        if point == place {
            let read_only = options.split(',').any(|option| option == "ro");
            // The last one is on top.
            covered = root != "/" || writable && read_only;
            continue;
        }
        let below = point.strip_prefix(place).is_some_and(|rest| rest.starts_with('/'));
        covered |= below && !is_place(point);
    }
    covered
}

/// Whether something may be there without hiding anything; below such a place nothing of it is left to hide.
fn is_place(point: &str) -> bool {
    PLACES.iter().any(|place| {
        let rest = point.strip_prefix(place);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const HOST: &str = "22 26 0:21 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n\
        23 26 0:22 / /proc rw,nosuid shared:12 - proc proc rw\n\
        30 22 0:26 / /sys/fs/cgroup ro shared:9 - tmpfs tmpfs ro\n\
        31 30 0:27 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw\n\
        40 23 0:30 / /proc/sys/fs/binfmt_misc rw - binfmt_misc binfmt_misc rw\n";

    #[test]
    fn a_host_hides_nothing() {
        assert_eq!(Hidden::of(HOST), Hidden::default());
        assert_eq!(Hidden::of(""), Hidden::default());
        assert_eq!(Hidden::of("half a line"), Hidden::default());
    }

    #[test]
    fn who_may_trace_shares_nothing() {
        let (tracing, docker) = (CapabilitySet::ALL, CapabilitySet::docker());
        let hidden = Hidden { proc: true, sys: true };
        assert!(hidden.check(docker).is_ok());
        assert!(matches!(
            hidden.check(tracing).unwrap_err().kind(),
            ErrorKind::Unsupported { .. }
        ));
        assert!(Hidden::default().check(tracing).is_ok());
    }

    #[test]
    fn masks_hide() {
        let masked = format!("{HOST}50 23 0:5 /null /proc/kcore rw - tmpfs tmpfs rw\n");
        let hidden = Hidden { proc: true, sys: false };
        assert_eq!(Hidden::of(&masked), hidden);
        let own = format!("{HOST}50 23 0:22 /sys /proc/sys ro - proc proc rw\n");
        assert_eq!(Hidden::of(&own), hidden);
        let firmware = format!("{HOST}50 22 0:50 / /sys/firmware ro - tmpfs tmpfs ro\n");
        assert_eq!(Hidden::of(&firmware), Hidden { proc: false, sys: true });
    }

    #[test]
    fn what_is_on_top_counts() {
        let again = format!("50 23 0:5 /null /proc/kcore rw - tmpfs tmpfs rw\n{HOST}");
        assert!(!Hidden::of(&again).proc);
        let part = format!("{HOST}50 26 0:22 /sys /proc rw - proc proc rw\n");
        assert!(Hidden::of(&part).proc);
        let frozen = format!("{HOST}50 26 0:22 / /proc ro - proc proc rw\n51 26 0:21 / /sys ro - sysfs sysfs rw\n");
        assert_eq!(Hidden::of(&frozen), Hidden { proc: true, sys: false });
        let other = format!("{HOST}50 26 0:5 / /procession rw - tmpfs tmpfs rw\n");
        assert_eq!(Hidden::of(&other), Hidden::default());
    }
}
