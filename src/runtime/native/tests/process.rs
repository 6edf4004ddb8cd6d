//! A process from its start to its exit: streams, signals, what it runs and what cannot be run.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;

use super::{finish, in_own_userns, launch, mount, read, read_lines, root, run, runtime, runtime_with_ids, sh};
use crate::error::ErrorKind;
use crate::runtime::Runtime;
use crate::runtime::native;
use crate::types::Signal;

#[tokio::test]
async fn echo_in_all_namespaces() {
    let output = sh("echo out; echo err >&2; hostname; echo $$; ip link show lo; exit 7").await;
    assert_eq!(output.code, 7, "{} {}", output.stdout, output.stderr);
    assert!(output.stdout.starts_with("out\nbox\n1\n"), "{}", output.stdout);
    assert!(output.stdout.contains("LOOPBACK,UP"), "{}", output.stdout);
    assert_eq!(output.stderr, "err\n");
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
        &["sh", "-c", "stty size; tty; ls -l /dev/console; read line; stty size"],
    );
    launch.stdio.terminal = Some((33, 77));
    let runtime = runtime();
    let mut started = runtime.start(launch).await.unwrap();
    assert!(started.stdout.is_none());
    let master = started.terminal.take().unwrap();
    let first = read_lines(Some(master.try_clone().unwrap()), 3).await;
    assert_eq!(first[..2], ["33 77", "/dev/pts/0"], "{first:?}");
    // It waits for a line now, and not for a time that a slow machine may need for more.
    started.task.resize(10, 20).await.unwrap();
    fs::File::from(master.try_clone().unwrap()).write_all(b"\n").unwrap();
    let rest = tokio::task::spawn_blocking(move || read(Some(master)));
    assert_eq!(started.task.wait().await.unwrap().status.code(), 0);
    let rest = rest.await.unwrap();
    assert!(rest.ends_with("10 20\r\n"), "{rest}");
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

#[test]
fn plans_survive_any_bytes() {
    use native::helper::wire::{Header, Plan, Record};
    proptest::proptest!(|(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..600))| {
        let _ = (Plan::decode(&bytes), Header::decode(&bytes), Record::decode(&bytes));
    });
}

#[tokio::test]
async fn g1_a_signal_to_all_needs_no_cgroup() {
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

#[tokio::test]
async fn oci_a_program_waits_for_its_start() {
    let root = root();
    let runtime = runtime();
    let marked = root.path().join("tmp/ran");
    let launch = launch(root.path(), &["sh", "-c", "touch /tmp/ran; hostname; exit 3"]);
    let created = runtime.create(launch).await.unwrap();
    let pid = created.pid();
    // Set up, with a root of its own; the program is not there yet.
    assert!(fs::exists(format!("/proc/{pid}")).unwrap());
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert!(!marked.exists());
    let started = created.start().await.unwrap();
    assert_eq!(started.task.pid(), pid);
    let output = finish(started).await;
    assert_eq!((output.code, output.stdout.as_str()), (3, "box\n"));
    assert!(marked.exists());
}

#[tokio::test]
async fn oci_what_is_created_can_be_killed_and_left() {
    let root = root();
    let runtime = runtime();
    let make = async || runtime.create(launch(root.path(), &["true"])).await.unwrap();
    let mut killed = make().await;
    killed.signal(Signal::KILL).unwrap();
    let error = killed.until_ended().await;
    assert_eq!(error.kind(), &ErrorKind::Os, "{}", error.report());
    assert_eq!(
        killed.signal(Signal::KILL).unwrap_err().kind(),
        &ErrorKind::InvalidState
    );
    let dead = make().await;
    dead.signal(Signal::KILL).unwrap();
    assert!(dead.start().await.is_err());

    let left = make().await;
    let process = crate::sys::pidfd::open(left.pid()).unwrap();
    drop(left);
    while !crate::sys::pidfd::has_ended(std::os::fd::AsFd::as_fd(&process)) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    // A program that is not there is told at its start.
    let missing = runtime.create(launch(root.path(), &["/nowhere"])).await.unwrap();
    let error = missing.start().await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::CommandNotFound, "{}", error.report());
    // What fails before is told at once.
    let mut bad = launch(root.path(), &["true"]);
    bad.spec.set_mounts(Some(vec![mount("/data", "nonsense", &[])]));
    runtime.create(bad).await.unwrap_err();
}

#[tokio::test]
async fn oci_a_terminal_is_there_before_the_start() {
    let root = root();
    let mut launch = launch(root.path(), &["sh", "-c", "tty; stty size"]);
    launch.stdio.terminal = Some((7, 9));
    let mut created = runtime().create(launch).await.unwrap();
    let terminal = created.take_terminal().expect("it has one");
    assert!(created.take_terminal().is_none());
    let started = created.start().await.unwrap();
    let said = read_lines(Some(terminal), 2).await;
    assert!(said[0].starts_with("/dev/") && said[1].trim() == "7 9", "{said:?}");
    started.task.wait().await.unwrap();
    started.task.remove().await.unwrap();
}
