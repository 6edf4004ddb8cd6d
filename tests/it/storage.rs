//! Both storage drivers, seen from inside of containers; file systems that share blocks; roots in awkward places.

use std::fs;

use longshore::{ContainerSpec, Engine};
use serde_json::json;

use crate::frame::{Check, Stop};
use crate::support::disk::{Disk, OverlayRoot};
use crate::support::image::{self, Files, Layout, busybox_files};
use crate::support::root::TempRoot;
use crate::support::scratch;
use crate::support::world::{FORCE, source, text};
use crate::tests;

tests! { "storage":
    kernel_async [
        e1_overlayfs_shows_what_the_layers_say,
        e1_vfs_shows_what_the_layers_say,
        e2_a_copy_where_blocks_cannot_be_shared,
        e2_blocks_are_shared_on_btrfs,
        e2_blocks_are_shared_on_xfs,
        e3_a_root_on_an_overlay,
    ]
}

/// Three layers: the middle one's files are hidden, replaced and linked by the top one's.
fn layered() -> Result<(tempfile::TempDir, Layout), Stop> {
    let dir = scratch::fresh("layout");
    let middle = Files::new()
        .dir("d", 0o755)
        .file("d/kept", 0o640, "kept")
        .file("d/gone", 0o644, "gone")
        .dir("d/sub", 0o755)
        .file("d/sub/deep", 0o644, "deep")
        .dir("o", 0o711)
        .file("o/old", 0o644, "old")
        .file("hard", 0o644, "one file")
        .hard_link("link", "hard")
        .link("soft", "d/kept")
        .file("becomes-dir", 0o644, "file")
        .file("setuid", 0o4755, "x");
    let top = Files::new()
        .file("d/.wh.gone", 0o644, "")
        .file("d/.wh.sub", 0o644, "")
        .dir("o", 0o711)
        .file("o/.wh..wh..opq", 0o644, "")
        .file("o/new", 0o644, "new")
        .dir("becomes-dir", 0o755)
        .file("becomes-dir/in", 0o644, "in")
        .file(format!("long/{}", "n".repeat(200)), 0o644, "long");
    let settings = json!({ "Cmd": ["sh"], "Env": ["PATH=/bin"] });
    let layout = image::write_layout(dir.path(), &[busybox_files()?, middle, top], &settings)?;
    Ok((dir, layout))
}

const LOOK: &str = "ls d; ls o; stat -c '%h %a' hard; stat -c %a d/kept o setuid; cat link; echo; cat soft; echo; \
                    cat becomes-dir/in; echo; cat long/n*; echo; ls -a d o | grep -c wh";

const SEEN: &str = "kept\nnew\n2 644\n640\n711\n4755\none file\nkept\nin\nlong\n0";

async fn driver_shows(driver: &str) -> Check {
    let (_dir, layout) = layered()?;
    let root = TempRoot::new();
    let engine = Engine::builder(root.path()).snapshotter(driver).open().await?;
    let image = engine.pull(source(&layout)).await?.id().to_string();
    let run = |script: &str| {
        let spec = ContainerSpec::image(&image).command(["sh", "-c", script]);
        engine.run(spec).output()
    };
    let output = run(LOOK).await?;
    assert_eq!(text(&output.stdout), SEEN, "{}", text(&output.stderr));
    let worn = "rm -r d o && echo changed > hard && chmod 0 link && mkdir d && touch d/own && ls d && cat hard";
    assert_eq!(text(&run(worn).await?.stdout), "own\nchanged");
    assert_eq!(
        text(&run(LOOK).await?.stdout),
        SEEN,
        "what one container does, no other sees"
    );
    assert_eq!(engine.system().info().await?.storage_driver, driver);
    Ok(())
}

async fn e1_overlayfs_shows_what_the_layers_say() -> Check {
    driver_shows("overlayfs").await
}

async fn e1_vfs_shows_what_the_layers_say() -> Check {
    driver_shows("vfs").await
}

/// An image with one large file that does not compress, and its size.
fn large(mebibytes: usize) -> Result<(tempfile::TempDir, Layout), Stop> {
    let dir = scratch::fresh("layout");
    let mut noise = vec![0u8; mebibytes << 20];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for chunk in noise.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
    let files = busybox_files()?.file("large", 0o644, noise);
    let layout = image::write_layout(dir.path(), &[files], &json!({ "Cmd": ["sh"], "Env": ["PATH=/bin"] }))?;
    Ok((dir, layout))
}

async fn blocks_are_shared(kind: &str) -> Check {
    let disk = Disk::of_kind(kind, 3 << 30)?;
    let mebibytes = if crate::faults::kills() > 20 { 500 } else { 48 };
    let (_dir, layout) = large(mebibytes)?;
    let engine = Engine::builder(disk.path().join("root"))
        .snapshotter("vfs")
        .open()
        .await?;
    let image = engine.pull(source(&layout)).await?.id().to_string();
    nix::unistd::sync();
    let before = disk.free()?;
    let start = std::time::Instant::now();
    let container = engine
        .create(ContainerSpec::image(&image).command(["wc", "-c", "/large"]))
        .await?;
    let took = start.elapsed();
    nix::unistd::sync();
    let more = before.saturating_sub(disk.free()?);
    println!(
        "{mebibytes} MiB on {kind}: a clone took {took:?} and {} KiB",
        more >> 10
    );
    assert!(more < 5 << 20, "{more} bytes more for a clone of {mebibytes} MiB");
    container.start().await?;
    assert_eq!(container.wait().await?.status.code(), 0);
    container.remove(FORCE).await?;
    Ok(())
}

async fn e2_blocks_are_shared_on_btrfs() -> Check {
    blocks_are_shared("btrfs").await
}

async fn e2_blocks_are_shared_on_xfs() -> Check {
    blocks_are_shared("xfs").await
}

async fn e2_a_copy_where_blocks_cannot_be_shared() -> Check {
    let root = TempRoot::new();
    let (_dir, layout) = large(4)?;
    let engine = Engine::builder(root.path()).snapshotter("vfs").open().await?;
    let image = engine.pull(source(&layout)).await?.id().to_string();
    let run = |script: &str| {
        let spec = ContainerSpec::image(&image).command(["sh", "-c", script]);
        engine.run(spec).output()
    };
    assert_eq!(
        text(&run("wc -c < /large; echo x > /large; wc -c < /large").await?.stdout),
        "4194304\n2"
    );
    assert_eq!(
        text(&run("wc -c < /large").await?.stdout),
        "4194304",
        "a copy is one's own"
    );
    Ok(())
}

async fn e3_a_root_on_an_overlay() -> Check {
    let overlay = OverlayRoot::new()?;
    let root = overlay.path().join("root");
    let engine = Engine::open(root.clone()).await?;
    let info = engine.system().info().await?;
    assert_eq!(info.storage_driver, "vfs", "{info:?}");
    assert!(info.storage_reason.contains("overlay"), "{info:?}");
    let image = engine.pull(source(image::shared()?)).await?;
    let spec = ContainerSpec::image(image.id().to_string()).command(["sh", "-c", "echo x > /x; cat /x"]);
    assert_eq!(text(&engine.run(spec).output().await?.stdout), "x");
    drop((image, engine));
    // The choice is the root's for life.
    let again = Engine::open(root.clone()).await?;
    assert_eq!(again.system().info().await?.storage_driver, "vfs");
    assert!(fs::metadata(root.join("snapshots"))?.is_dir());
    Ok(())
}
