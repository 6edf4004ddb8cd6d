//! Several who are connected to one container.

use std::io::{Read as _, Write as _};

use futures_util::StreamExt as _;

use super::*;
use crate::runtime::StdioPlan;
use crate::runtime::detached::DetachedOutput;
use crate::runtime::native::tests::trouble::command;
use crate::types::Signal;

/// Everything, by stream, up to the end.
pub(super) async fn read_all(mut output: DetachedOutput) -> (String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some((stream, bytes)) = output.next().await {
        match stream {
            LogStream::Stdout => out.extend_from_slice(&bytes),
            LogStream::Stderr => err.extend_from_slice(&bytes),
        }
    }
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(out), text(err))
}

async fn read_until(output: &mut DetachedOutput, end: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(end) {
        let next = tokio::time::timeout(Duration::from_secs(10), output.next()).await;
        let (_, bytes) = next.unwrap_or_else(|_| panic!("{seen:?} and no more")).expect("output");
        seen.push_str(str::from_utf8(&bytes).unwrap());
    }
    seen
}

async fn adopt(home: &Home) -> Arc<dyn DetachedTask> {
    runtime().adopt(&ContainerId::random(), &home.shim()).await.unwrap()
}

#[tokio::test]
async fn a_reader_who_starts_it_has_its_first_and_its_last_byte() {
    for _ in 0..10 {
        let home = Home::new();
        let mut detach = home.detach();
        detach.attached = true;
        let task = runtime()
            .start_detached(home.launch("echo first; echo last >&2"), detach)
            .await
            .unwrap();
        let (out, err) = read_all(task.output().await.unwrap()).await;
        assert_eq!((out.as_str(), err.as_str()), ("first\n", "last\n"));
        assert_eq!(home.logged(), (out, err, 1));
    }
}

#[tokio::test]
async fn input_goes_in_and_its_end_too() {
    let home = Home::new();
    let mut launch = home.launch("cat; echo over; exit 4");
    launch.stdio.stdin = true;
    let mut detach = home.detach();
    detach.attached = true;
    let starter = runtime().start_detached(launch, detach).await.unwrap();
    let mut first = starter.output().await.unwrap();
    let mut input = fs::File::from(starter.input().await.unwrap().unwrap());
    input.write_all(b"one\n").unwrap();
    read_until(&mut first, "one\n").await;
    drop(input);
    // Whoever comes later writes and reads as well.
    let task = adopt(&home).await;
    let mut second = task.output().await.unwrap();
    let mut input = fs::File::from(task.input().await.unwrap().unwrap());
    input.write_all(b"two\n").unwrap();
    read_until(&mut first, "two\n").await;
    read_until(&mut second, "two\n").await;
    // The end comes once nobody can write any more.
    assert!(!starter.state().stdin_closed);
    task.close_input().await.unwrap();
    until(&starter, |state| state.stdin_closed).await;
    input.write_all(b"three\n").unwrap();
    read_until(&mut second, "three\n").await;
    drop(input);
    read_until(&mut second, "over\n").await;
    let state = ended(&starter).await;
    assert_eq!(state.exit.unwrap().status.code(), 4);
    left_alone(&home, &state).await;
    assert_eq!(
        task.input().await.err().unwrap().kind(),
        &crate::error::ErrorKind::Unavailable
    );
}

#[tokio::test]
async fn a_terminal_is_everybody_s_who_is_connected() {
    let home = Home::new();
    let mut launch = home.launch("stty size; while read line; do stty size; echo got $line; done");
    launch.stdio = StdioPlan {
        stdin: true,
        terminal: Some((10, 20)),
    };
    let mut detach = home.detach();
    detach.attached = true;
    let starter = runtime().start_detached(launch, detach).await.unwrap();
    let mut output = starter.output().await.unwrap();
    read_until(&mut output, "10 20").await;
    drop(starter);
    let task = adopt(&home).await;
    task.resize(33, 44).await.unwrap();
    let mut input = fs::File::from(task.input().await.unwrap().unwrap());
    input.write_all(b"hello\n").unwrap();
    let seen = read_until(&mut output, "got hello").await;
    assert!(seen.contains("33 44"), "{seen:?}");
    task.signal(Signal::KILL, true).await.unwrap();
    left_alone(&home, &ended(&task).await).await;
    // The terminal is one stream.
    let (out, err, ends) = home.logged();
    assert!(out.contains("got hello") && err.is_empty() && ends == 1, "{out:?}");
}

#[tokio::test]
async fn commands_run_in_a_container_that_was_found_again() {
    let home = Home::new();
    drop(
        home.start("trap 'echo term; exit 9' TERM; while :; do sleep 0.1; done")
            .await,
    );
    let task = adopt(&home).await;
    let run = |script: &'static str| {
        let task = Arc::clone(&task);
        async move {
            let started = task.exec(command(&["sh", "-c", script])).await.unwrap();
            let out = started.stdout.unwrap();
            let text = tokio::task::spawn_blocking(move || {
                let mut text = String::new();
                fs::File::from(out).read_to_string(&mut text).unwrap();
                text
            });
            (started.task.wait().await.unwrap().code(), text.await.unwrap())
        }
    };
    assert_eq!(run("hostname; exit 3").await, (3, "box\n".into()));
    assert_eq!(run("echo again").await, (0, "again\n".into()));
    let missing = task.exec(command(&["nowhere"])).await.err().unwrap();
    assert_eq!(missing.kind(), &crate::error::ErrorKind::CommandNotFound);
    // A second one who is connected runs commands too, beside the first.
    let other = adopt(&home).await;
    let long = other.exec(command(&["sleep", "60"])).await.unwrap();
    assert_eq!(run("ps | grep -c 'sleep [6]0'").await, (0, "1\n".into()));
    // All but the first of the container's processes, from inside.
    task.signal(Signal::TERM, true).await.unwrap();
    assert_eq!(long.task.wait().await.unwrap().signal(), Some(15));
    let state = ended(&task).await;
    assert_eq!(state.exit.unwrap().status.code(), 9);
    left_alone(&home, &state).await;
    let late = task.exec(command(&["true"])).await.err().unwrap();
    assert_eq!(late.kind(), &crate::error::ErrorKind::InvalidState);
}

#[tokio::test]
async fn a_command_outlives_whoever_started_it() {
    let home = Home::new();
    let task = home.start("while ! [ -e /tmp/done ]; do sleep 0.05; done").await;
    let script = "exec >/dev/null 2>&1; sleep 0.5; touch /tmp/done";
    let started = task.exec(command(&["sh", "-c", script])).await.unwrap();
    let pid = started.task.pid().unwrap();
    drop(started);
    drop(task);
    let task = adopt(&home).await;
    let state = ended(&task).await;
    assert_eq!(state.exit.unwrap().status.code(), 0);
    left_alone(&home, &state).await;
    assert!(is_gone(pid));
}

#[tokio::test]
async fn a_reader_who_takes_nothing_is_let_go() {
    let home = Home::new();
    let mut detach = home.detach();
    detach.attached = true;
    detach.log.max_size_bytes = 64 << 20;
    let script = "head -c 8000000 /dev/zero | tr '\\0' 'x'; echo";
    let task = runtime().start_detached(home.launch(script), detach).await.unwrap();
    // Two of them: one that never reads, and one that does.
    let mut lazy = task.output().await.unwrap();
    let eager = read_all(task.output().await.unwrap());
    let begun = Instant::now();
    let (state, _) = tokio::join!(ended(&task), eager);
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(home.logged().0.len(), 8_000_001);
    assert_eq!(state.lost_entries, 0);
    // It has what it was sent before, and an end.
    let mut taken = 0;
    while let Some((_, bytes)) = lazy.next().await {
        taken += bytes.len();
    }
    assert!((1..8_000_000).contains(&taken), "{taken}");
}
