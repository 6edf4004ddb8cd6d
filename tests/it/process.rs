//! What the first process of a container gets: arguments, environment, user, limits, capabilities, files.

use std::collections::BTreeSet;
use std::fs;
use std::sync::{Arc, Mutex};

use longshore::runtime::native::seccomp::{SeccompAgent, SeccompAnswer, SeccompCall};
use longshore::{
    Bytes, ContainerSpec, ContainerState, Engine, ErrorKind, ExecSpec, NetworkMode, ObjectKind, Seccomp,
    SeccompProfile, Tmpfs, WaitCondition,
};
use serde_json::json;

use crate::frame::{Check, Stop, skip};
use crate::support::image::{self, busybox_files};
use crate::support::world::{FORCE, World, source, text};
use crate::support::{runtime, scratch};
use crate::tests;

tests! { "process":
    kernel_async [
        a1_a_container_runs_without_a_daemon,
        h1_image_and_spec_are_merged,
        h1_an_entrypoint_clears_the_images_command,
        h1_host_and_domain_names,
        h2_users_and_groups_are_looked_up_in_the_image,
        h2_an_unknown_user_or_group_is_named,
        h2_an_unknown_user_is_refused_at_create,
        h2_an_unknown_user_is_refused_at_start_as_with_docker,
        g4_a_start_that_failed_has_docker_s_exit_code,
        h4_init_reaps_orphans,
        h6_ulimits,
        h10_capabilities,
        h10_privileged_containers,
        h10_devices_of_a_privileged_container,
        h11_seccomp,
        h11_a_profile_in_docker_s_form,
        h11_calls_that_the_embedder_answers,
        h11_the_default_profile_denies_keyrings_and_lets_programs_work,
        h13_a_read_only_root,
        h13_tmpfs_and_shm_have_their_size,
        h13_masked_and_read_only_paths,
        h13_binds,
        i1_none_has_only_loopback,
        i1_host_shares_the_hosts,
        stdout_stderr_stdin_and_status,
        a_terminal_is_one,
        a_signal_is_told_from_a_code,
        what_cannot_be_executed_says_why,
        k4_the_ids_of_a_range,
    ]
}

async fn a1_a_container_runs_without_a_daemon() -> Check {
    let listening = listening_sockets()?;
    let world = World::new().await?;
    let output = world.output(world.spec().command(["true"])).await?;
    assert!(output.status.success());
    assert_eq!(listening_sockets()?, listening, "a socket listens");
    assert!(world.containers().await?.is_empty());
    Ok(())
}

/// TCP sockets in state LISTEN, and unix sockets that accept connections, of this process: others on this host have theirs.
fn listening_sockets() -> std::io::Result<BTreeSet<String>> {
    let tcp =
        fs::read_to_string("/proc/self/net/tcp")? + &fs::read_to_string("/proc/self/net/tcp6").unwrap_or_default();
    let unix = fs::read_to_string("/proc/self/net/unix")?;
    let field = |line: &str, at: usize| line.split_whitespace().nth(at).unwrap_or_default().to_owned();
    let tcp = tcp
        .lines()
        .filter(|line| field(line, 3) == "0A")
        .map(|line| field(line, 9));
    let unix = unix
        .lines()
        .filter(|line| line.contains(" 00010000 "))
        .map(|line| field(line, 6));
    let listening: BTreeSet<String> = tcp.chain(unix).map(|inode| format!("socket:[{inode}]")).collect();
    let own = fs::read_dir("/proc/self/fd")?.flatten();
    let own = own.filter_map(|entry| fs::read_link(entry.path()).ok());
    let own = own.map(|target| target.display().to_string());
    Ok(own.filter(|target| listening.contains(target)).collect())
}

async fn h1_image_and_spec_are_merged() -> Check {
    let world = World::new().await?;
    let dir = scratch::fresh("layout");
    let config = json!({
        "Entrypoint": ["sh", "-c"], "Cmd": ["echo from image"], "WorkingDir": "/tmp",
        "Env": ["PATH=/bin", "A=image", "B=image"], "Labels": { "l": "image", "k": "image" },
    });
    let layout = image::write_layout(dir.path(), &[busybox_files()?], &config)?;
    let image = world.engine.pull(source(&layout)).await?.id().to_string();
    let spec = || runtime::with_a_network(ContainerSpec::image(&image));
    assert_eq!(world.says(spec()).await?, "from image");
    let merged = spec()
        .command(["echo $A $B $C; pwd; echo $HOME"])
        .env("B", "spec")
        .env("C", "spec");
    assert_eq!(world.says(merged).await?, "image spec spec\n/tmp\n/root");
    assert_eq!(
        world.says(spec().command(["pwd"]).working_dir("/made/here")).await?,
        "/made/here"
    );
    let container = world.engine.create(spec().label("l", "spec")).await?;
    let info = container.inspect().await?;
    assert_eq!(
        (info.labels["l"].as_str(), info.labels["k"].as_str()),
        ("spec", "image")
    );
    container.remove(FORCE).await?;
    Ok(())
}

async fn h1_an_entrypoint_clears_the_images_command() -> Check {
    let world = World::new().await?;
    let dir = scratch::fresh("layout");
    let config = json!({ "Entrypoint": ["echo", "entry"], "Cmd": ["cmd"], "Env": ["PATH=/bin"] });
    let layout = image::write_layout(dir.path(), &[busybox_files()?], &config)?;
    let image = world.engine.pull(source(&layout)).await?.id().to_string();
    let spec = || runtime::with_a_network(ContainerSpec::image(&image));
    assert_eq!(world.says(spec()).await?, "entry cmd");
    assert_eq!(world.says(spec().command(["own"])).await?, "entry own");
    assert_eq!(world.says(spec().entrypoint(["echo", "other"])).await?, "other");
    assert_eq!(
        world
            .says(spec().entrypoint(["echo", "other"]).command(["own"]))
            .await?,
        "other own"
    );
    Ok(())
}

async fn h1_host_and_domain_names() -> Check {
    let world = World::new().await?;
    let mut spec = world
        .script("hostname; cat /proc/sys/kernel/domainname")
        .hostname("pier");
    spec.domainname = Some("example.org".to_owned());
    let said = world.says(spec).await?;
    assert_eq!(said.lines().take(2).collect::<Vec<_>>(), ["pier", "example.org"]);
    let container = world.started(world.script("hostname")).await?;
    container.wait().await?;
    container.remove(FORCE).await?;
    Ok(())
}

async fn h2_users_and_groups_are_looked_up_in_the_image() -> Check {
    let world = World::new().await?;
    let single = world.ownership().await? == "squashed";
    let id = |user: &str| world.says(world.script("id -u; id -g; id -G; echo $HOME").user(user));
    // One id has one group: those that the image's file lists beside it cannot be had.
    let groups = if single { "1234" } else { "1234 2345" };
    assert_eq!(id("app").await?, format!("1234\n1234\n{groups}\n/home"));
    assert_eq!(
        id("1234:2345").await?.lines().take(2).collect::<Vec<_>>(),
        ["1234", "2345"]
    );
    assert_eq!(id("77").await?.lines().take(2).collect::<Vec<_>>(), ["77", "0"]);
    let added = world
        .engine
        .run(world.script("id -G").user("app").group("77").group("root"))
        .output()
        .await;
    if single {
        let error = added.expect_err("groups that were asked for");
        assert!(error.is_unsupported(), "{}", error.report());
        let error = world.output(world.script("id").user("0:77")).await;
        assert!(error.is_err(), "root of another group");
    } else {
        assert_eq!(
            text(&added?.stdout).split(' ').collect::<BTreeSet<_>>(),
            BTreeSet::from(["1234", "77", "0", "2345"])
        );
    }
    let unknown = world
        .engine
        .run(world.script("id").user("nobody-here"))
        .output()
        .await
        .expect_err("an unknown user");
    assert!(
        matches!(unknown.kind(), ErrorKind::NotFound | ErrorKind::InvalidArgument),
        "{}",
        unknown.report()
    );
    Ok(())
}

/// An image's files are looked at when a container of it is made.
async fn h2_an_unknown_user_is_refused_at_create() -> Check {
    let world = World::new().await?;
    let create = |spec: ContainerSpec| world.engine.create(spec);
    for (spec, name) in [
        (world.spec().user("no-such-user"), "no-such-user"),
        (world.spec().user("app:no-such-group"), "app:no-such-group"),
        (world.spec().group("no-such-group"), "no-such-group"),
    ] {
        let error = create(spec).await.expect_err("there is no such user");
        assert_eq!(error.kind(), &ErrorKind::NotFound, "{}", error.report());
        assert_eq!(error.object(), Some((ObjectKind::User, name)));
    }
    assert!(
        world.containers().await?.is_empty(),
        "nothing is left of what was refused"
    );
    for known in ["app", "app:extra", "4242:4243"] {
        create(world.spec().user(known)).await?.remove(FORCE).await?;
    }
    Ok(())
}

/// Other files may be shown over the image's, and then the start says who is known.
async fn h2_an_unknown_user_is_refused_at_start_as_with_docker() -> Check {
    let world = World::new().await?;
    let dir = scratch::fresh("passwd");
    let file = dir.path().join("passwd");
    fs::write(&file, "root:x:0:0::/:/bin/sh\n")?;
    let spec = world.spec().command(["true"]).user("no-such-user");
    let container = world.engine.create(spec.bind_read_only(&file, "/etc/passwd")).await?;
    let error = container.start().await.expect_err("there is no such user");
    assert_eq!(error.kind(), &ErrorKind::NotFound, "{}", error.report());
    assert_eq!(error.object(), Some((ObjectKind::User, "no-such-user")));
    let info = container.inspect().await?;
    assert_eq!(info.state, ContainerState::Created);
    assert_eq!(info.exit.map(|exit| exit.status.code()), Some(128));
    assert!(info.error.is_some_and(|error| error.contains("no-such-user")));
    container.remove(FORCE).await?;
    Ok(())
}

async fn g4_a_start_that_failed_has_docker_s_exit_code() -> Check {
    let world = World::new().await?;
    for (command, code) in [
        ("no-such-command", 127),
        ("/no/such/command", 127),
        ("/etc", 126),
        ("/etc/passwd", 126),
    ] {
        let container = world.engine.create(world.spec().command([command])).await?;
        let error = container.start().await.expect_err("it cannot be executed");
        let info = container.inspect().await?;
        assert_eq!(info.state, ContainerState::Created, "{command}");
        assert_eq!(info.exit.map(|exit| exit.status.code()), Some(code), "{command}");
        assert_eq!(info.error, Some(error.report()), "{command}");
        let waited = container.id().as_str();
        let waited = world
            .engine
            .containers()
            .wait(waited, WaitCondition::NotRunning)
            .await?;
        assert_eq!(waited.await?.status.code(), code, "{command}");
        container.remove(FORCE).await?;
    }
    let container = world.started(world.script("[ -e /ran ] && exit 3; touch /ran")).await?;
    assert_eq!(container.wait().await?.status.code(), 0);
    container.start().await?;
    assert_eq!(container.wait().await?.status.code(), 3);
    container.start().await?;
    container.wait().await?;
    let info = container.inspect().await?;
    assert_eq!((info.exit.map(|exit| exit.status.code()), info.error), (Some(3), None));
    container.remove(FORCE).await?;
    Ok(())
}

async fn h2_an_unknown_user_or_group_is_named() -> Check {
    let world = World::new().await?;
    for user in ["nobody-we-know", "app:no-such-group", "nobody-we-know:0"] {
        let refused = world
            .engine
            .run(world.spec().command(["true"]).user(user))
            .output()
            .await;
        let error = refused.expect_err("there is no such user");
        assert_eq!(error.kind(), &ErrorKind::NotFound, "{}", error.report());
        assert_eq!(
            error.object().map(|(kind, _)| kind),
            Some(ObjectKind::User),
            "{}",
            error.report()
        );
        assert!(error.report().contains(user), "{}", error.report());
    }
    let mut spec = world.spec().command(["true"]);
    spec.groups = vec!["no-such-group".to_owned()];
    let error = world
        .engine
        .run(spec)
        .output()
        .await
        .expect_err("there is no such group");
    assert!(error.report().contains("no-such-group"), "{}", error.report());
    for user in ["-1", "0:0:0", "4294967296", "a b"] {
        let refused = world
            .engine
            .run(world.spec().command(["true"]).user(user))
            .output()
            .await;
        let error = refused.expect_err("it is no user");
        let kind = error.kind();
        assert!(
            matches!(kind, ErrorKind::InvalidArgument | ErrorKind::NotFound),
            "{user}: {}",
            error.report()
        );
        assert!(error.report().contains(user), "{}", error.report());
    }
    Ok(())
}

async fn h4_init_reaps_orphans() -> Check {
    runtime::mounts()?;
    let world = World::new().await?;
    // The inner shell leaves an orphan that ends at once; whoever is pid 1 must reap it.
    let script = "sh -c 'sleep 0.1 & exit 0'; sleep 0.5; grep -l '^State:.Z' /proc/[0-9]*/status | wc -l";
    assert_eq!(world.says(world.script(script).init(true)).await?, "0");
    let first = world.says(world.script("cat /proc/1/comm").init(true)).await?;
    assert_ne!(first, "sh");
    let output = world.output(world.script("exit 7").init(true)).await?;
    assert_eq!(output.status.code(), 7);
    Ok(())
}

async fn h6_ulimits() -> Check {
    let world = World::new().await?;
    let spec = world
        .script("ulimit -Sn; ulimit -Hn; ulimit -c")
        .ulimit("nofile", 64, 128)
        .ulimit("core", 0, 0);
    assert_eq!(world.says(spec).await?, "64\n128\n0");
    Ok(())
}

async fn h10_capabilities() -> Check {
    runtime::mounts()?;
    let world = World::new().await?;
    let effective = |spec: ContainerSpec| async { world.says(spec).await };
    let show = || world.script("sed -n 's/^CapEff:.//p' /proc/self/status || grep CapEff /proc/self/status");
    let show = || show().command(["sh", "-c", "grep CapEff /proc/self/status | tr -d '\\t' | tail -c 17"]);
    // Docker's fourteen. Source: moby, oci/caps/defaults.go.
    assert_eq!(effective(show()).await?, "00000000a80425fb");
    assert_eq!(effective(show().cap_drop("ALL")).await?, "0000000000000000");
    assert_eq!(
        effective(show().cap_drop("ALL").cap_add("NET_ADMIN")).await?,
        "0000000000001000"
    );
    assert_eq!(effective(show().cap_drop("CHOWN")).await?, "00000000a80425fa");
    let privileges = || world.script("grep NoNewPrivs /proc/self/status | tail -c 2");
    assert_eq!(world.says(privileges().no_new_privileges(true)).await?, "1");
    assert_eq!(world.says(privileges()).await?, "0");
    Ok(())
}

async fn h11_seccomp() -> Check {
    runtime::mounts()?;
    let world = World::new().await?;
    let mode = || world.script("grep Seccomp: /proc/self/status | tail -c 2");
    assert_eq!(world.says(mode()).await?, "2");
    // With one mapped id there is a filter still, which denies nothing.
    let none = if world.ownership().await? == "squashed" {
        "2"
    } else {
        "0"
    };
    assert_eq!(world.says(mode().seccomp(Seccomp::Unconfined)).await?, none);
    let denied = world.output(world.script("unshare -U true")).await?;
    assert!(
        !denied.status.success() && text(&denied.stderr).contains("not permitted"),
        "{denied:?}"
    );
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 }],
    });
    let custom = Seccomp::Custom(Box::new(serde_json::from_value(profile)?));
    let refused = world.output(world.script("mkdir /tmp/x").seccomp(custom)).await?;
    assert!(text(&refused.stderr).contains("No space left"), "{refused:?}");
    Ok(())
}

/// Docker's form, whose conditions depend on the container; a command in it has the same.
async fn h11_a_profile_in_docker_s_form() -> Check {
    let world = World::new().await?;
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            { "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28, "excludes": { "caps": ["CAP_SYS_TIME"] } },
            { "names": ["rmdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28, "includes": { "arches": ["s390x"] } },
        ],
    });
    let profile = || SeccompProfile::parse(profile.to_string()).map(Seccomp::Profile);
    let script = "mkdir /tmp/x 2>&1; busybox rmdir /home && echo removed";
    let said = world.says(world.script(script).seccomp(profile()?)).await?;
    assert!(said.contains("No space left") && said.contains("removed"), "{said}");
    let able = world.script(script).seccomp(profile()?).cap_add("SYS_TIME");
    assert_eq!(world.says(able).await?, "removed");
    let container = world
        .started(world.spec().command(["sleep", "1000"]).seccomp(profile()?))
        .await?;
    let refused = container.exec(ExecSpec::new(["mkdir", "/tmp/y"])).output().await?;
    assert!(text(&refused.stderr).contains("No space left"), "{refused:?}");
    container.remove(FORCE).await?;
    Ok(())
}

/// Refuses one call, makes an answer up for another, and lets others through.
#[derive(Debug, Default)]
struct Doorman(Mutex<Vec<(String, String)>>);

impl SeccompAgent for Doorman {
    fn answer(&self, call: &SeccompCall) -> SeccompAnswer {
        let program = fs::read_to_string(format!("/proc/{}/comm", call.pid)).unwrap_or_default();
        // Only now it is known that this was the caller's.
        assert!(call.is_waiting());
        let name = call.name.unwrap_or_default().to_owned();
        self.0
            .lock()
            .expect("unpoisoned")
            .push((name.clone(), program.trim().to_owned()));
        match name.as_str() {
            "rmdir" => SeccompAnswer::Errno(nix::libc::ENOSPC),
            "getuid" => SeccompAnswer::Value(4321),
            "sync" => panic!("a mistake of the agent's"),
            _ => SeccompAnswer::Continue,
        }
    }
}

async fn h11_calls_that_the_embedder_answers() -> Check {
    runtime::native_alone("calls that the embedder answers")?;
    let world = World::new().await?;
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat", "rmdir", "getuid", "sync"], "action": "SCMP_ACT_NOTIFY" }],
    });
    let profile = || SeccompProfile::parse(profile.to_string()).map(Seccomp::Profile);
    let script = "mkdir /tmp/open && busybox rmdir /tmp/open 2>&1; ls /tmp; id -ru; sync; echo on";
    let lonely = world
        .engine
        .run(world.script(script).seccomp(profile()?))
        .output()
        .await;
    let error = lonely.expect_err("nobody answers");
    assert!(
        error.is_unsupported() && error.report().contains("seccomp_agent"),
        "{}",
        error.report()
    );
    let agent = Arc::new(Doorman::default());
    let answering: Arc<dyn SeccompAgent> = Arc::<Doorman>::clone(&agent);
    let engine = Engine::builder(world.root.path())
        .seccomp_agent(answering)
        .open()
        .await?;
    for (new_privileges, init) in [(true, false), (false, false), (false, true), (true, true)] {
        let spec = world
            .script(script)
            .seccomp(profile()?)
            .no_new_privileges(!new_privileges);
        let output = engine.run(spec.init(init)).output().await?;
        let said = text(&output.stdout);
        assert!(
            said.contains("No space left") && said.ends_with("open\n4321\non"),
            "{said}: {output:?}"
        );
    }
    let container = engine
        .run(world.spec().command(["sleep", "1000"]).seccomp(profile()?))
        .await?;
    let exec = container.exec(ExecSpec::new(["id", "-ru"])).output().await?;
    assert_eq!(text(&exec.stdout), "4321", "{exec:?}");
    container.remove(FORCE).await?;
    let calls = agent.0.lock().expect("unpoisoned").clone();
    assert!(calls.contains(&("getuid".to_owned(), "id".to_owned())), "{calls:?}");
    assert!(
        calls
            .iter()
            .any(|(name, program)| name.starts_with("mkdir") && program == "mkdir"),
        "{calls:?}"
    );
    let unheard =
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "name": "sendmsg", "action": "SCMP_ACT_NOTIFY" }] });
    assert!(SeccompProfile::parse(unheard.to_string()).is_err());
    Ok(())
}

/// What of the host's capabilities root of a container can have: all that this kernel knows.
fn all_capabilities() -> Result<String, Stop> {
    let last: u32 = fs::read_to_string("/proc/sys/kernel/cap_last_cap")?.trim().parse()?;
    // Root may have given some away; an ordinary user has all in a namespace of his own.
    let bounding = fs::read_to_string("/proc/self/status")?;
    let bounding = bounding.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let bounding = u64::from_str_radix(bounding.unwrap_or("").trim(), 16)?;
    let all = u64::MAX >> (63 - last);
    let all = if nix::unistd::geteuid().is_root() {
        all & bounding
    } else {
        all
    };
    Ok(format!("{all:016x}"))
}

async fn h10_privileged_containers() -> Check {
    let world = World::new().await?;
    let show = "grep CapEff /proc/self/status | tr -d '\\t' | tail -c 17";
    let all = all_capabilities()?;
    assert_eq!(world.says(world.script(show).privileged(true)).await?, all);
    // As Docker has it: what is added or dropped changes nothing.
    let dropped = world.script(show).privileged(true).cap_drop("ALL");
    assert_eq!(world.says(dropped).await?, all);
    let seccomp = if world.ownership().await? == "squashed" {
        "2"
    } else {
        "0"
    };
    let free = "grep Seccomp: /proc/self/status | tail -c 2; grep -c ' /proc/' /proc/self/mountinfo; \
                grep ' /sys ' /proc/self/mountinfo | cut -d ' ' -f 6 | cut -d , -f 1; mount -t tmpfs none /home && touch /home/x && ls /home";
    let said = world.says(world.script(free).privileged(true)).await?;
    assert_eq!(said, format!("{seccomp}\n0\nrw\nx"));
    let container = world
        .started(world.spec().command(["sleep", "1000"]).privileged(true))
        .await?;
    let exec = container.exec(ExecSpec::new(["sh", "-c", show])).output().await?;
    assert_eq!(text(&exec.stdout), all, "a command has what its container has");
    assert!(container.inspect().await?.spec.privileged);
    container.remove(FORCE).await?;
    let nested = world.spec().privileged(true).user_namespace(true);
    let refused = world.engine.create(nested).await.expect_err("both");
    assert_eq!(refused.kind(), &ErrorKind::InvalidArgument);
    Ok(())
}

async fn h10_devices_of_a_privileged_container() -> Check {
    let world = World::new().await?;
    let root = world.ownership().await? == "direct";
    let usual = ["null", "zero", "full", "tty", "urandom", "random", "console", "ptmx"];
    let of_host: BTreeSet<String> = fs::read_dir("/dev")?
        .flatten()
        .filter(|entry| {
            use std::os::unix::fs::FileTypeExt as _;
            let kind = entry.file_type();
            let usable = root
                || nix::unistd::access(
                    &entry.path(),
                    nix::unistd::AccessFlags::R_OK | nix::unistd::AccessFlags::W_OK,
                )
                .is_ok();
            usable && kind.is_ok_and(|kind| kind.is_char_device() || kind.is_block_device())
        })
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !usual.contains(&name.as_str()))
        .collect();
    let list = "for d in /dev/*; do [ -L $d ] && continue; [ -b $d ] || [ -c $d ] && echo ${d#/dev/}; done; true";
    let nodes = |said: String| -> BTreeSet<String> {
        let names = said.lines().map(str::to_owned);
        names.filter(|name| !usual.contains(&name.as_str())).collect()
    };
    assert_eq!(nodes(world.says(world.script(list).privileged(true)).await?), of_host);
    assert!(nodes(world.says(world.script(list)).await?).is_empty());
    // A node that the container makes works where it is root's own.
    let made = "busybox mknod /tmp/zero c 1 5 2>/dev/null && head -c 3 /tmp/zero | wc -c";
    let output = world.output(world.script(made).privileged(true)).await?;
    assert_eq!(text(&output.stdout), if root { "3" } else { "" }, "{output:?}");
    // crun mounts the root anew, and there devices can be opened: which ones is for the container's cgroup to say, and this is one that
    // every container has.
    if runtime::chosen() != Some("crun") {
        let denied = world.output(world.script(made)).await?;
        assert_ne!(
            text(&denied.stdout),
            "3",
            "a node of a container that is not privileged"
        );
    }
    // None has that of FUSE.
    let made = "busybox mknod /tmp/fuse c 10 229 2>/dev/null; (: < /tmp/fuse) 2>/dev/null && echo opened; true";
    assert_eq!(world.says(world.script(made)).await?, "");
    Ok(())
}

/// A program that makes system calls by number: the host's perl, which every Debian has.
fn perl(world: &World, script: &str) -> Result<ContainerSpec, Stop> {
    let loaders = ["/usr/lib64/ld-linux-x86-64.so.2", "/usr/lib/ld-linux-aarch64.so.1"];
    // The file itself: links below /usr may lead out of it.
    let loader = loaders.iter().find_map(|loader| fs::canonicalize(loader).ok());
    let (Some(loader), true) = (loader, fs::exists("/usr/bin/perl")?) else {
        return skip("no perl below /usr (Debian package perl-base)");
    };
    let spec = world.spec().bind_read_only("/usr", "/usr");
    let loader = loader.display().to_string();
    Ok(spec.command([&loader, "/usr/bin/perl", "-e", script]))
}

async fn h11_the_default_profile_denies_keyrings_and_lets_programs_work() -> Check {
    let world = World::new().await?;
    // KEYCTL_GET_KEYRING_ID of the session's keyring, which is not to be made. Source: keyctl(2).
    let call = nix::libc::SYS_keyctl;
    let script = format!("my $ring = syscall({call}, 0, -3, 0); print $ring < 0 ? \"errno \" . ($! + 0) : \"a ring\";");
    let denied = format!("errno {}", nix::libc::EPERM);
    assert_eq!(world.says(perl(&world, &script)?).await?, denied);
    let free = perl(&world, &script)?.seccomp(Seccomp::Unconfined);
    assert_ne!(world.says(free).await?, denied);
    // Files, processes, pipes, threads' system calls, time, sockets: what common programs do.
    let work = "use strict; use warnings;
        open(my $f, '>', '/tmp/x') or die; print $f 'text'; close $f; rename('/tmp/x', '/tmp/y') or die;
        chmod(0600, '/tmp/y') or die; chown(0, 0, '/tmp/y') or die; utime(1, 2, '/tmp/y') or die; my @s = stat('/tmp/y');
        pipe(my $r, my $w) or die; my $pid = fork() // die; if (!$pid) { close $r; print $w \"child\\n\"; exit 3 } close $w;
        my $line = <$r>; waitpid($pid, 0); die unless $? >> 8 == 3; use Socket;
        socketpair(my $a, my $b, AF_UNIX, SOCK_STREAM, 0) or die; socket(my $i, AF_INET, SOCK_DGRAM, 0) or die;
        symlink('y', '/tmp/z') or die; unlink('/tmp/z') or die; alarm(5); select(undef, undef, undef, 0.01);
        print \"$line$s[9]\";";
    assert_eq!(world.says(perl(&world, work)?).await?, "child\n2");
    Ok(())
}

async fn h13_a_read_only_root() -> Check {
    let world = World::new().await?;
    let refused = world.output(world.script("touch /x").read_only(true)).await?;
    assert!(text(&refused.stderr).contains("Read-only file system"), "{refused:?}");
    let spec = world
        .script("touch /tmp/x && echo fine")
        .read_only(true)
        .tmpfs("/tmp", Tmpfs::default());
    assert_eq!(world.says(spec).await?, "fine");
    assert_eq!(world.says(world.script("touch /x && echo fine")).await?, "fine");
    Ok(())
}

async fn h13_tmpfs_and_shm_have_their_size() -> Check {
    let world = World::new().await?;
    let options = Tmpfs {
        size: Some(Bytes::mib(1)),
        mode: Some(0o750),
        ..Tmpfs::default()
    };
    let script = "stat -c %a /t; dd if=/dev/zero of=/t/x bs=64k count=64 2>/dev/null; wc -c < /t/x";
    assert_eq!(
        world.says(world.script(script).tmpfs("/t", options)).await?,
        "750\n1048576"
    );
    if world.ownership().await? != "squashed" {
        let owned = Tmpfs {
            uid: Some(1234),
            gid: Some(2345),
            ..Tmpfs::default()
        };
        let said = world.says(world.script("stat -c %u:%g /t").tmpfs("/t", owned)).await?;
        assert_eq!(said, "1234:2345");
    }
    let shm = world.script("df -k /dev/shm | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2");
    let shm = shm.command([
        "sh",
        "-c",
        "df -k /dev/shm | grep shm | tr -s ' ' '\\n' | grep -x -m 1 3072",
    ]);
    assert_eq!(world.says(shm.shm_size(Bytes::mib(3))).await?, "3072");
    Ok(())
}

async fn h13_masked_and_read_only_paths() -> Check {
    runtime::mounts()?;
    let world = World::new().await?;
    assert_eq!(
        world
            .says(world.script("cat /proc/kcore | wc -c; ls /sys/firmware | wc -l"))
            .await?,
        "0\n0"
    );
    let refused = world.output(world.script("echo 1 > /proc/sys/kernel/shmmni")).await?;
    assert!(text(&refused.stderr).contains("Read-only file system"), "{refused:?}");
    let mut own = world.script("cat /etc/secret | wc -c; touch /home/x");
    own.masked_paths = Some(vec!["/etc/secret".into()]);
    own.readonly_paths = Some(vec!["/home".into()]);
    let output = world.output(own).await?;
    assert_eq!(text(&output.stdout), "0");
    assert!(text(&output.stderr).contains("Read-only file system"), "{output:?}");
    Ok(())
}

async fn h13_binds() -> Check {
    let world = World::new().await?;
    let dir = scratch::fresh("bind");
    fs::write(dir.path().join("in"), "from the host\n")?;
    let spec = world
        .script("cat /mnt/in; echo from inside > /mnt/out")
        .bind(dir.path(), "/mnt");
    assert_eq!(world.says(spec).await?, "from the host");
    assert_eq!(fs::read_to_string(dir.path().join("out"))?, "from inside\n");
    let refused = world
        .output(world.script("touch /mnt/x").bind_read_only(dir.path(), "/mnt"))
        .await?;
    assert!(text(&refused.stderr).contains("Read-only file system"), "{refused:?}");
    let file = world
        .script("cat /a/new/place")
        .bind_read_only(dir.path().join("in"), "/a/new/place");
    assert_eq!(world.says(file).await?, "from the host");
    let missing = world
        .engine
        .run(world.script("true").bind("/no/such/place", "/mnt"))
        .output()
        .await;
    let missing = missing.expect_err("a missing source");
    assert!(
        matches!(missing.kind(), ErrorKind::InvalidArgument | ErrorKind::NotFound),
        "{}",
        missing.report()
    );
    Ok(())
}

async fn i1_none_has_only_loopback() -> Check {
    runtime::mounts()?;
    let world = World::new().await?;
    let script =
        "grep -c : /proc/net/dev; grep -c lo: /proc/net/dev; cat /sys/class/net/lo/operstate /sys/class/net/lo/flags";
    assert_eq!(world.says(world.script(script)).await?, "1\n1\nunknown\n0x9");
    Ok(())
}

async fn i1_host_shares_the_hosts() -> Check {
    runtime::mounts()?;
    let world = World::new().await?;
    let here = fs::read_link("/proc/self/ns/net")?.display().to_string();
    let spec = || world.script("readlink /proc/self/ns/net").network(NetworkMode::Host);
    assert_eq!(world.says(spec()).await?, here);
    let apart = world.says(world.script("readlink /proc/self/ns/net")).await?;
    assert_ne!(apart, here);
    Ok(())
}

async fn stdout_stderr_stdin_and_status() -> Check {
    let world = World::new().await?;
    let output = world
        .output(world.script("echo out; echo err >&2; cat; exit 3"))
        .await?;
    assert_eq!(
        (text(&output.stdout), text(&output.stderr), output.status.code()),
        ("out".into(), "err".into(), 3)
    );
    let much = world
        .output(world.script("yes 0123456789 | head -c 3000000; yes x | head -c 1000000 >&2"))
        .await?;
    assert_eq!((much.stdout.len(), much.stderr.len()), (3_000_000, 1_000_000));
    Ok(())
}

async fn a_terminal_is_one() -> Check {
    use futures_util::StreamExt as _;
    let world = World::new().await?;
    let mut spec = world
        .script("test -t 0 && test -t 1 && test -t 2 && echo tty; read line; echo got $line")
        .tty(true);
    spec.open_stdin = true;
    let container = world.engine.create(spec).await?;
    let mut attached = container
        .attach(longshore::AttachOptions::slow(longshore::containers::SlowReader::Keep))
        .await?;
    container.start().await?;
    container.resize(40, 100).await?;
    attached
        .input
        .take()
        .expect("stdin was asked for")
        .write("hello\n")
        .await?;
    let mut seen = Vec::new();
    while let Some(item) = attached.output.next().await {
        if let longshore::logs::TeeItem::Chunk(chunk) = item {
            seen.extend_from_slice(&chunk.bytes);
        }
    }
    let seen = text(&seen);
    assert!(seen.contains("tty\r\n") && seen.contains("got hello"), "{seen:?}");
    container.remove(FORCE).await?;
    Ok(())
}

async fn a_signal_is_told_from_a_code() -> Check {
    let world = World::new().await?;
    let output = world.output(world.script("kill -KILL $$; sleep 1").init(true)).await?;
    assert_eq!(output.status.code(), 137);
    let container = world.started(world.spec().command(["sleep", "60"])).await?;
    container.kill(longshore::types::Signal::KILL).await?;
    let exit = container.wait().await?;
    assert_eq!((exit.status.signal(), exit.status.code()), (Some(9), 137));
    container.remove(FORCE).await?;
    Ok(())
}

async fn what_cannot_be_executed_says_why() -> Check {
    runtime::mounts()?;
    let world = World::new().await?;
    let dir = scratch::fresh("programs");
    let program = |name: &str, mode: u32, body: &str| -> std::io::Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        fs::write(dir.path().join(name), body)?;
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(mode))
    };
    program("plain", 0o644, "#!/bin/sh\n")?;
    program("orphan", 0o755, "#!/no/such/interpreter\n")?;
    let run = |command: &str| {
        world
            .engine
            .run(world.spec().command([command]).bind(dir.path(), "/p"))
            .output()
    };
    let missing = run("/no/such/program").await.expect_err("missing");
    assert_eq!(missing.kind(), &ErrorKind::CommandNotFound, "{}", missing.report());
    let unnamed = run("no-such-program").await.expect_err("missing from PATH");
    assert_eq!(unnamed.kind(), &ErrorKind::CommandNotFound, "{}", unnamed.report());
    let plain = run("/p/plain").await.expect_err("not executable");
    assert_eq!(plain.kind(), &ErrorKind::CommandNotExecutable, "{}", plain.report());
    match run("/p/orphan").await {
        Err(orphan) => assert!(orphan.report().contains("/no/such/interpreter"), "{}", orphan.report()),
        // An external runtime has said by then that the program runs; what it says now is the container's own.
        Ok(orphan) => assert!(
            runtime::is_external() && !orphan.status.success() && text(&orphan.stderr).contains("/p/orphan"),
            "{orphan:?}"
        ),
    }
    Ok(())
}

/// The caller's ranges in `/etc/subuid`. Source: subuid(5).
fn own_ranges() -> Result<Vec<std::ops::Range<u64>>, Stop> {
    let me = nix::unistd::geteuid();
    let name = nix::unistd::User::from_uid(me)?
        .map(|user| user.name)
        .unwrap_or_default();
    let mut ranges = Vec::new();
    for line in fs::read_to_string("/etc/subuid")?.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        if let [who, first, count] = fields[..]
            && (who == name || who == me.to_string())
        {
            let first: u64 = first.parse()?;
            ranges.push(first..first + count.parse::<u64>()?);
        }
    }
    Ok(ranges)
}

async fn k4_the_ids_of_a_range() -> Check {
    let world = World::new().await?;
    if world.ownership().await? != "mapped" {
        return skip("this user has no subordinate ids, or needs none");
    }
    let said = world
        .says(world.script("id -u; cat /proc/self/uid_map").user("999"))
        .await?;
    assert!(said.starts_with("999\n"), "{said}");
    assert!(
        said.lines().count() >= 3,
        "one line for the user, one for the range: {said}"
    );
    let container = world.started(world.spec().command(["sleep", "60"]).user("999")).await?;
    let pid = container.inspect().await?.pid.expect("it runs");
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let outside = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let outside: u64 = outside
        .and_then(|ids| ids.split_whitespace().next())
        .unwrap_or("")
        .parse()?;
    let ranges = own_ranges()?;
    assert!(
        ranges.iter().any(|range| range.contains(&outside)),
        "{outside} on the host, not within {ranges:?}"
    );
    container.remove(FORCE).await?;
    Ok(())
}
