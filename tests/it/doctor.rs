//! A root that lost a file, whichever, or has it damaged.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use longshore::types::Filter;
use longshore::{ContainerSpec, Engine, ErrorKind};

use crate::faults::{kills, role};
use crate::frame::{Check, Stop, block_on, fail};
use crate::support::embedder::{Embedder, Role};
use crate::support::registry::Registry;
use crate::support::root::TempRoot;
use crate::support::world::{source, text};
use crate::support::{image, long_loops};
use crate::tests;

tests! { "doctor":
    kernel [
        k9_whichever_file_is_lost_the_store_can_be_used,
        k9_damaged_files_are_found_and_repaired,
        k9_a_root_that_is_none_is_left_alone,
        k9_what_is_open_is_not_repaired,
    ]
    kernel_async [
        k9_a_blob_is_fetched_again,
    ]
}

/// What this binary does as a child.
pub const ROLES: &[(&str, Role)] = &[("fill", |arguments| block_on(role(fill(&arguments[0], &arguments[1]))))];

async fn fill(root: &str, source: &str) -> longshore::Result<()> {
    let engine = Engine::open(root).await?;
    let image = engine.pull(source).await?;
    image.tag(&"busybox".parse()?).await?;
    println!("filled");
    Ok(())
}

/// A root with an image, from a process that is gone: SQLite maps a file of the root, and that must not be cut off while a
/// connection of this process is on its way out.
fn filled(root: &Path) -> Check {
    let child = Embedder::start("fill", &[&root.display().to_string(), &source(image::shared()?)])?;
    let line = child.line(Duration::from_secs(60))?;
    if line != "filled" {
        return fail(line);
    }
    child.finish()?;
    Ok(())
}

fn filled_root() -> Result<TempRoot, Stop> {
    let root = TempRoot::new();
    filled(root.path())?;
    Ok(root)
}

/// Every file and symbolic link below a directory, in an order that is the same for all roots that were filled the same way.
fn files(root: &Path) -> Result<Vec<PathBuf>, Stop> {
    let mut found = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(dir) = waiting.pop() {
        let entries = match fs::read_dir(&dir) {
            // Overlay's own directories are nobody's to read.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                waiting.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    // Names of trees are random: what counts is where they are.
    let place = |path: &PathBuf| {
        let inside = path.strip_prefix(root).unwrap_or(path).display().to_string();
        let mut parts: Vec<String> = inside.split('/').map(str::to_owned).collect();
        if parts.len() > 3 && parts[0] == "snapshots" {
            parts[2] = String::new();
        }
        parts.join("/")
    };
    found.sort_by_key(place);
    Ok(found)
}

/// Runs what the root has, or fetches it anew where it was lost.
fn usable(root: &Path, what: &str) -> Check {
    let repaired = Engine::repair(root);
    let repaired = repaired.or_else(|error| fail(format!("{what}: {}", error.report())))?;
    block_on(async {
        let engine = Engine::open(root).await?;
        let diagnosis = engine.doctor(true).await?;
        let told = || format!("{what}: {repaired:?}, {diagnosis:?}");
        let listed = engine.list_images(Filter::new()).await?;
        // What is listed can be run.
        for image in &listed {
            let spec = ContainerSpec::image(image.id.to_string()).command(["cat", "/etc/secret"]);
            let output = engine.run(spec).output().await?;
            assert_eq!(text(&output.stdout), "the tide table", "{}", told());
        }
        // And what was lost comes again.
        engine.pull(source(image::shared()?)).await?;
        let again = engine.doctor(true).await?;
        assert!(again.left.is_empty(), "{}: {again:?}", told());
        assert!(engine.doctor(false).await?.is_healthy(), "{}", told());
        Ok(())
    })
}

fn k9_whichever_file_is_lost_the_store_can_be_used() -> Check {
    let root = filled_root()?;
    let all = files(root.path())?.len();
    drop(root);
    // All of them where time is no matter; else so many.
    let wanted = if long_loops() { 4 * kills() } else { 12 };
    for number in (0..all).step_by((all / wanted).max(1)) {
        let root = TempRoot::new();
        filled(root.path())?;
        let files = files(root.path())?;
        let Some(lost) = files.get(number) else { continue };
        let shown = lost.strip_prefix(root.path())?.display().to_string();
        fs::remove_file(lost)?;
        usable(root.path(), &shown)?;
    }
    // Those that a root cannot be opened without.
    for name in [
        "version",
        "store.db",
        "store.db-wal",
        "backend.snapshotter",
        "backend.ownership",
        "run.db",
        "run.boot",
        "id",
    ] {
        let root = TempRoot::new();
        filled(root.path())?;
        let _ = fs::remove_file(root.path().join(name));
        usable(root.path(), name)?;
    }
    Ok(())
}

fn k9_damaged_files_are_found_and_repaired() -> Check {
    let root = filled_root()?;
    let named = |part: &str| -> Result<PathBuf, Stop> {
        let all = files(root.path())?;
        let found = all.into_iter().find(|path| path.display().to_string().ends_with(part));
        found.ok_or_else(|| Stop::Fail(format!("no file {part}")))
    };
    let spoil = |path: &Path| -> Check {
        let mut bytes = fs::read(path)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x55;
        fs::write(path, bytes)?;
        Ok(())
    };
    spoil(&named("etc/secret")?)?;
    spoil(&named(&image::shared()?.layers[0].0.replace("sha256:", ""))?)?;
    block_on(async {
        let engine = Engine::open(root.path()).await?;
        // The layer's blob is damaged too, so nothing says what the file should be.
        let found = engine.doctor(false).await?;
        assert_eq!(found.left.len(), 1, "{found:?}");
        engine.doctor(true).await?;
        engine.pull(source(image::shared()?)).await?;
        let found = engine.doctor(false).await?;
        assert!(
            found.left.len() == 1 && found.left[0].what.contains("etc/secret"),
            "{found:?}"
        );
        let fixed = engine.doctor(true).await?;
        assert_eq!((fixed.repaired.len(), fixed.left.len()), (1, 0), "{fixed:?}");
        assert!(engine.doctor(false).await?.is_healthy());
        let output = engine
            .run(ContainerSpec::image("busybox").command(["cat", "/etc/secret"]))
            .output()
            .await?;
        assert_eq!(text(&output.stdout), "the tide table");
        // What a running container stands on stays as it is.
        let container = engine
            .run(ContainerSpec::image("busybox").command(["sleep", "60"]))
            .await?;
        spoil(&named("etc/passwd")?)?;
        let found = engine.doctor(true).await?;
        assert_eq!((found.repaired.len(), found.left.len()), (0, 1), "{found:?}");
        container.remove(longshore::RemoveOptions::force()).await?;
        assert_eq!(engine.doctor(true).await?.repaired.len(), 1);
        Ok(())
    })
}

fn k9_a_root_that_is_none_is_left_alone() -> Check {
    let root = TempRoot::new();
    fs::create_dir_all(root.path())?;
    let mut file = fs::File::create(root.path().join("letter"))?;
    file.write_all(b"dear")?;
    let error = Engine::repair(root.path()).expect_err("no root");
    assert_eq!(error.kind(), &ErrorKind::InvalidArgument);
    assert_eq!(fs::read_dir(root.path())?.count(), 1);
    Ok(())
}

fn k9_what_is_open_is_not_repaired() -> Check {
    let root = filled_root()?;
    block_on(async {
        let _engine = Engine::open(root.path()).await?;
        fs::remove_file(root.path().join("store.db"))?;
        let error = Engine::repair(root.path()).expect_err("in use");
        assert_eq!(error.kind(), &ErrorKind::Conflict, "{}", error.report());
        Ok(())
    })
}

async fn k9_a_blob_is_fetched_again() -> Check {
    let registry = Registry::with(
        crate::support::registry::Options::default(),
        &[(image::shared()?, "busybox", "1")],
    )?;
    let root = TempRoot::new();
    let engine = Engine::open(root.path()).await?;
    let name = registry.reference("busybox:1");
    engine.pull(&name).await?;
    let shared = image::shared()?;
    for digest in [&shared.manifest, &shared.config, &shared.layers[0].0] {
        fs::remove_file(root.path().join("content/blobs").join(digest.replace(':', "/")))?;
        let found = engine.doctor(true).await?;
        assert_eq!((found.repaired.len(), found.left.len()), (1, 0), "{digest}: {found:?}");
        assert!(engine.doctor(false).await?.is_healthy());
    }
    let output = engine
        .run(ContainerSpec::image(&name).command(["cat", "/etc/secret"]))
        .output()
        .await?;
    assert_eq!(text(&output.stdout), "the tide table");
    Ok(())
}
