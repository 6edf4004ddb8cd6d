//! What a second process may do with a live container of the first, where that is more than a look or a signal: the owner
//! is asked, and does it as for a caller of its own.

use std::io::{IoSlice, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use longshore::logs::{LogStream, TeeItem};
use longshore::types::{Filter, Outcome, Signal};
use longshore::{
    AttachOptions, Attached, Bytes, Container, ContainerSpec, ContainerState, Engine, Error, ErrorKind, ExecSpec,
    Limits, ListOptions, ObjectKind, RemoveOptions, RestartPolicy, SlowReader, StopOptions, WaitCondition,
};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::faults::filled_root;
use crate::frame::{Check, Stop, fail};
use crate::support::embedder::{Embedder, Role};
use crate::support::patience::{PATIENCE, until};
use crate::support::root::TempRoot;
use crate::support::world::{FORCE, text};
use crate::tests;

tests! { "askers":
    kernel_async [
        g3_commands_in_another_process_s_container,
        g4_streams_of_another_process_s_container,
        g9_limits_names_and_pauses_of_another_process_s_container,
        g1_another_process_s_container_in_every_state,
        g3_an_asker_that_goes_away_leaves_no_command,
        g4_an_asker_that_goes_away_leaves_stdin_open,
    ]
    waiting_async [
        g1_an_owner_that_stands_still_or_dies,
        g1_strangers_at_an_owner_s_door,
        g10_another_process_s_container_that_waits_for_its_restart,
    ]
}

pub const ROLES: &[(&str, Role)] = &[
    ("own", role_own),
    ("ask-forever", role_ask),
    ("attach-forever", role_attach),
];

fn role(run: impl Future<Output = longshore::Result<()>>) -> i32 {
    match crate::frame::block_on(run) {
        Ok(()) => 0,
        Err(error) => {
            println!("{}", error.report());
            1
        }
    }
}

/// The containers of an owner, by what they are for.
fn spec_of(kind: &str) -> ContainerSpec {
    let busybox = ContainerSpec::image("busybox");
    let sh = |script: &str| busybox.clone().command(["sh", "-c", script]).stop_signal(Signal::KILL);
    match kind {
        "cat" => busybox.command(["cat"]).open_stdin(true),
        "terminal" => sh("while :; do stty size; sleep 0.1; done").tty(true),
        "flood" => sh("read go; head -c 104857600 /dev/zero; echo over >&2").open_stdin(true),
        "failing" => sh("exit 3").restart(RestartPolicy::Always),
        "going" => sh("exec sleep 1000").auto_remove(true),
        "exiting" => sh("exit 4"),
        "counter" => sh("i=0; while :; do i=$((i+1)); echo $i > /count; done"),
        _ => sh("exec sleep 1000"),
    }
}

/// Makes containers, starts all but the one that is to be created alone, and holds them until it is killed.
fn role_own(arguments: &[String]) -> i32 {
    let [root, kinds @ ..] = arguments else { return 2 };
    role(async {
        let engine = Engine::open(root).await?;
        let mut all = Vec::new();
        for kind in kinds {
            let container = engine.create(spec_of(kind).name(kind.as_str())).await?;
            if kind != "created" {
                container.start().await?;
            }
            println!("{}", container.id());
            all.push(container);
        }
        std::future::pending().await
    })
}

/// An engine, the containers of another process, and that process.
struct Both {
    engine: Engine,
    ids: Vec<String>,
    owner: Embedder,
    root: TempRoot,
}

impl Both {
    async fn new(kinds: &[&str]) -> Result<Self, Stop> {
        // It has a runtime of its own.
        let root = std::thread::spawn(filled_root).join().expect("no panic")?;
        let path = root.path().to_str().unwrap_or_default().to_owned();
        let mut arguments = vec![path.as_str()];
        arguments.extend(kinds);
        let owner = Embedder::start("own", &arguments)?;
        let mut ids = Vec::new();
        for _ in kinds {
            let id = owner.line(PATIENCE)?;
            if id.len() != 64 {
                return fail(id);
            }
            ids.push(id);
        }
        let engine = Engine::open(root.path()).await?;
        Ok(Self {
            engine,
            ids,
            owner,
            root,
        })
    }

    async fn container(&self, index: usize) -> Result<Container, Stop> {
        Ok(self.engine.container(&self.ids[index]).await?)
    }

    fn signal(&self, signal: nix::sys::signal::Signal) -> Check {
        let pid = i32::try_from(self.owner.pid()).expect("a pid");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal)?;
        Ok(())
    }

    /// The socket of the owner.
    fn door(&self) -> Result<PathBuf, Stop> {
        let all = std::fs::read_dir(self.root.path().join("owners"))?.flatten();
        let mut doors = all.map(|entry| entry.path().join("door")).filter(|door| door.exists());
        match (doors.next(), doors.next()) {
            (Some(door), None) => Ok(door),
            found => fail(format!("not one owner has a door: {found:?}")),
        }
    }
}

async fn failure<T>(call: impl Future<Output = longshore::Result<T>>) -> Result<Error, Stop> {
    match call.await {
        Err(error) => Ok(error),
        Ok(_) => fail("it did not fail"),
    }
}

/// Until so many bytes have come, or the end.
async fn read(attached: &mut Attached, most: usize) -> Result<Vec<u8>, Stop> {
    let mut all = Vec::new();
    while all.len() < most {
        let item = tokio::time::timeout(PATIENCE, attached.output.next()).await?;
        match item {
            Some(TeeItem::Chunk(chunk)) => all.extend_from_slice(&chunk.bytes),
            Some(lost) => return fail(format!("{lost:?}")),
            None => break,
        }
    }
    Ok(all)
}

fn sh(script: &str) -> ExecSpec {
    ExecSpec::new(["sh", "-c", script])
}

async fn g3_commands_in_another_process_s_container() -> Check {
    let both = Both::new(&["sleeper"]).await?;
    let container = both.container(0).await?;
    let script = "echo \"$A $(pwd) $$\"; echo err >&2; exit 7";
    let out = container
        .exec(sh(script).env("A", "b c").working_dir("/tmp"))
        .output()
        .await?;
    assert_eq!((out.status.code(), text(&out.stderr).as_str()), (7, "err"));
    let said = text(&out.stdout);
    assert!(said.starts_with("b c /tmp ") && !said.ends_with(" 1"), "{said}");
    for code in [0, 1, 42, 126, 255] {
        let out = container.exec(sh(&format!("exit {code}"))).output().await?;
        assert_eq!(out.status.code(), code);
    }
    let killed = container.exec(sh("kill -9 $$")).output().await?;
    assert_eq!(killed.status.signal(), Some(9));
    let missing = failure(container.exec(ExecSpec::new(["/nothere"])).output()).await?;
    assert_eq!(missing.kind(), &ErrorKind::CommandNotFound, "{}", missing.report());
    // Every byte there and back, and the end of stdin.
    let sent: Vec<u8> = (0..3 << 20)
        .map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let echoed = container
        .exec(ExecSpec::new(["cat"]))
        .input(sent.clone())
        .output()
        .await?;
    assert!(echoed.stdout == sent, "{} of {} bytes", echoed.stdout.len(), sent.len());
    // While it runs, and afterwards.
    let mut running = container.exec(sh("read a; exit 9").stdin(true)).await?;
    let info = running.inspect().await?;
    assert!(info.running && info.pid.is_some() && info.status.is_none(), "{info:?}");
    assert_eq!((info.id.as_str(), &info.container), (running.id(), container.id()));
    let no_terminal = failure(running.resize(10, 20)).await?;
    assert_eq!(no_terminal.kind(), &ErrorKind::InvalidState);
    let waited = running.wait();
    drop(running.attached.input.take());
    assert_eq!(waited.await?.code(), 9);
    let info = running.inspect().await?;
    assert_eq!(
        (info.running, info.status.map(|status| status.code())),
        (false, Some(9))
    );
    // A terminal with a size, and another.
    let mut terminal = container
        .exec(
            sh("stty size; read a; stty size")
                .tty(true)
                .tty_size(30, 70)
                .stdin(true),
        )
        .await?;
    let first = read(&mut terminal.attached, 7).await?;
    assert_eq!(text(&first), "30 70");
    terminal.resize(11, 22).await?;
    let input = terminal.attached.input.take().expect("stdin");
    input.write("\n").await?;
    let rest = read(&mut terminal.attached, usize::MAX).await?;
    assert!(text(&rest).ends_with("11 22"), "{:?}", text(&rest));
    drop(input);
    // Side by side.
    let calls = (0..20).map(|code| {
        let container = container.clone();
        async move { container.exec(sh(&format!("sleep 0.1; exit {code}"))).output().await }
    });
    for (code, out) in futures_util::future::join_all(calls).await.into_iter().enumerate() {
        assert_eq!(usize::try_from(out?.status.code()).ok(), Some(code));
    }
    let never = failure(both.engine.containers().exec_wait(&"e".repeat(64))).await?;
    assert_eq!(never.object().map(|object| object.0), Some(ObjectKind::Exec));
    assert_eq!(container.top(&[]).await?.processes.len(), 1, "a command is left");
    container.kill(Signal::KILL).await?;
    Ok(())
}

async fn g4_streams_of_another_process_s_container() -> Check {
    let both = Both::new(&["cat", "flood", "terminal"]).await?;
    let cat = both.container(0).await?;
    let (mut one, mut two) = (
        cat.attach(AttachOptions::default()).await?,
        cat.attach(AttachOptions::default()).await?,
    );
    let writer = one.input.take().expect("stdin");
    writer.write("first\n").await?;
    writer.flush().await?;
    assert_eq!(text(&read(&mut one, 6).await?), "first");
    assert_eq!(text(&read(&mut two, 6).await?), "first");
    // It lets go, and stdin is open for the other.
    writer.detach();
    drop(one);
    let other = two.input.take().expect("stdin");
    other.write("second\n").await?;
    assert_eq!(text(&read(&mut two, 7).await?), "second");
    let mut whole = cat
        .attach(AttachOptions {
            logs: true,
            ..AttachOptions::default()
        })
        .await?;
    assert_eq!(text(&read(&mut whole, 13).await?), "first\nsecond");
    drop(whole.input.take());
    // The last writer closes it, and that is the end.
    let end = cat.wait_for(WaitCondition::Exited).await?;
    drop(other);
    // The one that let go may be heard of after the others: then the next who comes closes it.
    until("it has ended", async || {
        drop(cat.attach(AttachOptions::default()).await?);
        Ok(cat.inspect().await?.state == ContainerState::Exited)
    })
    .await?;
    assert_eq!(end.await?.status.code(), 0);
    assert!(read(&mut two, usize::MAX).await?.is_empty());
    // A hundred megabytes, none of which is lost, though the reader is slow to begin.
    let flood = both.container(1).await?;
    for slow in [SlowReader::Wait, SlowReader::Keep] {
        if flood.inspect().await?.state == ContainerState::Exited {
            flood.start().await?;
        }
        let mut attached = flood.attach(AttachOptions::slow(slow)).await?;
        let input = attached.input.take().expect("stdin");
        input.write("go\n").await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let (mut zeros, mut errors) = (0, Vec::new());
        while let Some(item) = attached.output.next().await {
            match item {
                TeeItem::Chunk(chunk) if chunk.stream == LogStream::Stdout => zeros += chunk.bytes.len(),
                TeeItem::Chunk(chunk) => errors.extend_from_slice(&chunk.bytes),
                lost => return fail(format!("{slow:?}: {lost:?}")),
            }
        }
        assert_eq!((zeros, text(&errors).as_str()), (100 << 20, "over"), "{slow:?}");
        flood.wait().await?;
        until("it has ended", async || {
            Ok(flood.inspect().await?.state == ContainerState::Exited)
        })
        .await?;
    }
    let terminal = both.container(2).await?;
    terminal.resize(33, 44).await?;
    let mut attached = terminal.attach(AttachOptions::default()).await?;
    let mut seen = String::new();
    while !seen.contains("33 44") {
        seen.push_str(&text(&read(&mut attached, 1).await?));
    }
    terminal.kill(Signal::KILL).await?;
    Ok(())
}

async fn count(container: &Container) -> Result<u64, Stop> {
    let out = container.exec(ExecSpec::new(["cat", "/count"])).output().await?;
    Ok(text(&out.stdout).parse().unwrap_or(0))
}

async fn g9_limits_names_and_pauses_of_another_process_s_container() -> Check {
    let both = Both::new(&["counter", "sleeper"]).await?;
    let container = both.container(0).await?;
    container.rename("theirs").await?;
    assert_eq!(both.engine.container("theirs").await?.id(), container.id());
    let taken = failure(container.rename("sleeper")).await?;
    assert_eq!(taken.kind(), &ErrorKind::Conflict);
    assert_eq!(taken.object(), Some((ObjectKind::Container, "sleeper")));
    let bad = failure(container.rename("a b")).await?;
    assert_eq!(bad.kind(), &ErrorKind::InvalidArgument);
    until("it counts", async || Ok(count(&container).await? > 0)).await?;
    let running = failure(both.engine.containers().unpause("theirs")).await?;
    assert_eq!(running.kind(), &ErrorKind::InvalidState, "{}", running.report());
    match container.pause().await {
        Ok(()) => {
            assert_eq!(container.inspect().await?.state, ContainerState::Paused);
            let paused = failure(container.exec(ExecSpec::new(["true"])).output()).await?;
            assert!(
                paused.is_conflict() || paused.kind() == &ErrorKind::InvalidState,
                "{}",
                paused.report()
            );
            container.unpause().await?;
            let before = count(&container).await?;
            until("it counts on", async || Ok(count(&container).await? > before)).await?;
        }
        // The same that the owner itself would be told.
        Err(error) => assert!(error.is_unsupported(), "{}", error.report()),
    }
    let mut limits = Limits::default();
    limits.memory = Some(Bytes::mib(64));
    match container.update(limits).await {
        Ok(_) => assert_eq!(container.inspect().await?.spec.limits.memory, Some(Bytes::mib(64))),
        Err(error) => assert!(error.is_unsupported(), "{}", error.report()),
    }
    let mut never = Limits::default();
    never.memory = Some(Bytes::kib(1));
    assert_eq!(
        failure(container.update(never)).await?.kind(),
        &ErrorKind::InvalidArgument
    );
    let policy = RestartPolicy::OnFailure { max_retries: Some(2) };
    container.set_restart(policy).await?;
    assert_eq!(container.inspect().await?.spec.restart, policy);
    container.stop(StopOptions::default()).await?;
    Ok(())
}

async fn g1_another_process_s_container_in_every_state() -> Check {
    let both = Both::new(&["created", "sleeper", "exiting", "going"]).await?;
    let created = both.container(0).await?;
    assert_eq!(created.start().await?, Outcome::Done);
    assert_eq!(created.start().await?, Outcome::Already);
    assert_eq!(created.inspect().await?.state, ContainerState::Running);
    let busy = failure(created.remove(RemoveOptions::default())).await?;
    assert!(busy.is_conflict(), "{}", busy.report());
    // What it says is what its owner would say, and not that somebody else has it.
    assert!(busy.report().contains("running"), "{}", busy.report());
    assert_eq!(created.remove(FORCE).await?, Outcome::Done);
    assert!(failure(created.inspect()).await?.is_not_found());
    let sleeper = both.container(1).await?;
    let first = sleeper.inspect().await?.pid;
    sleeper.restart(StopOptions::default()).await?;
    let info = sleeper.inspect().await?;
    assert_eq!(info.state, ContainerState::Running);
    assert_ne!(info.pid, first);
    sleeper.stop(StopOptions::default()).await?;
    assert_eq!(sleeper.start().await?, Outcome::Done);
    sleeper.remove(FORCE).await?;
    let exiting = both.container(2).await?;
    assert_eq!(exiting.wait().await?.status.code(), 4);
    let ended = failure(exiting.exec(ExecSpec::new(["true"])).output()).await?;
    assert_eq!(ended.kind(), &ErrorKind::InvalidState, "{}", ended.report());
    assert_eq!(exiting.remove(RemoveOptions::default()).await?, Outcome::Done);
    // Docker's: files of a running container are the owner's.
    let going = both.container(3).await?;
    let removed = going.wait_for(WaitCondition::Removed).await?;
    going.kill(Signal::KILL).await?;
    assert_eq!(removed.await?.status.code(), 137);
    until("nothing is left", async || {
        let all = ListOptions {
            all: true,
            filter: Filter::default(),
        };
        Ok(both.engine.list(all).await?.is_empty())
    })
    .await
}

async fn g10_another_process_s_container_that_waits_for_its_restart() -> Check {
    let both = Both::new(&["failing"]).await?;
    let failing = both.container(0).await?;
    // Pauses double from a tenth of a second: soon it waits most of the time.
    until("it waits for its restart", async || {
        let info = failing.inspect().await?;
        Ok(info.state == ContainerState::Restarting && info.restart_count > 3)
    })
    .await?;
    assert_eq!(failing.stop(StopOptions::default()).await?, Outcome::Done);
    let info = failing.inspect().await?;
    assert_eq!(info.state, ContainerState::Exited);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(
        failing.inspect().await?.restart_count,
        info.restart_count,
        "it was started again"
    );
    failing.remove(RemoveOptions::default()).await?;
    Ok(())
}

async fn g1_an_owner_that_stands_still_or_dies() -> Check {
    let mut both = Both::new(&["sleeper", "cat"]).await?;
    let (sleeper, cat) = (both.container(0).await?, both.container(1).await?);
    let mut attached = cat.attach(AttachOptions::default()).await?;
    let running = sleeper.exec(ExecSpec::new(["sleep", "1000"])).await?;
    let waited = running.wait();
    both.signal(nix::sys::signal::Signal::SIGSTOP)?;
    let begun = Instant::now();
    let hasty = failure(sleeper.within(Duration::from_millis(300)).rename("late")).await?;
    assert_eq!(hasty.kind(), &ErrorKind::Timeout);
    assert!(begun.elapsed() < Duration::from_secs(5));
    let patient = failure(sleeper.rename("late")).await?;
    assert_eq!(patient.kind(), &ErrorKind::Unavailable, "{}", patient.report());
    assert!(
        patient.report().contains("another live process"),
        "{}",
        patient.report()
    );
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    // What needs nobody goes on.
    assert_eq!(sleeper.inspect().await?.state, ContainerState::Running);
    both.signal(nix::sys::signal::Signal::SIGCONT)?;
    sleeper.rename("in-time").await?;
    both.owner.kill()?;
    let broken = tokio::time::timeout(PATIENCE, waited).await?;
    let broken = broken.expect_err("the end of a command that nobody saw");
    assert!(
        matches!(broken.kind(), ErrorKind::Unavailable | ErrorKind::NotFound),
        "{}",
        broken.report()
    );
    // Readers come to their end.
    assert!(read(&mut attached, usize::MAX).await?.is_empty());
    let gone = failure(sleeper.rename("gone")).await?;
    assert!(
        matches!(gone.kind(), ErrorKind::Unavailable | ErrorKind::NotFound),
        "{}",
        gone.report()
    );
    until("it goes with its owner", async || {
        Ok(both.engine.container(sleeper.id().as_str()).await.is_err())
    })
    .await
}

/// Runs commands in another process' container, of whose ends it never waits for the last.
fn role_ask(arguments: &[String]) -> i32 {
    let [root, id] = arguments else { return 2 };
    role(async {
        let engine = Engine::open(root).await?;
        let container = engine.container(id).await?;
        println!("open");
        loop {
            container.exec(ExecSpec::new(["true"])).output().await?;
            let running = container.exec(ExecSpec::new(["cat"]).stdin(true)).await?;
            drop(running);
        }
    })
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

async fn g3_an_asker_that_goes_away_leaves_no_command() -> Check {
    let both = Both::new(&["sleeper"]).await?;
    let container = both.container(0).await?;
    container.exec(ExecSpec::new(["true"])).output().await?;
    let before = descriptors(both.owner.pid());
    for round in 0..10u64 {
        let root = both.root.path().to_str().unwrap_or_default();
        let mut asker = Embedder::start("ask-forever", &[root, &both.ids[0]])?;
        assert_eq!(asker.line(PATIENCE)?, "open");
        tokio::time::sleep(Duration::from_millis(round * 7)).await;
        asker.kill()?;
    }
    // Futures that are dropped at moments spread over the whole, whose command would never end by itself.
    for round in 0..60u64 {
        let running = container.exec(ExecSpec::new(["cat"]).stdin(true)).output();
        let _ = tokio::time::timeout(Duration::from_micros(round * 150), running).await;
    }
    until("all commands have ended", async || {
        Ok(container.top(&[]).await?.processes.len() == 1)
    })
    .await?;
    until("all connections are closed", async || {
        Ok(descriptors(both.owner.pid()) <= before + 2)
    })
    .await?;
    // Its owner hears others still.
    let out = container.exec(ExecSpec::new(["echo", "here"])).output().await?;
    assert_eq!(text(&out.stdout), "here");
    container.kill(Signal::KILL).await?;
    Ok(())
}

fn role_attach(arguments: &[String]) -> i32 {
    let [root, id] = arguments else { return 2 };
    role(async {
        let engine = Engine::open(root).await?;
        let attached = engine.container(id).await?.attach(AttachOptions::default()).await?;
        let input = attached.input.as_ref().expect("stdin");
        input.write("of one that is killed\n").await?;
        input.flush().await?;
        println!("attached");
        std::future::pending::<()>().await;
        drop(attached);
        Ok(())
    })
}

async fn g4_an_asker_that_goes_away_leaves_stdin_open() -> Check {
    let both = Both::new(&["cat"]).await?;
    let cat = both.container(0).await?;
    let root = both.root.path().to_str().unwrap_or_default();
    for _ in 0..3 {
        let mut asker = Embedder::start("attach-forever", &[root, &both.ids[0]])?;
        assert_eq!(asker.line(PATIENCE)?, "attached");
        asker.kill()?;
    }
    let mut attached = cat.attach(AttachOptions::default()).await?;
    let input = attached.input.take().expect("stdin");
    input.write("still open\n").await?;
    let mut seen = String::new();
    while !seen.contains("still open") {
        seen.push_str(&text(&read(&mut attached, 1).await?));
    }
    drop(input);
    assert_eq!(cat.wait().await?.status.code(), 0);
    Ok(())
}

/// Hands an end of something in at a door, once there is room for it.
fn hand_in(door: &Path, end: &impl AsRawFd) -> Check {
    let socket = UnixDatagram::unbound()?;
    socket.connect(door)?;
    let (text, ends) = ([IoSlice::new(b"k")], [end.as_raw_fd()]);
    sendmsg::<()>(
        socket.as_raw_fd(),
        &text,
        &[ControlMessage::ScmRights(&ends)],
        MsgFlags::empty(),
        None,
    )?;
    Ok(())
}

/// Connections that say this and wait.
fn knock(door: &Path, said: &[u8], times: usize) -> Result<Vec<UnixStream>, Stop> {
    let mut all = Vec::new();
    for _ in 0..times {
        let (mut ours, theirs) = UnixStream::pair()?;
        ours.write_all(said)?;
        hand_in(door, &theirs)?;
        all.push(ours);
    }
    Ok(all)
}

async fn g1_strangers_at_an_owner_s_door() -> Check {
    let both = Both::new(&["sleeper"]).await?;
    let container = both.container(0).await?;
    let door = both.door()?;
    let id = &both.ids[0];
    // A name that is short enough for a socket: those of temporary directories may be too long.
    let dir = std::fs::File::open(door.parent().expect("a directory"))?;
    let door = PathBuf::from(format!("/proc/self/fd/{}/door", dir.as_raw_fd()));
    let question = |verb: &str, about: &str, with: &str| {
        let text = format!("{verb}\n{about}\n{with}");
        let mut bytes = u32::try_from(text.len()).unwrap_or(0).to_le_bytes().to_vec();
        bytes.push(1);
        bytes.extend(text.as_bytes());
        bytes
    };
    let nonsense: [&[u8]; 8] = [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 64],
        &[5, 0, 0, 0, 1, b'a'],
        &question("rename", id, "a b"),
        &question("update", id, "{\"memory\": \"much\"}"),
        &question("attach", id, "[]"),
        &question("format", id, "/"),
    ];
    let mut held = Vec::new();
    for said in nonsense {
        held.extend(knock(&door, said, 20)?);
    }
    // What is no connection, or nobody's that may ask.
    let file = std::fs::File::open("/proc/self/status")?;
    let network = std::net::UdpSocket::bind("127.0.0.1:0")?;
    let (message, _other) = UnixDatagram::pair()?;
    for _ in 0..20 {
        hand_in(&door, &file)?;
        hand_in(&door, &network)?;
        hand_in(&door, &message)?;
    }
    let empty = UnixDatagram::unbound()?;
    empty.connect(&door)?;
    empty.send(b"")?;
    empty.send(&[7; 9000])?;
    assert_eq!(container.exec(sh("exit 5")).output().await?.status.code(), 5);
    // More than are heard at a time: whoever says nothing is sent away, and then it is the next one's turn.
    held.extend(knock(&door, b"", 300)?);
    let begun = Instant::now();
    let out = loop {
        match container.exec(sh("exit 6")).output().await {
            Err(error) if error.kind() == &ErrorKind::Unavailable && begun.elapsed() < PATIENCE => {}
            other => break other?,
        }
    };
    assert_eq!(out.status.code(), 6);
    assert_eq!(container.inspect().await?.name.as_str(), "sleeper");
    drop(held);
    container.kill(Signal::KILL).await?;
    Ok(())
}
