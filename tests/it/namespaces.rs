//! Namespaces of the host and of other containers.

use std::fs;

use longshore::{
    Container, ContainerSpec, ErrorKind, ExecSpec, NamespaceMode, NetworkMode, ObjectKind, Signal, WaitCondition,
};

use crate::frame::{Check, Stop};
use crate::support::world::{FORCE, World, text};
use crate::tests;

tests! { "namespaces":
    kernel_async [
        h18_another_container_s_processes,
        h18_what_is_left_of_a_container_among_another_s_processes,
        h18_another_container_s_ipc,
        h18_the_host_s_ipc_name_and_cgroups,
        h18_what_cannot_be_shared_says_why,
        i1_another_container_s_network,
    ]
}

async fn sleeper(world: &World, change: impl FnOnce(ContainerSpec) -> ContainerSpec) -> Result<Container, Stop> {
    world.started(change(world.spec().command(["sleep", "1000"]))).await
}

async fn sh(container: &Container, script: &str) -> Result<String, Stop> {
    let output = container.exec(ExecSpec::new(["sh", "-c", script])).output().await?;
    assert!(output.status.success(), "{script}: {output:?}");
    Ok(text(&output.stdout))
}

fn of(container: &Container) -> NamespaceMode {
    NamespaceMode::Container(container.id().to_string())
}

/// The namespace of a kind as the host sees it.
async fn seen(container: &Container, kind: &str) -> Result<String, Stop> {
    let pid = container.inspect().await?.pid.expect("it runs");
    Ok(fs::read_link(format!("/proc/{pid}/ns/{kind}"))?.display().to_string())
}

fn of_host(kind: &str) -> Result<String, Stop> {
    Ok(fs::read_link(format!("/proc/self/ns/{kind}"))?.display().to_string())
}

async fn h18_another_container_s_processes() -> Check {
    let world = World::new().await?;
    let first = sleeper(&world, |spec| spec.command(["sleep", "1234"])).await?;
    let second = sleeper(&world, |spec| spec.command(["sleep", "5678"]).pid_mode(of(&first))).await?;
    assert_eq!(seen(&first, "pid").await?, seen(&second, "pid").await?);
    for kind in ["mnt", "ipc", "uts", "cgroup", "net"] {
        assert_ne!(seen(&first, kind).await?, seen(&second, kind).await?, "{kind}");
    }
    // Its proc shows the other's processes, under the numbers that they have there; a command in it sees the same.
    let list = "tr '\\0' ' ' < /proc/1/cmdline; echo; cat /proc/[0-9]*/cmdline | tr '\\0' ' '";
    for container in [&first, &second] {
        let said = sh(container, list).await?;
        assert!(said.starts_with("sleep 1234"), "{said}");
        assert!(said.contains("sleep 5678"), "{said}");
    }
    assert_eq!(sh(&second, "kill -0 1 && echo allowed").await?, "allowed");
    let third = world.script("cat /proc/1/cmdline | tr '\\0' ' '").pid_mode(of(&second));
    assert_eq!(
        world.says(third.user("1234")).await?,
        "sleep 1234",
        "by way of the second"
    );
    let info = second.inspect().await?;
    assert_eq!(info.spec.pid_mode, of(&first));
    // The end of the first is the end of all in its namespace, as in Docker.
    first.kill(Signal::KILL).await?;
    assert_eq!(second.wait().await?.status.code(), 137);
    for container in [first, second] {
        container.remove(FORCE).await?;
    }
    Ok(())
}

/// It has no first process whose end would end the others; its cgroup tells them apart, where there is one.
async fn h18_what_is_left_of_a_container_among_another_s_processes() -> Check {
    let world = World::new().await?;
    let first = sleeper(&world, |spec| spec).await?;
    // A limit, so that there is a cgroup on every kind of host that has them.
    let spec = world
        .script("sleep 4321 & echo ready")
        .pid_mode(of(&first))
        .pids_limit(50);
    match world.engine.run(spec).await {
        Ok(second) => {
            second.wait().await?;
            second.remove(FORCE).await?;
            let rest = sh(&first, "sleep 0.2; cat /proc/[0-9]*/cmdline | tr '\\0' ' '").await?;
            assert!(!rest.contains("4321"), "{rest}");
        }
        Err(error) => assert!(error.is_unsupported(), "{}", error.report()),
    }
    // A signal to all of one is none to the other.
    let second = sleeper(&world, |spec| spec.pid_mode(of(&first))).await?;
    second
        .stop(longshore::StopOptions {
            signal: Some(Signal::KILL),
            timeout: None,
        })
        .await?;
    assert!(first.inspect().await?.state.is_alive());
    second.remove(FORCE).await?;
    first.remove(FORCE).await?;
    Ok(())
}

async fn h18_another_container_s_ipc() -> Check {
    let world = World::new().await?;
    let first = sleeper(&world, |spec| spec.ipc_mode(NamespaceMode::Shareable)).await?;
    sh(&first, "echo from the first > /dev/shm/note").await?;
    let second = sleeper(&world, |spec| spec.ipc_mode(of(&first)).user("1234")).await?;
    assert_eq!(seen(&first, "ipc").await?, seen(&second, "ipc").await?);
    assert_ne!(seen(&first, "pid").await?, seen(&second, "pid").await?);
    assert_eq!(
        sh(&second, "cat /dev/shm/note; touch /dev/shm/other").await?,
        "from the first"
    );
    assert_eq!(sh(&first, "ls /dev/shm").await?, "note\nother");
    let private = sleeper(&world, |spec| spec).await?;
    let refused = world.engine.create(world.spec().ipc_mode(of(&private))).await?;
    let error = refused.start().await.expect_err("it is private");
    assert_eq!(error.kind(), &ErrorKind::Conflict, "{}", error.report());
    assert!(error.report().contains("non-shareable IPC"), "{}", error.report());
    for container in [refused, private, second, first] {
        container.remove(FORCE).await?;
    }
    Ok(())
}

async fn h18_the_host_s_ipc_name_and_cgroups() -> Check {
    let world = World::new().await?;
    let container = sleeper(&world, |spec| {
        spec.ipc_mode(NamespaceMode::Host)
            .uts_mode(NamespaceMode::Host)
            .cgroup_mode(NamespaceMode::Host)
    })
    .await?;
    for kind in ["ipc", "uts", "cgroup"] {
        assert_eq!(seen(&container, kind).await?, of_host(kind)?, "{kind}");
    }
    for kind in ["pid", "net", "mnt"] {
        assert_ne!(seen(&container, kind).await?, of_host(kind)?, "{kind}");
    }
    let name = nix::sys::utsname::uname()?.nodename().to_string_lossy().into_owned();
    let said = sh(&container, "hostname; echo $HOSTNAME; cat /etc/hostname").await?;
    assert_eq!(said, [name.as_str(); 3].join("\n"));
    // Suites of other users see it too, have processes of the same number, and take our name there for something left.
    let note = std::path::PathBuf::from(format!("/dev/shm/it-{}-{}", nix::unistd::getuid(), std::process::id()));
    fs::write(&note, "from the host")?;
    let said = sh(&container, &format!("cat {}", note.display())).await;
    fs::remove_file(&note)?;
    assert_eq!(said?, "from the host");
    container.remove(FORCE).await?;
    Ok(())
}

async fn h18_what_cannot_be_shared_says_why() -> Check {
    let world = World::new().await?;
    let create = |spec: ContainerSpec| world.engine.create(spec);
    let host = create(world.spec().pid_mode(NamespaceMode::Host))
        .await
        .expect_err("bound to its engine");
    assert!(
        host.is_unsupported() && host.report().contains("Detached"),
        "{}",
        host.report()
    );
    let nobody = NamespaceMode::Container("nobody-here".into());
    let missing = create(world.spec().pid_mode(nobody))
        .await
        .expect_err("there is no such container");
    assert_eq!(missing.kind(), &ErrorKind::NotFound);
    assert_eq!(missing.object(), Some((ObjectKind::Container, "nobody-here")));
    for spec in [
        world.spec().uts_mode(NamespaceMode::Host).hostname("x"),
        world.spec().pid_mode(NamespaceMode::Shareable),
        world.spec().uts_mode(NamespaceMode::Shareable),
        world.spec().ipc_mode(NamespaceMode::Host).user_namespace(true),
    ] {
        let refused = create(spec).await.expect_err("it cannot be");
        assert_eq!(refused.kind(), &ErrorKind::InvalidArgument, "{}", refused.report());
    }
    let ended = world.engine.create(world.spec().command(["true"])).await?;
    for spec in [
        world.spec().pid_mode(of(&ended)),
        world.spec().ipc_mode(of(&ended)),
        world.spec().network(NetworkMode::Container(ended.id().to_string())),
    ] {
        let container = create(spec).await?;
        let error = container.start().await.expect_err("the other does not run");
        assert_eq!(error.kind(), &ErrorKind::Conflict, "{}", error.report());
        assert!(
            error.report().contains("of a non running container"),
            "{}",
            error.report()
        );
        container.remove(FORCE).await?;
    }
    let tracer = sleeper(&world, |spec| spec.cap_add("SYS_PTRACE")).await?;
    let beside = create(world.spec().command(["true"]).pid_mode(of(&tracer))).await?;
    let error = beside.start().await.expect_err("it could be traced");
    assert!(
        error.is_unsupported() && error.report().contains("SYS_PTRACE"),
        "{}",
        error.report()
    );
    // Containers of another engine are below another helper.
    let other = longshore::Engine::open(world.root.path()).await?;
    let image = world.image.id().to_string();
    let foreign = other
        .create(ContainerSpec::image(image).command(["true"]).pid_mode(of(&tracer)))
        .await?;
    let error = foreign.start().await.expect_err("of another engine");
    assert!(error.is_unsupported(), "{}", error.report());
    foreign.remove(FORCE).await?;
    drop((foreign, other));
    for container in [beside, tracer, ended] {
        container.remove(FORCE).await?;
    }
    Ok(())
}

async fn i1_another_container_s_network() -> Check {
    let world = World::new().await?;
    let first = sleeper(&world, |spec| spec.hostname("pier")).await?;
    let network = || NetworkMode::Container(first.id().short().to_string());
    let second = sleeper(&world, |spec| spec.network(network())).await?;
    assert_eq!(seen(&first, "net").await?, seen(&second, "net").await?);
    assert_ne!(seen(&first, "pid").await?, seen(&second, "pid").await?);
    assert_eq!(
        second.inspect().await?.spec.network,
        NetworkMode::Container(first.id().to_string()),
        "by its id, whatever it is called later"
    );
    assert_eq!(sh(&second, "hostname; echo $HOSTNAME").await?, "pier\npier");
    assert_eq!(sh(&second, "ls /sys/class/net").await?, "lo");
    // What one listens on, the other reaches.
    sh(
        &first,
        "echo moored > /tmp/index.html; busybox httpd -p 127.0.0.1:8080 -h /tmp",
    )
    .await?;
    let fetched = "for i in 1 2 3 4 5 6 7 8 9 10; do busybox wget -q -O - http://127.0.0.1:8080/ && exit 0; sleep 0.1; done; exit 1";
    assert_eq!(sh(&second, fetched).await?, "moored");
    let third = world.script("ip addr show lo | grep -c 127.0.0.1").network(network());
    assert_eq!(world.says(third.user("1234")).await?, "1");
    // The network outlives the container that came with it, and the next start finds that it is gone.
    first.kill(Signal::KILL).await?;
    first.wait().await?;
    assert_eq!(sh(&second, "ls /sys/class/net").await?, "lo");
    second.kill(Signal::KILL).await?;
    let containers = world.engine.containers();
    containers
        .wait(second.id().as_str(), WaitCondition::NotRunning)
        .await?
        .await?;
    let error = second.start().await.expect_err("the other does not run");
    assert_eq!(error.kind(), &ErrorKind::Conflict, "{}", error.report());
    for container in [second, first] {
        container.remove(FORCE).await?;
    }
    Ok(())
}
