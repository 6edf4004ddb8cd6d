//! Pulls that are cut off, and what the next one asks for.

use std::fs;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use longshore::types::Filter;
use longshore::{ContainerSpec, Engine};
use serde_json::json;
use tempfile::TempDir;

use crate::faults::Random;
use crate::frame::{Check, Stop, block_on, fail};
use crate::support::embedder::Embedder;
use crate::support::image::{self, Files, Layout, busybox_files};
use crate::support::mock::{Mock, Reply, image_reply};
use crate::support::root::TempRoot;
use crate::support::scratch;
use crate::support::world::text;
use crate::tests;

tests! { "resume":
    kernel [
        c6_a_killed_pull_goes_on_where_it_was,
        c6_a_dropped_pull_goes_on_where_it_was,
        c6_a_registry_without_ranges_is_read_again,
        c6_a_registry_that_changed_its_mind_is_read_again,
    ]
}

/// How much of a blob comes before the stall.
const PART: f64 = 0.6;

/// Busybox, and a layer that does not compress.
fn large() -> Result<(TempDir, Layout), Stop> {
    let dir = scratch::fresh("resume");
    let mut random = Random(0x5eed);
    let noise: Vec<u8> = (0..4_000_000).map(|_| random.below(256) as u8).collect();
    let layers = [busybox_files()?, Files::new().file("noise", 0o644, noise)];
    let config = json!({ "Cmd": ["sh"], "Env": ["PATH=/bin"] });
    let layout = image::write_layout(&dir.path().join("layout"), &layers, &config)?;
    Ok((dir, layout))
}

/// What a registry does of a range.
#[derive(Clone, Copy, PartialEq)]
enum Ranges {
    Given,
    Ignored,
    /// 416, as if the blob were shorter than what is there.
    Refused,
}

/// A registry whose large blob stalls at [`PART`] for whoever asks for the whole of it first. Counts the bytes of that blob
/// that went out.
struct Staller {
    mock: Mock,
    digest: String,
    size: usize,
    sent: Arc<AtomicUsize>,
    /// What ranges were asked for.
    ranges: Arc<Mutex<Vec<Option<String>>>>,
}

impl Staller {
    fn serve(layout: Layout, ranges: Ranges) -> Result<Self, Stop> {
        let (digest, size) = layout.layers[1].clone();
        let bytes = layout.blob(&digest)?;
        let (sent, asked) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<_>>>::default());
        let (count, seen, wanted) = (Arc::clone(&sent), Arc::clone(&asked), format!("/blobs/{digest}"));
        let mock = Mock::serve(move |request| {
            if !request.path.ends_with(&wanted) {
                return image_reply(&layout, request);
            }
            let mut seen = seen.lock().expect("not poisoned");
            let first = seen.is_empty();
            seen.push(request.range.clone());
            let kind = "application/octet-stream";
            let from = request
                .range
                .as_deref()
                .and_then(first_byte)
                .filter(|_| ranges != Ranges::Ignored);
            let whole = Reply::new(200, kind, bytes.clone());
            match from {
                _ if first => {
                    let stop = (bytes.len() as f64 * PART) as usize;
                    count.fetch_add(stop, Ordering::SeqCst);
                    whole.stalls_after(stop)
                }
                None => {
                    count.fetch_add(bytes.len(), Ordering::SeqCst);
                    whole
                }
                Some(_) if ranges == Ranges::Refused => Reply::new(416, kind, "no"),
                Some(from) => {
                    count.fetch_add(bytes.len() - from, Ordering::SeqCst);
                    let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
                    Reply::new(206, kind, bytes[from..].to_vec()).header("Content-Range", range)
                }
            }
        })?;
        Ok(Self {
            mock,
            digest,
            size: usize::try_from(size)?,
            sent,
            ranges: asked,
        })
    }

    fn part(&self) -> usize {
        (self.size as f64 * PART) as usize
    }

    fn name(&self) -> String {
        self.mock.reference("app:1")
    }

    fn ranges(&self) -> Vec<Option<String>> {
        self.ranges.lock().expect("not poisoned").clone()
    }

    fn has_part(&self, root: &TempRoot) -> bool {
        let hex = self.digest.trim_start_matches("sha256:");
        let file = root.path().join("content/partial").join(hex);
        fs::metadata(file).is_ok_and(|file| file.len() >= self.part() as u64)
    }

    /// Waits until all that comes before the stall is in a file that the next one can go on with.
    fn await_part(&self, root: &TempRoot) -> Check {
        let start = Instant::now();
        while !self.has_part(root) {
            if start.elapsed() > Duration::from_secs(20) {
                return fail("the part never came");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

fn first_byte(range: &str) -> Option<usize> {
    range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

/// Kills a process whose pull got as far as the stall.
fn killed(staller: &Staller, root: &TempRoot) -> Check {
    let go = scratch::fresh("go");
    let signal = go.path().join("go");
    fs::write(&signal, "")?;
    let name = staller.name();
    let arguments = [root.path().display().to_string(), name, signal.display().to_string()];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut puller = Embedder::start("pull-once", &arguments)?;
    assert_eq!(puller.line(Duration::from_secs(20))?, "open");
    staller.await_part(root)?;
    puller.kill()
}

/// Pulls to the end, and has the image say that it is whole.
fn pulled(staller: &Staller, root: &TempRoot) -> Check {
    block_on(async {
        let engine = Engine::open(root.path()).await?;
        assert!(
            engine.list_images(Filter::new()).await?.is_empty(),
            "half an image is none"
        );
        // What clears up leaves it: it is no remains of the dead. The engine before may be on its way out still.
        let start = std::time::Instant::now();
        loop {
            engine.reconcile().await?;
            let audit = engine.audit().await?;
            if audit.is_clean() {
                break;
            }
            assert!(start.elapsed() < Duration::from_secs(10), "{:?}", audit.findings);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        engine.pull(staller.name()).await?;
        let spec = ContainerSpec::image(staller.name()).command(["stat", "-c", "%s", "/noise"]);
        let output = engine.run(spec).output().await?;
        assert_eq!(text(&output.stdout), "4000000");
        Ok::<_, Stop>(())
    })?;
    assert_eq!(fs::read_dir(root.path().join("content/partial"))?.count(), 0);
    Ok(())
}

fn c6_a_killed_pull_goes_on_where_it_was() -> Check {
    let (_dir, layout) = large()?;
    let staller = Staller::serve(layout, Ranges::Given)?;
    let root = TempRoot::new();
    killed(&staller, &root)?;
    pulled(&staller, &root)?;
    let range = format!("bytes={}-", staller.part());
    assert_eq!(staller.ranges(), [None, Some(range)]);
    let (sent, size) = (staller.sent.load(Ordering::SeqCst), staller.size);
    assert!(sent * 10 < size * 11, "{sent} bytes for a blob of {size}");
    Ok(())
}

fn c6_a_dropped_pull_goes_on_where_it_was() -> Check {
    let (_dir, layout) = large()?;
    let staller = Staller::serve(layout, Ranges::Given)?;
    let root = TempRoot::new();
    block_on(async {
        let engine = Engine::open(root.path()).await?;
        let enough = async {
            while !staller.has_part(&root) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::select! {
            pulled = engine.pull(staller.name()) => fail(format!("it did not stall: {pulled:?}")),
            () = enough => Ok(()),
        }
    })?;
    pulled(&staller, &root)?;
    assert_eq!(staller.sent.load(Ordering::SeqCst), staller.size);
    Ok(())
}

fn c6_a_registry_without_ranges_is_read_again() -> Check {
    let (_dir, layout) = large()?;
    let staller = Staller::serve(layout, Ranges::Ignored)?;
    let root = TempRoot::new();
    killed(&staller, &root)?;
    pulled(&staller, &root)
}

fn c6_a_registry_that_changed_its_mind_is_read_again() -> Check {
    let (_dir, layout) = large()?;
    let staller = Staller::serve(layout, Ranges::Refused)?;
    let root = TempRoot::new();
    killed(&staller, &root)?;
    pulled(&staller, &root)?;
    let ranges = staller.ranges();
    assert!(
        ranges.len() == 3 && ranges[1].is_some() && ranges[2].is_none(),
        "{ranges:?}"
    );
    Ok(())
}
