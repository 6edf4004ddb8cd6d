//! What a shim writes into logs.

use super::*;
use crate::runtime::detached::RestartAfter;
use crate::types::Signal;

#[tokio::test]
async fn a_shim_keeps_as_many_files_as_it_is_told() {
    let home = Home::new();
    let mut detach = home.detach();
    detach.log.max_size_bytes = 10_000;
    detach.log.max_files = 3;
    let script = "i=0; while [ $i -lt 3000 ]; do echo some line $i; i=$((i+1)); done";
    let task = runtime().start_detached(home.launch(script), detach).await.unwrap();
    left_alone(&home, &ended(&task).await).await;
    let mut numbers: Vec<u64> = fs::read_dir(home.log())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .map(|name| name.strip_prefix("log.").unwrap().parse().unwrap())
        .collect();
    numbers.sort_unstable();
    let last = numbers[2];
    assert_eq!(numbers, [last - 2, last - 1, last]);
    let mut lines = Vec::new();
    for number in &numbers {
        let bytes = fs::read(home.log().join(format!("log.{number}"))).unwrap();
        assert!(bytes.len() <= 10_000, "{}", bytes.len());
        let mut rest = &bytes[..];
        while let Decoded::Frame(frame) = logs::decode(rest) {
            lines.extend_from_slice(frame.payload);
            rest = &rest[frame.encoded_len()..];
        }
        assert!(rest.is_empty());
    }
    let expected: String = (0..3000).map(|number| format!("some line {number}\n")).collect();
    let lines = String::from_utf8(lines).unwrap();
    assert!(lines.len() > 8_000 && expected.ends_with(&lines));
}

#[tokio::test]
async fn a_shim_s_lines_of_json_are_docker_s() {
    let home = Home::new();
    let id = ContainerId::random();
    let known_as = format!("{id}-json.log");
    let mut detach = home.detach();
    detach.log.format = Some(DetachedLogFormat::Json {
        known_as: known_as.clone(),
    });
    detach.log.max_size_bytes = 3000;
    detach.log.max_files = 2;
    detach.restart = Restart {
        after: RestartAfter::Failure,
        max_retries: Some(1),
        first: Duration::from_millis(300),
        longest: Duration::from_millis(300),
        steady: Duration::from_secs(10),
    };
    let script =
        "i=0; while [ $i -lt 20 ]; do echo \"<$i> \\\"quoted\\\"\"; i=$((i+1)); done; printf 'a\\377b' >&2; exit 1";
    let mut launch = home.launch(script);
    launch.id = id;
    let task = runtime().start_detached(launch, detach).await.unwrap();
    // The first run's end is noted, and the note goes with the second.
    until(&task, |state| state.ends == 1).await;
    assert!(home.log().join("json-closed").exists());
    until(&task, |state| {
        state.restarts == 1 && state.phase == DetachedPhase::Running || state.ends == 2
    })
    .await;
    let state = ended(&task).await;
    left_alone(&home, &state).await;
    assert!(home.log().join("json-closed").exists());
    let newest = (1..)
        .take_while(|number| home.log().join(format!("json.{number}")).exists())
        .last();
    let newest = newest.unwrap_or_else(|| {
        (1..100)
            .rev()
            .find(|number| home.log().join(format!("json.{number}")).exists())
            .unwrap()
    });
    assert!(newest > 1, "it was rotated");
    assert!(!home.log().join(format!("json.{}", newest - 2)).exists());
    use std::os::unix::fs::MetadataExt as _;
    let inode = |name: &str| fs::metadata(home.log().join(name)).unwrap().ino();
    assert_eq!(inode(&known_as), inode(&format!("json.{newest}")));
    let text = fs::read_to_string(home.log().join(&known_as)).unwrap();
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let log = line["log"].as_str().unwrap();
        match line["stream"].as_str().unwrap() {
            "stdout" => assert!(log.starts_with('<') && log.ends_with("> \"quoted\"\n"), "{log:?}"),
            "stderr" => assert_eq!(log, "a\u{fffd}b"),
            other => panic!("{other}"),
        }
    }
    assert!(text.contains("\\u003c19\\u003e \\\"quoted\\\"\\n"));
    assert_eq!(state.lost_entries, 0);
}

#[tokio::test]
async fn a_disk_that_is_full_costs_entries_and_holds_nobody_up() {
    let home = Home::new();
    std::os::unix::fs::symlink("/dev/full", home.log().join("log.1")).unwrap();
    let script = "i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); done; exit 5";
    let task = home.start(script).await;
    let state = ended(&task).await;
    assert_eq!(state.exit.unwrap().status.code(), 5);
    // And the frame of the end.
    assert_eq!(state.lost_entries, 201);
}

#[tokio::test]
async fn a_torn_log_is_cut_and_gone_on_with() {
    let home = Home::new();
    let task = home.start("echo first").await;
    left_alone(&home, &ended(&task).await).await;
    let mut bytes = fs::read(home.log().join("log.1")).unwrap();
    bytes.extend([200, 0, 0, 0, 1, 0, 0, 0]);
    fs::write(home.log().join("log.1"), &bytes).unwrap();
    let task = home
        .start("echo second; head -c 100000 /dev/zero | tr '\\0' x; echo")
        .await;
    let state = ended(&task).await;
    left_alone(&home, &state).await;
    let (out, _, ends) = home.logged();
    assert_eq!(
        (out.as_str(), ends),
        (format!("first\nsecond\n{}\n", "x".repeat(100_000)).as_str(), 2)
    );
}

#[tokio::test]
async fn the_beginning_of_a_line_is_logged_before_its_end() {
    let home = Home::new();
    let task = home.start("printf prompt; sleep 60").await;
    soon(|| (home.logged_bytes() > 0).then_some(())).await;
    assert_eq!(home.logged().0, "prompt");
    task.signal(Signal::KILL, true).await.unwrap();
    left_alone(&home, &ended(&task).await).await;
}

#[tokio::test]
async fn without_a_log_nothing_is_kept_and_readers_read() {
    let home = Home::new();
    let mut detach = home.detach();
    detach.log.format = None;
    detach.attached = true;
    let task = runtime()
        .start_detached(home.launch("echo seen"), detach)
        .await
        .unwrap();
    let seen = talking::read_all(task.output().await.unwrap()).await;
    assert_eq!(seen, ("seen\n".into(), String::new()));
    ended(&task).await;
    assert_eq!(fs::read_dir(home.log()).unwrap().count(), 0);
}
