//! What becomes of requests where descriptors run out, where messages find no room, and where the helper dies: each wait
//! ends, with an error that says why, and other containers do not notice.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::lifetime::is_gone;
use super::*;
use crate::error::{Error, ErrorKind};
use crate::runtime::ExecLaunch;
use crate::sys::socket;
use crate::types::Signal;

const PATIENCE: Duration = Duration::from_secs(30);

async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, work).await;
    done.unwrap_or_else(|_| panic!("{what}: it waits for ever"))
}

/// How many descriptors a process may have open from now on.
fn limit_of(pid: u32, most: u64) {
    let limit = format!("--nofile={most}:");
    let mut command = std::process::Command::new("prlimit");
    let status = command.args(["--pid", &pid.to_string(), &limit]).status().unwrap();
    assert!(status.success());
}

pub(super) fn command(words: &[&str]) -> ExecLaunch {
    ExecLaunch {
        process: spec(words, true).process().clone().unwrap(),
        user: None,
        extra_groups: Vec::new(),
        stdio: StdioPlan::default(),
        seccomp: None,
        marked: false,
    }
}

/// No place for a descriptor, or, for an ordinary user, too many on their way already.
fn assert_is_scarcity(error: &Error) {
    let scarce = [Some(libc::EMFILE), Some(libc::ETOOMANYREFS)];
    assert!(scarce.contains(&error.errno()), "{}", error.report());
}

/// A tree that is attached nowhere.
async fn mounted(runtime: &Arc<NativeRuntime>, root: &Path) -> Result<OwnedFd> {
    let (runtime, mount) = (Arc::clone(runtime), Mount::bind(root, false));
    tokio::task::spawn_blocking(move || runtime.mount(&[mount]))
        .await
        .unwrap()
}

async fn ends_well(started: Result<Started>) {
    assert_eq!(finish(started.unwrap()).await.code, 0);
}

/// Its children, but for those of other names; they may be on their way out.
async fn only_child(zygote: u32, child: u32) {
    let children = || fs::read_to_string(format!("/proc/{zygote}/task/{zygote}/children")).unwrap();
    let expected = child.to_string();
    for _ in 0..500 {
        if children().trim() == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} and not {expected}", children());
}

#[tokio::test]
async fn a9_a_helper_without_room_for_a_request_refuses_it() {
    let root = root();
    let runtime = Arc::new(runtime());
    let other = runtime.start(launch(root.path(), &["sleep", "100"])).await.unwrap();
    let zygote = runtime.info().unwrap().pid;
    let (mut failed, mut worked) = (0, 0);
    for most in 5..30 {
        limit_of(zygote, most);
        match in_time("a start", runtime.start(launch(root.path(), &["pwd"]))).await {
            Ok(started) => {
                worked += 1;
                started.task.wait().await.unwrap();
                started.task.remove().await.unwrap();
            }
            Err(error) => {
                failed += 1;
                assert_is_scarcity(&error);
            }
        }
        let executed = in_time("a command", other.task.exec(command(&["pwd"]))).await;
        let mounted = in_time("a mount", mounted(&runtime, root.path())).await;
        for error in executed.err().iter().chain(mounted.err().iter()) {
            assert_is_scarcity(error);
        }
    }
    assert!(failed > 0 && worked > 0, "{failed} failed, {worked} worked");
    limit_of(zygote, 256);
    ends_well(in_time("a start", runtime.start(launch(root.path(), &["pwd"]))).await).await;
    assert_eq!(runtime.info().unwrap().pid, zygote, "nobody ended it");
    only_child(zygote, other.task.pid()).await;
}

/// The kernel lets an ordinary user have so many descriptors on their way as one process may have open.
#[tokio::test]
async fn a9_a_descriptor_that_cannot_be_sent_is_told() {
    if super::super::has_admin() {
        eprintln!("skipped: root may have any number of descriptors on their way");
        return;
    }
    let root = root();
    let runtime = Arc::new(runtime());
    let other = runtime.start(launch(root.path(), &["sleep", "100"])).await.unwrap();
    let zygote = runtime.info().unwrap().pid;
    let (ours, theirs) = socket::pair().unwrap();
    let null = fs::File::open("/dev/null").unwrap();
    for _ in 0..20 {
        socket::send(ours.as_fd(), [b"x", b""], &[null.as_fd(); 10]).unwrap();
    }
    limit_of(zygote, 64);
    let too_many = Some(libc::ETOOMANYREFS);
    let refused = in_time("a start", runtime.start(launch(root.path(), &["sleep", "100"]))).await;
    assert_eq!(refused.err().and_then(|error| error.errno()), too_many);
    let refused = in_time("a command", other.task.exec(command(&["sleep", "100"]))).await;
    assert_eq!(refused.err().and_then(|error| error.errno()), too_many);
    let refused = in_time("a mount", mounted(&runtime, root.path())).await;
    assert_eq!(refused.err().and_then(|error| error.errno()), too_many);
    only_child(zygote, other.task.pid()).await;
    drop((ours, theirs));
    // The kernel counts by user: what other tests send at this moment counts, too.
    limit_of(zygote, 1024);
    ends_well(in_time("a start", runtime.start(launch(root.path(), &["pwd"]))).await).await;
    mounted(&runtime, root.path()).await.unwrap();
}

/// `LONGSHORE_TEST_SCARCE` is set in the process that has few descriptors.
#[test]
fn a9_a_process_without_a_place_for_a_descriptor_loses_nothing_else() {
    if std::env::var_os("LONGSHORE_TEST_SCARCE").is_some() {
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build();
        return tokio.unwrap().block_on(with_few_descriptors());
    }
    let name = "runtime::native::tests::trouble::a9_a_process_without_a_place_for_a_descriptor_loses_nothing_else";
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env("LONGSHORE_TEST_SCARCE", "yes")
        .spawn()
        .unwrap();
    assert!(child.wait().unwrap().success());
}

async fn with_few_descriptors() {
    let root = root();
    let runtime = runtime();
    let other = runtime.start(launch(root.path(), &["sleep", "100"])).await.unwrap();
    let zygote = runtime.info().unwrap().pid;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 128, most).unwrap();
    let (mut failed, mut worked) = (0, 0);
    for spare in 0..40 {
        for words in [&["pwd"][..], &["sleep", "100"]] {
            let mut held: Vec<fs::File> = std::iter::from_fn(|| fs::File::open("/dev/null").ok()).collect();
            held.truncate(held.len().saturating_sub(spare));
            let started = in_time("a start", runtime.start(launch(root.path(), words))).await;
            let executed = in_time("a command", other.task.exec(command(words))).await;
            drop(held);
            match started {
                Ok(started) => {
                    worked += 1;
                    let _ = started.task.signal(Signal::KILL, false).await;
                    in_time("a container", started.task.wait()).await.unwrap();
                    started.task.remove().await.unwrap();
                }
                Err(error) => {
                    failed += 1;
                    assert_eq!(error.errno(), Some(libc::EMFILE), "{}", error.report());
                }
            }
            match executed {
                Ok(executed) => {
                    let _ = executed.task.signal(Signal::KILL).await;
                    in_time("a command", executed.task.wait()).await.unwrap();
                }
                Err(error) => assert_eq!(error.errno(), Some(libc::EMFILE), "{}", error.report()),
            }
            assert!(
                !is_gone(other.task.pid()),
                "with {spare} to spare the other container ended"
            );
        }
    }
    assert!(failed > 0 && worked > 0, "{failed} failed, {worked} worked");
    assert_eq!(runtime.info().unwrap().pid, zygote);
    only_child(zygote, other.task.pid()).await;
    other.task.signal(Signal::KILL, false).await.unwrap();
    assert_eq!(other.task.wait().await.unwrap().status.signal(), Some(9));
}

/// A zygote that is busy for long reads nothing, and its socket fills.
#[tokio::test]
async fn a9_a_full_socket_keeps_no_end_from_the_helper() {
    let root = root();
    let runtime = Arc::new(runtime());
    let pid = nix::unistd::Pid::from_raw(runtime.info().unwrap().pid as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    for number in 0..5000 {
        runtime.remove_scratch(number + 1000).unwrap();
    }
    let starting = {
        let (runtime, root) = (Arc::clone(&runtime), root.path().to_owned());
        tokio::spawn(async move { runtime.start(launch(&root, &["pwd"])).await })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!starting.is_finished());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
    ends_well(in_time("a start", starting).await.unwrap()).await;
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    for number in 0..5000 {
        runtime.remove_scratch(number + 1000).unwrap();
    }
    let closing = tokio::spawn({
        let runtime = Arc::clone(&runtime);
        async move { runtime.close().await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
    in_time("the end", closing).await.unwrap();
    assert!(is_gone(pid.as_raw() as u32));
}

/// Whatever is waited for when it dies, the wait ends.
#[tokio::test]
async fn a9_a_helper_that_dies_ends_every_wait_for_it() {
    let root = root();
    for _ in 0..5 {
        let runtime = Arc::new(runtime());
        let other = runtime.start(launch(root.path(), &["sleep", "100"])).await.unwrap();
        let pid = nix::unistd::Pid::from_raw(runtime.info().unwrap().pid as i32);
        // Nobody answers what is asked from here on.
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
        let waiting = tokio::spawn({
            let task = Arc::clone(&other.task);
            async move { task.wait().await }
        });
        let starting = tokio::spawn({
            let (runtime, root) = (Arc::clone(&runtime), root.path().to_owned());
            async move { runtime.start(launch(&root, &["pwd"])).await.map(drop) }
        });
        let executing = tokio::spawn({
            let task = Arc::clone(&other.task);
            async move { task.exec(command(&["pwd"])).await.map(drop) }
        });
        let telling = tokio::spawn({
            let task = Arc::clone(&other.task);
            async move { task.signal("USR1".parse().unwrap(), true).await }
        });
        let mounting = tokio::spawn({
            let (runtime, root) = (Arc::clone(&runtime), root.path().to_owned());
            async move { mounted(&runtime, &root).await.map(drop) }
        });
        tokio::time::sleep(Duration::from_millis(30)).await;
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        let exit = in_time("a container", waiting).await.unwrap().unwrap();
        assert_eq!(exit.status.signal(), Some(9));
        for (what, asked) in [
            ("a start", starting),
            ("a command", executing),
            ("a signal", telling),
            ("a mount", mounting),
        ] {
            let error = in_time(what, asked).await.unwrap().unwrap_err();
            let kinds = [ErrorKind::Unavailable, ErrorKind::InvalidState];
            assert!(kinds.contains(error.kind()), "{what}: {}", error.report());
        }
        ends_well(in_time("a start", runtime.start(launch(root.path(), &["pwd"]))).await).await;
    }
}
