//! Commands in running containers, and attached streams.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt as _;
use longshore::containers::{AttachOptions, Attached, ExecSpec, SlowReader};
use longshore::logs::{LogStream, TeeItem};
use longshore::types::Signal;
use longshore::{Container, ContainerSpec, ErrorKind, WaitCondition};

use crate::frame::{Check, Stop, fail};
use crate::support::embedder::{Embedder, Role};
use crate::support::leaks::Snapshot;
use crate::support::patience::until;
use crate::support::runtime;
use crate::support::world::{FORCE, World, text};
use crate::tests;

tests! { "exec":
    kernel_async [
        g2_wait_conditions,
        g3_a_command_runs_beside_the_first,
        g3_exit_codes_are_exact,
        g3_fifty_at_once,
        g3_what_cannot_run_says_why,
        g3_users_groups_and_directories,
        g3_rights_are_the_containers,
        g3_nothing_of_the_host_is_open_inside,
        g3_nothing_with_more_rights_is_ever_seen_inside,
        g3_into_a_user_namespace_of_its_own,
        g3_stdin_loses_no_byte_and_closes,
        g3_a_terminal_with_a_size,
        g3_a_dropped_start_leaves_nothing,
        g3_it_ends_with_its_container,
        g3_it_counts_against_the_containers_limits,
        g4_the_first_and_last_byte,
        g4_logs_then_live_without_gap_or_duplicate,
        g4_attached_before_a_second_start,
        g4_a_reader_that_is_waited_for_holds_the_container,
        g4_several_writers_one_stdin,
    ]
    kernel [
        g3_a_killed_embedder_leaves_nothing_of_an_exec,
    ]
}

pub const ROLES: &[(&str, Role)] = &[("exec-forever", role_exec_forever)];

async fn sleeper(world: &World) -> Result<Container, Stop> {
    world
        .started(world.spec().command(["sleep", "1000"]).stop_signal(Signal::KILL))
        .await
}

fn sh(script: &str) -> ExecSpec {
    ExecSpec::new(["sh", "-c", script])
}

/// What a command prints that must end well.
async fn says(container: &Container, spec: ExecSpec) -> Result<String, Stop> {
    let output = container.exec(spec).output().await?;
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    fail(format!("{}: {}", output.status, text(&output.stderr)))
}

async fn bytes(attached: Attached) -> Result<Vec<u8>, Stop> {
    let (mut all, mut output) = (Vec::new(), attached.output);
    while let Some(item) = output.next().await {
        match item {
            TeeItem::Chunk(chunk) => all.extend_from_slice(&chunk.bytes),
            other => return fail(format!("{other:?}")),
        }
    }
    Ok(all)
}

async fn g2_wait_conditions() -> Check {
    let world = World::new().await?;
    for _ in 0..20 {
        let container = world.engine.create(world.script("exit 3")).await?;
        let never = container.wait_for(WaitCondition::NotRunning).await?.await?;
        assert_eq!(never.status.code(), 0, "it does not run");
        let next = container.wait_for(WaitCondition::NextExit).await?;
        let exited = container.wait_for(WaitCondition::Exited).await?;
        let removed = container.wait_for(WaitCondition::Removed).await?;
        container.start().await?;
        assert_eq!(next.await?.status.code(), 3);
        assert_eq!(exited.await?.status.code(), 3);
        assert_eq!(
            container
                .wait_for(WaitCondition::NotRunning)
                .await?
                .await?
                .status
                .code(),
            3
        );
        let again = container.wait_for(WaitCondition::NextExit).await?;
        container.start().await?;
        assert_eq!(again.await?.status.code(), 3);
        container.remove(FORCE).await?;
        assert_eq!(removed.await?.status.code(), 3);
    }
    let container = world.engine.create(world.spec()).await?;
    let (removed, next) = (
        container.wait_for(WaitCondition::Removed).await?,
        container.wait_for(WaitCondition::NextExit).await?,
    );
    container.remove(FORCE).await?;
    assert_eq!(removed.await?.status.code(), 0);
    assert!(next.await.expect_err("it never ran").is_not_found());
    Ok(())
}

async fn g3_a_command_runs_beside_the_first() -> Check {
    runtime::mounts()?;
    let world = World::new().await?;
    let container = world
        .started(
            world
                .spec()
                .command(["sleep", "1000"])
                .env("A", "container")
                .env("B", "container"),
        )
        .await?;
    let spec = sh("echo $A $B; pwd; echo err >&2; readlink /proc/1/exe; tr '\\0' ' ' < /proc/1/cmdline")
        .env("B", "exec")
        .working_dir("/tmp");
    let output = container.exec(spec).output().await?;
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "container exec\n/tmp\n/bin/busybox\nsleep 1000");
    assert_eq!(output.stderr, b"err\n");
    // Every namespace is the container's.
    let names = "for n in mnt pid ipc uts net cgroup user; do readlink /proc/self/ns/$n; done";
    let own = says(&container, sh(names)).await?;
    let first = says(&container, sh(&names.replace("self", "1"))).await?;
    assert_eq!(own, first);
    container.remove(FORCE).await?;
    Ok(())
}

async fn g3_exit_codes_are_exact() -> Check {
    let world = World::new().await?;
    let container = sleeper(&world).await?;
    for round in 0..200u32 {
        let code = (round % 256) as u8;
        let output = container
            .exec(sh(&format!("echo {round}; exit {code}")))
            .output()
            .await?;
        assert_eq!(output.status.code(), i32::from(code));
        assert_eq!(text(&output.stdout), round.to_string());
    }
    let killed = container.exec(sh("kill -9 $$")).output().await?;
    assert_eq!((killed.status.code(), killed.status.signal()), (137, Some(9)));
    // No zombie stays, neither in the container nor of the zygote.
    let left = says(
        &container,
        ExecSpec::new(["sh", "-c", "grep -l '^State:.Z' /proc/[0-9]*/status | wc -l"]),
    )
    .await?;
    assert_eq!(left, "0");
    container.remove(FORCE).await?;
    Ok(())
}

async fn g3_fifty_at_once() -> Check {
    let world = World::new().await?;
    let container = sleeper(&world).await?;
    let runs = (0..50).map(|number| {
        let spec = sh(&format!("echo {number}; exit {number}"));
        container.exec(spec).output()
    });
    for (number, output) in futures_util::future::join_all(runs).await.into_iter().enumerate() {
        let output = output?;
        assert_eq!(output.status.code(), number as i32);
        assert_eq!(text(&output.stdout), number.to_string());
    }
    container.remove(FORCE).await?;
    Ok(())
}

async fn g3_what_cannot_run_says_why() -> Check {
    let world = World::new().await?;
    let container = sleeper(&world).await?;
    let kind = async |spec: ExecSpec| {
        container
            .exec(spec)
            .output()
            .await
            .map(|_| ())
            .map_err(|error| error.kind().clone())
    };
    assert_eq!(kind(ExecSpec::new(["nope"])).await, Err(ErrorKind::CommandNotFound));
    assert_eq!(
        kind(ExecSpec::new(["/etc"])).await,
        Err(ErrorKind::CommandNotExecutable)
    );
    assert_eq!(
        kind(ExecSpec::new(["/etc/passwd"])).await,
        Err(ErrorKind::CommandNotExecutable)
    );
    assert_eq!(
        kind(ExecSpec::new(["true"]).user("nobody-here")).await,
        Err(ErrorKind::NotFound)
    );
    assert!(kind(ExecSpec::new(["true"]).working_dir("/not/there")).await.is_err());
    let made = says(&container, sh("ls -d /not || echo none")).await?;
    assert_eq!(made, "none", "a missing directory is not made");
    let none: [&str; 0] = [];
    assert_eq!(kind(ExecSpec::new(none)).await, Err(ErrorKind::InvalidArgument));
    container.kill(Signal::KILL).await?;
    container.wait().await?;
    assert_eq!(kind(ExecSpec::new(["true"])).await, Err(ErrorKind::InvalidState));
    container.remove(FORCE).await?;
    Ok(())
}

async fn g3_users_groups_and_directories() -> Check {
    let world = World::new().await?;
    if world.ownership().await? == "squashed" {
        return crate::frame::skip("one id is mapped: no other user");
    }
    let container = world
        .started(world.spec().command(["sleep", "1000"]).user("1000:1000").group("50"))
        .await?;
    assert_eq!(
        says(&container, sh("id -u; id -g; id -G")).await?,
        "1000\n1000\n1000 50"
    );
    assert_eq!(says(&container, sh("id -u; id -g").user("0:7")).await?, "0\n7");
    let refused = container.exec(sh("echo x > /etc/x")).output().await?;
    assert!(!refused.status.success(), "an ordinary user writes");
    container.remove(FORCE).await?;
    Ok(())
}

async fn g3_rights_are_the_containers() -> Check {
    let world = World::new().await?;
    let spec = world
        .spec()
        .command(["sleep", "1000"])
        .cap_drop("NET_RAW")
        .no_new_privileges(true);
    let container = world.started(spec.ulimit("nofile", 100, 200)).await?;
    let status = "grep -E '^(Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs|Seccomp):' /proc/PID/status; ulimit -Hn";
    // runc's own runtime raises the soft one, now and then after it was set (before its version 1.1.13).
    let soft = if runtime::is_external() { "" } else { "; ulimit -n" };
    let of = |pid: &str| sh(&(status.replace("PID", pid) + soft));
    let (own, first) = (says(&container, of("self")).await?, says(&container, of("1")).await?);
    assert_eq!(own, first);
    let all = says(&container, of("self").privileged(true)).await?;
    assert_ne!(all, own);
    // With one mapped id there is a filter still, which denies nothing.
    let none = if world.ownership().await? == "squashed" {
        "Seccomp:\t2"
    } else {
        "Seccomp:\t0"
    };
    assert!(all.contains(none), "{all}");
    container.remove(FORCE).await?;
    Ok(())
}

async fn g3_nothing_of_the_host_is_open_inside() -> Check {
    runtime::mounts()?;
    let world = World::new().await?;
    let container = sleeper(&world).await?;
    let listed = says(
        &container,
        sh("ls /proc/self/fd; readlink /proc/self/cwd; readlink /proc/self/root"),
    )
    .await?;
    let mut lines: Vec<&str> = listed.lines().collect();
    // The listing holds a descriptor of its own.
    lines.retain(|line| *line != "3");
    assert_eq!(lines, ["0", "1", "2", "/", "/"]);
    // CVE-2024-21626: a directory reached by way of a descriptor.
    for number in 3..12 {
        let dir = format!("/proc/self/fd/{number}");
        let leaked = container.exec(sh("pwd").working_dir(dir)).output().await;
        assert!(leaked.is_err(), "descriptor {number} leads somewhere: {leaked:?}");
    }
    container.remove(FORCE).await?;
    Ok(())
}

/// CVE-2016-9962 and its kin: what a program of the container sees of an exec has no more rights than it, from the first
/// moment on.
async fn g3_nothing_with_more_rights_is_ever_seen_inside() -> Check {
    runtime::native_alone("commands that have no more rights from the first moment on")?;
    let world = World::new().await?;
    let watch = "until [ -e /stop ]; do cat /proc/[0-9]*/status 2>/dev/null; done | grep -E '^CapPrm' | sort -u > /seen; sleep 100";
    let container = world.started(world.script(watch).stop_signal(Signal::KILL)).await?;
    for _ in 0..100 {
        assert!(container.exec(ExecSpec::new(["true"])).output().await?.status.success());
    }
    let seen = says(
        &container,
        sh("touch /stop; until [ -s /seen ]; do sleep 0.01; done; cat /seen"),
    )
    .await?;
    assert_eq!(seen.lines().count(), 1, "{seen}");
    container.remove(FORCE).await?;
    Ok(())
}

async fn g3_into_a_user_namespace_of_its_own() -> Check {
    let world = World::new().await?;
    let spec = world.spec().command(["sleep", "1000"]).user_namespace(true);
    let container = match world.engine.run(spec.stop_signal(Signal::KILL)).await {
        Err(error) if error.is_unsupported() => return crate::frame::skip(error.report()),
        other => other?,
    };
    let of =
        |pid: &str| format!("cat /proc/{pid}/uid_map; readlink /proc/{pid}/ns/user; grep CapEff /proc/{pid}/status");
    let own = says(&container, sh(&of("self"))).await?;
    assert_eq!(own, says(&container, sh(&of("1"))).await?);
    assert_eq!(says(&container, sh("id -u; touch /x && echo wrote")).await?, "0\nwrote");
    container.remove(FORCE).await?;
    Ok(())
}

async fn g3_stdin_loses_no_byte_and_closes() -> Check {
    const SIZE: usize = 10 << 20;
    let world = World::new().await?;
    let container = sleeper(&world).await?;
    let sent: Vec<u8> = (0..SIZE).map(|at| (at % 251) as u8).collect();
    let output = container
        .exec(ExecSpec::new(["cat"]))
        .input(sent.clone())
        .output()
        .await?;
    assert!(output.status.success());
    assert!(
        output.stdout == sent,
        "{} of {SIZE} bytes came back",
        output.stdout.len()
    );
    let empty = container.exec(ExecSpec::new(["cat"])).output().await?;
    assert_eq!(
        (empty.status.code(), empty.stdout.len()),
        (0, 0),
        "without stdin it is empty"
    );
    // Output goes on after stdin was closed.
    let after = container.exec(sh("cat; echo after")).input("before\n").output().await?;
    assert_eq!(text(&after.stdout), "before\nafter");
    container.remove(FORCE).await?;
    Ok(())
}

async fn g3_a_terminal_with_a_size() -> Check {
    let world = World::new().await?;
    let container = sleeper(&world).await?;
    let spec = sh("tty; stty size; read line; stty size; echo got $line $TERM")
        .tty(true)
        .stdin(true)
        .tty_size(30, 100);
    let mut running = container.exec(spec).slow(SlowReader::Keep).await?;
    let input = running.attached.input.take().expect("stdin");
    running.resize(40, 120).await?;
    input.write("hello\n").await?;
    let mut seen = Vec::new();
    while let Some(TeeItem::Chunk(chunk)) = running.attached.output.next().await {
        assert_eq!(chunk.stream, LogStream::Stdout);
        seen.extend_from_slice(&chunk.bytes);
    }
    let seen = text(&seen);
    // Without mounts its name leads nowhere.
    let named = seen.contains("/dev/pts/") || runtime::chosen() == Some("chroot");
    assert!(
        named && seen.contains("40 120") && seen.contains("got hello xterm"),
        "{seen:?}"
    );
    assert_eq!(running.wait().await?.code(), 0);
    let gone = running.resize(1, 1).await.expect_err("it has ended");
    assert_eq!(gone.kind(), &ErrorKind::InvalidState);
    container.remove(FORCE).await?;
    Ok(())
}

async fn g3_a_dropped_start_leaves_nothing() -> Check {
    let world = World::new().await?;
    let container = sleeper(&world).await?;
    let containers = world.engine.containers();
    for delay in 0..40u64 {
        let exec = containers
            .exec_create(container.id().as_str(), ExecSpec::new(["sleep", "999"]))
            .await?;
        let start = containers.exec_start(&exec.id, AttachOptions::default());
        if tokio::time::timeout(Duration::from_micros(delay * 50), start)
            .await
            .is_ok()
        {
            // It came in time; then it runs, and is ended in another way.
            let pid = containers.exec_inspect(&exec.id).await?.pid.expect("it runs");
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::SIGKILL)?;
            assert_eq!(containers.exec_wait(&exec.id).await?.signal(), Some(9));
        }
    }
    for _ in 0..100 {
        if !says(&container, ExecSpec::new(["ps"])).await?.contains("sleep 999") {
            container.remove(FORCE).await?;
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fail("a command that nobody waits for runs on")
}

async fn g3_it_ends_with_its_container() -> Check {
    let world = World::new().await?;
    let container = sleeper(&world).await?;
    let running = container.exec(ExecSpec::new(["sleep", "999"])).await?;
    let info = running.inspect().await?;
    assert!(info.running && info.pid.is_some(), "{info:?}");
    assert_eq!(container.inspect().await?.execs, [running.id().to_owned()]);
    container.kill(Signal::KILL).await?;
    assert_eq!(running.wait().await?.signal(), Some(9));
    let info = running.inspect().await?;
    assert_eq!(
        (info.running, info.status.map(|status| status.code())),
        (false, Some(137))
    );
    container.remove(FORCE).await?;
    assert!(
        running
            .inspect()
            .await
            .expect_err("it went with its container")
            .is_not_found()
    );
    Ok(())
}

async fn g3_it_counts_against_the_containers_limits() -> Check {
    let world = World::new().await?;
    let limited = world
        .engine
        .run(world.spec().command(["sleep", "1000"]).pids_limit(5))
        .await;
    let container = match limited {
        Err(error) if error.is_unsupported() => return crate::frame::skip(error.report()),
        other => other?,
    };
    let bomb = "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait; echo all";
    let output = container.exec(sh(bomb)).output().await?;
    assert!(!text(&output.stdout).contains("all"), "{output:?}");
    container.remove(FORCE).await?;
    Ok(())
}

async fn g4_the_first_and_last_byte() -> Check {
    let world = World::new().await?;
    for round in 0..100 {
        let spec = world.spec().command(["echo", "hi"]).auto_remove(true);
        let container = world.engine.create(spec).await?;
        let attached = container.attach(AttachOptions::default()).await?;
        let gone = container.wait_for(WaitCondition::Removed).await?;
        container.start().await?;
        assert_eq!(bytes(attached).await?, b"hi\n", "round {round}");
        assert_eq!(gone.await?.status.code(), 0);
    }
    Ok(())
}

async fn g4_logs_then_live_without_gap_or_duplicate() -> Check {
    let world = World::new().await?;
    let script = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; printf begun; until [ -e /go ]; do sleep 0.01; done; echo ' ended'";
    let whole: String = (0..3000).map(|at| format!("line {at}\n")).collect::<String>() + "begun ended\n";
    let container = world.engine.create(world.script(script)).await?;
    container.start().await?;
    let with_log = AttachOptions {
        slow: SlowReader::Keep,
        logs: true,
    };
    let mut readers = Vec::new();
    for _ in 0..30 {
        readers.push(container.attach(with_log).await?);
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    // The container ends at that, and may take the command along before it has ended by itself.
    container.exec(sh("touch /go")).output().await?;
    container.wait().await?;
    for (number, reader) in readers.into_iter().enumerate() {
        let seen = bytes(reader).await?;
        assert!(
            seen == whole.as_bytes(),
            "reader {number} saw {} of {} bytes",
            seen.len(),
            whole.len()
        );
    }
    container.remove(FORCE).await?;
    Ok(())
}

async fn g4_attached_before_a_second_start() -> Check {
    let world = World::new().await?;
    let container = world
        .engine
        .create(world.script("read a; echo $a").open_stdin(true))
        .await?;
    for word in ["one", "two", "three"] {
        let mut attached = container.attach(AttachOptions::default()).await?;
        let input = attached.input.take().expect("stdin");
        input.write(format!("{word}\n")).await?;
        container.start().await?;
        assert_eq!(bytes(attached).await?, format!("{word}\n").as_bytes());
        container.wait().await?;
    }
    let whole = AttachOptions {
        slow: SlowReader::Keep,
        logs: true,
    };
    let mut attached = container.attach(whole).await?;
    let mut seen = Vec::new();
    // What waits for the next start ends with the container, and with it what nobody has read yet.
    while seen.len() < b"one\ntwo\nthree\n".len() {
        match attached.output.next().await {
            Some(TeeItem::Chunk(chunk)) => seen.extend_from_slice(&chunk.bytes),
            other => return fail(format!("{other:?} after {seen:?}")),
        }
    }
    container.remove(FORCE).await?;
    seen.extend(bytes(attached).await?);
    assert_eq!(seen, b"one\ntwo\nthree\n", "all that was ever logged");
    Ok(())
}

async fn g4_a_reader_that_is_waited_for_holds_the_container() -> Check {
    const BLOCKS: usize = 64;
    let world = World::new().await?;
    let script = format!("dd if=/dev/zero bs=64k count={BLOCKS} 2>/dev/null; touch /done; sleep 1000");
    let container = world.engine.create(world.script(&script)).await?;
    let mut attached = container.attach(AttachOptions::slow(SlowReader::Wait)).await?;
    container.start().await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let done = async || {
        container
            .exec(sh("test -e /done"))
            .output()
            .await
            .map(|output| output.status.success())
    };
    assert!(!done().await?, "4 MiB went by a reader that took nothing");
    let mut seen = 0;
    while seen < BLOCKS << 16 {
        match attached.output.next().await {
            Some(TeeItem::Chunk(chunk)) => seen += chunk.bytes.len(),
            other => return fail(format!("{other:?}")),
        }
    }
    until("it goes on once it was read", async || Ok(done().await?)).await?;
    container.remove(FORCE).await?;
    // And without the reader.
    let container = world.engine.create(world.script(&script)).await?;
    let attached = container.attach(AttachOptions::slow(SlowReader::Wait)).await?;
    container.start().await?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(attached);
    until("a reader that went away does not hold the container up", async || {
        Ok(container.exec(sh("test -e /done")).output().await?.status.success())
    })
    .await?;
    container.remove(FORCE).await?;
    Ok(())
}

async fn g4_several_writers_one_stdin() -> Check {
    let world = World::new().await?;
    let container = world.started(world.spec().command(["cat"]).open_stdin(true)).await?;
    let mut first = container.attach(AttachOptions::default()).await?;
    let mut second = container.attach(AttachOptions::default()).await?;
    let (one, two) = (first.input.take().expect("stdin"), second.input.take().expect("stdin"));
    one.write("a\n").await?;
    // It lets go, and stdin stays open.
    one.detach();
    two.write("b\n").await?;
    let three = container.attach(AttachOptions::default()).await?.input.expect("stdin");
    drop(two);
    three.write("c\n").await?;
    drop(three);
    let seen = (bytes(first).await?, bytes(second).await?);
    assert_eq!(seen.0, seen.1);
    let lines: BTreeSet<_> = text(&seen.0).lines().map(str::to_owned).collect();
    assert_eq!(lines, ["a", "b", "c"].map(str::to_owned).into());
    assert_eq!(container.wait().await?.status.code(), 0);
    container.remove(FORCE).await?;
    Ok(())
}

fn role_exec_forever(arguments: &[String]) -> i32 {
    let root = arguments.first().cloned().unwrap_or_default();
    let run = async move {
        let engine = runtime::builder(Path::new(&root)).open().await?;
        let spec = runtime::with_a_network(ContainerSpec::image("busybox"));
        let container = engine.run(spec.command(["sleep", "1000"])).await?;
        println!("open");
        loop {
            let _running = container.exec(ExecSpec::new(["sleep", "1000"])).await?;
            container.exec(ExecSpec::new(["true"])).output().await?;
        }
        #[allow(unreachable_code)]
        longshore::Result::Ok(())
    };
    let ended: longshore::Result<()> = crate::frame::block_on(run);
    i32::from(ended.is_err())
}

fn g3_a_killed_embedder_leaves_nothing_of_an_exec() -> Check {
    let root = crate::faults::filled_root()?;
    let before = Snapshot::take();
    for round in 0..10u64 {
        let mut embedder = Embedder::start("exec-forever", &[root.path().to_str().unwrap_or_default()])?;
        assert_eq!(embedder.line(Duration::from_secs(20))?, "open");
        std::thread::sleep(Duration::from_millis(round * 7));
        embedder.kill()?;
        drop(embedder);
        let leaks = before.leaks_within(Duration::from_secs(2));
        assert!(leaks.is_empty(), "round {round} left:\n  {}", leaks.join("\n  "));
    }
    Ok(())
}
