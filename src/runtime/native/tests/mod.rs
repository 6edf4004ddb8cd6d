//! The runtime against the real kernel. Every test is valid as root and as an ordinary user.

mod confine;
#[cfg(feature = "engine")]
mod detached;
mod lifetime;
mod process;
mod trouble;
mod userns;
mod users;

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use oci_spec::runtime::{
    LinuxBuilder, LinuxNamespaceBuilder, LinuxNamespaceType, MountBuilder, ProcessBuilder, Spec, SpecBuilder,
    UserBuilder,
};

use super::{NativeOptions, NativeRuntime};
use crate::error::Result;
use crate::runtime::{Launch, Runtime, Started, StdioPlan};
use crate::types::{ContainerId, Mount};

/// A root with busybox, and nothing else.
fn root() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["bin", "etc", "tmp", "proc", "sys", "dev", "root"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    crate::runtime::copy_program(Path::new("/bin/busybox"), &dir.path().join("bin/busybox"));
    for name in [
        "sh", "cat", "id", "env", "ls", "stat", "stty", "grep", "mount", "sleep", "ps", "wc", "tty", "pwd", "hostname",
        "ip", "kill", "mknod", "chmod", "touch", "dd", "readlink", "head", "tail", "tr", "true",
    ] {
        std::os::unix::fs::symlink("busybox", dir.path().join("bin").join(name)).unwrap();
    }
    fs::write(
        dir.path().join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1001::/home/alice:/bin/sh\n",
    )
    .unwrap();
    fs::write(
        dir.path().join("etc/group"),
        "root:x:0:\nalice:x:1001:\nwheel:x:10:alice,bob\n",
    )
    .unwrap();
    dir
}

fn mount(target: &str, kind: &str, options: &[&str]) -> oci_spec::runtime::Mount {
    let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
    MountBuilder::default()
        .destination(target)
        .typ(kind)
        .source(kind)
        .options(options)
        .build()
        .unwrap()
}

fn mounts() -> Vec<oci_spec::runtime::Mount> {
    vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount(
            "/dev/shm",
            "tmpfs",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        ),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", "ro"],
        ),
    ]
}

fn spec(args: &[&str], own_network: bool) -> Spec {
    let process = ProcessBuilder::default()
        .args(args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
        .env(vec!["PATH=/bin".to_owned()])
        .cwd("/")
        .user(UserBuilder::default().uid(0u32).gid(0u32).build().unwrap())
        .no_new_privileges(false)
        .build()
        .unwrap();
    let mut namespaces = vec![
        LinuxNamespaceBuilder::default()
            .typ(LinuxNamespaceType::Mount)
            .build()
            .unwrap(),
    ];
    if own_network {
        namespaces.push(
            LinuxNamespaceBuilder::default()
                .typ(LinuxNamespaceType::Network)
                .build()
                .unwrap(),
        );
    }
    let linux = LinuxBuilder::default()
        .namespaces(namespaces)
        .masked_paths(vec![
            "/proc/version".to_owned(),
            "/proc/acpi".to_owned(),
            "/sys/firmware".to_owned(),
            "/nowhere".to_owned(),
        ])
        .readonly_paths(vec!["/proc/sys".to_owned(), "/proc/bus".to_owned()])
        .build()
        .unwrap();
    let mut spec = SpecBuilder::default()
        .process(process)
        .hostname("box")
        .mounts(mounts())
        .linux(linux)
        .build()
        .unwrap();
    if let Some(linux) = spec.linux_mut() {
        linux.set_resources(None);
    }
    spec
}

fn launch(root: &Path, args: &[&str]) -> Launch {
    Launch {
        id: ContainerId::random(),
        spec: spec(args, true),
        user: None,
        extra_groups: Vec::new(),
        rootfs: vec![Mount::bind(root, false)],
        stdio: StdioPlan::default(),
        init: false,
        scratch: Vec::new(),
        best_effort_limits: false,
        shared: Vec::new(),
        privileged: false,
        mounts: Vec::new(),
        hold: false,
        bundle: None,
        name: None,
        notes: None,
    }
}

fn runtime() -> NativeRuntime {
    NativeRuntime::new(NativeOptions::default())
}

struct Output {
    code: i32,
    stdout: String,
    stderr: String,
}

fn read(fd: Option<OwnedFd>) -> String {
    let mut text = Vec::new();
    if let Some(fd) = fd {
        // A terminal ends with EIO.
        let _ = fs::File::from(fd).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

async fn finish(started: Started) -> Output {
    let (out, err) = (started.stdout, started.stderr);
    let stdout = tokio::task::spawn_blocking(move || read(out)).await.unwrap();
    let stderr = tokio::task::spawn_blocking(move || read(err)).await.unwrap();
    let exit = started.task.wait().await.unwrap();
    started.task.remove().await.unwrap();
    Output {
        code: exit.status.code(),
        stdout,
        stderr,
    }
}

async fn run(launch: Launch) -> Result<Output> {
    Ok(finish(runtime().start(launch).await?).await)
}

async fn sh(script: &str) -> Output {
    let root = root();
    run(launch(root.path(), &["sh", "-c", script])).await.unwrap()
}

fn caps(names: &[&str]) -> oci_spec::runtime::LinuxCapabilities {
    let set: std::collections::HashSet<_> = names.iter().map(|name| name.parse().unwrap()).collect();
    oci_spec::runtime::LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .permitted(set.clone())
        .effective(set)
        .inheritable(std::collections::HashSet::new())
        .ambient(std::collections::HashSet::new())
        .build()
        .unwrap()
}

/// Whether the runtime maps one id only, which some tests cannot do with.
fn single() -> bool {
    let single = super::has_admin().then_some(()).is_none() && runtime_mapping() == super::IdMapping::Single;
    if single {
        eprintln!("skipped: one id is mapped for this user");
    }
    single
}

fn runtime_mapping() -> super::IdMapping {
    std::thread::spawn(|| {
        let tokio = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        tokio.block_on(async { runtime().info().unwrap().mapping })
    })
    .join()
    .unwrap()
}

/// A launch with a user namespace of the container's own.
fn in_own_userns(root: &Path, script: &str) -> Launch {
    let mut launch = launch(root, &["sh", "-c", script]);
    let linux = launch.spec.linux_mut().as_mut().unwrap();
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    namespaces.push(
        LinuxNamespaceBuilder::default()
            .typ(LinuxNamespaceType::User)
            .build()
            .unwrap(),
    );
    linux.set_namespaces(Some(namespaces));
    launch
}

/// Ids that are nobody's on this host, for root; an ordinary user has his own.
fn runtime_with_ids() -> NativeRuntime {
    NativeRuntime::new(NativeOptions {
        container_ids: Some(crate::types::IdRange::new(0, 700_000, 65_536)),
        ..NativeOptions::default()
    })
}

/// So many lines of output, or fewer if it ends.
async fn read_lines(fd: Option<OwnedFd>, count: usize) -> Vec<String> {
    let file = fs::File::from(fd.unwrap());
    tokio::task::spawn_blocking(move || {
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(file));
        let mut out = Vec::new();
        while out.len() < count {
            let Some(Ok(line)) = lines.next() else { break };
            out.push(line);
        }
        out
    })
    .await
    .unwrap()
}
