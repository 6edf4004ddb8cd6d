//! What a Linux container gets that asks for nothing: Docker's published defaults, as types of the runtime specification.
//! Pure.
//!
//! Sources: moby's `oci/defaults.go` and `daemon/pkg/oci`, containerd's `pkg/oci/spec.go`, and the runtime specification
//! (`config-linux.md`, "Default Devices").
//!
//! Device access: the list of mounts has `/dev` as a tmpfs in which nodes work. A runtime that gives `CAP_MKNOD` (Docker's
//! set has it) without a devices cgroup must mount what the container can write, `/dev` included, `nodev`, and bind the
//! nodes of [`devices`] one by one, or the container can make itself a node of the host's disk.

use std::path::PathBuf;

use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceType, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, Mount,
    MountBuilder,
};

/// `PATH` of a container whose image sets none.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Size of `/dev/shm`, in bytes: 64 MiB.
pub const SHM_SIZE_BYTES: u64 = 64 << 20;

/// Paths below `/proc` and `/sys` that say more of the host than a container should know. Those that a kernel lacks are
/// passed over.
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Paths below `/proc` through which a container could change the host.
pub const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Links that every container's `/dev` has: name, target.
pub const DEV_LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// Target, type, source, options.
const MOUNTS: [(&str, &str, &str, &[&str]); 7] = [
    ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
    (
        "/dev",
        "tmpfs",
        "tmpfs",
        &["nosuid", "strictatime", "mode=755", "size=65536k"],
    ),
    (
        "/dev/pts",
        "devpts",
        "devpts",
        &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    ),
    ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    (
        "/sys/fs/cgroup",
        "cgroup",
        "cgroup",
        &["ro", "nosuid", "noexec", "nodev"],
    ),
    ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    (
        "/dev/shm",
        "tmpfs",
        "shm",
        &["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"],
    ),
];

/// Path, major, minor. All are character devices with mode 0666, owned by the container's root.
const DEVICES: [(&str, i64, i64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/tty", 5, 0),
    ("/dev/urandom", 1, 9),
    ("/dev/random", 1, 8),
];

/// The mounts above the root file system, in the order in which they are made.
pub fn mounts() -> Vec<Mount> {
    MOUNTS
        .iter()
        .map(|(target, kind, source, options)| mount(target, kind, source, options))
        .collect()
}

/// `/dev/shm` with another size in bytes.
pub fn shm_mount(size_bytes: u64) -> Mount {
    let size = format!("size={size_bytes}");
    mount(
        "/dev/shm",
        "tmpfs",
        "shm",
        &["nosuid", "noexec", "nodev", "mode=1777", &size],
    )
}

/// The device nodes that every container has.
pub fn devices() -> Vec<LinuxDevice> {
    DEVICES
        .iter()
        .map(|(path, major, minor)| device(path, *major, *minor))
        .collect()
}

/// The namespaces that are a container's own. The user namespace is not among them: it is the engine's.
pub fn namespaces() -> Vec<LinuxNamespace> {
    use LinuxNamespaceType as Type;
    [
        Type::Mount,
        Type::Network,
        Type::Uts,
        Type::Pid,
        Type::Ipc,
        Type::Cgroup,
    ]
    .map(namespace)
    .to_vec()
}

/// [`MASKED_PATHS`] as the specification has them.
pub fn masked_paths() -> Vec<String> {
    MASKED_PATHS.map(str::to_owned).to_vec()
}

/// [`READONLY_PATHS`] as the specification has them.
pub fn readonly_paths() -> Vec<String> {
    READONLY_PATHS.map(str::to_owned).to_vec()
}

/// The environment of a process before the image's and the caller's: `PATH`, the host name, and `TERM` on a terminal, as
/// Docker orders them.
pub fn environment(hostname: &str, terminal: bool) -> Vec<String> {
    let mut env = vec![format!("PATH={PATH}"), format!("HOSTNAME={hostname}")];
    if terminal {
        env.push("TERM=xterm".to_owned());
    }
    env
}

// The builders below can only fail for a missing field, and none is.

fn mount(target: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
    let mount = MountBuilder::default()
        .destination(PathBuf::from(target))
        .typ(kind)
        .source(PathBuf::from(source));
    mount.options(options).build().expect("a complete mount")
}

fn device(path: &str, major: i64, minor: i64) -> LinuxDevice {
    let device = LinuxDeviceBuilder::default()
        .path(PathBuf::from(path))
        .typ(LinuxDeviceType::C)
        .major(major)
        .minor(minor);
    device
        .file_mode(0o666u32)
        .uid(0u32)
        .gid(0u32)
        .build()
        .expect("a complete device")
}

fn namespace(kind: LinuxNamespaceType) -> LinuxNamespace {
    LinuxNamespaceBuilder::default()
        .typ(kind)
        .build()
        .expect("a complete namespace")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(target: &str) -> String {
        let mounts = mounts();
        let mount = mounts
            .iter()
            .find(|mount| mount.destination() == &PathBuf::from(target))
            .unwrap();
        mount.options().as_ref().unwrap().join(",")
    }

    #[test]
    fn mounts_are_dockers() {
        let targets: Vec<_> = mounts()
            .iter()
            .map(|mount| mount.destination().display().to_string())
            .collect();
        assert_eq!(
            targets,
            [
                "/proc",
                "/dev",
                "/dev/pts",
                "/sys",
                "/sys/fs/cgroup",
                "/dev/mqueue",
                "/dev/shm"
            ]
        );
        assert_eq!(options("/proc"), "nosuid,noexec,nodev");
        assert_eq!(options("/dev"), "nosuid,strictatime,mode=755,size=65536k");
        assert_eq!(
            options("/dev/pts"),
            "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"
        );
        assert_eq!(options("/sys"), "nosuid,noexec,nodev,ro");
        assert_eq!(options("/sys/fs/cgroup"), "ro,nosuid,noexec,nodev");
        assert_eq!(
            options("/dev/shm"),
            format!("nosuid,noexec,nodev,mode=1777,size={SHM_SIZE_BYTES}")
        );
        assert_eq!(shm_mount(SHM_SIZE_BYTES), mounts().pop().unwrap());
    }

    #[test]
    fn parents_are_mounted_before_what_lies_in_them() {
        let targets: Vec<_> = mounts().iter().map(|mount| mount.destination().clone()).collect();
        for (at, target) in targets.iter().enumerate() {
            let inside = |other: &PathBuf| other != target && other.starts_with(target);
            assert!(!targets[..at].iter().any(inside), "{} comes late", target.display());
        }
    }

    #[test]
    fn devices_are_those_of_the_specification() {
        let of = |path: &str| {
            devices()
                .into_iter()
                .find(|device| device.path() == &PathBuf::from(path))
                .unwrap()
        };
        for (path, major, minor) in [
            ("/dev/null", 1, 3),
            ("/dev/zero", 1, 5),
            ("/dev/full", 1, 7),
            ("/dev/tty", 5, 0),
        ] {
            let device = of(path);
            assert_eq!(
                (device.major(), device.minor(), device.file_mode()),
                (major, minor, Some(0o666))
            );
        }
        assert_eq!((of("/dev/random").minor(), of("/dev/urandom").minor()), (8, 9));
        assert_eq!(devices().len(), 6);
    }

    #[test]
    fn namespaces_leave_the_user_alone() {
        use LinuxNamespaceType as Type;
        let kinds: Vec<_> = namespaces().iter().map(LinuxNamespace::typ).collect();
        assert_eq!(
            kinds,
            [
                Type::Mount,
                Type::Network,
                Type::Uts,
                Type::Pid,
                Type::Ipc,
                Type::Cgroup
            ]
        );
        assert!(namespaces().iter().all(|namespace| namespace.path().is_none()));
    }

    #[test]
    fn masked_paths_are_sorted_and_apart_from_readonly_ones() {
        assert!(MASKED_PATHS.is_sorted() && READONLY_PATHS.is_sorted());
        for path in oci_spec::runtime::get_default_maskedpaths() {
            assert!(masked_paths().contains(&path), "{path}");
        }
        let mut readonly = oci_spec::runtime::get_default_readonly_paths();
        readonly.sort();
        assert_eq!(readonly, readonly_paths());
    }

    #[test]
    fn the_environment_has_a_path() {
        assert_eq!(
            environment("box", false),
            [format!("PATH={PATH}"), "HOSTNAME=box".to_owned()]
        );
        assert_eq!(environment("box", true).last().unwrap(), "TERM=xterm");
    }
}
