//! What this process may do, and what the kernel offers to fence programs in with.

use crate::error::{Error, ObjectKind, Result};
use crate::runtime::caps::CapabilitySet;
use crate::sys::attempt;

/// The version of Landlock's interface from which on signals and abstract sockets have a scope (Linux 6.12).
const SCOPES: u32 = 6;

/// What matters to a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Host {
    /// The version of Landlock's interface; 0 is none.
    pub(crate) landlock: u32,
    /// What this process has, and can give.
    pub(crate) own: CapabilitySet,
}

impl Host {
    /// Looks, by two cheap system calls.
    pub(crate) fn here() -> Self {
        Self {
            landlock: attempt::landlock().unwrap_or(0),
            own: own(),
        }
    }

    /// Whether containers cannot signal what is outside.
    pub(crate) fn has_scopes(self) -> bool {
        self.landlock >= SCOPES
    }

    /// What is not fenced in here, and by what it would be.
    pub(crate) fn open_sides(self) -> Option<&'static str> {
        match self.landlock {
            0 => Some(
                "this kernel has no Landlock (Linux 5.13, and `landlock` in the boot option `lsm=`): a program that found a way out of \
                 its directory would find all files, and root in a container may signal and trace processes of root around it",
            ),
            1..SCOPES => Some(
                "this kernel's Landlock has no scopes (Linux 6.12): root in a container may signal processes of root around it, and \
                 speak to abstract sockets",
            ),
            _ => None,
        }
    }
}

/// What a process needs to start containers in this way, and to end them, whose users are any: by number in `linux/capability.h`.
const NEEDED: CapabilitySet =
    CapabilitySet::from_bits(1 | 1 << 1 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 18);

/// Whether this process may.
///
/// # Errors
/// `Unsupported` that names what it lacks.
#[cold]
pub(crate) fn missing() -> Result<()> {
    let root = nix::unistd::geteuid().is_root();
    let missing: Vec<&str> = NEEDED.minus(own()).names().collect();
    if root && missing.is_empty() {
        return Ok(());
    }
    let needs = match root {
        true => format!(
            "{}, as root in an ordinary container of Docker's has them",
            missing.join(", ")
        ),
        false => "root; an ordinary user needs namespaces of users, and the runtime \"native\"".to_owned(),
    };
    Err(Error::unsupported("the runtime \"chroot\"", needs).with_object(ObjectKind::Backend, super::NAME))
}

/// This process' effective capabilities. Source: proc_pid_status(5).
fn own() -> CapabilitySet {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = hex.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    CapabilitySet::from_bits(bits.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k7_what_is_needed_is_what_docker_gives() {
        assert!(CapabilitySet::docker().contains(NEEDED));
        let names: Vec<&str> = NEEDED.names().collect();
        let expected = [
            "CAP_CHOWN",
            "CAP_DAC_OVERRIDE",
            "CAP_FOWNER",
            "CAP_KILL",
            "CAP_SETGID",
            "CAP_SETUID",
            "CAP_SETPCAP",
            "CAP_SYS_CHROOT",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn k7_what_a_kernel_leaves_open_is_told() {
        let with = |landlock| Host {
            landlock,
            own: CapabilitySet::docker(),
        };
        assert!(with(0).open_sides().unwrap().contains("no Landlock"));
        for version in 1..6 {
            assert!(with(version).open_sides().unwrap().contains("no scopes"), "{version}");
            assert!(!with(version).has_scopes());
        }
        assert_eq!((with(6).open_sides(), with(7).has_scopes()), (None, true));
    }
}
