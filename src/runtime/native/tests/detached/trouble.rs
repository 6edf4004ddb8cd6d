//! What should not happen, and what comes of it.

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::process::CommandExt as _;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, socket};
use proptest::prelude::*;

use super::*;
use crate::runtime::cgroups::{CgroupDriver, CgroupMode, NativeCgroups};
use crate::runtime::native::{self, NativeOptions};
use crate::sys::pidfd;
use crate::types::{OwnerId, Signal};

fn end_process(pid: u32) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Number::SIGKILL).unwrap();
}

#[tokio::test]
async fn a_shim_that_is_killed_takes_nothing_with_it() {
    let home = Home::new();
    let script = "while ! [ -e /tmp/go ]; do sleep 0.05; done; echo after; touch /tmp/gone; sleep 60";
    let task = home.start(script).await;
    let state = task.state();
    end_process(state.shim_pid);
    assert_eq!(task.changed(state.change).await, None);
    assert_eq!(
        task.wait().await.err().unwrap().kind(),
        &crate::error::ErrorKind::Unavailable
    );
    soon(|| match home.seen() {
        DetachedSeen::Gone { process: true, .. } => Some(()),
        _ => None,
    })
    .await;
    // It goes on, and writes without being killed for it; what it writes waits for whoever comes.
    fs::write(home.dir.path().join("tmp/go"), "").unwrap();
    soon(|| home.dir.path().join("tmp/gone").exists().then_some(())).await;
    if native::has_admin() {
        use std::io::Read as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut options = fs::OpenOptions::new();
        let stream = options
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(home.shim().join("out"));
        let mut text = [0u8; 6];
        stream.unwrap().read_exact(&mut text).unwrap();
        assert_eq!(&text, b"after\n");
    }
    end_process(state.pid);
    soon(|| {
        (home.seen()
            == DetachedSeen::Gone {
                state: state.clone(),
                process: false,
            })
        .then_some(())
    })
    .await;
    // Somebody starts it again in the same place.
    let again = home.start("exit 2").await;
    assert_eq!(ended(&again).await.exit.unwrap().status.code(), 2);
}

#[tokio::test]
async fn a_damaged_state_is_said_to_be_one() {
    let home = Home::new();
    let task = home.start("sleep 60").await;
    let path = home.shim().join("state");
    let bytes = fs::read(&path).unwrap();
    use std::os::unix::fs::FileExt as _;
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&vec![0x55; bytes.len()], 0).unwrap();
    assert_eq!(home.seen(), DetachedSeen::Damaged { alive: true });
    // It can be asked nevertheless, and writes its end down.
    let state = runtime()
        .adopt(&ContainerId::random(), &home.shim())
        .await
        .unwrap()
        .state();
    assert_eq!(state, task.state());
    task.signal(Signal::KILL, true).await.unwrap();
    let state = ended(&task).await;
    left_alone(&home, &state).await;
    assert_eq!(home.seen(), DetachedSeen::Gone { state, process: false });
    file.write_all_at(&vec![0x55; bytes.len()], 0).unwrap();
    assert_eq!(home.seen(), DetachedSeen::Damaged { alive: false });
}

/// `LONGSHORE_TEST_FOREIGN` is set in the process of another user.
#[test]
fn another_user_is_refused() {
    if let Some(path) = std::env::var_os("LONGSHORE_TEST_FOREIGN") {
        std::process::exit(talk_as_a_foreigner(Path::new(&path)));
    }
    if !native::has_admin() {
        eprintln!("skipped: only root can be another user");
        return;
    }
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let home = Home::new();
    let task = tokio.block_on(home.start("sleep 60"));
    // The directory keeps them off, and the socket; here they get through both.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(home.shim().join("ctl"), open).unwrap();
    // Whoever may execute this file, wherever it lies.
    let program = home.dir.path().join("tests");
    crate::runtime::copy_program(&std::env::current_exe().unwrap(), &program);
    let code = std::process::Command::new(program)
        .args([
            "--exact",
            "runtime::native::tests::detached::trouble::another_user_is_refused",
            "--nocapture",
        ])
        .env("LONGSHORE_TEST_FOREIGN", home.shim())
        .stdout(std::process::Stdio::null())
        .uid(65_534)
        .gid(65_534)
        .status()
        .unwrap();
    assert_eq!(code.code(), Some(42));
    tokio.block_on(async {
        task.signal(Signal::KILL, true).await.unwrap();
        left_alone(&home, &ended(&task).await).await;
    });
}

fn client(dir: &Path) -> std::os::fd::OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap();
    let address = UnixAddr::new(&dir.join("ctl")).unwrap();
    connect(socket.as_raw_fd(), &address).unwrap();
    socket
}

/// 42: connected, and hung up on.
fn talk_as_a_foreigner(dir: &Path) -> i32 {
    use crate::runtime::native::helper::talk::{Head, op};
    let socket = client(dir);
    let head = Head {
        op: op::WATCH,
        req: 1,
        arg: 0,
    };
    let _ = send(socket.as_raw_fd(), &head.encode(), MsgFlags::MSG_NOSIGNAL);
    match recv(socket.as_raw_fd(), &mut [0u8; 512], MsgFlags::empty()) {
        Ok(0) | Err(nix::errno::Errno::ECONNRESET) => 42,
        _ => 1,
    }
}

#[tokio::test]
async fn nonsense_neither_ends_nor_confuses_a_shim() {
    use crate::runtime::native::helper::talk::Head;
    let home = Home::new();
    let task = home.start("sleep 60").await;
    let before = task.state();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let bytes = proptest::collection::vec(any::<u8>(), 0..600);
    // Beside pure noise: messages with a true head, of every kind but those that end the restarts or stdin.
    let heads = (0u32..70, any::<u32>(), any::<u32>()).prop_map(|(op, req, arg)| Head { op, req, arg }.encode());
    let harmless = proptest::collection::vec((proptest::option::of(heads), bytes), 1..6);
    runner
        .run(&harmless, |messages| {
            let socket = client(&home.shim());
            for (head, rest) in messages {
                let mut message = head.map_or(Vec::new(), |head| head.to_vec());
                message.extend(rest);
                let _ = send(
                    socket.as_raw_fd(),
                    &message,
                    MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
                );
            }
            Ok(())
        })
        .unwrap();
    // Many who say nothing: the first are let go, and others get their turn.
    let silent: Vec<_> = (0..40).map(|_| client(&home.shim())).collect();
    tokio::time::sleep(Duration::from_millis(1300)).await;
    let again = runtime().adopt(&ContainerId::random(), &home.shim()).await.unwrap();
    drop(silent);
    let after = again.state();
    assert_eq!((after.pid, after.phase, after.ends), (before.pid, before.phase, 0));
    task.signal(Signal::KILL, true).await.unwrap();
    let state = ended(&task).await;
    assert_eq!(state.exit.unwrap().status.signal(), Some(9));
    left_alone(&home, &state).await;
}

/// Kilobytes that a process has in memory, and how many of them may be none.
pub(super) fn resident(pid: u32) -> (u64, u64) {
    // Exact, but root's alone; the other is a sum of counters per processor that may be some pages off.
    let exact = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
    let slack = if exact.is_ok() { 0 } else { 32 };
    let status = exact
        .or_else(|_| fs::read_to_string(format!("/proc/{pid}/status")))
        .unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Rss:").or_else(|| line.strip_prefix("VmRSS:")));
    (line.unwrap().trim().trim_end_matches(" kB").parse().unwrap(), slack)
}

#[tokio::test]
async fn a_shim_is_small() {
    let home = Home::new();
    let task = home.start("echo something; sleep 60").await;
    soon(|| (home.logged_bytes() > 0).then_some(())).await;
    let (resident, slack) = resident(task.state().shim_pid);
    println!("shim: {resident} kB resident");
    assert!(resident <= 100 + slack, "{resident} kB");
    task.signal(Signal::KILL, true).await.unwrap();
    left_alone(&home, &ended(&task).await).await;
}

/// A shim's descriptors are those it had before, whatever came and went.
#[tokio::test]
async fn a_shim_keeps_no_descriptor_of_what_has_gone() {
    if !native::has_admin() {
        eprintln!("skipped: only root sees the shim's descriptors");
        return;
    }
    let home = Home::new();
    let mut detach = home.detach();
    detach.restart = Restart {
        after: crate::runtime::detached::RestartAfter::Always,
        max_retries: None,
        first: Duration::from_millis(1),
        longest: Duration::from_millis(20),
        steady: Duration::from_secs(1),
    };
    let mut launch = home.launch("echo x; sleep 0.05");
    launch.stdio.stdin = true;
    let task = runtime().start_detached(launch, detach).await.unwrap();
    let shim = task.state().shim_pid;
    let open = || fs::read_dir(format!("/proc/{shim}/fd")).unwrap().count();
    let running = |runs| {
        until(&task, move |state| {
            state.restarts >= runs && state.phase == DetachedPhase::Running
        })
    };
    running(1).await;
    let before = open();
    for _ in 0..5 {
        let other = runtime().adopt(&ContainerId::random(), &home.shim()).await.unwrap();
        let _ = other.output().await.unwrap();
        let _ = other.input().await;
        let _ = other.exec(super::super::trouble::command(&["true"])).await;
    }
    running(task.state().restarts + 3).await;
    let begun = Instant::now();
    // In the midst of a start there are some more.
    while open() > before {
        assert!(begun.elapsed() < Duration::from_secs(10), "{} after {before}", open());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    task.halt().await.unwrap();
    left_alone(&home, &ended(&task).await).await;
}

fn with_cgroups() -> (NativeRuntime, Arc<dyn CgroupDriver>) {
    let driver: Arc<dyn CgroupDriver> = Arc::new(NativeCgroups::new(&OwnerId::random()));
    let runtime = NativeRuntime::new(NativeOptions {
        detached_cgroups: Some(Arc::clone(&driver)),
        ..NativeOptions::default()
    });
    (runtime, driver)
}

#[tokio::test]
async fn the_cgroups_of_a_detached_container_go_with_it() {
    let (runtime, driver) = with_cgroups();
    if driver.mode() == CgroupMode::None {
        eprintln!("skipped: no cgroups for this user");
        return;
    }
    let home = Home::new();
    let other = Home::new();
    let start = |home: &Home| {
        let (launch, detach, runtime, driver) = (home.launch("sleep 60"), home.detach(), &runtime, &driver);
        async move {
            let id = launch.id.clone();
            // What was left behind by a start that was killed is in nobody's way.
            drop(
                driver
                    .create(&id, &oci_spec::runtime::LinuxResources::default(), true)
                    .unwrap(),
            );
            (id, runtime.start_detached(launch, detach).await.unwrap())
        }
    };
    let (id, task) = start(&home).await;
    let (neighbour, beside) = start(&other).await;
    let directories = driver.open(&id).unwrap().directories().to_vec();
    assert!(directories.iter().all(|directory| directory.is_dir()));
    // Whoever finds it finds its cgroup.
    let found = runtime.adopt(&id, &home.shim()).await.unwrap();
    found.pause().await.unwrap();
    found.resume().await.unwrap();
    task.signal(Signal::KILL, true).await.unwrap();
    let state = ended(&task).await;
    left_alone(&home, &state).await;
    assert!(driver.open(&id).err().unwrap().is_not_found());
    // Its neighbour beneath the same parents is left alone.
    assert!(driver.open(&neighbour).is_ok());
    assert_eq!(beside.state().phase, DetachedPhase::Running);
    assert!(!is_gone(beside.state().pid));
    beside.signal(Signal::KILL, true).await.unwrap();
    left_alone(&other, &ended(&beside).await).await;
    assert!(
        directories.iter().all(|directory| !directory.exists()),
        "the parents go with the last"
    );
}

#[tokio::test]
async fn a_kill_for_memory_is_told() {
    let (runtime, _driver) = with_cgroups();
    let home = Home::new();
    let mut launch = home.launch("head -c 200000000 /dev/zero | tail -c 150000000 >/dev/null");
    let memory = oci_spec::runtime::LinuxMemoryBuilder::default()
        .limit(32i64 << 20)
        .swap(32i64 << 20)
        .build()
        .unwrap();
    let mut resources = oci_spec::runtime::LinuxResources::default();
    resources.set_devices(None).set_memory(Some(memory));
    launch.spec.linux_mut().as_mut().unwrap().set_resources(Some(resources));
    let task = match runtime.start_detached(launch, home.detach()).await {
        Err(error) if error.is_unsupported() => {
            eprintln!("skipped: {error}");
            return;
        }
        started => started.unwrap(),
    };
    let state = ended(&task).await;
    let exit = state.exit.unwrap();
    assert_eq!(exit.oom_killed, Some(true), "{exit:?}");
    // Before it has gone, its cgroup is there.
    left_alone(&home, &state).await;
}

/// A limit on the size of files is the starter's affair, and reaches the shim with everything else that it has from it.
#[test]
fn a_limit_on_files_ends_no_shim() {
    if let Some(dir) = std::env::var_os("LONGSHORE_TEST_LIMITED") {
        start_with_small_files(Path::new(&dir));
    }
    let home = Home::new();
    let code = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "runtime::native::tests::detached::trouble::a_limit_on_files_ends_no_shim",
            "--nocapture",
        ])
        .env("LONGSHORE_TEST_LIMITED", home.dir.path())
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert_eq!(code.code(), Some(42));
    let DetachedSeen::Gone { state, process: false } = home.seen() else {
        panic!("{:?}", home.seen())
    };
    assert_eq!(state.exit.unwrap().status.code(), 6);
    assert!(state.lost_entries > 0, "{state:?}");
}

fn start_with_small_files(dir: &Path) -> ! {
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio.block_on(async {
        let runtime = runtime();
        let mut launch = launch(
            dir,
            &[
                "sh",
                "-c",
                "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; exit 6",
            ],
        );
        let limit = oci_spec::runtime::PosixRlimitBuilder::default()
            .typ(oci_spec::runtime::PosixRlimitType::RlimitFsize)
            .hard(10_000u64)
            .soft(10_000u64)
            .build()
            .unwrap();
        launch
            .spec
            .process_mut()
            .as_mut()
            .unwrap()
            .set_rlimits(Some(vec![limit]));
        let detach = Detach {
            dir: dir.join("home/shim"),
            log: DetachedLog {
                format: Some(DetachedLogFormat::Frames),
                dir: dir.join("home/log"),
                max_size_bytes: 1 << 20,
                max_files: 3,
            },
            restart: Restart::default(),
            check: None,
            attached: false,
        };
        // After the files of the helper's programs have been made.
        runtime.info().unwrap();
        native::zygote::image(true).unwrap();
        nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_FSIZE, 10_000, 10_000).unwrap();
        let task = runtime.start_detached(launch, detach).await.unwrap();
        ended(&task).await;
        task.remove().await.unwrap();
    });
    std::process::exit(42)
}

/// Kills the shim, the container, or both, at any moment: what is seen afterwards may be nothing, but never what was not.
#[tokio::test]
async fn whatever_is_killed_no_wrong_exit_is_seen() {
    let loops = std::env::var("LONGSHORE_KILL_LOOPS")
        .ok()
        .and_then(|text| text.parse().ok());
    let mut told = [0u32; 4];
    for round in 0..loops.unwrap_or(24u32) {
        let home = Home::new();
        let code = 40 + (round % 7) as i32;
        let script = format!("i=0; while [ $i -lt 40 ]; do echo line $i; i=$((i+1)); done; sleep 0.01; exit {code}");
        let task = home.start(&script).await;
        let state = task.state();
        tokio::time::sleep(Duration::from_micros(u64::from(round * 7919 % 30_000))).await;
        let (shim, container) = [(true, false), (false, true), (true, true)][round as usize % 3];
        if shim && let Ok(process) = pidfd::open(state.shim_pid) {
            // It lives, so the number was its own when it was opened.
            if let DetachedSeen::Alive(_) = home.seen() {
                let _ = pidfd::send_signal(process.as_fd(), libc::SIGKILL);
            }
        }
        if container {
            let _ = task.signal(Signal::KILL, true).await;
        }
        let over = soon(|| match home.seen() {
            DetachedSeen::Gone { state, process: false } => Some(state),
            _ => None,
        })
        .await;
        let exit = over.exit.map(|exit| (exit.status.code(), exit.status.signal()));
        match exit {
            Some((seen, None)) => assert_eq!((seen, over.phase, over.ends), (code, DetachedPhase::Ended, 1)),
            Some((_, signal)) => assert!(container && signal == Some(9), "{over:?}"),
            // Only a shim that was killed has told nothing.
            None => assert!(shim && over.ends == 0, "{over:?}"),
        }
        told[exit.map_or(0, |(_, signal)| if signal.is_some() { 1 } else { 2 })] += 1;
        told[3] += u32::from(home.logged_whole());
    }
    println!(
        "unknown, by signal, by itself: {:?}; whole logs: {}",
        &told[..3],
        told[3]
    );
}
