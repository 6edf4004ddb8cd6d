//! The fixtures themselves: a leak check that finds nothing is worth nothing.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::frame::{Check, skip};
use crate::support::embedder::Embedder;
use crate::support::leaks::Snapshot;
use crate::support::registry::{Options, Registry};
use crate::support::{http, image, is_root, program, runtime, scratch};
use crate::tests;

tests! { "fixtures":
    pure [an_image_is_made_of_busybox]
    kernel [
        a_left_descriptor_is_found,
        a_left_process_is_found,
        a_left_file_is_found,
        a_left_mount_is_found,
        a_left_cgroup_is_found,
        what_goes_away_in_time_is_no_leak,
        a_plain_registry_serves_what_was_pushed,
        a_registry_with_tls_and_password_starts,
        a_role_runs_and_is_killed,
    ]
}

/// Long enough to look, too short for a leak to vanish.
const GLANCE: Duration = Duration::from_millis(1);

fn found(before: &Snapshot, what: &str) -> bool {
    before.leaks_within(GLANCE).iter().any(|leak| leak.contains(what))
}

fn a_left_descriptor_is_found() -> Check {
    let before = Snapshot::take();
    let file = fs::File::open("/dev/null")?;
    assert!(found(&before, "/dev/null"));
    drop(file);
    Ok(())
}

fn a_left_process_is_found() -> Check {
    let before = Snapshot::take();
    let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn()?;
    let seen = found(&before, &format!("process {}", child.id()));
    child.kill()?;
    child.wait()?;
    assert!(seen);
    Ok(())
}

fn a_left_file_is_found() -> Check {
    let before = Snapshot::take();
    let file = scratch::dir().join("left");
    fs::write(&file, "x")?;
    let seen = found(&before, "file left");
    fs::remove_file(file)?;
    assert!(seen);
    Ok(())
}

fn a_left_mount_is_found() -> Check {
    if !is_root() {
        return skip("only root can mount in the host's namespace");
    }
    runtime::namespaces()?;
    let dir = scratch::fresh("mount");
    let before = Snapshot::take();
    nix::mount::mount(
        Some("none"),
        dir.path(),
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        None::<&str>,
    )?;
    let seen = found(&before, "tmpfs none");
    nix::mount::umount(dir.path())?;
    assert!(seen);
    Ok(())
}

fn a_left_cgroup_is_found() -> Check {
    let parent = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .into_iter()
        .find(|dir| std::path::Path::new(dir).join("cgroup.procs").exists());
    let (true, Some(parent)) = (is_root(), parent) else {
        return skip("needs root and cgroup v2");
    };
    if std::env::var_os(crate::support::leaks::SHARED_HOST).is_some() {
        return skip("cgroups are not looked at on a shared host");
    }
    let dir = format!("{parent}/longshore-leak-{}", std::process::id());
    let before = Snapshot::take();
    fs::create_dir(&dir)?;
    let seen = found(&before, &dir);
    fs::remove_dir(&dir)?;
    assert!(seen);
    Ok(())
}

fn what_goes_away_in_time_is_no_leak() -> Check {
    let before = Snapshot::take();
    let mut child = Command::new("sleep").arg("0.2").stdin(Stdio::null()).spawn()?;
    let waiter = std::thread::spawn(move || child.wait());
    let leaks = before.leaks_within(Duration::from_secs(10));
    waiter.join().expect("the waiter ends")?;
    assert!(leaks.is_empty(), "{leaks:?}");
    Ok(())
}

fn an_image_is_made_of_busybox() -> Check {
    let dir = scratch::fresh("layout");
    let layout = image::busybox(dir.path())?;
    assert_eq!(image::digest(&layout.blob(&layout.manifest)?), layout.manifest);
    assert_eq!(layout.layers.len(), 1);
    assert!(layout.total_bytes()? > 500_000);
    Ok(())
}

fn a_plain_registry_serves_what_was_pushed() -> Check {
    let dir = scratch::fresh("layout");
    let layout = image::busybox(dir.path())?;
    let registry = Registry::plain()?;
    layout.push(registry.addr, "library/busybox", "1")?;
    let path = format!("/v2/library/busybox/blobs/{}", layout.config);
    let blob = http::request(registry.addr, "GET", &path, "text/plain", b"")?;
    assert_eq!((blob.status, image::digest(&blob.body)), (200, layout.config.clone()));
    assert_eq!(registry.downloads(&layout.config), 1);
    assert!(registry.requests() > 4);
    assert!(registry.blob_file(&layout.config).exists());
    assert!(registry.reference("a:b").starts_with("127.0.0.1:"));
    Ok(())
}

fn a_registry_with_tls_and_password_starts() -> Check {
    let dir = scratch::fresh("layout");
    let layout = image::busybox(dir.path())?;
    let options = Options {
        tls: true,
        basic_auth: true,
    };
    let registry = Registry::with(options, &[(&layout, "busybox", "1")])?;
    let curl = program("openssl")?;
    let output = Command::new(curl)
        .args(["s_client", "-verify_return_error", "-CAfile"])
        .arg(registry.authority())
        .args(["-connect", &registry.addr.to_string()])
        .stdin(Stdio::null())
        .output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn a_role_runs_and_is_killed() -> Check {
    let mut role = Embedder::start("echo", &["ready", "steady"])?;
    assert_eq!(role.line(Duration::from_secs(5))?, "ready");
    assert_eq!(role.line(Duration::from_secs(5))?, "steady");
    assert!(std::path::Path::new(&format!("/proc/{}", role.pid())).exists());
    role.kill()?;
    assert_eq!(Embedder::start("nobody", &[])?.finish()?, 125);
    Ok(())
}

/// Prints its arguments and stays.
pub fn role_echo(arguments: &[String]) -> i32 {
    for argument in arguments {
        println!("{argument}");
    }
    std::thread::sleep(Duration::from_secs(60));
    0
}
