//! What the host offers, and roots that cannot be opened.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};

use longshore::{Engine, ErrorKind};

use crate::frame::{Check, skip};
use crate::support::is_root;
use crate::support::root::TempRoot;
use crate::support::world::World;
use crate::tests;

tests! { "host":
    kernel [k2_every_no_has_a_remedy, k6_nothing_but_the_c_library_is_linked]
    kernel_async [
        e3_the_choice_of_storage_says_why,
        another_users_root_is_refused,
        a_root_that_cannot_be_written,
        a_newer_root_is_refused,
        a_root_that_is_a_file,
    ]
}

fn k2_every_no_has_a_remedy() -> Check {
    let probe = Engine::probe();
    for name in [
        "user_namespaces",
        "subuid",
        "subgid",
        "newuidmap",
        "overlay",
        "overlay_userns",
        "cgroup",
        "cgroup_memory",
        "nftables",
        "seccomp",
        "apparmor_userns",
        "memfd_exec",
    ] {
        assert!(probe.get(name).is_some(), "nothing is said of {name}: {probe:?}");
    }
    for feature in probe.missing() {
        assert!(
            feature.remedy.as_ref().is_some_and(|remedy| !remedy.is_empty()),
            "{feature:?}"
        );
    }
    for feature in &probe.features {
        println!("{:<24} {:<8} {}", feature.name, feature.state.as_str(), feature.detail);
    }
    Ok(())
}

/// This program has every feature of the library. What of the host's libraries is mapped into it is the C library with its parts,
/// and what that loads by itself to look users up.
fn k6_nothing_but_the_c_library_is_linked() -> Check {
    const KNOWN: [&str; 10] = [
        "ld-",
        "libc.",
        "libm.",
        "libgcc_s.",
        "libpthread.",
        "libdl.",
        "librt.",
        "libresolv.",
        "libnss_",
        "libutil.",
    ];
    let maps = fs::read_to_string("/proc/self/maps")?;
    let files = maps.lines().filter_map(|line| line.split_ascii_whitespace().nth(5));
    let libraries = files
        .filter_map(|file| file.rsplit('/').next())
        .filter(|name| name.contains(".so"));
    let mut strange: Vec<&str> = libraries
        .filter(|name| !KNOWN.iter().any(|known| name.starts_with(known)))
        .collect();
    strange.sort_unstable();
    strange.dedup();
    assert!(strange.is_empty(), "{strange:?}");
    Ok(())
}

async fn e3_the_choice_of_storage_says_why() -> Check {
    let world = World::new().await?;
    let info = world.engine.system().info().await?;
    assert!(["overlayfs", "vfs"].contains(&info.storage_driver.as_str()), "{info:?}");
    assert!(!info.storage_reason.is_empty());
    // A machine that is known to have overlays must not get away with copies.
    if let Ok(expected) = std::env::var("LONGSHORE_IT_STORAGE") {
        assert_eq!(info.storage_driver, expected, "{}", info.storage_reason);
    }
    Ok(())
}

async fn another_users_root_is_refused() -> Check {
    if !is_root() {
        return skip("only root can give a directory to another user");
    }
    let root = TempRoot::new();
    drop(Engine::open(root.path()).await?);
    chown(root.path(), Some(12_345), Some(12_345))?;
    let refused = Engine::open(root.path()).await.expect_err("it is not ours");
    assert_eq!(refused.kind(), &ErrorKind::Denied, "{}", refused.report());
    Ok(())
}

async fn a_root_that_cannot_be_written() -> Check {
    if is_root() {
        return skip("root can write anywhere");
    }
    let root = TempRoot::new();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o500))?;
    let refused = Engine::open(root.path()).await.expect_err("it cannot be written");
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o700))?;
    assert!(
        matches!(refused.kind(), ErrorKind::Denied | ErrorKind::ReadOnly),
        "{}",
        refused.report()
    );
    Ok(())
}

async fn a_newer_root_is_refused() -> Check {
    let root = TempRoot::new();
    drop(Engine::open(root.path()).await?);
    let mut raised = 0;
    for entry in fs::read_dir(root.path())?.flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "db") {
            rusqlite::Connection::open(entry.path())?.pragma_update(None, "user_version", 9999)?;
            raised += 1;
        }
    }
    assert!(raised > 0, "no database in the root");
    let refused = Engine::open(root.path()).await.expect_err("it is newer");
    assert_eq!(refused.kind(), &ErrorKind::NewerVersion, "{}", refused.report());
    Ok(())
}

async fn a_root_that_is_a_file() -> Check {
    let root = TempRoot::new();
    let file = root.path().join("file");
    fs::write(&file, "x")?;
    let refused = Engine::open(&file).await.expect_err("it is a file");
    assert!(!matches!(refused.kind(), ErrorKind::Internal), "{}", refused.report());
    Ok(())
}
