//! New shims under containers that run.

use super::trouble::resident;
use super::*;
use crate::error::ErrorKind;
use crate::runtime::native::helper::record::{self, State, phase};
use crate::sys::memfd;

/// Prints, goes on when it is told to, and ends with 7.
const SCRIPT: &str = "echo begun; until [ -e /tmp/go ]; do sleep 0.05; done; echo over; exit 7";

fn kill_shim(task: &Arc<dyn DetachedTask>) -> DetachedState {
    let state = task.state();
    kill(Pid::from_raw(state.shim_pid as i32), Number::SIGKILL).unwrap();
    state
}

impl Home {
    async fn renew(&self) -> crate::error::Result<Arc<dyn DetachedTask>> {
        soon(|| (!matches!(self.seen(), DetachedSeen::Alive(_))).then_some(())).await;
        runtime().renew(self.launch(SCRIPT), self.detach()).await
    }
}

/// Lets it go to its end, by a command in it. Its status is the kernel's to tell.
async fn to_its_end(home: &Home, task: &Arc<dyn DetachedTask>) {
    let_go(task).await;
    let last = ended(task).await;
    if let Some(exit) = last.exit {
        assert_eq!(exit.status.code(), 7);
    }
    assert_eq!(last.ends, 1);
    left_alone(home, &last).await;
    assert_eq!(home.logged(), ("begun\nover\n".into(), String::new(), 1));
}

#[tokio::test]
async fn p30_a_new_shim_goes_on_with_what_was_written_down() {
    let home = Home::new();
    let first = home.start(SCRIPT).await;
    soon(|| home.logged().0.contains("begun").then_some(())).await;
    let before = kill_shim(&first);
    let second = home.renew().await.unwrap();
    let now = second.state();
    assert_eq!(now.phase, DetachedPhase::Running);
    assert_eq!(
        (now.pid, now.start_ticks, now.started_ns, now.ends, now.restarts),
        (before.pid, before.start_ticks, before.started_ns, 0, 0)
    );
    assert!(now.shim_pid != before.shim_pid && now.change > before.change);
    // Small as any, and not hidden from its owner: of an ordinary user it is in another user namespace than this process.
    let (resident, slack) = resident(now.shim_pid);
    println!("a new shim: {resident} kB resident");
    assert!(resident <= 100 + slack, "{resident} kB");
    let open = fs::read_dir(format!("/proc/{}/fd", now.shim_pid)).unwrap();
    assert!(open.count() > 6);
    to_its_end(&home, &second).await;
}

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn p30_a_new_shim_after_one_of_the_first_protocol() {
    let home = Home::new();
    let bytes = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/old/shim-1-x86_64"));
    let old = NativeRuntime::with_shim(memfd::program(c"longshore", bytes).unwrap());
    let first = old.start_detached(home.launch(SCRIPT), home.detach()).await.unwrap();
    soon(|| home.logged().0.contains("begun").then_some(())).await;
    kill_shim(&first);
    drop(old);
    let second = home.renew().await.unwrap();
    to_its_end(&home, &second).await;
}

#[tokio::test]
async fn p30_there_are_never_two_shims_and_none_for_what_has_ended() {
    let home = Home::new();
    let first = home.start(SCRIPT).await;
    let before = first.state();
    let refused = runtime().renew(home.launch(SCRIPT), home.detach()).await;
    assert_eq!(refused.unwrap_err().kind(), &ErrorKind::Conflict);
    assert_eq!(home.seen(), DetachedSeen::Alive(before));
    let state = kill_shim(&first);
    kill(Pid::from_raw(state.pid as i32), Number::SIGKILL).unwrap();
    soon(|| is_gone(state.pid).then_some(())).await;
    let refused = home.renew().await;
    assert_eq!(refused.unwrap_err().kind(), &ErrorKind::InvalidState);
}

/// Its shim was killed while a run set itself up. That may have ended before it came to its program, with a status that is not the
/// program's.
#[tokio::test]
async fn p30_how_a_run_ended_that_was_just_beginning_is_not_known() {
    let home = Home::new();
    let first = home.start(SCRIPT).await;
    soon(|| home.logged().0.contains("begun").then_some(())).await;
    kill_shim(&first);
    soon(|| (!matches!(home.seen(), DetachedSeen::Alive(_))).then_some(())).await;
    // As that shim would have left it.
    let path = home.shim().join("state");
    let mut file = fs::read(&path).unwrap();
    let before = record::newest(&file).unwrap();
    let state = State {
        change: before.change + 1,
        phase: phase::RESTARTING,
        restarts: 1,
        ends: 1,
        exit: Some(3 << 8),
        ..before
    };
    file[state.place()..][..record::SLOT].copy_from_slice(&state.encode());
    fs::write(&path, file).unwrap();
    let second = home.renew().await.unwrap();
    let now = second.state();
    assert_eq!(
        (now.phase, now.pid, now.restarts, now.ends),
        (DetachedPhase::Running, before.pid, 1, 1)
    );
    assert!(now.started_ns > before.started_ns);
    let_go(&second).await;
    let last = ended(&second).await;
    assert_eq!((last.exit, last.ends), (None, 2));
    left_alone(&home, &last).await;
}

/// What a new shim needs is not there: the container goes on without.
#[tokio::test]
async fn p30_a_new_shim_that_cannot_be_leaves_all_as_it_was() {
    let home = Home::new();
    let first = home.start(SCRIPT).await;
    soon(|| home.logged().0.contains("begun").then_some(())).await;
    let state = kill_shim(&first);
    let out = home.shim().join("out");
    fs::rename(&out, home.shim().join("elsewhere")).unwrap();
    assert!(home.renew().await.is_err());
    assert!(!is_gone(state.pid));
    // The one that failed has its place until it is gone.
    let is_as_before = |seen: &DetachedSeen| matches!(seen, DetachedSeen::Gone { state: seen, process: true } if seen.change == state.change);
    soon(|| is_as_before(&home.seen()).then_some(())).await;
    fs::rename(home.shim().join("elsewhere"), &out).unwrap();
    let second = home.renew().await.unwrap();
    to_its_end(&home, &second).await;
}
