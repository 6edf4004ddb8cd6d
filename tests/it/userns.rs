//! Containers with a user namespace of their own, and where that cannot be.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use longshore::types::IdRange;
use longshore::{Engine, ErrorKind};

use crate::frame::{Check, Stop};
use crate::support::is_root;
use crate::support::root::TempRoot;
use crate::support::world::{FORCE, World, source, text};
use crate::support::{image, scratch};
use crate::tests;

tests! { "userns":
    kernel_async [
        h18_a_container_has_a_user_namespace_of_its_own,
        e5_two_maps_share_one_layer,
        e5_binds_are_written_as_if_there_were_none,
        h18_nothing_reaches_out_of_a_user_namespace,
        k4_without_ids_the_file_to_write_is_named,
    ]
}

/// Nobody's ids on this machine.
pub const FIRST: u32 = 1_900_000;

/// An engine that has ids for such containers; as an ordinary user it has its own.
pub async fn world(first: u32) -> Result<World, Stop> {
    let root = TempRoot::new();
    let ids = IdRange::new(0, first, 65_536);
    let engine = Engine::builder(root.path()).container_ids(ids).open().await?;
    let image = engine.pull(source(image::shared()?)).await?;
    Ok(World { engine, image, root })
}

/// The first number of a line of `/proc/PID/status`.
fn status_number(pid: u32, key: &str) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .expect("a number")
}

async fn h18_a_container_has_a_user_namespace_of_its_own() -> Check {
    let world = world(FIRST).await?;
    let script = "id -u; id -g; stat -c %u:%g /bin/busybox /tmp /etc/hostname /dev/null /dev/shm; echo y > /made && stat -c %u /made";
    let says = world.says(world.script(script).user_namespace(true)).await?;
    let expected = if is_root() {
        "0\n0\n0:0\n0:0\n0:0\n0:0\n0:0\n0"
    } else {
        // The host's devices: its root is not mapped.
        "0\n0\n0:0\n0:0\n0:0\n65534:65534\n0:0\n0"
    };
    assert_eq!(says, expected);
    let container = world
        .started(world.spec().command(["sleep", "60"]).user_namespace(true))
        .await?;
    let info = container.inspect().await?;
    let pid = info.pid.expect("it runs");
    assert_ne!(status_number(pid, "Uid:"), 0, "root in it is nobody outside");
    assert!(!info.uid_map.is_empty() && !info.gid_map.is_empty(), "{info:?}");
    assert_eq!(info.uid_map[0].outside, status_number(pid, "Uid:"));
    if is_root() {
        assert_eq!(info.uid_map, [IdRange::new(0, FIRST, 65_536)]);
        assert_eq!(info.gid_map, [IdRange::new(0, FIRST, 65_536)]);
    }
    let own = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/user"));
    assert_ne!(own(pid)?, own(std::process::id())?);
    let plain = world.started(world.spec().command(["sleep", "60"])).await?;
    let other = plain.inspect().await?;
    let other_pid = other.pid.expect("it runs");
    assert_ne!(own(pid)?, own(other_pid)?, "it is the container's own");
    assert_eq!(other.uid_map.is_empty(), is_root());
    container.remove(FORCE).await?;
    plain.remove(FORCE).await?;
    Ok(())
}

/// Nothing of the layer is copied or changed for a second map.
async fn e5_two_maps_share_one_layer() -> Check {
    let world = world(FIRST).await?;
    let script = "stat -c %u /bin/busybox; echo x > /root/x; chown 7:8 /root/x; stat -c %u:%g /root/x";
    let first = text(
        &world
            .engine
            .run(world.script(script).user_namespace(true))
            .output()
            .await?
            .stdout,
    );
    let World { engine, image, root } = world;
    let id = image.id().to_string();
    drop((engine, image));
    let ids = IdRange::new(0, FIRST + 100_000, 65_536);
    let engine = Engine::builder(root.path()).container_ids(ids).open().await?;
    let image = engine.image(&id).await?;
    let world = World { engine, image, root };
    let second = world.output(world.script(script).user_namespace(true)).await?;
    let none = world.output(world.script(script)).await?;
    let expected = if world.ownership().await? == "squashed" {
        "0\n0:0"
    } else {
        "0\n7:8"
    };
    assert_eq!(first, expected);
    assert_eq!(text(&second.stdout), expected, "{}", text(&second.stderr));
    assert_eq!(text(&none.stdout), expected, "{}", text(&none.stderr));
    Ok(())
}

async fn e5_binds_are_written_as_if_there_were_none() -> Check {
    let world = world(FIRST).await?;
    let dir = scratch::fresh("bind");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    fs::write(dir.path().join("given"), "given")?;
    let script = "stat -c %u /host/given; cat /host/given; echo; echo made > /host/made; stat -c %u /host/made";
    let spec = world.script(script).user_namespace(true).bind(dir.path(), "/host");
    assert_eq!(world.says(spec).await?, "0\ngiven\n0");
    let made = fs::metadata(dir.path().join("made"))?;
    assert_eq!(made.uid(), nix::unistd::geteuid().as_raw(), "the caller's own");
    let spec = world
        .script("echo x > /host/x")
        .user_namespace(true)
        .bind_read_only(dir.path(), "/host");
    assert!(!world.output(spec).await?.status.success());
    assert!(!dir.path().join("x").exists());
    Ok(())
}

async fn h18_nothing_reaches_out_of_a_user_namespace() -> Check {
    let world = world(FIRST).await?;
    let name = fs::read_to_string("/proc/sys/kernel/hostname")?;
    // Every capability, no filter, the host's network: still nothing of the host's obeys.
    let script = "hostname inside && hostname
        mount -t sysfs sysfs /tmp 2>/dev/null && echo sysfs
        ip link set lo down 2>/dev/null && echo lo
        mknod /tmp/memory c 1 1 2>/dev/null && echo device
        mount -o remount,rw /proc/sys; echo 1 > /proc/sys/kernel/panic_on_oops && echo sysctl
        for f in /proc/sysrq-trigger /sys/kernel/profiling; do echo b > $f && echo $f; done
        echo end";
    let mut spec = world.script(script).user_namespace(true).cap_add("ALL");
    spec.seccomp = longshore::Seccomp::Unconfined;
    spec.network = longshore::NetworkMode::Host;
    spec.masked_paths = Some(Vec::new());
    let output = world.output(spec).await?;
    assert_eq!(text(&output.stdout), "inside\nend", "{}", text(&output.stderr));
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname")?, name);
    Ok(())
}

async fn k4_without_ids_the_file_to_write_is_named() -> Check {
    let given = fs::read_to_string("/etc/subuid").unwrap_or_default();
    let has_range = given
        .lines()
        .any(|line| line.starts_with("root:") || line.starts_with("0:"));
    if !is_root() || has_range {
        return crate::frame::skip("this user has ids to give");
    }
    let world = World::new().await?;
    let refused = world
        .engine
        .run(world.spec().command(["true"]).user_namespace(true))
        .output()
        .await;
    let error = refused.expect_err("there are no ids");
    assert!(
        matches!(error.kind(), ErrorKind::Unsupported { .. }),
        "{}",
        error.report()
    );
    assert!(error.report().contains("/etc/subuid"), "{}", error.report());
    Ok(())
}
