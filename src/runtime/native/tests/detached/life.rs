//! From the start to the end, and again.

use super::*;
use crate::runtime::detached::RestartAfter;
use crate::types::Signal;

#[tokio::test]
async fn a_detached_container_leaves_its_exit_and_its_log() {
    let home = Home::new();
    let task = home
        .start("echo out; echo err >&2; printf 'no newline'; sleep 0.1; exit 7")
        .await;
    let exit = task.wait().await.unwrap();
    assert_eq!((exit.status.code(), exit.status.signal()), (7, None));
    let state = ended(&task).await;
    assert_eq!((state.ends, state.restarts, state.lost_entries), (1, 0, 0));
    assert!(state.started_ns > 0 && state.finished_ns > state.started_ns);
    task.remove().await.unwrap();
    left_alone(&home, &state).await;
    assert_eq!(home.logged(), ("out\nno newline".into(), "err\n".into(), 1));
    assert_eq!(home.seen(), DetachedSeen::Gone { state, process: false });
}

/// `LONGSHORE_TEST_STARTER` is set in the process that is to be killed.
#[test]
fn a_detached_container_outlives_the_program_that_started_it() {
    if let Some(dir) = std::env::var_os("LONGSHORE_TEST_STARTER") {
        start_and_be_killed(Path::new(&dir));
    }
    let home = Home::new();
    let mut starter = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "runtime::native::tests::detached::life::a_detached_container_outlives_the_program_that_started_it",
            "--nocapture",
        ])
        .env("LONGSHORE_TEST_STARTER", home.dir.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio.block_on(async {
        let id = soon(|| {
            let text = fs::read_to_string(home.dir.path().join("home/id")).ok()?;
            text.strip_suffix('\n')?.parse::<ContainerId>().ok()
        })
        .await;
        // In the middle of its work.
        soon(|| (home.logged_bytes() > 1000).then_some(())).await;
        starter.kill().unwrap();
        starter.wait().unwrap();
        let runtime = runtime();
        let task = runtime.adopt(&id, &home.shim()).await.unwrap();
        assert_eq!(task.state().phase, DetachedPhase::Running);
        assert!(matches!(home.seen(), DetachedSeen::Alive(_)));
        let exit = task.wait().await.unwrap();
        assert_eq!(exit.status.code(), 37);
        let state = ended(&task).await;
        left_alone(&home, &state).await;
    });
    let expected: String = (0..3000).map(|number| format!("line {number}\n")).collect();
    assert_eq!(home.logged(), (expected, String::new(), 1));
}

fn start_and_be_killed(dir: &Path) -> ! {
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio.block_on(async {
        let script = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); \
                      [ $((i % 100)) = 0 ] && sleep 0.05; done; exit 37";
        let launch = launch(dir, &["sh", "-c", script]);
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
        let id = launch.id.clone();
        let _task = runtime().start_detached(launch, detach).await.unwrap();
        fs::write(dir.join("home/id"), format!("{id}\n")).unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
    });
    std::process::exit(1)
}

fn restart(after: RestartAfter) -> Restart {
    Restart {
        after,
        max_retries: None,
        first: Duration::from_millis(100),
        longest: Duration::from_millis(400),
        steady: Duration::from_secs(10),
    }
}

#[tokio::test]
async fn a_detached_container_that_fails_is_started_again_with_growing_pauses() {
    let home = Home::new();
    let mut detach = home.detach();
    detach.restart = restart(RestartAfter::Failure);
    detach.restart.max_retries = Some(3);
    let task = runtime()
        .start_detached(home.launch("echo run; sleep 0.05; exit 3"), detach)
        .await
        .unwrap();
    let mut pauses = Vec::new();
    for run in 1..=3 {
        let over = until(&task, |state| state.ends == u64::from(run)).await;
        let again = until(&task, |state| {
            state.restarts == run && state.phase == DetachedPhase::Running
        });
        pauses.push((again.await.started_ns - over.finished_ns) / 1_000_000);
    }
    let before = ended(&task).await;
    assert_eq!((before.restarts, before.ends), (3, 4));
    assert_eq!(before.exit.unwrap().status.code(), 3);
    assert_eq!(pauses.len(), 3);
    for (pause, least) in pauses.iter().zip([100, 200, 400]) {
        // How much longer it takes is the machine's.
        assert!(*pause >= least, "{pauses:?}");
    }
    assert_eq!(home.logged(), ("run\n".repeat(4), String::new(), 4));
    left_alone(&home, &before).await;
}

fn now_is_restart(state: &DetachedState) -> bool {
    state.phase == DetachedPhase::Restarting
}

#[tokio::test]
async fn who_halts_a_detached_container_ends_its_restarts() {
    let home = Home::new();
    let mut detach = home.detach();
    detach.restart = restart(RestartAfter::Always);
    detach.restart.first = Duration::from_secs(60);
    detach.restart.longest = Duration::from_secs(60);
    let task = runtime()
        .start_detached(home.launch("exit 0"), detach.clone())
        .await
        .unwrap();
    let state = until(&task, now_is_restart).await;
    assert_eq!(state.exit.unwrap().status.code(), 0);
    // In the middle of the pause.
    task.halt().await.unwrap();
    let state = ended(&task).await;
    assert_eq!((state.restarts, state.ends), (0, 1));
    task.remove().await.unwrap();
    // While it runs.
    let launch = home.launch("sleep 60");
    let again = runtime().start_detached(launch, detach).await.unwrap();
    assert!(
        again.state().change > state.change,
        "numbers of changes grow over starts"
    );
    again.halt().await.unwrap();
    again.signal(Signal::KILL, true).await.unwrap();
    let state = ended(&again).await;
    assert_eq!(state.exit.unwrap().status.signal(), Some(9));
    left_alone(&home, &state).await;
}

#[tokio::test]
async fn the_policy_of_a_detached_container_can_be_changed() {
    let home = Home::new();
    let task = home.start("sleep 60").await;
    task.set_restart(restart(RestartAfter::Always)).await.unwrap();
    let first = task.state();
    task.signal(Signal::KILL, false).await.unwrap();
    let second = until(&task, |state| {
        state.restarts == 1 && state.phase == DetachedPhase::Running
    })
    .await;
    assert!(second.pid != first.pid && is_gone(first.pid));
    assert_eq!(task.pid(), second.pid);
    task.set_restart(Restart::default()).await.unwrap();
    // Of the present run, not of the one before.
    task.signal(Signal::KILL, false).await.unwrap();
    left_alone(&home, &ended(&task).await).await;
}

#[tokio::test]
async fn a_restart_that_fails_counts_as_a_run_that_failed() {
    let home = Home::new();
    let mut detach = home.detach();
    detach.restart = restart(RestartAfter::Always);
    detach.restart.max_retries = Some(2);
    let mut launch = home.launch("");
    let program = home.dir.path().join("bin/program");
    crate::runtime::copy_program(Path::new("/bin/busybox"), &program);
    let process = launch.spec.process_mut().as_mut().unwrap();
    process.set_args(Some(vec!["/bin/program".into(), "false".into()]));
    let task = runtime().start_detached(launch, detach).await.unwrap();
    fs::remove_file(&program).unwrap();
    let state = ended(&task).await;
    assert_eq!((state.restarts, state.ends), (2, 3));
    assert_eq!(state.exit.unwrap().status.code(), 127);
    assert_eq!(state.failure.map(|(_, errno)| errno), Some(libc::ENOENT));
    left_alone(&home, &state).await;
}

#[tokio::test]
async fn a_failed_start_leaves_nothing_of_a_shim() {
    let home = Home::new();
    let mut launch = home.launch("");
    let process = launch.spec.process_mut().as_mut().unwrap();
    process.set_args(Some(vec!["nowhere".into()]));
    let failed = runtime().start_detached(launch, home.detach()).await.err().unwrap();
    assert_eq!(failed.kind(), &crate::error::ErrorKind::CommandNotFound, "{failed:?}");
    until_nothing(&home, "after a start that failed").await;
    let names: Vec<_> = fs::read_dir(home.shim())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["lock"]);
    // And the place is free.
    let task = home.start("exit 0").await;
    left_alone(&home, &ended(&task).await).await;
}

#[tokio::test]
async fn a_dropped_detached_start_leaves_nothing_or_a_task() {
    for delay in [0, 1, 3, 5, 8, 12, 20] {
        let home = Home::new();
        let runtime = runtime();
        let start = runtime.start_detached(home.launch("sleep 60"), home.detach());
        match tokio::time::timeout(Duration::from_millis(delay), start).await {
            Ok(started) => {
                let task = started.unwrap();
                task.signal(Signal::KILL, true).await.unwrap();
                ended(&task).await;
            }
            Err(_) => until_nothing(&home, &format!("dropped after {delay} ms")).await,
        }
    }
}

/// What another test's thread is just forking has the lock, too, until its program is executed.
async fn until_nothing(home: &Home, case: &str) {
    let begun = Instant::now();
    while home.seen() != DetachedSeen::Nothing {
        assert!(begun.elapsed() < Duration::from_secs(10), "{case}: {:?}", home.seen());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// `LONGSHORE_TEST_STARTERS` is set in the process that is to be killed.
#[test]
fn a_program_killed_in_a_detached_start_leaves_nothing_or_a_container() {
    if let Some(dir) = std::env::var_os("LONGSHORE_TEST_STARTERS") {
        start_and_be_killed(Path::new(&dir));
    }
    let mut outcomes = [0; 2];
    for delay in (0..24).map(|step| step * 2) {
        let home = Home::new();
        let mut starter = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "runtime::native::tests::detached::life::a_program_killed_in_a_detached_start_leaves_nothing_or_a_container",
                "--nocapture",
            ])
            .env("LONGSHORE_TEST_STARTERS", home.dir.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        // From its first trace on.
        while !home.shim().join("lock").exists() {
            assert!(begun.elapsed() < Duration::from_secs(10));
        }
        std::thread::sleep(Duration::from_micros(delay * 250));
        starter.kill().unwrap();
        starter.wait().unwrap();
        let settled = loop {
            match home.seen() {
                DetachedSeen::Alive(state) if state.phase == DetachedPhase::Running => {
                    std::thread::sleep(Duration::from_millis(100));
                    if matches!(home.seen(), DetachedSeen::Alive(_)) {
                        break 1;
                    }
                }
                DetachedSeen::Nothing => break 0,
                other => assert!(begun.elapsed() < Duration::from_secs(10), "{other:?}"),
            }
        };
        outcomes[settled] += 1;
    }
    println!("nothing or a container: {outcomes:?}");
}

#[tokio::test]
async fn a_detached_container_has_one_shim() {
    let home = Home::new();
    let task = home.start("sleep 60").await;
    let second = runtime().start_detached(home.launch("true"), home.detach()).await;
    assert_eq!(second.err().unwrap().kind(), &crate::error::ErrorKind::Conflict);
    // Whoever looks holds nobody up.
    for _ in 0..100 {
        assert!(matches!(home.seen(), DetachedSeen::Alive(_)));
    }
    task.signal(Signal::KILL, true).await.unwrap();
    left_alone(&home, &ended(&task).await).await;
    let adopted = runtime().adopt(&ContainerId::random(), &home.shim()).await;
    assert_eq!(adopted.err().unwrap().kind(), &crate::error::ErrorKind::Unavailable);
}

/// The runtime that watched a shim may go before it.
#[test]
fn a_shim_that_nobody_watches_is_reaped_all_the_same() {
    let home = [Home::new(), Home::new()];
    for home in &home {
        let tokio = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        tokio.block_on(async {
            drop(home.start("while ! [ -e /tmp/go ]; do sleep 0.05; done").await);
        });
    }
    for home in &home {
        let DetachedSeen::Alive(state) = home.seen() else {
            panic!("no shim")
        };
        fs::write(home.dir.path().join("tmp/go"), "").unwrap();
        let begun = Instant::now();
        while Path::new(&format!("/proc/{}", state.shim_pid)).exists() {
            assert!(begun.elapsed() < Duration::from_secs(10), "a zombie stays");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
