//! The runtime against the real kernel. Every test is valid as root and as an ordinary user.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::{
    LinuxBuilder, LinuxNamespaceBuilder, LinuxNamespaceType, MountBuilder, ProcessBuilder, Spec,
    SpecBuilder, UserBuilder,
};

use super::{NativeOptions, NativeRuntime};
use crate::error::{ErrorKind, Result};
use crate::runtime::{Launch, Runtime, Started, StdioPlan};
use crate::types::{ContainerId, Mount, Signal};

/// A root with busybox, and nothing else.
fn root() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["bin", "etc", "tmp", "proc", "sys", "dev", "root"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    fs::copy("/bin/busybox", dir.path().join("bin/busybox")).unwrap();
    for name in [
        "sh", "cat", "id", "env", "ls", "stat", "stty", "mount", "sleep", "ps", "wc", "tty", "pwd",
        "hostname", "ip", "kill",
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
        mount(
            "/dev",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "/dev/pts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
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
            "/proc/kcore".to_owned(),
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
    let stdout = tokio::task::spawn_blocking(move || read(out))
        .await
        .unwrap();
    let stderr = tokio::task::spawn_blocking(move || read(err))
        .await
        .unwrap();
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
    run(launch(root.path(), &["sh", "-c", script]))
        .await
        .unwrap()
}

#[tokio::test]
async fn echo_in_all_namespaces() {
    let output = sh("echo out; echo err >&2; hostname; echo $$; ip link show lo; exit 7").await;
    assert_eq!(output.code, 7, "{} {}", output.stdout, output.stderr);
    assert!(
        output.stdout.starts_with("out\nbox\n1\n"),
        "{}",
        output.stdout
    );
    assert!(output.stdout.contains("LOOPBACK,UP"), "{}", output.stdout);
    assert_eq!(output.stderr, "err\n");
}
