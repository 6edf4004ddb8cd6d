//! Containers without namespaces: as root on this host, and as the root of an ordinary container, whose seccomp profile grants no
//! namespaces and no mounts.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use futures_util::StreamExt as _;
use longshore::containers::{AttachOptions, CopyInOptions, SlowReader, Tmpfs};
use longshore::logs::TeeItem;
use longshore::probe::probe;
use longshore::types::Signal;
use longshore::{
    Bytes, Container, ContainerSpec, ContainerState, Engine, ErrorKind, ExecSpec, Lifetime, MountSpec, NetworkMode,
    StopOptions,
};

use crate::copy::stream_of;
use crate::frame::{Check, Stop, block_on, fail, skip};
use crate::support::embedder::{Embedder, Role};
use crate::support::leaks::Snapshot;
use crate::support::patience::{PATIENCE, until, until_now};
use crate::support::root::TempRoot;
use crate::support::runtime::no_namespaces;
use crate::support::world::{FORCE, World, source, text};
use crate::support::{image, is_root, program, scratch};
use crate::tests;

tests! { "chroot":
    kernel_async [
        h21_chroot_runs_a_container,
        h21_chroot_runs_commands,
        h21_chroot_has_terminals,
        h21_chroot_keeps_a_container_in,
        h21_chroot_ends_what_is_left_behind,
        h21_chroot_ends_a_container_without_its_warden,
        h21_chroot_ends_a_container_that_stops_its_warden,
        h21_chroot_ends_a_container_without_its_helper,
        h21_chroot_ends_with_its_engine,
        h21_chroot_has_limits_where_there_are_cgroups,
        h21_chroot_names_what_it_cannot,
        h21_chroot_traces_nobody_outside,
        h21_chroot_is_for_whole_engines,
        h21_chroot_copies_and_tells_processes,
        h21_chroot_by_the_client,
        k7_the_root_of_an_ordinary_container_has_chroot,
        k7_chroot_is_for_root,
    ]
    kernel [
        h21_a_killed_embedder_leaves_nothing_of_chroot,
    ]
}

pub const ROLES: &[(&str, Role)] = &[
    ("chroot-within", |arguments| {
        match block_on(within(Path::new(&arguments[0]))) {
            Ok(()) => {
                println!("all of it");
                0
            }
            Err(Stop::Skip(why) | Stop::Fail(why)) => {
                println!("{why}");
                1
            }
        }
    }),
    ("chroot-forever", role_forever),
];

async fn open(root: &Path) -> Result<Engine, Stop> {
    Ok(Engine::builder(root).default_runtime("chroot").open().await?)
}

async fn world() -> Result<World, Stop> {
    if !is_root() {
        return skip("containers without namespaces are for root");
    }
    let root = TempRoot::new();
    let engine = open(root.path()).await?;
    let image = engine.pull(source(image::shared()?)).await?;
    Ok(World { engine, image, root })
}

fn script(world: &World, text: &str) -> ContainerSpec {
    world.script(text).network(NetworkMode::Host)
}

async fn sleeper(world: &World) -> Result<Container, Stop> {
    let spec = world.spec().command(["sleep", "1000"]).network(NetworkMode::Host);
    world.started(spec.stop_signal(Signal::KILL)).await
}

/// A field of a process' status.
fn status_of(pid: u32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let found = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    found.unwrap_or_default().trim().to_owned()
}

async fn pid_of(container: &Container) -> Result<u32, Stop> {
    match container.inspect().await?.pid {
        Some(pid) => Ok(pid),
        None => fail("it does not run"),
    }
}

/// Whether any process has this among its arguments.
fn runs(argument: &str) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|process| fs::read_to_string(process.path().join("cmdline")).ok())
        .any(|line| line.split('\0').any(|word| word == argument))
}

async fn h21_chroot_runs_a_container() -> Check {
    let world = world().await?;
    let info = world.engine.system().info().await?;
    assert_eq!((info.runtime.as_str(), info.storage_driver.as_str()), ("chroot", "vfs"));
    let told = |warning: &String| warning.contains("keeps files apart");
    assert!(info.warnings.iter().any(told), "{:?}", info.warnings);
    lifecycle(&world).await
}

/// From create to remove, with output, status, users and signals. Nothing of it needs device nodes that work.
async fn lifecycle(world: &World) -> Check {
    let output = world.output(script(world, "echo out; echo err >&2; exit 7")).await?;
    assert_eq!(
        (output.status.code(), text(&output.stdout), text(&output.stderr)),
        (7, "out".to_owned(), "err".to_owned())
    );
    let spec = script(world, "read line; echo got $line; exit 3").open_stdin(true);
    let container = world.engine.create(spec).await?;
    assert_eq!(container.inspect().await?.spec.runtime.as_deref(), Some("chroot"));
    for _ in 0..2 {
        let mut attached = container.attach(AttachOptions::slow(SlowReader::Keep)).await?;
        container.start().await?;
        attached.input.take().expect("stdin").write("hello\n").await?;
        let mut seen = Vec::new();
        while let Some(item) = attached.output.next().await {
            if let TeeItem::Chunk(chunk) = item {
                seen.extend_from_slice(&chunk.bytes);
            }
        }
        assert_eq!(text(&seen), "got hello");
        assert_eq!(container.wait().await?.status.code(), 3);
    }
    container.remove(FORCE).await?;
    // Without stdin there is nothing to read, and nobody waits.
    assert_eq!(
        world.says(script(world, "cat; echo end; ls /proc | wc -l")).await?,
        "end\n0"
    );
    let user = script(world, "id -u; id -g; umask; ulimit -n").user("65534:65533");
    let said = world.says(user.ulimit("nofile", 64, 64)).await?;
    assert_eq!(said, "65534\n65533\n0022\n64");
    let container = sleeper(world).await?;
    let info = container.inspect().await?;
    assert_eq!(info.state, ContainerState::Running);
    assert!(
        info.warnings
            .iter()
            .any(|warning| warning.contains("keeps files apart")),
        "{:?}",
        info.warnings
    );
    container.kill(Signal::KILL).await?;
    let exit = container.wait().await?;
    assert_eq!((exit.status.signal(), exit.status.code()), (Some(9), 137));
    container.start().await?;
    container.stop(StopOptions::default()).await?;
    container.remove(FORCE).await?;
    for (command, kind, code) in [
        ("/nowhere/program", ErrorKind::CommandNotFound, 127),
        ("/etc", ErrorKind::CommandNotExecutable, 126),
    ] {
        let spec = world.spec().command([command]).network(NetworkMode::Host);
        let container = world.engine.create(spec).await?;
        let error = container.start().await.expect_err("it cannot run");
        assert_eq!(error.kind(), &kind, "{}", error.report());
        let exit = container.inspect().await?.exit.map(|exit| exit.status.code());
        assert_eq!(exit, Some(code));
        container.remove(FORCE).await?;
    }
    assert!(world.containers().await?.is_empty());
    Ok(())
}

async fn h21_chroot_runs_commands() -> Check {
    commands(&world().await?).await
}

async fn commands(world: &World) -> Check {
    let container = sleeper(world).await?;
    let sh = |script: &str| ExecSpec::new(["sh", "-c", script]);
    let exec = sh("echo $A; pwd; exit 5").env("A", "b").working_dir("/etc");
    let output = container.exec(exec).output().await?;
    assert_eq!((output.status.code(), text(&output.stdout)), (5, "b\n/etc".to_owned()));
    for _ in 0..3 {
        assert_eq!(
            container.exec(ExecSpec::new(["false"])).output().await?.status.code(),
            1
        );
    }
    let output = container.exec(sh("kill -TERM $$; sleep 1000")).output().await?;
    assert_eq!(output.status.signal(), Some(15));
    let mut running = container
        .exec(ExecSpec::new(["cat"]).stdin(true))
        .slow(SlowReader::Keep)
        .await?;
    running.attached.input.take().expect("stdin").write("through").await?;
    let mut seen = Vec::new();
    while let Some(TeeItem::Chunk(chunk)) = running.attached.output.next().await {
        seen.extend_from_slice(&chunk.bytes);
    }
    assert_eq!((text(&seen).as_str(), running.wait().await?.code()), ("through", 0));
    let missing = container.exec(ExecSpec::new(["nothing"])).output().await;
    let missing = missing.expect_err("no such program");
    assert_eq!(missing.kind(), &ErrorKind::CommandNotFound, "{}", missing.report());
    // Commands and the first process are in one domain of Landlock's.
    let pid = pid_of(&container).await?;
    let running = container.exec(ExecSpec::new(["sleep", "1000"])).await?;
    let killed = container.exec(sh(&format!("kill -KILL {pid}"))).output().await?;
    assert!(
        killed.status.success() || killed.status.signal() == Some(9),
        "{killed:?}"
    );
    assert_eq!(running.wait().await?.signal(), Some(9), "it ends with the container");
    assert_eq!(container.wait().await?.status.signal(), Some(9));
    let late = container
        .exec(ExecSpec::new(["true"]))
        .output()
        .await
        .expect_err("it has ended");
    assert!(
        matches!(late.kind(), ErrorKind::InvalidState | ErrorKind::Conflict),
        "{}",
        late.report()
    );
    container.remove(FORCE).await?;
    Ok(())
}

async fn h21_chroot_has_terminals() -> Check {
    let world = world().await?;
    let mut spec = script(&world, "read line; busybox stty size; echo got $line; echo > /dev/tty").tty(true);
    spec.open_stdin = true;
    let container = world.engine.create(spec).await?;
    let mut attached = container.attach(AttachOptions::slow(SlowReader::Keep)).await?;
    container.start().await?;
    container.resize(40, 100).await?;
    let exec = ExecSpec::new(["busybox", "stty", "size"]).tty(true).tty_size(30, 90);
    let beside = container.exec(exec).output().await?;
    assert_eq!(text(&beside.stdout), "30 90");
    attached.input.take().expect("stdin").write("hello\n").await?;
    let mut seen = Vec::new();
    while let Some(item) = attached.output.next().await {
        if let TeeItem::Chunk(chunk) = item {
            seen.extend_from_slice(&chunk.bytes);
        }
    }
    let seen = text(&seen);
    assert!(seen.contains("40 100") && seen.contains("got hello"), "{seen:?}");
    assert_eq!(container.wait().await?.status.code(), 0);
    container.remove(FORCE).await?;
    Ok(())
}

/// Whether the kernel keeps signals in, as its version of Landlock says.
fn has_scopes() -> bool {
    let probe = probe();
    let detail = probe
        .get("landlock")
        .map(|feature| feature.detail.clone())
        .unwrap_or_default();
    let version = detail
        .strip_prefix("version ")
        .and_then(|version| version.parse::<u32>().ok());
    version.is_some_and(|version| version >= 6)
}

async fn h21_chroot_keeps_a_container_in() -> Check {
    let world = world().await?;
    kept_in(&world).await?;
    // Nodes of its own work.
    let nodes = "echo x > /dev/null && head -c 3 /dev/zero | wc -c && test -c /dev/urandom && test -d /dev/shm && echo y > /dev/shm/y";
    assert_eq!(world.says(script(&world, nodes)).await?, "3");
    Ok(())
}

/// Ways out, each tried from within. None needs device nodes that work.
async fn kept_in(world: &World) -> Check {
    let outside = scratch::fresh("chroot");
    fs::write(outside.path().join("secret"), "of the host")?;
    let me = std::process::id();
    let tries = format!(
        "busybox chroot /bin busybox true 2>&1 && echo out; \
         busybox mknod /disk b 7 0 2>&1 && echo out; \
         cd ../../../../..; test -e {secret} && echo out; cat ..{secret} && echo out; \
         mount -t tmpfs x /tmp && echo out; busybox unshare -m true && echo out; \
         ls /proc/1 && echo out; test -e /sys/kernel && echo out; \
         kill -0 {me} && echo reached; echo tried",
        secret = outside.path().join("secret").display()
    );
    let output = world.output(script(world, &tries)).await?;
    let said = text(&output.stdout);
    assert!(!said.contains("out\n") && said.ends_with("tried"), "{said}");
    if has_scopes() {
        assert!(!said.contains("reached"), "{said}");
    }
    let container = sleeper(world).await?;
    let pid = pid_of(&container).await?;
    assert_eq!(status_of(pid, "NoNewPrivs"), "1");
    assert_eq!(status_of(pid, "Seccomp"), "2");
    let bounding = u64::from_str_radix(&status_of(pid, "CapBnd"), 16).unwrap_or(u64::MAX);
    let away = [1u64 << 18, 1 << 19, 1 << 21, 1 << 27, 1 << 2];
    assert!(away.iter().all(|capability| bounding & capability == 0), "{bounding:x}");
    assert_eq!(status_of(pid, "CapAmb"), "0000000000000000");
    let mut open: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    open.sort();
    assert_eq!(open, ["0", "1", "2"]);
    let root = fs::metadata(format!("/proc/{pid}/root"))?;
    assert_ne!(
        (root.dev(), root.ino()),
        (fs::metadata("/")?.dev(), fs::metadata("/")?.ino())
    );
    container.remove(FORCE).await?;
    moved_out(world).await
}

/// A program that begins to trace the process whose number is its argument, and ends with the error's number.
#[cfg(target_arch = "x86_64")]
fn tracer() -> Vec<u8> {
    crate::attacks::machine_code(&[
        0x48, 0x8b, 0x74, 0x24, 0x10, // mov rsi, [rsp+16]: the argument
        0x31, 0xc0, // xor eax, eax
        0x31, 0xc9, // xor ecx, ecx
        0x8a, 0x0e, // next: mov cl, [rsi]
        0x84, 0xc9, // test cl, cl
        0x74, 0x0d, // jz done
        0x80, 0xe9, 0x30, // sub cl, '0'
        0x6b, 0xc0, 0x0a, // imul eax, eax, 10
        0x01, 0xc8, // add eax, ecx
        0x48, 0xff, 0xc6, // inc rsi
        0xeb, 0xed, // jmp next
        0x89, 0xc6, // done: mov esi, eax
        0x31, 0xd2, // xor edx, edx
        0x4d, 0x31, 0xd2, // xor r10, r10
        0xbf, 0x06, 0x42, 0x00, 0x00, // mov edi, PTRACE_SEIZE
        0xb8, 0x65, 0x00, 0x00, 0x00, // mov eax, ptrace
        0x0f, 0x05, // syscall
        0xf7, 0xd8, // neg eax
        0x89, 0xc7, // mov edi, eax
        0xb8, 0x3c, 0x00, 0x00, 0x00, // mov eax, exit
        0x0f, 0x05, // syscall
    ])
}

#[cfg(not(target_arch = "x86_64"))]
async fn h21_chroot_traces_nobody_outside() -> Check {
    skip("machine code of x86_64")
}

/// Whoever has no more rights than the container, and so is out of reach by Landlock alone, and whoever has more.
#[cfg(target_arch = "x86_64")]
async fn h21_chroot_traces_nobody_outside() -> Check {
    let world = world().await?;
    let image = crate::attacks::image_with(&world, |files| files.file("bin/trace", 0o755, tracer())).await?;
    let mut weak = Command::new(program("setpriv")?)
        .args(["--bounding-set=-all", "--inh-caps=-all", "--", "sleep", "1000"])
        .spawn()?;
    let all = format!(
        "/bin/trace {}; echo $?; /bin/trace {}; echo $?; sleep 1000 & /bin/trace $!; echo $?; kill $!",
        std::process::id(),
        weak.id()
    );
    let spec = ContainerSpec::image(&image).command(["sh", "-c", &all]);
    let said = world.says(spec.network(NetworkMode::Host)).await;
    weak.kill()?;
    weak.wait()?;
    let denied = nix::libc::EPERM.to_string();
    let said = said?;
    let codes: Vec<&str> = said.lines().collect();
    let own = match fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope") {
        Ok(scope) if scope.trim() != "0" => denied.as_str(),
        _ => "0",
    };
    let weaker = if probe().has("landlock") { denied.as_str() } else { "0" };
    assert_eq!(codes, [denied.as_str(), weaker, own]);
    Ok(())
}

/// A directory that a process is in is moved out of its root, by whoever may: the way up leads to the host's files then, and Landlock
/// opens none of them.
async fn moved_out(world: &World) -> Check {
    if !probe().has("landlock") {
        return Ok(());
    }
    let outside = scratch::fresh("chroot");
    fs::write(outside.path().join("secret"), "of the host")?;
    let steps = "mkdir /d && cd /d && touch ready && until test -e here; do sleep 0.01; done; \
                 cat ../secret; ls ..; echo x > ../made; busybox mknod ../disk c 1 3; echo after";
    let container = world.engine.create(script(world, steps)).await?;
    let mut attached = container.attach(AttachOptions::slow(SlowReader::Keep)).await?;
    container.start().await?;
    let root = fs::read_link(format!("/proc/{}/root", pid_of(&container).await?))?;
    until("the container is in its directory", async || {
        Ok(root.join("d/ready").exists())
    })
    .await?;
    let place = outside.path().join("d");
    fs::rename(root.join("d"), &place)?;
    fs::write(place.join("here"), "")?;
    let mut said = Vec::new();
    while let Some(item) = attached.output.next().await {
        if let TeeItem::Chunk(chunk) = item {
            said.extend_from_slice(&chunk.bytes);
        }
    }
    let said = text(&said);
    assert!(said.contains("after") && !said.contains("of the host"), "{said}");
    assert!(!said.contains("secret\n"), "nor is a list of them to be had: {said}");
    let mut left: Vec<_> = fs::read_dir(outside.path())?
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["d", "secret"], "nor can any be made");
    container.wait().await?;
    container.remove(FORCE).await?;
    Ok(())
}

/// A process that has left its parents' session, and is there when this script goes on.
fn orphan(mark: &str) -> String {
    format!(
        "rm -f /there; (busybox setsid sh -c 'touch /there; exec sleep {mark}' >/dev/null 2>&1 &); \
         until test -e /there; do sleep 0.01; done"
    )
}

/// Waits for a process with this among its arguments.
async fn seen(mark: &str) -> Check {
    until("a process that was left behind", async || Ok(runs(mark))).await
}

async fn h21_chroot_ends_what_is_left_behind() -> Check {
    let world = world().await?;
    let mark = "7654.25";
    let twice = format!("{}; {}", orphan(mark), orphan(mark));
    for _ in 0..3 {
        let output = world.output(script(&world, &twice)).await?;
        assert!(output.status.success(), "{output:?}");
        assert!(!runs(mark), "it ends with its container");
    }
    // Those that a command leaves behind are the container's, and end with it.
    let container = sleeper(&world).await?;
    let script = orphan(mark);
    let command = ExecSpec::new(["sh", "-c", script.as_str()]);
    assert!(container.exec(command).output().await?.status.success());
    seen(mark).await?;
    container.kill(Signal::KILL).await?;
    container.wait().await?;
    assert!(!runs(mark));
    container.remove(FORCE).await?;
    Ok(())
}

/// The parent of a process.
fn parent_of(pid: u32) -> Result<u32, Stop> {
    let parent = status_of(pid, "PPid").parse();
    parent.map_err(|_| Stop::Fail(format!("process {pid} has no parent")))
}

fn kill(pid: u32) -> Check {
    assert!(pid > 1 && pid != std::process::id());
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).map_err(|error| Stop::Fail(error.to_string()))?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)?;
    Ok(())
}

async fn h21_chroot_ends_a_container_without_its_warden() -> Check {
    let world = world().await?;
    let mark = "7654.5";
    let spec = script(&world, &format!("{}; exec sleep {mark}", orphan(mark)));
    let container = world.started(spec).await?;
    let pid = pid_of(&container).await?;
    seen(mark).await?;
    kill(parent_of(pid)?)?;
    assert_eq!(container.wait().await?.status.signal(), Some(9));
    assert!(!runs(mark), "the helper ends what a warden leaves");
    container.remove(FORCE).await?;
    // The next one has another.
    assert_eq!(world.says(script(&world, "echo on")).await?, "on");
    Ok(())
}

async fn h21_chroot_ends_a_container_without_its_helper() -> Check {
    let world = world().await?;
    let mark = "7654.625";
    let spec = script(&world, &format!("{}; exec sleep {mark}", orphan(mark)));
    let container = world.started(spec).await?;
    let warden = parent_of(pid_of(&container).await?)?;
    seen(mark).await?;
    kill(parent_of(warden)?)?;
    assert_eq!(container.wait().await?.status.signal(), Some(9));
    until("the warden ends what it keeps", async || Ok(!runs(mark))).await?;
    container.remove(FORCE).await?;
    // The next one has another.
    assert_eq!(world.says(script(&world, "echo on")).await?, "on");
    Ok(())
}

async fn h21_chroot_ends_a_container_that_stops_its_warden() -> Check {
    let world = world().await?;
    // The helper lets it go on, so that it tells how the container has ended.
    let output = world.output(script(&world, "kill -STOP $PPID; exit 5")).await?;
    assert_eq!(output.status.code(), 5);
    let mark = "7654.75";
    let stopping = "touch /begun; while :; do kill -STOP $PPID; done";
    let spec = script(&world, &format!("{}; {stopping}", orphan(mark)));
    let container = world.started(spec).await?;
    until("it stops its warden", async || {
        Ok(container.stat_path("/begun").await.is_ok())
    })
    .await?;
    container.kill(Signal::KILL).await?;
    assert_eq!(container.wait().await?.status.signal(), Some(9));
    assert!(!runs(mark), "nothing is left");
    container.remove(FORCE).await?;
    Ok(())
}

async fn h21_chroot_ends_with_its_engine() -> Check {
    let world = world().await?;
    let mark = "7655.125";
    let spec = script(&world, &format!("{}; exec sleep {mark}", orphan(mark)));
    let _container = world.started(spec).await?;
    seen(mark).await?;
    world.engine.close().await;
    assert!(!runs(mark), "it ends with its engine");
    Ok(())
}

async fn h21_chroot_has_limits_where_there_are_cgroups() -> Check {
    let world = world().await?;
    if !probe().has("cgroup_memory") {
        return skip("no cgroups that limit memory");
    }
    let greedy = script(&world, "exec tail -c 90000000 /dev/zero").memory(Bytes::mib(32));
    let container = world.started(greedy).await?;
    let exit = container.wait().await?;
    assert_eq!((exit.oom_killed, exit.status.signal()), (Some(true), Some(9)));
    container.remove(FORCE).await?;
    // The shell gives up where it can make no more; what it has made has left its session.
    let mark = "7655.25";
    let many = format!("while :; do busybox setsid sleep {mark} & done");
    let output = world.output(script(&world, &many).pids_limit(40)).await?;
    assert!(!output.status.success(), "{output:?}");
    assert!(!runs(mark), "as many as they were");
    let counter = "i=0; while :; do i=$((i+1)); echo $i > /count; done";
    let container = world.started(script(&world, counter).stop_signal(Signal::KILL)).await?;
    let count = format!("/proc/{}/root/count", pid_of(&container).await?);
    let counted = || fs::read_to_string(&count).unwrap_or_default();
    until("it counts", async || Ok(!counted().is_empty())).await?;
    container.pause().await?;
    assert_eq!(container.inspect().await?.state, ContainerState::Paused);
    let before = counted();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(counted(), before);
    container.unpause().await?;
    until("it goes on", async || Ok(counted() != before)).await?;
    container.stop(StopOptions::default()).await?;
    container.remove(FORCE).await?;
    Ok(())
}

async fn h21_chroot_names_what_it_cannot() -> Check {
    let world = world().await?;
    let dir = scratch::fresh("chroot");
    let host = || world.spec().command(["true"]).network(NetworkMode::Host);
    let mut read_only = host();
    read_only.read_only = true;
    for (spec, what) in [
        (world.spec().command(["true"]), "network"),
        (host().network(NetworkMode::None), "network"),
        (host().mount(MountSpec::bind(dir.path(), "/in")), "/in"),
        (host().tmpfs("/run", Tmpfs::default()), "/run"),
        (host().lifetime(Lifetime::Detached), "etached"),
        (host().runtime("native"), "native"),
        (read_only, "read-only root"),
        (host().hostname("own"), "host name"),
        (host().privileged(true), "privileged"),
        (host().cap_add("SYS_PTRACE"), "CAP_SYS_PTRACE"),
        (host().user_namespace(true), "user namespace"),
        (host().sysctl("kernel.shm_rmid_forced", "1"), "sysctl"),
    ] {
        let error = match world.engine.run(spec).output().await {
            Err(error) => error,
            Ok(output) => return fail(format!("{what}: {output:?}")),
        };
        assert!(
            error.is_unsupported() && error.report().contains(what),
            "{what}: {}",
            error.report()
        );
    }
    // What could not be started is removed by whoever sees to that.
    until("none is left", async || Ok(world.containers().await?.is_empty())).await
}

async fn h21_chroot_is_for_whole_engines() -> Check {
    let beside = TempRoot::new();
    let engine = Engine::open(beside.path()).await?;
    let image = engine.pull(source(image::shared()?)).await?;
    let spec = ContainerSpec::image(image.id().to_string()).runtime("chroot");
    let error = engine.create(spec).await.expect_err("it is for whole engines");
    assert!(
        error.is_unsupported() && error.report().contains("default_runtime"),
        "{}",
        error.report()
    );
    engine.close().await;
    Ok(())
}

async fn h21_chroot_copies_and_tells_processes() -> Check {
    let world = world().await?;
    let container = world
        .started(script(&world, "echo kept > /file; sleep 1000 & exec sleep 1001").stop_signal(Signal::KILL))
        .await?;
    until("its two processes are listed, and nobody else's", async || {
        let top = container.top(&["-eo".to_owned(), "pid,args".to_owned()]).await?;
        let lines: Vec<String> = top.processes.iter().map(|row| row.join(" ")).collect();
        Ok(lines.len() == 2 && lines.iter().all(|line| line.contains("sleep 100")))
    })
    .await?;
    assert_eq!(container.stat_path("/file").await?.size, 5);
    // Nothing would keep it from working.
    let mut disk = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Block);
    header.set_size(0);
    header.set_mode(0o666);
    header.set_device_major(7)?;
    header.set_device_minor(0)?;
    disk.append_data(&mut header, "disk", &[][..])?;
    let archive = stream_of(disk.into_inner()?);
    let refused = container.copy_in("/tmp", archive, CopyInOptions::new()).await;
    let refused = refused.expect_err("a device");
    assert!(refused.is_unsupported(), "{}", refused.report());
    assert!(container.stat_path("/tmp/disk").await.is_err());
    container.stop(StopOptions::default()).await?;
    assert_eq!(container.stat_path("/file").await?.size, 5);
    container.remove(FORCE).await?;
    Ok(())
}

async fn h21_chroot_by_the_client() -> Check {
    let client = crate::platforms::client()?;
    let World { engine, image, root } = world().await?;
    image.tag(&"busybox:latest".parse()?).await?;
    engine.close().await;
    let run = |runtime: &str| {
        let mut command = Command::new(&client);
        command
            .arg("--root")
            .arg(root.path())
            .args(["--default-runtime", runtime]);
        let words = ["run", "--rm", "--network", "host", "busybox", "sh", "-c"];
        command.args(words).arg("ls /proc | wc -l; exit 6").output()
    };
    let output = run("chroot")?;
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(6), "0".to_owned()),
        "{output:?}"
    );
    // Its name is looked at when there is a helper to run it.
    if no_namespaces().is_none() {
        let unknown = run("kata")?;
        assert!(
            !unknown.status.success() && text(&unknown.stderr).contains("kata"),
            "{unknown:?}"
        );
    }
    Ok(())
}

/// All that needs no device nodes, as the program of a container.
async fn within(place: &Path) -> Check {
    let _scratch = scratch::enter();
    let root = place.join("root");
    let engine = open(&root).await?;
    let image = engine.pull("oci:/layout").await?;
    let world = World {
        engine,
        image,
        root: TempRoot::shared(&root),
    };
    let probed = probe();
    assert!(probed.has("chroot") && !probed.has("user_namespaces"), "{probed}");
    lifecycle(&world).await?;
    commands(&world).await?;
    kept_in(&world).await?;
    world.engine.close().await;
    Ok(())
}

async fn k7_the_root_of_an_ordinary_container_has_chroot() -> Check {
    let world = World::new().await?;
    if world.ownership().await? == "squashed" {
        return skip("a container's root has one id, and cannot give files away");
    }
    let binary = std::env::current_exe()?;
    let mut spec = world
        .spec()
        .command(["/it", "/work"])
        .env("LONGSHORE_IT_ROLE", "chroot-within")
        .env("TMPDIR", "/work")
        .tmpfs(
            "/work",
            Tmpfs {
                exec: true,
                ..Tmpfs::default()
            },
        )
        .bind_read_only(binary, "/it")
        .bind_read_only(&image::shared()?.dir, "/layout");
    for dir in ["/lib", "/lib64", "/usr/lib"] {
        if Path::new(dir).exists() {
            spec = spec.bind_read_only(fs::canonicalize(dir)?, dir);
        }
    }
    assert_eq!(world.says(spec).await?, "all of it");
    Ok(())
}

async fn k7_chroot_is_for_root() -> Check {
    if is_root() {
        return skip("an ordinary user is told");
    }
    let root = TempRoot::new();
    let error = Engine::builder(root.path()).default_runtime("chroot").open().await;
    let error = error.expect_err("it is root's");
    assert!(
        error.is_unsupported() && error.report().contains("root"),
        "{}",
        error.report()
    );
    Ok(())
}

/// What the processes of an embedder that is killed are known by.
const FOREVER: &str = "7654.875";

fn role_forever(arguments: &[String]) -> i32 {
    let [root] = arguments else { return 2 };
    let run = async move {
        let engine = Engine::builder(root).default_runtime("chroot").open().await?;
        println!("open");
        loop {
            let spec = ContainerSpec::image("busybox").network(NetworkMode::Host);
            let script = format!("{}; exec sleep {FOREVER}", orphan(FOREVER));
            let container = engine.run(spec.command(["sh", "-c", script.as_str()])).await?;
            let _running = container.exec(ExecSpec::new(["sleep", FOREVER])).await?;
        }
        #[allow(unreachable_code)]
        longshore::Result::Ok(())
    };
    let ended: longshore::Result<()> = block_on(run);
    i32::from(ended.is_err())
}

fn h21_a_killed_embedder_leaves_nothing_of_chroot() -> Check {
    let root = block_on(async {
        let world = world().await?;
        world.image.tag(&"busybox:latest".parse()?).await?;
        let World { engine, root, .. } = world;
        engine.close().await;
        Ok::<_, Stop>(root)
    })?;
    let before = Snapshot::take();
    // At any step: what they are is up to the machine.
    for pause in [30u64, 90, 200, 400, 1500] {
        let mut embedder = Embedder::start("chroot-forever", &[root.path().to_str().unwrap_or_default()])?;
        assert_eq!(embedder.line(PATIENCE)?, "open");
        std::thread::sleep(Duration::from_millis(pause));
        embedder.kill()?;
        drop(embedder);
        until_now("no process of a killed embedder runs", || Ok(!runs(FOREVER)))?;
        let leaks = before.leaks_within(PATIENCE);
        if !leaks.is_empty() {
            return fail(format!("killed after {pause} ms: {leaks:?}"));
        }
    }
    Ok(())
}
