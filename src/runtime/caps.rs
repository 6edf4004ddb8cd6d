//! Capabilities: names, sets, and Docker's rules for adding and dropping them. Pure.

use std::fmt;
use std::str::FromStr;

use oci_spec::runtime::{Capabilities, Capability};

use crate::error::Error;

/// Names by number, see capabilities(7) and `linux/capability.h`.
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// What Docker gives a container that asks for nothing.
const DOCKER: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// A set of capabilities, as a mask with one bit per number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct CapabilitySet(u64);

impl CapabilitySet {
    /// No capability.
    pub const EMPTY: Self = Self(0);

    /// Every capability that this crate knows. A kernel may know fewer, see [`Self::up_to`].
    pub const ALL: Self = Self((1 << NAMES.len()) - 1);

    /// What Docker gives a container that asks for nothing.
    pub fn docker() -> Self {
        DOCKER
            .iter()
            .filter_map(|name| number(name))
            .map(Self::single)
            .fold(Self::EMPTY, Self::union)
    }

    /// The set of a mask. Bits of capabilities that this crate does not know are dropped.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits & Self::ALL.0)
    }

    /// The mask, as the kernel takes it.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Both together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in this and not in the other.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What is in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What a kernel can grant whose highest capability (`/proc/sys/kernel/cap_last_cap`) is `last`.
    #[must_use]
    pub const fn up_to(self, last: u8) -> Self {
        if last >= 63 {
            self
        } else {
            Self(self.0 & ((2 << last) - 1))
        }
    }

    /// Whether all of the other are in this.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Names (`CAP_CHOWN`), by rising number.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES
            .iter()
            .enumerate()
            .filter(move |(number, _)| self.0 & (1 << number) != 0)
            .map(|(_, name)| *name)
    }

    /// Docker's rules for `--cap-add` and `--cap-drop` over a base set: adding `ALL` gives everything but what is dropped;
    /// dropping `ALL` gives what is added; else what is dropped goes first, and what is added wins.
    ///
    /// # Errors
    /// `InvalidArgument` names the first unknown capability.
    pub fn tweak<A: AsRef<str>, D: AsRef<str>>(self, add: &[A], drop: &[D]) -> Result<Self, Error> {
        let (adds_all, drops_all) = (has_all(add), has_all(drop));
        let added = sum(add)?;
        let dropped = sum(drop)?;
        Ok(match (adds_all, drops_all) {
            (true, _) => Self::ALL.minus(dropped),
            (false, true) => added,
            (false, false) => self.minus(dropped).union(added),
        })
    }

    /// As the runtime specification has them.
    pub fn to_oci(self) -> Capabilities {
        self.names()
            .filter_map(|name| name.strip_prefix("CAP_")?.parse::<Capability>().ok())
            .collect()
    }

    fn single(number: u8) -> Self {
        Self(1 << number)
    }
}

fn is_all(name: &str) -> bool {
    name.trim().eq_ignore_ascii_case("ALL")
}

fn has_all<S: AsRef<str>>(names: &[S]) -> bool {
    names.iter().any(|name| is_all(name.as_ref()))
}

/// All named ones, `ALL` aside.
fn sum<S: AsRef<str>>(names: &[S]) -> Result<CapabilitySet, Error> {
    let named = names.iter().map(AsRef::as_ref).filter(|name| !is_all(name));
    named
        .map(str::parse)
        .try_fold(CapabilitySet::EMPTY, |set, next| next.map(|next| set.union(next)))
}

/// The number of a full name (`CAP_CHOWN`).
fn number(name: &str) -> Option<u8> {
    NAMES
        .iter()
        .position(|known| *known == name)
        .and_then(|at| u8::try_from(at).ok())
}

impl FromStr for CapabilitySet {
    type Err = Error;

    /// One capability (`CAP_CHOWN`, `chown`) or `ALL`, in any case.
    fn from_str(text: &str) -> Result<Self, Error> {
        let upper = text.trim().to_ascii_uppercase();
        if upper == "ALL" {
            return Ok(Self::ALL);
        }
        let full = if upper.starts_with("CAP_") {
            upper
        } else {
            format!("CAP_{upper}")
        };
        let number = number(&full).ok_or_else(|| Error::invalid(format!("unknown capability: {text:?}")))?;
        Ok(Self::single(number))
    }
}

impl FromIterator<Self> for CapabilitySet {
    fn from_iter<I: IntoIterator<Item = Self>>(sets: I) -> Self {
        sets.into_iter().fold(Self::EMPTY, Self::union)
    }
}

impl From<&Capabilities> for CapabilitySet {
    fn from(set: &Capabilities) -> Self {
        // The specification's type spells its names without the prefix; both parse.
        set.iter()
            .filter_map(|capability| capability.to_string().parse::<Self>().ok())
            .collect()
    }
}

impl fmt::Debug for CapabilitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [&str; 0] = [];

    fn set(names: &str) -> CapabilitySet {
        names
            .split(' ')
            .map(|name| name.parse::<CapabilitySet>().unwrap())
            .collect()
    }

    #[test]
    fn numbers_are_the_kernels() {
        for (name, bit) in [
            ("CAP_CHOWN", 0),
            ("kill", 5),
            ("Cap_Net_Bind_Service", 10),
            ("SYS_ADMIN", 21),
            ("mknod", 27),
            ("CAP_SETFCAP", 31),
            ("SYSLOG", 34),
            ("CAP_CHECKPOINT_RESTORE", 40),
        ] {
            assert_eq!(set(name).bits(), 1 << bit, "{name}");
        }
        assert_eq!(set("all"), CapabilitySet::ALL);
        assert_eq!(CapabilitySet::ALL.names().count(), 41);
        for bad in ["", "CAP_", "CAP_CAP_CHOWN", "root", "CAP_ALL"] {
            assert!(bad.parse::<CapabilitySet>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn docker_gives_fourteen() {
        assert_eq!(CapabilitySet::docker().names().count(), 14);
        // CapBnd of `docker run busybox grep Cap /proc/self/status`.
        assert_eq!(CapabilitySet::docker().bits(), 0xa80425fb);
    }

    #[test]
    fn add_and_drop_follow_docker() {
        let base = CapabilitySet::docker();
        assert_eq!(base.tweak(&NONE, &NONE).unwrap(), base);
        assert_eq!(
            base.tweak(&["SYS_ADMIN"], &["CAP_MKNOD"]).unwrap(),
            base.minus(set("mknod")).union(set("sys_admin"))
        );
        assert_eq!(
            base.tweak(&["ALL"], &["chown"]).unwrap(),
            CapabilitySet::ALL.minus(set("chown"))
        );
        assert_eq!(base.tweak(&["kill"], &["all"]).unwrap(), set("kill"));
        assert_eq!(base.tweak(&["chown"], &["chown"]).unwrap(), base);
        assert_eq!(base.tweak(&["ALL"], &["ALL"]).unwrap(), CapabilitySet::ALL);
        assert!(base.tweak(&["nonsense"], &NONE).is_err());
        assert!(base.tweak(&["ALL"], &["nonsense"]).is_err());
    }

    #[test]
    fn old_kernels_know_fewer() {
        assert_eq!(CapabilitySet::ALL.up_to(40), CapabilitySet::ALL);
        assert_eq!(CapabilitySet::ALL.up_to(37).bits(), (1 << 38) - 1);
        assert_eq!(CapabilitySet::ALL.up_to(255), CapabilitySet::ALL);
    }

    #[test]
    fn the_specifications_type_and_back() {
        let oci = CapabilitySet::ALL.to_oci();
        assert_eq!(oci.len(), 41);
        assert_eq!(CapabilitySet::from(&oci), CapabilitySet::ALL);
        assert_eq!(
            CapabilitySet::from(&CapabilitySet::docker().to_oci()),
            CapabilitySet::docker()
        );
    }
}
