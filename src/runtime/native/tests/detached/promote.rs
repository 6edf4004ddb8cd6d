//! Bound containers that become detached.

use super::*;
use crate::error::ErrorKind;
use crate::logs::LogStream;
use crate::runtime::detached::{HandOn, RestartAfter};
use crate::runtime::native::shim::promote;
use crate::runtime::native::task::NativeTask;
use crate::runtime::{Runtime as _, Started};

/// Prints, goes on when it is told to, and ends with 7.
const SCRIPT: &str = "echo begun; until [ -e /tmp/go ]; do sleep 0.05; done; echo over; exit 7";

fn handed(started: &mut Started) -> Arc<HandOn> {
    let outputs = [
        (started.stdout.take(), LogStream::Stdout),
        (started.stderr.take(), LogStream::Stderr),
    ];
    let outputs = outputs.into_iter().filter_map(|(end, stream)| Some((end?, stream)));
    Arc::new(HandOn {
        outputs: outputs.collect(),
        stdin: started.stdin.take(),
        started_ns: 1,
        restarts: 0,
    })
}

/// By a runtime that is closed then: with it would end what is bound to it.
async fn promoted(home: &Home, script: &str, detach: Detach) -> Arc<dyn DetachedTask> {
    let first = runtime();
    let beside = first.start(home.launch("sleep 100")).await.unwrap();
    let mut started = first.start(home.launch(script)).await.unwrap();
    let pid = started.task.pid();
    let streams = handed(&mut started);
    let output = first
        .promote(&*started.task, home.launch(script), detach, streams)
        .await;
    assert!(output.unwrap().is_none());
    first.close().await;
    soon(|| is_gone(beside.task.pid()).then_some(())).await;
    assert!(!is_gone(pid));
    let task = runtime().adopt(&home.launch(script).id, &home.shim()).await.unwrap();
    let state = until(&task, |state| state.phase == DetachedPhase::Running).await;
    assert_eq!((state.pid, state.ends, state.started_ns), (pid, 0, 1));
    task
}

async fn to_its_end(home: &Home, task: &Arc<dyn DetachedTask>) {
    let_go(task).await;
    let last = ended(task).await;
    assert_eq!((last.exit.unwrap().status.code(), last.ends), (7, 1));
    left_alone(home, &last).await;
    assert_eq!(home.logged(), ("begun\nover\n".into(), String::new(), 1));
}

#[tokio::test]
async fn g16_it_outlives_the_zygote_s_owner_and_its_end_is_told() {
    let home = Home::new();
    let task = promoted(&home, SCRIPT, home.detach()).await;
    to_its_end(&home, &task).await;
}

#[tokio::test]
async fn g16_its_next_run_is_the_shim_s_child() {
    let home = Home::new();
    let detach = Detach {
        restart: Restart {
            after: RestartAfter::Failure,
            max_retries: Some(1),
            first: Duration::from_millis(1),
            longest: Duration::from_millis(1),
            steady: Duration::from_secs(10),
        },
        ..home.detach()
    };
    let script = "echo a line; until [ -e /tmp/go ]; do sleep 0.05; done; exit 3";
    let task = promoted(&home, script, detach).await;
    let first = task.state();
    fs::write(home.dir.path().join("tmp/go"), "").unwrap();
    let last = ended(&task).await;
    assert_eq!((last.ends, last.restarts), (2, 1));
    assert!(last.pid != first.pid);
    left_alone(&home, &last).await;
    assert_eq!(home.logged(), ("a line\na line\n".into(), String::new(), 2));
}

#[tokio::test]
async fn g16_a_zygote_that_is_killed_takes_it_along() {
    let home = Home::new();
    let first = runtime();
    let mut started = first.start(home.launch(SCRIPT)).await.unwrap();
    let streams = handed(&mut started);
    first
        .promote(&*started.task, home.launch(SCRIPT), home.detach(), streams)
        .await
        .unwrap();
    let task = runtime().adopt(&home.launch(SCRIPT).id, &home.shim()).await.unwrap();
    kill(Pid::from_raw(first.info().unwrap().pid as i32), Number::SIGKILL).unwrap();
    let last = ended(&task).await;
    // Nobody told it but the kernel, if that does.
    assert!(last.exit.is_none_or(|exit| exit.status.signal() == Some(9)));
    left_alone(&home, &last).await;
}

/// What decides is its word, and not what it says of that to whoever has asked for it.
#[tokio::test]
async fn g16_a_zygote_that_is_killed_after_its_word_has_kept_it() {
    let home = Home::new();
    let first = runtime();
    let mut started = first.start(home.launch(SCRIPT)).await.unwrap();
    let streams = handed(&mut started);
    let task = started.task.as_any().and_then(|task| task.downcast_ref::<NativeTask>());
    let (bound, launch) = (task.unwrap().bound().unwrap(), home.launch(SCRIPT));
    let ready = promote::prepare(&first.shared, bound, &launch, &home.detach(), &streams);
    let ready = ready.unwrap();
    ready.give_word().unwrap();
    kill(Pid::from_raw(first.info().unwrap().pid as i32), Number::SIGKILL).unwrap();
    started.task.until_ended().await;
    assert!(ready.commit().await.unwrap().is_none());
    let last = soon(|| match home.seen() {
        DetachedSeen::Gone { state, .. } if state.phase == DetachedPhase::Ended => Some(state),
        _ => None,
    });
    let last = last.await;
    assert_eq!(last.ends, 1);
    assert!(last.exit.is_none_or(|exit| exit.status.signal() == Some(9)));
    left_alone(&home, &last).await;
}

#[tokio::test]
async fn g16_what_cannot_be_promoted_stays_bound() {
    let home = Home::new();
    let first = runtime();
    let mut started = first.start(home.launch(SCRIPT)).await.unwrap();
    let streams = handed(&mut started);
    // A shim has no such stream.
    fs::create_dir_all(home.shim().join("out")).unwrap();
    let refused = first
        .promote(&*started.task, home.launch(SCRIPT), home.detach(), Arc::clone(&streams))
        .await;
    assert!(refused.is_err());
    fs::remove_dir(home.shim().join("out")).unwrap();
    assert_eq!(home.seen(), DetachedSeen::Nothing);
    let pid = started.task.pid();
    assert!(!is_gone(pid));
    kill(Pid::from_raw(pid as i32), Number::SIGKILL).unwrap();
    assert_eq!(started.task.wait().await.unwrap().status.signal(), Some(9));
    let refused = first
        .promote(&*started.task, home.launch(SCRIPT), home.detach(), streams)
        .await;
    assert_eq!(refused.err().unwrap().kind(), &ErrorKind::InvalidState);
    assert_eq!(home.seen(), DetachedSeen::Nothing);
}
