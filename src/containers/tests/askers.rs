//! Two managers on one root: what the second asks of the first.

use super::*;
use crate::engine::{Engine, Managers};

/// The first has containers, the second asks.
fn pair(dir: &Path) -> (Bench, Bench) {
    (on(dir), on(dir))
}

async fn gone(containers: &LocalContainers, id: &str) {
    for _ in 0..400 {
        if matches!(containers.inspect(id).await, Err(error) if error.is_not_found()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it is there four seconds later");
}

#[tokio::test]
async fn g2_the_handle_of_a_run_tells_the_end_of_what_is_gone() {
    let bench = bench();
    let engine = Engine::from_managers(Managers::default().containers(Arc::new(bench.containers.clone())));
    for code in ["7", "0", "8"] {
        let handle = engine.run(spec(["fail", code]).auto_remove(true));
        let handle = handle.pull(crate::images::Pull::Never).await.unwrap();
        gone(&bench.containers, handle.id().as_str()).await;
        for handle in [handle.clone(), handle.within(Duration::from_secs(5)), handle.clone()] {
            assert_eq!(handle.wait().await.unwrap().status.code().to_string(), code);
            let exit = handle.wait_for(WaitCondition::Removed).await.unwrap().await.unwrap();
            assert_eq!(exit.status.code().to_string(), code);
        }
        assert!(matches!(handle.wait_for(WaitCondition::NextExit).await, Err(error) if error.is_not_found()));
        // Without a run there is nothing that was registered before.
        let late = bench.containers.wait(handle.id().as_str(), WaitCondition::Exited).await;
        assert!(matches!(late, Err(error) if error.is_not_found()));
    }
}

#[tokio::test]
async fn g1_another_manager_s_container_from_start_to_removal() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = pair(dir.path());
    let id = first.containers.create(spec(["sleep"]).name("mine")).await.unwrap().id;
    let (asked, id) = (&second.containers, id.as_str());
    assert_eq!(asked.start("mine").await.unwrap(), Outcome::Done);
    assert_eq!(asked.start(id).await.unwrap(), Outcome::Already);
    asked.rename(id, "theirs").await.unwrap();
    assert_eq!(first.containers.inspect("theirs").await.unwrap().id.as_str(), id);
    first.containers.create(spec(["sleep"]).name("taken")).await.unwrap();
    let taken = asked.rename(id, "taken").await.unwrap_err();
    assert_eq!(
        (taken.kind(), taken.object()),
        (&ErrorKind::Conflict, Some((ObjectKind::Container, "taken")))
    );
    asked.pause(id).await.unwrap();
    assert_eq!(
        first.containers.inspect(id).await.unwrap().state,
        ContainerState::Paused
    );
    assert!(asked.pause(id).await.is_err());
    asked.unpause(id).await.unwrap();
    let limits = Limits {
        memory: Some(crate::types::Bytes::mib(64)),
        ..Limits::default()
    };
    assert!(asked.update(id, limits.clone()).await.unwrap().is_empty());
    assert_eq!(first.containers.inspect(id).await.unwrap().spec.limits, limits);
    let policy = RestartPolicy::OnFailure { max_retries: Some(3) };
    asked.set_restart(id, policy).await.unwrap();
    assert_eq!(first.containers.inspect(id).await.unwrap().spec.restart, policy);
    let no_terminal = asked.resize(id, 10, 20).await.unwrap_err();
    assert_eq!(no_terminal.kind(), &ErrorKind::InvalidState);
    let busy = asked.remove(id, RemoveOptions::default()).await.unwrap_err();
    assert_eq!(busy.kind(), &ErrorKind::Conflict);
    assert!(!busy.report().contains("another live process"), "{}", busy.report());
    assert_eq!(asked.remove(id, RemoveOptions::force()).await.unwrap(), Outcome::Done);
    assert!(first.containers.inspect(id).await.unwrap_err().is_not_found());
    assert!(
        asked
            .remove(id, RemoveOptions::force())
            .await
            .unwrap_err()
            .is_not_found()
    );
}

#[tokio::test]
async fn g3_commands_in_another_manager_s_container() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = pair(dir.path());
    let id = first.containers.create(spec(["sleep"])).await.unwrap().id;
    first.containers.start(id.as_str()).await.unwrap();
    let (asked, id) = (&second.containers, id.as_str());
    for (words, said, code) in [(vec!["echo", "a", "b"], "a b\n", 0), (vec!["fail", "42"], "", 42)] {
        let exec = asked.exec_create(id, ExecSpec::new(words)).await.unwrap();
        assert_eq!(exec.container.as_str(), id);
        let attached = asked.exec_start(&exec.id, AttachOptions::default()).await.unwrap();
        assert!(attached.input.is_none());
        assert_eq!(output(attached).await, said.as_bytes());
        assert_eq!(asked.exec_wait(&exec.id[..12]).await.unwrap().code(), code);
        let info = asked.exec_inspect(&exec.id).await.unwrap();
        assert_eq!(
            (info.running, info.status.map(|status| status.code())),
            (false, Some(code))
        );
        let again = asked.exec_start(&exec.id, AttachOptions::default()).await.unwrap_err();
        assert_eq!(again.kind(), &ErrorKind::Conflict);
    }
    // Every byte there and back, however many pieces they take.
    let sent: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
    let exec = asked.exec_create(id, ExecSpec::new(["cat"]).stdin(true)).await.unwrap();
    let mut attached = asked
        .exec_start(&exec.id, AttachOptions::slow(SlowReader::Wait))
        .await
        .unwrap();
    let input = attached.input.take().unwrap();
    for piece in sent.chunks(300_000) {
        input.write(piece.to_vec()).await.unwrap();
    }
    assert!(asked.exec_inspect(&exec.id).await.unwrap().running);
    drop(input);
    assert!(output(attached).await == sent);
    assert_eq!(asked.exec_wait(&exec.id).await.unwrap().code(), 0);
    // What is not there is said as it is here.
    let exec = asked.exec_create(id, ExecSpec::new(["nothere"])).await.unwrap();
    let missing = asked.exec_start(&exec.id, AttachOptions::default()).await.unwrap_err();
    assert_eq!(missing.kind(), &ErrorKind::CommandNotFound);
    let unknown = asked.exec_wait(&"e".repeat(64)).await.unwrap_err();
    assert_eq!(unknown.object().map(|object| object.0), Some(ObjectKind::Exec));
    first.containers.remove(id, RemoveOptions::force()).await.unwrap();
}

/// Until the owner knows of so many commands that run.
async fn commands(first: &Bench, id: &str, wanted: usize) {
    for _ in 0..500 {
        let mut running = 0;
        for exec in first.containers.inspect(id).await.unwrap().execs {
            running += usize::from(
                first
                    .containers
                    .exec_inspect(&exec)
                    .await
                    .is_ok_and(|info| info.running),
            );
        }
        if running == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not {wanted} commands five seconds later");
}

#[tokio::test]
async fn g3_an_asker_that_goes_away_leaves_no_command() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = pair(dir.path());
    let id = first.containers.create(spec(["sleep"])).await.unwrap().id;
    first.containers.start(id.as_str()).await.unwrap();
    let (asked, id) = (&second.containers, id.as_str());
    let begin = async || {
        let exec = asked.exec_create(id, ExecSpec::new(["cat"]).stdin(true)).await.unwrap();
        asked.exec_start(&exec.id, AttachOptions::default()).await.unwrap()
    };
    let held = begin().await;
    commands(&first, id, 1).await;
    drop(held);
    commands(&first, id, 0).await;
    for round in 0..60u64 {
        let _ = tokio::time::timeout(Duration::from_micros(round * 100), begin()).await;
    }
    commands(&first, id, 0).await;
    first.containers.remove(id, RemoveOptions::force()).await.unwrap();
}

#[tokio::test]
async fn g4_streams_of_another_manager_s_container() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = pair(dir.path());
    let id = first
        .containers
        .create(spec(["cat"]).open_stdin(true))
        .await
        .unwrap()
        .id;
    let (asked, id) = (&second.containers, id.as_str());
    // From before its start: the first byte arrives, too.
    let mut one = asked.attach(id, AttachOptions::default()).await.unwrap();
    let two = asked.attach(id, AttachOptions::slow(SlowReader::Keep)).await.unwrap();
    asked.start(id).await.unwrap();
    let input = one.input.take().unwrap();
    input.write("one\n").await.unwrap();
    input.flush().await.unwrap();
    // It lets go; the other closes it.
    input.detach();
    drop(one);
    let mut two = two;
    let input = two.input.take().unwrap();
    input.write("two\n").await.unwrap();
    drop(input);
    // Of one that let go stdin stays open until the next who comes has closed it.
    for _ in 0..500 {
        if asked.inspect(id).await.unwrap().state == ContainerState::Exited {
            break;
        }
        drop(asked.attach(id, AttachOptions::default()).await.unwrap());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(output(two).await, b"one\ntwo\n");
    let whole = AttachOptions {
        logs: true,
        ..AttachOptions::default()
    };
    assert_eq!(ended(&first.containers, id).await.unwrap().status.code(), 0);
    let logged = asked.attach(id, whole).await.unwrap();
    first.containers.remove(id, RemoveOptions::force()).await.unwrap();
    assert_eq!(output(logged).await, b"one\ntwo\n");
}

#[tokio::test]
async fn g1_an_owner_that_does_not_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = pair(dir.path());
    let id = first.containers.create(spec(["sleep"]).name("mine")).await.unwrap().id;
    // Its thread ends, and its lock is held: as of a process that is stuck.
    let Bench {
        containers,
        _driver,
        _owner,
        ..
    } = first;
    let ended = _driver.end();
    for _ in 0..1000 {
        if *ended.borrow() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let silent = second.containers.rename(id.as_str(), "other").await.unwrap_err();
    assert_eq!(silent.kind(), &ErrorKind::Unavailable);
    assert_eq!(silent.object(), Some((ObjectKind::Container, id.as_str())));
    assert!(silent.to_string().contains("another live process"), "{silent}");
    drop(containers);
}
