//! Devices of the host, rules about them, and what of the kernel a container may set for itself.

use std::path::{Path, PathBuf};

use longshore::containers::{DeviceMapping, DeviceRate};
use longshore::{ContainerSpec, ErrorKind, ExecSpec, NamespaceMode, NetworkMode, ObjectKind};

use crate::frame::{Check, Stop, skip};
use crate::life::{cgroup_value, limited};
use crate::support::world::{FORCE, World, text};
use crate::tests;

tests! { "devices":
    kernel_async [
        h7_sysctls_of_its_own_namespaces,
        h8_a_device_of_the_host,
        h8_a_directory_of_devices,
        h8_access_is_limited,
        h8_rules_let_nodes_of_its_own_work,
        h17_rates_reach_the_cgroup,
        h17_what_the_host_lacks_is_a_warning,
        h25_umask,
        h25_a_time_zone,
    ]
}

async fn h7_sysctls_of_its_own_namespaces() -> Check {
    let world = World::new().await?;
    let host = std::fs::read_to_string("/proc/sys/net/core/somaxconn")?;
    let spec = world
        .script("cat /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax")
        .sysctl("net.core.somaxconn", "77")
        .sysctl("kernel.msgmax", "9000");
    assert_eq!(world.says(spec).await?, "77\n9000");
    assert_eq!(std::fs::read_to_string("/proc/sys/net/core/somaxconn")?, host);
    let refused = [
        world.spec().sysctl("kernel.panic", "1"),
        world
            .spec()
            .sysctl("net.core.somaxconn", "1")
            .network(NetworkMode::Host),
        world
            .spec()
            .sysctl("kernel.msgmax", "9000")
            .ipc_mode(NamespaceMode::Host),
        world.spec().sysctl("net/../../kernel/panic", "1"),
    ];
    for spec in refused {
        let error = world.engine.create(spec).await.expect_err("not the container's");
        assert_eq!(error.kind(), &ErrorKind::InvalidArgument, "{}", error.report());
        assert_eq!(error.object().map(|object| object.0), Some(ObjectKind::Option));
    }
    Ok(())
}

fn mapping(source: &str, target: &str, access: &str) -> Result<DeviceMapping, Stop> {
    Ok(DeviceMapping {
        source: source.into(),
        target: target.into(),
        access: access.parse()?,
    })
}

fn with(mut spec: ContainerSpec, device: DeviceMapping) -> ContainerSpec {
    spec.devices.push(device);
    spec
}

async fn h8_a_device_of_the_host() -> Check {
    let world = World::new().await?;
    let script = "[ -c /dev/mine ] && head -c 5 /dev/mine | wc -c; echo x > /dev/mine && echo written";
    let spec = with(world.script(script), mapping("/dev/zero", "/dev/mine", "rwm")?);
    assert_eq!(world.says(spec).await?, "5\nwritten");
    // Beside /dev too, and as an ordinary user of the container.
    let spec = with(
        world.script("head -c 5 /srv/z | wc -c").user("1000"),
        mapping("/dev/zero", "/srv/z", "rw")?,
    );
    match world.output(spec).await? {
        output if world.ownership().await? == "squashed" => drop(output),
        output => assert_eq!(text(&output.stdout), "5", "{output:?}"),
    }
    for (source, why) in [("/etc/hostname", "not a device node"), ("/dev/nowhere", "No such file")] {
        let container = world
            .engine
            .create(with(world.spec(), mapping(source, "/dev/mine", "rwm")?))
            .await?;
        let error = container.start().await.expect_err("no device");
        assert!(
            error.report().contains(why) && error.report().contains(source),
            "{}",
            error.report()
        );
        container.remove(FORCE).await?;
    }
    Ok(())
}

async fn h8_a_directory_of_devices() -> Check {
    if !Path::new("/dev/net/tun").exists() {
        return skip("this host has no /dev/net/tun");
    }
    let world = World::new().await?;
    let spec = with(
        world.script("ls /dev/nets; [ -c /dev/nets/tun ]"),
        mapping("/dev/net", "/dev/nets", "rwm")?,
    );
    assert_eq!(world.says(spec).await?, "tun");
    Ok(())
}

/// A run whose devices must be told apart by its cgroup, or a skip that says why not.
async fn filtered(world: &World, spec: ContainerSpec) -> Result<longshore::Output, Stop> {
    match world.engine.run(spec).output().await {
        Err(error) if matches!(error.kind(), ErrorKind::Unsupported { .. }) => skip(error.report()),
        other => Ok(other?),
    }
}

async fn h8_access_is_limited() -> Check {
    let world = World::new().await?;
    // Zero itself is every container's: a device of its own number is needed.
    let source = "/dev/loop-control";
    if !Path::new(source).exists() {
        return skip(format!("this host has no {source}"));
    }
    let script = "exec 3< /dev/mine && echo opened; exec 3>&-; (exec 3> /dev/mine) 2>&1 | sed 's/.*: //'; echo y > /dev/null && echo fine";
    let output = filtered(&world, with(world.script(script), mapping(source, "/dev/mine", "r")?)).await?;
    assert_eq!(
        text(&output.stdout),
        "opened\nOperation not permitted\nfine",
        "{output:?}"
    );
    // A command that joins is held to the same.
    let spec = with(
        world.spec().command(["sleep", "60"]),
        mapping(source, "/dev/mine", "r")?,
    );
    let container = world.started(spec).await?;
    let tried = container
        .exec(ExecSpec::new(["sh", "-c", "exec 3> /dev/mine"]))
        .output()
        .await?;
    assert!(text(&tried.stderr).ends_with("Operation not permitted"), "{tried:?}");
    container.remove(FORCE).await?;
    Ok(())
}

async fn h8_rules_let_nodes_of_its_own_work() -> Check {
    let world = World::new().await?;
    let script = "busybox mknod /tmp/lc c 10 237 && (exec 3< /tmp/lc) 2>&1 | sed 's/.*: //'; \
                  busybox mknod /tmp/null c 1 3 && echo x > /tmp/null && echo fine";
    let ruled = |rule: &str| -> Result<ContainerSpec, Stop> {
        let mut spec = world.script(script);
        spec.device_rules.push(rule.parse()?);
        Ok(spec)
    };
    // Without a rule no node of its own works, whichever it is.
    let plain = world.output(world.script(script)).await?;
    assert!(!text(&plain.stdout).contains("fine"), "{plain:?}");
    let other = filtered(&world, ruled("c 42:* rwm")?).await?;
    assert_eq!(text(&other.stdout), "Operation not permitted\nfine", "{other:?}");
    let allowed = filtered(&world, ruled("c 10:237 r")?).await?;
    assert_eq!(text(&allowed.stdout), "fine", "{allowed:?}");
    Ok(())
}

fn block_device() -> Result<PathBuf, Stop> {
    let all = ["/dev/vda", "/dev/sda", "/dev/nvme0n1", "/dev/loop0"];
    match all.iter().find(|path| Path::new(path).exists()) {
        Some(path) => Ok(path.into()),
        None => skip(format!("this host has none of {}", all.join(", "))),
    }
}

async fn h17_rates_reach_the_cgroup() -> Check {
    let world = World::new().await?;
    let mut spec = world.spec().command(["sleep", "60"]);
    spec.limits.device_read_bps.push(DeviceRate {
        path: block_device()?,
        rate: 1 << 20,
    });
    let container = limited(&world, spec.clone()).await?;
    let warnings = container.inspect().await?.warnings;
    if !warnings.is_empty() {
        container.remove(FORCE).await?;
        return skip(warnings.join("; "));
    }
    let value = cgroup_value(&container, &["io.max", "blkio.throttle.read_bps_device"]).await?;
    assert!(value.ends_with(" 1048576") || value.contains("rbps=1048576"), "{value}");
    container.remove(FORCE).await?;
    spec.limits.device_read_bps[0].path = "/dev/null".into();
    let error = world.engine.run(spec).await.expect_err("no block device");
    assert!(error.report().contains("no block device"), "{}", error.report());
    Ok(())
}

async fn h17_what_the_host_lacks_is_a_warning() -> Check {
    let world = World::new().await?;
    let mut spec = world.spec().command(["sleep", "60"]);
    spec.limits.huge_pages = [("3MB".to_owned(), longshore::Bytes::mib(3))].into();
    // No kernel has pages of that size.
    let container = limited(&world, spec).await?;
    let warnings = container.inspect().await?.warnings;
    assert!(
        warnings.iter().any(|warning| warning.contains("huge pages")),
        "{warnings:?}"
    );
    container.remove(FORCE).await?;
    Ok(())
}

async fn h25_umask() -> Check {
    let world = World::new().await?;
    assert_eq!(world.says(world.script("umask")).await?, "0022");
    let script = "umask; touch /tmp/f; stat -c %a /tmp/f";
    assert_eq!(world.says(world.script(script).umask(0o027u32)).await?, "0027\n640");
    let container = world
        .started(world.spec().command(["sleep", "60"]).umask(0o077u32))
        .await?;
    let said = container.exec(ExecSpec::new(["sh", "-c", "umask"])).output().await?;
    assert_eq!(text(&said.stdout), "0077");
    container.remove(FORCE).await?;
    Ok(())
}

async fn h25_a_time_zone() -> Check {
    let world = World::new().await?;
    let zone = "/usr/share/zoneinfo/Asia/Kolkata";
    let Ok(host) = std::fs::read(zone) else {
        return skip("the host has no descriptions of time zones (tzdata)");
    };
    let spec = world.spec().command(["cat", "/etc/localtime"]).timezone("Asia/Kolkata");
    let output = world.engine.run(spec).output().await?;
    assert!(
        output.status.success() && output.stdout == host,
        "{}",
        text(&output.stderr)
    );
    // What the C library makes of it; the image has nothing of its own.
    let at_the_epoch = world.script("date -d @0 +%H:%M");
    assert_eq!(world.says(at_the_epoch.clone()).await?, "00:00");
    assert_eq!(world.says(at_the_epoch.timezone("Asia/Kolkata")).await?, "05:30");
    let read_only = world.script("echo x > /etc/localtime").timezone("Asia/Kolkata");
    assert!(!world.engine.run(read_only).output().await?.status.success());
    assert_eq!(std::fs::read(zone)?, host);
    let unknown = world.engine.create(world.spec().timezone("Asia/Nowhere")).await;
    let unknown = unknown.expect_err("there is none");
    assert!(
        unknown.is_not_found() && unknown.to_string().contains("tzdata"),
        "{unknown}"
    );
    let bad = world.engine.create(world.spec().timezone("../../../etc/passwd")).await;
    assert_eq!(bad.expect_err("it is no name").kind(), &ErrorKind::InvalidArgument);
    assert!(world.containers().await?.is_empty());
    Ok(())
}
