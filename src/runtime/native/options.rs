//! Words of the specification and their numbers in the kernel: mount options, capabilities, resource limits.

use oci_spec::runtime::{Capability, PosixRlimitType};

use super::plan::Host;
use crate::error::{Error, Result};

/// `MOUNT_ATTR_RDONLY`.
pub(crate) const READ_ONLY: u32 = 1;
/// `MOUNT_ATTR_NOSUID`.
pub(crate) const NO_SUID: u32 = 2;
/// `MOUNT_ATTR_NODEV`.
pub(crate) const NO_DEV: u32 = 4;
const NO_EXEC: u32 = 8;
const NO_ATIME: u32 = 0x10;
const STRICT_ATIME: u32 = 0x20;
const NO_DIR_ATIME: u32 = 0x80;
const NO_SYMLINK_FOLLOW: u32 = 0x20_0000;

/// Mount options, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// `MOUNT_ATTR_…` to set.
    pub(crate) attributes: u32,
    pub(crate) bind: bool,
    /// The caller wants to write there, in so many words.
    pub(crate) writable: bool,
    /// The caller wants devices to work there, in so many words.
    pub(crate) devices: bool,
    pub(crate) recursive: bool,
    /// For the file system itself.
    pub(crate) data: Vec<Vec<u8>>,
}

impl Options {
    pub(crate) fn parse(words: &[String], host: Host) -> Result<Self> {
        let mut options = Self::default();
        for word in words {
            options.word(word, host)?;
        }
        Ok(options)
    }

    fn word(&mut self, word: &str, host: Host) -> Result<()> {
        if let "dev" | "nodev" = word {
            self.devices = word == "dev";
        }
        if let "ro" | "rro" | "rw" = word {
            self.writable = word == "rw";
        }
        let (set, clear) = match word {
            "ro" | "rro" => (READ_ONLY, 0),
            "rw" => (0, READ_ONLY),
            "nosuid" => (NO_SUID, 0),
            "suid" => (0, NO_SUID),
            "nodev" => (NO_DEV, 0),
            "dev" => (0, NO_DEV),
            "noexec" => (NO_EXEC, 0),
            "exec" => (0, NO_EXEC),
            "noatime" => (NO_ATIME, 0),
            "strictatime" => (STRICT_ATIME, 0),
            "nodiratime" => (NO_DIR_ATIME, 0),
            "nosymfollow" => (NO_SYMLINK_FOLLOW, 0),
            // The default, or without meaning for a fresh namespace.
            "relatime" | "atime" | "diratime" | "async" | "defaults" | "private" | "rprivate" | "newinstance" => (0, 0),
            "bind" => {
                self.bind = true;
                (0, 0)
            }
            "rbind" => {
                self.bind = true;
                self.recursive = true;
                (0, 0)
            }
            "shared" | "rshared" | "slave" | "rslave" => {
                return Err(Error::unsupported(
                    format!("mount propagation {word:?}"),
                    "private mounts (the option \"rprivate\")",
                ));
            }
            // A group that the single mapped id does not include.
            _ if host.single_id && (word.starts_with("gid=") || word.starts_with("uid=")) => (0, 0),
            _ => {
                self.data.push(word.as_bytes().to_vec());
                (0, 0)
            }
        };
        self.attributes = self.attributes & !clear | set;
        Ok(())
    }
}

/// The number of a capability, as in `linux/capability.h`.
pub(crate) fn capability_number(cap: Capability) -> Option<u32> {
    const NAMES: [&str; 41] = [
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "KILL",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "LINUX_IMMUTABLE",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_ADMIN",
        "NET_RAW",
        "IPC_LOCK",
        "IPC_OWNER",
        "SYS_MODULE",
        "SYS_RAWIO",
        "SYS_CHROOT",
        "SYS_PTRACE",
        "SYS_PACCT",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_NICE",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "MKNOD",
        "LEASE",
        "AUDIT_WRITE",
        "AUDIT_CONTROL",
        "SETFCAP",
        "MAC_OVERRIDE",
        "MAC_ADMIN",
        "SYSLOG",
        "WAKE_ALARM",
        "BLOCK_SUSPEND",
        "AUDIT_READ",
        "PERFMON",
        "BPF",
        "CHECKPOINT_RESTORE",
    ];
    let name = cap.to_string();
    let name = name.strip_prefix("CAP_").unwrap_or(&name);
    NAMES
        .iter()
        .position(|known| *known == name)
        .map(|number| number as u32)
}

/// The number of a resource, as in `asm-generic/resource.h`.
pub(crate) fn rlimit_number(kind: PosixRlimitType) -> u32 {
    match kind {
        PosixRlimitType::RlimitCpu => 0,
        PosixRlimitType::RlimitFsize => 1,
        PosixRlimitType::RlimitData => 2,
        PosixRlimitType::RlimitStack => 3,
        PosixRlimitType::RlimitCore => 4,
        PosixRlimitType::RlimitRss => 5,
        PosixRlimitType::RlimitNproc => 6,
        PosixRlimitType::RlimitNofile => 7,
        PosixRlimitType::RlimitMemlock => 8,
        PosixRlimitType::RlimitAs => 9,
        PosixRlimitType::RlimitLocks => 10,
        PosixRlimitType::RlimitSigpending => 11,
        PosixRlimitType::RlimitMsgqueue => 12,
        PosixRlimitType::RlimitNice => 13,
        PosixRlimitType::RlimitRtprio => 14,
        PosixRlimitType::RlimitRttime => 15,
    }
}
