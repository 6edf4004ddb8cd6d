//! The runtime against the real kernel. Every test is valid as root and as an ordinary user.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use oci_spec::runtime::{
    Capability, LinuxBuilder, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxResources, MountBuilder, ProcessBuilder,
    Spec, SpecBuilder, UserBuilder,
};

use super::{NativeOptions, NativeRuntime};
use crate::error::{ErrorKind, Result};
use crate::runtime::cgroups::{Cgroup, CgroupDriver, CgroupMode};
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
        "sh", "cat", "id", "env", "ls", "stat", "stty", "grep", "mount", "sleep", "ps", "wc", "tty", "pwd", "hostname",
        "ip", "kill", "mknod", "chmod", "touch", "dd", "readlink",
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

#[tokio::test]
async fn echo_in_all_namespaces() {
    let output = sh("echo out; echo err >&2; hostname; echo $$; ip link show lo; exit 7").await;
    assert_eq!(output.code, 7, "{} {}", output.stdout, output.stderr);
    assert!(output.stdout.starts_with("out\nbox\n1\n"), "{}", output.stdout);
    assert!(output.stdout.contains("LOOPBACK,UP"), "{}", output.stdout);
    assert_eq!(output.stderr, "err\n");
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

#[tokio::test]
async fn a_signal_ends_it() {
    let root = root();
    let runtime = runtime();
    let started = runtime.start(launch(root.path(), &["sleep", "100"])).await.unwrap();
    assert!(started.task.pid() > 0);
    assert!(started.task.remove().await.is_err());
    started.task.signal(Signal::KILL, false).await.unwrap();
    assert_eq!(started.task.wait().await.unwrap().status.signal(), Some(9));
    let again = started.task.signal(Signal::KILL, false).await.unwrap_err();
    assert_eq!(again.kind(), &ErrorKind::InvalidState);
    started.task.remove().await.unwrap();
}

#[tokio::test]
async fn init_forwards_signals_and_reaps() {
    let root = root();
    let runtime = runtime();
    let mut launch = launch(
        root.path(),
        &["sh", "-c", "trap 'exit 5' TERM; echo $$; while :; do sleep 0.05; done"],
    );
    launch.init = true;
    let mut started = runtime.start(launch).await.unwrap();
    let mut out = fs::File::from(started.stdout.take().unwrap());
    let (line, _out) = tokio::task::spawn_blocking(move || {
        let mut line = [0u8; 2];
        out.read_exact(&mut line).unwrap();
        (line, out)
    })
    .await
    .unwrap();
    assert_ne!(&line, b"1\n");
    started.task.signal(Signal::TERM, false).await.unwrap();
    assert_eq!(started.task.wait().await.unwrap().status.code(), 5);
}

#[tokio::test]
async fn stdin_reaches_its_end() {
    let root = root();
    let mut launch = launch(root.path(), &["cat"]);
    launch.stdio.stdin = true;
    let runtime = runtime();
    let mut started = runtime.start(launch).await.unwrap();
    let mut stdin = fs::File::from(started.stdin.take().unwrap());
    stdin.write_all(b"hello").unwrap();
    drop(stdin);
    let output = finish(started).await;
    assert_eq!((output.code, output.stdout.as_str()), (0, "hello"));
}

#[tokio::test]
async fn a_terminal_has_its_size_and_is_the_console() {
    let root = root();
    let mut launch = launch(
        root.path(),
        &["sh", "-c", "stty size; tty; ls -l /dev/console; sleep 0.3; stty size"],
    );
    launch.stdio.terminal = Some((33, 77));
    let runtime = runtime();
    let mut started = runtime.start(launch).await.unwrap();
    assert!(started.stdout.is_none());
    let master = started.terminal.take();
    let reader = tokio::task::spawn_blocking(move || read(master));
    tokio::time::sleep(Duration::from_millis(150)).await;
    started.task.resize(10, 20).await.unwrap();
    assert_eq!(started.task.wait().await.unwrap().status.code(), 0);
    let text = reader.await.unwrap();
    assert!(text.starts_with("33 77\r\n/dev/pts/0\r\n"), "{text}");
    assert!(text.ends_with("10 20\r\n"), "{text}");
}

#[tokio::test]
async fn users_come_from_the_container() {
    if single() {
        return;
    }
    let root = root();
    for (user, expected) in [
        (
            "alice",
            "uid=1000(alice) gid=1001(alice) groups=10(wheel),1001(alice)\n/home/alice\n",
        ),
        (
            "1000:10",
            "uid=1000(alice) gid=10(wheel) groups=10(wheel)\n/home/alice\n",
        ),
        ("4242", "uid=4242 gid=0(root) groups=0(root)\n/\n"),
    ] {
        let mut launch = launch(
            root.path(),
            &["sh", "-c", "id; echo $HOME; echo fine > /proc/self/fd/1"],
        );
        launch.user = Some(user.to_owned());
        let output = run(launch).await.unwrap();
        let text = output.stdout.strip_suffix("fine\n").unwrap_or(&output.stderr);
        assert_eq!(
            text.replace(" groups=1001(alice),10(wheel)", " groups=10(wheel),1001(alice)"),
            expected
        );
    }
}

#[tokio::test]
async fn unknown_users_are_named() {
    let root = root();
    for (user, kind) in [
        ("mallory", ErrorKind::NotFound),
        ("0x0", ErrorKind::NotFound),
        ("1:2:3", ErrorKind::InvalidArgument),
    ] {
        let mut launch = launch(root.path(), &["id"]);
        launch.user = Some(user.to_owned());
        let error = run(launch).await.err().unwrap();
        assert_eq!(error.kind(), &kind, "{}", error.report());
        assert!(error.to_string().contains(user), "{error}");
    }
}

#[tokio::test]
async fn commands_that_cannot_run() {
    let root = root();
    fs::write(root.path().join("bin/script"), "#!/bin/nosuch -x\n").unwrap();
    fs::write(root.path().join("bin/garbage"), "\u{1}garbage").unwrap();
    fs::write(root.path().join("bin/plain"), "x").unwrap();
    for (name, mode) in [("script", 0o755), ("garbage", 0o755), ("plain", 0o644)] {
        fs::set_permissions(root.path().join("bin").join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for (command, kind, words) in [
        ("nope", ErrorKind::CommandNotFound, "nope"),
        ("/bin/nope", ErrorKind::CommandNotFound, "/bin/nope"),
        ("/bin/script", ErrorKind::CommandNotFound, "/bin/nosuch"),
        ("script", ErrorKind::CommandNotFound, "/bin/nosuch"),
        ("garbage", ErrorKind::CommandNotExecutable, "garbage"),
        ("/bin/plain", ErrorKind::CommandNotExecutable, "/bin/plain"),
        ("/etc", ErrorKind::CommandNotExecutable, "/etc"),
    ] {
        let error = run(launch(root.path(), &[command])).await.err().unwrap();
        assert_eq!(error.kind(), &kind, "{command}: {}", error.report());
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn paths_are_masked_and_read_only() {
    let output = sh(
        "wc -c < /proc/version; echo 1 > /proc/sys/kernel/domainname; ls /sys/firmware | wc -l; \
                     echo x > /sys/fs/cgroup/x; echo x > /writable && cat /writable",
    )
    .await;
    assert!(output.stdout.starts_with("0\n"), "{} {}", output.stdout, output.stderr);
    assert!(output.stdout.ends_with("0\nx\n"), "{} {}", output.stdout, output.stderr);
    assert_eq!(
        output.stderr.matches("ead-only file system").count(),
        2,
        "{}",
        output.stderr
    );
}

#[tokio::test]
async fn a_read_only_root() {
    let root = root();
    let mut launch = launch(
        root.path(),
        &["sh", "-c", "echo x > /x; echo y > /dev/shm/y && cat /dev/shm/y"],
    );
    launch.rootfs[0].read_only = true;
    let output = run(launch).await.unwrap();
    assert!(output.stderr.contains("ead-only file system"), "{}", output.stderr);
    assert_eq!(output.stdout, "y\n");
}

#[tokio::test]
async fn capabilities_filter_and_limits() {
    let root = root();
    let mut launch = launch(
        root.path(),
        &["sh", "-c", "cat /proc/self/status; ulimit -n; ls /proc/self/fd"],
    );
    let process = launch.spec.process_mut().as_mut().unwrap();
    process.set_capabilities(Some(caps(&["CHOWN", "KILL"])));
    let limit = oci_spec::runtime::PosixRlimitBuilder::default()
        .typ(oci_spec::runtime::PosixRlimitType::RlimitNofile)
        .soft(100u64)
        .hard(200u64)
        .build()
        .unwrap();
    process.set_rlimits(Some(vec![limit]));
    process.set_no_new_privileges(Some(true));
    process.set_oom_score_adj(Some(500));
    let output = run(launch).await.unwrap();
    for line in [
        "CapEff:\t0000000000000021",
        "CapBnd:\t0000000000000021",
        "CapInh:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
        "SigBlk:\t0000000000000000",
        "SigIgn:\t0000000000000000",
    ] {
        assert!(output.stdout.contains(line), "{line}: {}", output.stdout);
    }
    // Three streams, and the directory that ls reads.
    assert!(output.stdout.ends_with("100\n0\n1\n2\n3\n"), "{}", output.stdout);
}

#[tokio::test]
async fn the_hosts_network() {
    let root = root();
    let mut launch = launch(root.path(), &["sh", "-c", "ls -l /proc/self/ns/net; ls /sys/class/net"]);
    launch.spec = {
        let mut spec = spec(&[], false);
        let args = launch.spec.process().as_ref().unwrap().args().clone();
        spec.process_mut().as_mut().unwrap().set_args(args);
        spec
    };
    let output = run(launch).await.unwrap();
    let ours = fs::read_link("/proc/self/ns/net").unwrap();
    assert!(
        output.stdout.contains(ours.to_str().unwrap()),
        "{} {}",
        output.stdout,
        output.stderr
    );
}

#[tokio::test]
async fn a_missing_working_directory_is_made_and_links_stay_inside() {
    let root = root();
    std::os::unix::fs::symlink("/../../../../tmp", root.path().join("escape")).unwrap();
    let mut launch = launch(root.path(), &["pwd"]);
    launch
        .spec
        .process_mut()
        .as_mut()
        .unwrap()
        .set_cwd("/escape/made/here".into());
    let output = run(launch).await.unwrap();
    assert_eq!(output.stdout, "/tmp/made/here\n");
    assert!(root.path().join("tmp/made/here").is_dir());
}

#[tokio::test]
async fn binds_and_overlays() {
    let (root, data) = (root(), root());
    let layers = tempfile::tempdir().unwrap();
    for name in ["upper", "work"] {
        fs::create_dir(layers.path().join(name)).unwrap();
    }
    let mut launch = launch(
        root.path(),
        &[
            "sh",
            "-c",
            "echo 1 > /a; cat /data/etc/group | wc -l; echo x > /data/x; echo y > /rw/y",
        ],
    );
    launch.rootfs = vec![Mount {
        source: crate::types::MountSource::Overlay {
            lower: vec![root.path().to_owned()],
            upper: Some(layers.path().join("upper")),
            work: Some(layers.path().join("work")),
            user_xattr: !super::has_admin(),
            volatile: true,
        },
        read_only: false,
    }];
    let mut all = mounts();
    let bind = |target: &str, options: &[&str]| {
        let mut mount = mount(target, "bind", options);
        mount.set_source(Some(data.path().to_owned()));
        mount
    };
    all.push(bind("/data", &["rbind", "ro"]));
    all.push(bind("/rw", &["rbind", "rw", "nosuid"]));
    launch.spec.set_mounts(Some(all));
    let output = run(launch).await.unwrap();
    assert_eq!(output.stdout, "3\n", "{}", output.stderr);
    assert!(output.stderr.contains("ead-only"), "{}", output.stderr);
    assert!(layers.path().join("upper/a").exists(), "{}", output.stderr);
    assert!(data.path().join("y").exists() && !data.path().join("x").exists());
    let work = layers.path().join("work");
    let runtime = std::sync::Arc::new(runtime());
    runtime.info().unwrap();
    tokio::task::spawn_blocking(move || runtime.remove_tree(&work))
        .await
        .unwrap()
        .unwrap();
    assert!(!layers.path().join("work").exists());
}

/// `LONGSHORE_TEST_OWNER` is set in the process that is to be killed.
#[test]
fn nothing_outlives_its_owner() {
    if let Some(dir) = std::env::var_os("LONGSHORE_TEST_OWNER") {
        own_until_killed(Path::new(&dir));
    }
    let root = root();
    let scratch = root.path().join("scratch");
    fs::create_dir_all(scratch.join("deep/er")).unwrap();
    fs::write(scratch.join("deep/er/file"), "x").unwrap();
    let mut owner = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "runtime::native::tests::nothing_outlives_its_owner",
            "--nocapture",
        ])
        .env("LONGSHORE_TEST_OWNER", root.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pids = wait_for(Duration::from_secs(20), || {
        fs::read_to_string(root.path().join("pids"))
            .ok()
            .filter(|text| text.ends_with("end\n"))
    });
    let pids: Vec<u32> = pids.lines().filter_map(|line| line.parse().ok()).collect();
    assert_eq!(pids.len(), 6);
    owner.kill().unwrap();
    owner.wait().unwrap();
    let begun = std::time::Instant::now();
    wait_for(Duration::from_secs(2), || {
        pids.iter().all(|pid| is_gone(*pid)).then_some(())
    });
    wait_for(Duration::from_secs(2), || (!scratch.exists()).then_some(()));
    assert!(begun.elapsed() < Duration::from_secs(2));
}

/// Nothing but a zombie that the host's init has not reaped yet.
fn is_gone(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_none_or(|rest| rest.is_empty() || rest.starts_with(" Z"))
}

fn wait_for<T>(patience: Duration, mut ready: impl FnMut() -> Option<T>) -> T {
    let begun = std::time::Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(begun.elapsed() < patience, "waited in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn own_until_killed(dir: &Path) -> ! {
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio.block_on(async {
        let runtime = runtime();
        let mut pids = vec![runtime.info().unwrap().pid];
        let mut all = Vec::new();
        for _ in 0..5 {
            let mut launch = launch(dir, &["sh", "-c", "trap '' TERM HUP; sleep 1000 & sleep 1000"]);
            launch.scratch = vec![dir.join("scratch")];
            let started = runtime.start(launch).await.unwrap();
            pids.push(started.task.pid());
            all.push(started);
        }
        let lines: Vec<String> = pids.iter().map(u32::to_string).collect();
        fs::write(dir.join("pids"), format!("{}\nend\n", lines.join("\n"))).unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
    });
    std::process::exit(1)
}

#[tokio::test]
async fn a_zygote_that_dies_takes_its_containers_and_is_replaced() {
    let root = root();
    let runtime = runtime();
    let first = runtime.start(launch(root.path(), &["sleep", "100"])).await.unwrap();
    let zygote = runtime.info().unwrap().pid;
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(zygote as i32),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    assert_eq!(first.task.wait().await.unwrap().status.signal(), Some(9));
    let second = runtime
        .start(launch(root.path(), &["sh", "-c", "exit 3"]))
        .await
        .unwrap();
    assert_eq!(second.task.wait().await.unwrap().status.code(), 3);
}

#[tokio::test]
async fn a_dropped_start_leaves_nothing() {
    let root = root();
    let runtime = runtime();
    let zygote = runtime.info().unwrap().pid;
    for delay in [0, 200, 1000, 3000] {
        let start = runtime.start(launch(root.path(), &["sleep", "100"]));
        // One that came up in time is the caller's, and stays.
        if let Ok(started) = tokio::time::timeout(Duration::from_micros(delay), start).await {
            started.unwrap().task.signal(Signal::KILL, false).await.unwrap();
        }
    }
    let children = format!("/proc/{zygote}/task/{zygote}/children");
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if fs::read_to_string(&children).unwrap_or_default().is_empty() {
            return;
        }
    }
    panic!("{}", fs::read_to_string(&children).unwrap());
}

#[tokio::test]
async fn many_at_once_and_a_large_plan() {
    let root = root();
    let runtime = std::sync::Arc::new(runtime());
    let mut starts = Vec::new();
    for index in 0..20 {
        let mut launch = launch(root.path(), &["sh", "-c", "echo ${#BIG}"]);
        let env = vec!["PATH=/bin".to_owned(), format!("BIG={}", "x".repeat(1000 * index))];
        launch.spec.process_mut().as_mut().unwrap().set_env(Some(env));
        let runtime = std::sync::Arc::clone(&runtime);
        starts.push(tokio::spawn(async move {
            finish(runtime.start(launch).await.unwrap()).await.stdout
        }));
    }
    for (index, start) in starts.into_iter().enumerate() {
        assert_eq!(start.await.unwrap(), format!("{}\n", 1000 * index));
    }
    let mut launch = launch(root.path(), &["sh", "-c", "echo $0 $#"]);
    let args: Vec<String> = ["sh", "-c", "echo $#"]
        .into_iter()
        .map(str::to_owned)
        .chain((0..40_000).map(|_| "argument".to_owned()))
        .collect();
    launch.spec.process_mut().as_mut().unwrap().set_args(Some(args));
    assert_eq!(finish(runtime.start(launch).await.unwrap()).await.stdout, "39999\n");
}

#[tokio::test]
async fn the_helper_is_small() {
    let root = root();
    let runtime = runtime();
    let started = runtime.start(launch(root.path(), &["sleep", "100"])).await.unwrap();
    let zygote = runtime.info().unwrap().pid;
    // Exact, but root's alone; the other is a sum of counters per processor that may be some pages off.
    let exact = fs::read_to_string(format!("/proc/{zygote}/smaps_rollup"));
    let slack = if exact.is_ok() { 0 } else { 32 };
    let status = exact
        .or_else(|_| fs::read_to_string(format!("/proc/{zygote}/status")))
        .unwrap();
    let rss: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("Rss:").or_else(|| line.strip_prefix("VmRSS:")))
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    let size = include_bytes!(concat!(env!("OUT_DIR"), "/longshore-helper")).len();
    println!("helper: {size} bytes, {rss} kB resident");
    assert!(size <= 64 * 1024, "{size}");
    assert!(rss <= 64 + slack, "{rss} kB");
    started.task.signal(Signal::KILL, true).await.unwrap();
    started.task.wait().await.unwrap();
}

#[test]
fn plans_survive_any_bytes() {
    use super::helper::wire::{Header, Plan, Record};
    proptest::proptest!(|(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..600))| {
        let _ = (Plan::decode(&bytes), Header::decode(&bytes), Record::decode(&bytes));
    });
}

#[test]
fn users_are_parsed_strictly() {
    use super::helper::passwd::{Problem, user};
    let passwd = b"root:x:0:0:r:/root:/bin/sh\nbad:x:0x:0\n12:x:7:8::/h:\nnul:x:1\x00:1\nlong:x:99999999999:0\n";
    assert_eq!(user(b"12", passwd, b"").unwrap().uid, 7);
    assert_eq!(user(b"", passwd, b"").unwrap().home, Some(b"/root".as_slice()));
    for (text, problem) in [
        (b"bad".as_slice(), Problem::Unknown),
        (b"nul", Problem::Unknown),
        (b"long", Problem::Unknown),
        (b"1000x", Problem::Unknown),
        (b"99999999999", Problem::Malformed),
        (b"0:1:2", Problem::Malformed),
        (b"0\n", Problem::Malformed),
        (b"0:nogroup", Problem::Unknown),
    ] {
        assert_eq!(
            user(text, passwd, b"").unwrap_err(),
            problem,
            "{}",
            String::from_utf8_lossy(text)
        );
    }
}

#[tokio::test]
async fn limits_hold_and_the_filter_is_loaded() {
    use crate::runtime::cgroups::{CgroupDriver, CgroupMode, NativeCgroups};
    use oci_spec::runtime::{LinuxPidsBuilder, LinuxResourcesBuilder};
    let driver = NativeCgroups::new(&crate::types::OwnerId::random());
    if driver.mode() == CgroupMode::None || !super::has_admin() {
        eprintln!("skipped: no cgroup that this user may use");
        return;
    }
    let root = root();
    let options = NativeOptions {
        cgroups: Some(std::sync::Arc::new(driver)),
        ..NativeOptions::default()
    };
    let runtime = NativeRuntime::new(options);
    let mut launch = launch(
        root.path(),
        &[
            "sh",
            "-c",
            "cat /proc/self/cgroup; grep Seccomp: /proc/self/status; for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait",
        ],
    );
    let caps = crate::runtime::caps::CapabilitySet::docker();
    let pids = LinuxPidsBuilder::default().limit(5i64).build().unwrap();
    if let Some(linux) = launch.spec.linux_mut() {
        linux.set_resources(Some(LinuxResourcesBuilder::default().pids(pids).build().unwrap()));
        linux.set_seccomp(Some(super::seccomp::default_profile(&caps)));
    }
    let started = runtime.start(launch).await.unwrap();
    assert!(started.warnings.is_empty());
    let output = finish(started).await;
    assert!(
        output.stderr.contains("can't fork"),
        "{} {}",
        output.stdout,
        output.stderr
    );
    assert!(output.stdout.contains("Seccomp:\t2"), "{}", output.stdout);
    assert!(
        output.stdout.contains(":pids:/\n") || output.stdout.contains("0::/\n"),
        "{}",
        output.stdout
    );
}

/// A measurement, not a check: `cargo test --lib start_latency -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "takes three seconds and checks nothing"]
async fn start_latency() {
    let root = root();
    let runtime = runtime();
    runtime.info().unwrap();
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        let begun = std::time::Instant::now();
        let started = runtime
            .start(launch(root.path(), &["/bin/busybox", "true"]))
            .await
            .unwrap();
        starts.push(begun.elapsed());
        started.task.wait().await.unwrap();
        ends.push(begun.elapsed());
        started.task.remove().await.unwrap();
    }
    starts.sort();
    ends.sort();
    println!(
        "exec: min {:?} p50 {:?}; exit: min {:?} p50 {:?}",
        starts[0], starts[20], ends[0], ends[20]
    );
}

#[tokio::test]
async fn a_masked_file_of_users_is_none() {
    let root = root();
    let mut launch = launch(root.path(), &["sh", "-c", "id -u; cat /etc/passwd | wc -c"]);
    let linux = launch.spec.linux_mut().as_mut().unwrap();
    linux.set_masked_paths(Some(vec!["/etc/passwd".to_owned(), "/no/such/file".to_owned()]));
    linux.set_readonly_paths(Some(vec!["/tmp".to_owned(), "/etc/passwd/below".to_owned()]));
    let output = run(launch).await.unwrap();
    assert_eq!(output.stdout, "0\n0\n", "{}", output.stderr);
}

/// Docker's capabilities allow `mknod(2)`, and no devices cgroup is used: what a container makes must open nothing.
#[tokio::test]
async fn a_device_that_a_container_makes_opens_nothing() {
    let root = root();
    let host = tempfile::tempdir().unwrap();
    fs::set_permissions(host.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let script = "for dir in /tmp /dev /dev/shm /run /host; do
            mknod $dir/made c 1 5 && dd if=$dir/made of=/dev/null bs=1 count=1 && echo \"opened in $dir\"
            mknod $dir/memory c 1 1 && cat $dir/memory && echo \"opened in $dir\"
            mknod $dir/disk b 8 0 && cat $dir/disk && echo \"opened in $dir\"
        done 2>/dev/null
        for node in null zero full random urandom; do test -c /dev/$node || echo \"no $node\"; done
        echo x > /dev/null && cat /dev/null
        dd if=/dev/zero bs=16 count=1 2>/dev/null | wc -c
        dd if=/dev/urandom bs=16 count=1 2>/dev/null | wc -c
        echo x > /dev/full || echo full
        chmod 600 /dev/null; chmod 600 /proc/acpi; chmod 600 /dev/fd/0; echo done";
    let mut launch = launch(root.path(), &["sh", "-c", script]);
    let mut mounts = mounts();
    mounts.push(mount("/run", "tmpfs", &["nosuid"]));
    let mut bind = mount("/host", "bind", &["rbind", "rw"]);
    bind.set_source(Some(host.path().to_owned()));
    mounts.push(bind);
    launch.spec.set_mounts(Some(mounts));
    let process = launch.spec.process_mut().as_mut().unwrap();
    let mut allowed = caps(&["CHOWN"]);
    let set = std::collections::HashSet::from([Capability::Mknod, Capability::Fowner, Capability::Chown]);
    allowed.set_bounding(Some(set.clone()));
    allowed.set_permitted(Some(set.clone()));
    allowed.set_effective(Some(set));
    process.set_capabilities(Some(allowed));
    let output = run(launch).await.unwrap();
    assert_eq!(output.stdout, "16\n16\nfull\ndone\n", "{}", output.stderr);
    let mode = fs::metadata("/dev/null").unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666, "a container changed the host's /dev/null");
}

#[tokio::test]
async fn a_limit_above_the_hosts_is_lowered_with_a_warning() {
    let root = root();
    let mut launch = launch(root.path(), &["sh", "-c", "ulimit -Hn"]);
    // Above `fs.nr_open`, which holds for root too.
    let limit = oci_spec::runtime::PosixRlimitBuilder::default()
        .typ(oci_spec::runtime::PosixRlimitType::RlimitNofile)
        .soft(64u64)
        .hard(1u64 << 40)
        .build()
        .unwrap();
    let process = launch.spec.process_mut().as_mut().unwrap();
    process.set_rlimits(Some(vec![limit]));
    let runtime = runtime();
    let started = runtime.start(launch).await.unwrap();
    let warnings = started.warnings.clone();
    let output = finish(started).await;
    let wanted = format!("lowered to {}:", output.stdout.trim());
    assert!(
        matches!(warnings.as_slice(), [one] if one.contains(&wanted)),
        "{warnings:?} {wanted}"
    );
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

/// What a process is on the host: its real uid, from outside.
fn host_uid(pid: u32) -> u32 {
    std::os::unix::fs::MetadataExt::uid(&fs::metadata(format!("/proc/{pid}/task")).unwrap())
}

#[tokio::test]
async fn k4_a_user_namespace_of_its_own() {
    let root = root();
    let runtime = runtime_with_ids();
    let script = "echo $(id -u):$(id -g); cat /proc/self/uid_map | wc -l; stat -c %u:%g /bin /etc/passwd /dev /dev/shm;
        hostname inside && hostname; ip link set lo down && echo lo; mount -t tmpfs tmpfs /tmp && echo mounted;
        echo x > /tmp/x && stat -c %u:%g /tmp/x; echo again > /dev/stdout; exec sleep 100";
    let mut launch = in_own_userns(root.path(), script);
    let process = launch.spec.process_mut().as_mut().unwrap();
    process.set_capabilities(Some(caps(&["SYS_ADMIN", "NET_ADMIN", "CHOWN"])));
    let started = runtime.start(launch).await.unwrap();
    let pid = started.task.pid();
    let lines = read_lines(started.stdout, 11).await;
    let (status, uid) = (
        fs::read_to_string(format!("/proc/{pid}/status")).unwrap(),
        host_uid(pid),
    );
    started.task.signal(Signal::KILL, false).await.unwrap();
    started.task.wait().await.unwrap();
    let maps = if super::has_admin() || runtime_mapping() == super::IdMapping::Single {
        "1"
    } else {
        "2"
    };
    let expect = [
        "0:0", maps, "0:0", "0:0", "0:0", "0:0", "inside", "lo", "mounted", "0:0", "again",
    ];
    assert_eq!(lines, expect, "{}", read(started.stderr));
    let real = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
    let expect = if super::has_admin() {
        700_000
    } else {
        nix::unistd::getuid().as_raw()
    };
    assert_eq!(
        real.split_whitespace().nth(1),
        Some(expect.to_string().as_str()),
        "{uid}"
    );
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

#[tokio::test]
async fn e5_files_keep_their_owners_through_a_user_namespace() {
    let root = root();
    let data = tempfile::tempdir().unwrap();
    fs::set_permissions(data.path(), fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(data.path().join("ours"), "1").unwrap();
    let layers = tempfile::tempdir().unwrap();
    for name in ["lower", "upper", "work"] {
        fs::create_dir(layers.path().join(name)).unwrap();
    }
    fs::write(layers.path().join("lower/deep"), "2\n").unwrap();
    let script = "stat -c %u:%g /data/ours /deep /bin/busybox; echo x > /data/made; echo y > /new; cat /deep; \
                  chown 5:6 /new; stat -c %u:%g /data/made /new";
    let mut launch = in_own_userns(root.path(), script);
    launch.rootfs = vec![Mount {
        source: crate::types::MountSource::Overlay {
            lower: vec![layers.path().join("lower"), root.path().to_owned()],
            upper: Some(layers.path().join("upper")),
            work: Some(layers.path().join("work")),
            user_xattr: !super::has_admin(),
            volatile: false,
        },
        read_only: false,
    }];
    fs::set_permissions(layers.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut bind = mount("/data", "bind", &["rbind", "rw"]);
    bind.set_source(Some(data.path().to_owned()));
    let mut all = mounts();
    all.push(bind);
    launch.spec.set_mounts(Some(all));
    let process = launch.spec.process_mut().as_mut().unwrap();
    process.set_capabilities(Some(caps(&["CHOWN", "DAC_OVERRIDE"])));
    std::os::unix::fs::symlink("busybox", root.path().join("bin/chown")).unwrap();
    let runtime = runtime_with_ids();
    let output = finish(runtime.start(launch).await.unwrap()).await;
    let single = !super::has_admin() && runtime_mapping() == super::IdMapping::Single;
    let new = if single { "0:0" } else { "5:6" };
    assert_eq!(
        output.stdout,
        format!("0:0\n0:0\n0:0\n2\n0:0\n{new}\n"),
        "{}",
        output.stderr
    );
    let owner = |path: &Path| std::os::unix::fs::MetadataExt::uid(&fs::metadata(path).unwrap());
    let me = nix::unistd::getuid().as_raw();
    assert_eq!(
        owner(&data.path().join("made")),
        me,
        "as if there were no user namespace"
    );
    let inner = owner(&layers.path().join("upper/new"));
    assert!(inner == me || !super::has_admin() || inner == 5, "{inner}");
    if super::has_admin() {
        assert_eq!(inner, 5, "on the disk, the ids of the container");
    }
    let path = layers.path().join("work");
    tokio::task::spawn_blocking(move || {
        let _ = runtime.remove_tree(&path);
        runtime.remove_tree(&path.parent().unwrap().join("upper"))
    })
    .await
    .unwrap()
    .unwrap();
}

#[tokio::test]
async fn g2_capabilities_in_a_user_namespace_do_not_reach_outside() {
    let root = root();
    // With the host's network (whose sysfs shows), every capability, and no filter.
    let script =
        "hostname changed && echo own; mount -t sysfs sysfs /tmp && echo sysfs; mount -t proc proc /tmp && echo proc;
        ip link set lo down 2>/dev/null && echo lo; ip link add x type dummy 2>/dev/null && echo link;
        mknod /tmp/m c 1 1 2>/dev/null && cat /tmp/m 2>/dev/null | wc -c; mount -o remount,rw /proc/sys;
        echo 1 > /proc/sys/kernel/panic && echo sysctl; cat /dev/null && echo end";
    let mut launch = in_own_userns(root.path(), script);
    let linux = launch.spec.linux_mut().as_mut().unwrap();
    let mut namespaces = linux.namespaces().clone().unwrap();
    namespaces.retain(|namespace| namespace.typ() != LinuxNamespaceType::Network);
    linux.set_namespaces(Some(namespaces));
    let process = launch.spec.process_mut().as_mut().unwrap();
    process.set_capabilities(Some(caps(&[
        "SYS_ADMIN",
        "NET_ADMIN",
        "MKNOD",
        "DAC_OVERRIDE",
        "SYS_RESOURCE",
        "SYS_PTRACE",
        "CHOWN",
    ])));
    let before = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let output = finish(runtime_with_ids().start(launch).await.unwrap()).await;
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), before);
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines, ["own", "proc", "end"], "{}", output.stderr);
}

#[tokio::test]
async fn ids_for_a_user_namespace_must_come_from_somewhere() {
    if !super::has_admin() {
        return;
    }
    let root = root();
    let runtime = NativeRuntime::new(NativeOptions::default());
    match runtime.start(in_own_userns(root.path(), "echo x")).await {
        Ok(started) => {
            assert!(fs::read_to_string("/etc/subuid").unwrap_or_default().contains("root:"));
            finish(started).await;
        }
        Err(error) => {
            assert!(
                matches!(error.kind(), ErrorKind::Unsupported { .. }),
                "{}",
                error.report()
            );
            assert!(error.report().contains("/etc/subuid"), "{}", error.report());
        }
    }
}

/// What cannot be shown with other owners says so.
#[tokio::test]
async fn e5_a_file_system_without_id_maps_is_named() {
    if !super::has_admin() {
        return;
    }
    let root = root();
    let mut launch = in_own_userns(root.path(), "echo x");
    let mut all = mounts();
    let mut bind = mount("/data", "bind", &["rbind", "rw"]);
    bind.set_source(Some("/proc/self/attr".into()));
    all.push(bind);
    launch.spec.set_mounts(Some(all));
    let error = runtime_with_ids().start(launch).await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Unsupported { .. }),
        "{}",
        error.report()
    );
    assert!(error.report().contains("/data"), "{}", error.report());
}

#[tokio::test]
async fn g5_a_signal_to_all_needs_no_cgroup() {
    let root = root();
    let script = "trap 'got=1' USR1
        for i in 1 2 3; do
            sh -c 'trap \"echo other; exit\" USR1; echo up; while :; do sleep 0.05; done' &
        done
        while [ -z \"$got\" ]; do sleep 0.05; done; wait; echo first";
    for own_userns in [false, true] {
        let launch = match own_userns {
            false => launch(root.path(), &["sh", "-c", script]),
            true => in_own_userns(root.path(), script),
        };
        let mut started = runtime_with_ids().start(launch).await.unwrap();
        let out = started.stdout.take().unwrap();
        let first = read_lines(Some(out.try_clone().unwrap()), 3).await;
        assert_eq!(first, ["up", "up", "up"]);
        let signal: Signal = "USR1".parse().unwrap();
        started.task.signal(signal, true).await.unwrap();
        let mut rest = read_lines(Some(out), 4).await;
        rest.sort();
        assert_eq!(rest, ["first", "other", "other", "other"]);
        started.task.wait().await.unwrap();
        let gone = started.task.signal(signal, true).await.unwrap_err();
        assert_eq!(gone.kind(), &ErrorKind::InvalidState);
    }
}

/// A command joins the user namespace too, and may open its streams by name.
#[tokio::test]
async fn f1_a_command_in_a_user_namespace_of_its_own() {
    let root = root();
    let started = runtime_with_ids()
        .start(in_own_userns(root.path(), "exec sleep 100"))
        .await
        .unwrap();
    let script = "id -u; cat /proc/self/uid_map | wc -l; echo named > /dev/stdout; readlink /proc/self/ns/user";
    let process = spec(&["sh", "-c", script], true).process().clone().unwrap();
    let exec = crate::runtime::ExecLaunch {
        process,
        user: None,
        extra_groups: Vec::new(),
        stdio: StdioPlan::default(),
        seccomp: None,
    };
    let command = started.task.exec(exec).await.unwrap();
    let (out, err) = (command.stdout, command.stderr);
    let said = tokio::task::spawn_blocking(move || read(out)).await.unwrap();
    let complained = tokio::task::spawn_blocking(move || read(err)).await.unwrap();
    assert_eq!(command.task.wait().await.unwrap().code(), 0, "{complained}");
    let lines: Vec<&str> = said.lines().collect();
    let own = fs::read_link(format!("/proc/{}/ns/user", started.task.pid())).unwrap();
    assert_eq!(
        (lines[0], lines[2], lines[3]),
        ("0", "named", own.to_str().unwrap()),
        "{complained}"
    );
    started.task.signal(Signal::KILL, true).await.unwrap();
    started.task.wait().await.unwrap();
}

/// Cgroups that no process can be cloned into: the descriptor is not a cgroup's.
#[derive(Debug)]
struct NotACgroup(fs::File);

impl NotACgroup {
    fn open() -> Self {
        Self(fs::File::open("/tmp").unwrap())
    }
}

impl CgroupDriver for NotACgroup {
    fn name(&self) -> &str {
        "none of the kernel's"
    }

    fn mode(&self) -> CgroupMode {
        CgroupMode::V2
    }

    fn create(&self, _: &ContainerId, _: &LinuxResources, _: bool) -> Result<Box<dyn Cgroup>> {
        Ok(Box::new(Self::open()))
    }

    fn open(&self, _: &ContainerId) -> Result<Box<dyn Cgroup>> {
        Ok(Box::new(Self::open()))
    }

    fn remove_owner(&self) -> Result<()> {
        Ok(())
    }
}

impl Cgroup for NotACgroup {
    fn mode(&self) -> CgroupMode {
        CgroupMode::V2
    }

    fn v2_dir(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }

    fn v1_procs(&self) -> &[OwnedFd] {
        &[]
    }

    fn directories(&self) -> &[PathBuf] {
        &[]
    }

    fn kill(&self) -> Result<()> {
        Ok(())
    }

    fn update(&self, _: &LinuxResources) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn oom_kills(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    fn remove(&self) -> Result<()> {
        Ok(())
    }

    fn warnings(&self) -> &[String] {
        &[]
    }
}

#[tokio::test]
async fn g4_a_clone_that_fails_leaves_no_descriptor_in_the_zygote() {
    if !super::has_admin() {
        eprintln!("skipped: only root sees the zygote's descriptors");
        return;
    }
    let root = root();
    let runtime = NativeRuntime::new(NativeOptions {
        cgroups: Some(Arc::new(NotACgroup::open())),
        container_ids: Some(crate::types::IdRange::new(0, 700_000, 65_536)),
        ..NativeOptions::default()
    });
    let open = || {
        let pid = runtime.info().unwrap().pid;
        fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
    };
    let before = open();
    for _ in 0..3 {
        let refused = runtime.start(in_own_userns(root.path(), "true")).await;
        assert_eq!(refused.err().unwrap().errno(), Some(libc::EBADF));
    }
    assert_eq!(open(), before);
}
