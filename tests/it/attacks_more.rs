//! More of what containers have broken out by: programs that raise rights, terminals that are none, files of users that lie.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use longshore::containers::{MountFrom, MountSpec};
use longshore::{Container, ContainerSpec, ExecSpec, Signal};
use nix::sys::statvfs::{FsFlags, statvfs};

use crate::attacks::image_with;
#[cfg(target_arch = "x86_64")]
use crate::attacks::machine_code;
use crate::frame::{Check, Stop, skip};
use crate::support::scratch;
use crate::support::world::{FORCE, World, text};
use crate::tests;

tests! { "attacks_more":
    kernel_async [
        setuid_programs_of_a_bind_gain_nothing,
        a_terminal_that_is_none_is_no_way_out,
        users_that_are_none_are_nobody,
    ]
}

async fn sleeper(spec: ContainerSpec, world: &World) -> Result<Container, Stop> {
    world
        .started(spec.command(["sleep", "1000"]).stop_signal(Signal::KILL))
        .await
}

/// A program that ends with the last eight bits of the user that it runs as.
#[cfg(target_arch = "x86_64")]
fn teller() -> Result<Vec<u8>, Stop> {
    // mov eax, geteuid; syscall; mov edi, eax; mov eax, exit; syscall
    let code = [
        0xb8, 107, 0, 0, 0, 0x0f, 0x05, 0x89, 0xc7, 0xb8, 60, 0, 0, 0, 0x0f, 0x05,
    ];
    Ok(machine_code(&code))
}

#[cfg(not(target_arch = "x86_64"))]
fn teller() -> Result<Vec<u8>, Stop> {
    skip("machine code of x86_64")
}

/// What lies on the host is not what the container's users become root by, nor the other way round. A program that drops rights by
/// itself, as busybox does, would show nothing.
async fn setuid_programs_of_a_bind_gain_nothing() -> Check {
    const USER: u32 = 1000;
    let world = World::new().await?;
    if world.ownership().await? == "squashed" {
        return skip("there is one id, whoever it is called");
    }
    let dir = scratch::fresh("setuid");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    let program = dir.path().join("who");
    fs::write(&program, teller()?)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755))?;
    let run = async |mount: MountSpec| -> Result<i32, Stop> {
        let spec = world.spec().command(["/in/who"]).user(USER.to_string()).mount(mount);
        Ok(world.output(spec).await?.status.code())
    };
    let user = i32::try_from(USER & 0xff)?;
    assert_eq!(run(MountSpec::bind(dir.path(), "/in")).await?, user);
    assert_eq!(run(MountSpec::bind(dir.path(), "/in").read_only()).await?, user);
    if statvfs(dir.path())?.flags().contains(FsFlags::ST_NOSUID) {
        return Ok(());
    }
    // It is the container's mount that keeps it from that, and whoever wants it can have it.
    let mut with = MountSpec::bind(dir.path(), "/in");
    if let MountFrom::Bind(bind) = &mut with.source {
        bind.setuid = true;
    }
    assert_eq!(run(with.clone()).await?, 0);
    let spec = world.spec().command(["/in/who"]).user(USER.to_string()).mount(with);
    let kept = world.output(spec.no_new_privileges(true)).await?;
    assert_eq!(kept.status.code(), user);
    Ok(())
}

/// CVE-2025-52565 in a container that runs, and may mount: what lies where terminals are made is something else when a command wants
/// one.
async fn a_terminal_that_is_none_is_no_way_out() -> Check {
    let world = World::new().await?;
    let host = scratch::fresh("terminal");
    let file = host.path().join("file");
    fs::write(&file, "of the host")?;
    let traps = [
        format!("busybox ln -s ../../../../../../..{} /dev/pts/ptmx", file.display()),
        "busybox ln -s /proc/1/root/etc/passwd /dev/pts/ptmx".to_owned(),
        "busybox mkfifo /dev/pts/ptmx".to_owned(),
        "busybox touch /dev/pts/ptmx".to_owned(),
        "busybox mkdir /dev/pts/ptmx".to_owned(),
        "busybox mknod /dev/pts/ptmx c 1 3".to_owned(),
        "true".to_owned(),
    ];
    for trap in traps {
        let container = sleeper(world.spec().privileged(true), &world).await?;
        let script = format!("busybox mount -t tmpfs trap /dev/pts || exit; {trap}; true");
        let set = container.exec(ExecSpec::new(["sh", "-c", &script])).output().await?;
        assert!(set.status.success(), "{trap}: {}", text(&set.stderr));
        let before = container.exec(ExecSpec::new(["cat", "/etc/passwd"])).output().await?;
        let tried = container.exec(ExecSpec::new(["true"]).tty(true)).output().await;
        assert!(tried.is_err(), "{trap}: {:?}", tried.map(|output| text(&output.stdout)));
        let after = container.exec(ExecSpec::new(["cat", "/etc/passwd"])).output().await?;
        assert_eq!(text(&before.stdout), text(&after.stdout), "{trap}");
        assert_eq!(fs::read_to_string(&file)?, "of the host", "{trap}");
        // Without a terminal it goes on.
        assert!(container.exec(ExecSpec::new(["true"])).output().await?.status.success());
        container.remove(FORCE).await?;
    }
    Ok(())
}

/// CVE-2026-30892 and its kin: a user whose number wraps around, or is none, becomes root.
async fn users_that_are_none_are_nobody() -> Check {
    const LINES: &str = "root:x:0:0::/:/bin/sh\n\
        wrap:x:4294967296:4294967296::/:/bin/sh\n\
        minus:x:-1:-1::/:/bin/sh\n\
        blank:x:::/:/bin/sh\n\
        hex:x:0x10:0x10::/:/bin/sh\n\
        tail:x:12abc:12::/:/bin/sh\n\
        plus:x:+0:+0::/:/bin/sh\n\
        space:x: 0: 0::/:/bin/sh\n\
        short:x\n\
        zero\u{0}:x:0:0::/:/bin/sh\n";
    const NAMES: [&str; 20] = [
        "wrap",
        "minus",
        "blank",
        "hex",
        "tail",
        "plus",
        "space",
        "short",
        "zero",
        "nobody-at-all",
        "4294967296",
        "18446744073709551616",
        "-1",
        "+0",
        "0x0",
        " 0",
        "0 ",
        "1000:4294967296",
        "1000:-1",
        "1000:1000:0",
    ];
    let world = World::new().await?;
    let image = image_with(&world, |files| files.file("etc/passwd", 0o644, LINES)).await?;
    let container = sleeper(ContainerSpec::image(&image), &world).await?;
    for name in NAMES {
        let command = ExecSpec::new(["id", "-u"]).user(name);
        let ran = container.exec(command).output().await;
        assert!(ran.is_err(), "{name:?} is {}", ran.map(|output| text(&output.stdout))?);
        let spec = ContainerSpec::image(&image).command(["id", "-u"]).user(name);
        let ran = world.engine.run(spec).output().await;
        assert!(ran.is_err(), "{name:?} is {}", ran.map(|output| text(&output.stdout))?);
    }
    let root = container
        .exec(ExecSpec::new(["id", "-u"]).user("root"))
        .output()
        .await?;
    assert_eq!(text(&root.stdout), "0");
    container.remove(FORCE).await?;
    Ok(())
}
