//! Two other processes that work on the same root all the time, one of which is killed again and again.
//!
//! With `LONGSHORE_IT_COMPANY` set, the tests that need no root of their own share one with them.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::embedder::Embedder;
use super::leaks::Snapshot;
use super::scratch;
use crate::frame::{Check, Stop, fail};

/// The label of containers that are the company's.
pub const LABEL: &str = "company";

/// Between what they do.
pub const PAUSE: Duration = Duration::from_millis(150);

static ROOT: OnceLock<PathBuf> = OnceLock::new();
static OVER: AtomicBool = AtomicBool::new(false);

/// The root to share, if there is company.
pub fn root() -> Option<&'static Path> {
    ROOT.get().map(PathBuf::as_path)
}

/// The other processes.
#[derive(Debug)]
pub struct Company {
    before: Snapshot,
    steady: Embedder,
    killer: JoinHandle<usize>,
}

/// Starts them on a root that has its image already.
pub fn start(fill: impl FnOnce(&Path) -> Check) -> Result<Option<Company>, Stop> {
    if std::env::var_os("LONGSHORE_IT_COMPANY").is_none() {
        return Ok(None);
    }
    super::image::shared()?;
    let dir = scratch::dir().join("shared");
    std::fs::create_dir(&dir)?;
    fill(&dir)?;
    let before = Snapshot::take();
    let steady = Embedder::start("work-forever", &[&dir.display().to_string()])?;
    steady.line(Duration::from_secs(20))?;
    ROOT.set(dir.clone()).expect("started once");
    let killer = std::thread::spawn(move || kill_again_and_again(&dir.display().to_string()));
    Ok(Some(Company { before, steady, killer }))
}

fn kill_again_and_again(root: &str) -> usize {
    let mut kills = 0;
    while !OVER.load(Ordering::Relaxed) {
        let Ok(mut victim) = Embedder::start("run-forever", &[root]) else {
            return kills;
        };
        let _ = victim.line(Duration::from_secs(20));
        // Moments that differ from kill to kill, without a generator: multiples of a number prime to the range.
        std::thread::sleep(Duration::from_millis(5 + (kills as u64 * 67) % 211));
        let _ = victim.kill();
        kills += 1;
        std::thread::sleep(PAUSE);
    }
    kills
}

impl Company {
    /// Ends them, and has the last one standing look around.
    pub fn finish(mut self, audit: impl FnOnce(&Path) -> Check) -> Check {
        OVER.store(true, Ordering::Relaxed);
        let kills = self.killer.join().expect("the killer ends");
        if let Ok(line) = self.steady.line(Duration::from_millis(1)) {
            return fail(format!("the steady process says {line:?}"));
        }
        self.steady.kill()?;
        drop(self.steady);
        audit(root().expect("started"))?;
        println!("company: {kills} processes were killed, nothing is left");
        let leaks = self.before.leaks_within(Duration::from_secs(2));
        if leaks.is_empty() {
            Ok(())
        } else {
            fail(format!("left by the company:\n  {}", leaks.join("\n  ")))
        }
    }
}
