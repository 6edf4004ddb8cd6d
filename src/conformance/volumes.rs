//! The suite for [`VolumeDriver`], and a driver in whose place nothing happens but what a test says. The suite panics with
//! what is wrong.

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::poll;

use crate::error::{Error, ErrorKind, Result};
use crate::storage::files::make_dirs;
use crate::types::Outcome;
use crate::volumes::{VolumeContext, VolumeDriver, VolumeSource};

/// What every volume driver does. The directory is empty before, and its own afterwards; `options` are what its volumes are
/// made with. File systems that it names are not mounted. In a tokio runtime.
///
/// # Panics
/// Where the driver does not behave.
#[allow(clippy::missing_panics_doc)]
pub async fn volumes(driver: &dyn VolumeDriver, dir: &Path, options: &BTreeMap<String, String>) {
    let suite = Suite { driver, dir, options };
    suite.keeps().await;
    suite.keeps_apart().await;
    suite.forgets().await;
    suite.copies().await;
    suite.is_given_up().await;
    suite.takes_every_name().await;
}

/// How long a driver may take to take back what was given up, and how often it is looked at.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);

/// One run of the suite.
struct Suite<'a> {
    driver: &'a dyn VolumeDriver,
    dir: &'a Path,
    options: &'a BTreeMap<String, String>,
}

impl Suite<'_> {
    /// What a driver is told of a volume; the directory is there, as the manager makes it.
    fn context(&self, name: &str) -> VolumeContext {
        let dir = self.dir.join(name);
        make_dirs(&dir).expect("make a directory");
        VolumeContext {
            name: name.parse().expect("a name"),
            dir,
            options: self.options.clone(),
        }
    }

    async fn made(&self, name: &str) -> VolumeContext {
        let volume = self.context(name);
        self.driver.create(&volume).await.expect("create");
        volume
    }

    /// Removes a volume, and its directory as the manager does.
    async fn gone(&self, volume: &VolumeContext) {
        self.driver.remove(volume).await.expect("remove");
        let _ = fs::remove_dir_all(&volume.dir);
    }

    /// Where a mounted volume's files are, if it is a directory.
    async fn mounted(&self, volume: &VolumeContext) -> Option<PathBuf> {
        match self.driver.mount(volume).await.expect("mount") {
            VolumeSource::Directory(path) => {
                assert!(path.is_absolute(), "{} is no absolute path", path.display());
                assert!(path.is_dir(), "{} is no directory", path.display());
                if let Some(always) = self.driver.directory(volume) {
                    assert_eq!(always, path, "a volume's files are at one place");
                }
                Some(path)
            }
            VolumeSource::FileSystem { kind, .. } => {
                assert!(!kind.is_empty(), "a file system has a kind");
                None
            }
        }
    }

    async fn unmounted(&self, volume: &VolumeContext) {
        self.driver.unmount(volume).await.expect("unmount");
    }

    /// What is written is there at the next mount, and after a second `create`.
    async fn keeps(&self) {
        let volume = self.made("keeps").await;
        if let Some(path) = self.mounted(&volume).await {
            assert_eq!(fs::read_dir(&path).expect("list").count(), 0, "a new volume is empty");
            fs::write(path.join("file"), "kept").expect("write");
        }
        self.unmounted(&volume).await;
        self.driver.create(&volume).await.expect("a second create is success");
        if let Some(path) = self.mounted(&volume).await {
            assert_eq!(
                fs::read_to_string(path.join("file")).expect("what was written is there"),
                "kept"
            );
        }
        self.unmounted(&volume).await;
        self.gone(&volume).await;
    }

    async fn keeps_apart(&self) {
        let (one, other) = (self.made("one").await, self.made("other").await);
        let places = (self.mounted(&one).await, self.mounted(&other).await);
        if let (Some(one), Some(other)) = &places {
            assert_ne!(one, other, "volumes have files of their own");
            fs::write(one.join("file"), "").expect("write");
            assert!(!other.join("file").exists());
        }
        self.unmounted(&one).await;
        self.gone(&one).await;
        if let Some(other) = &places.1 {
            assert!(other.is_dir(), "what is mounted stays when another goes");
        }
        self.unmounted(&other).await;
        self.gone(&other).await;
    }

    /// A volume that was removed is empty if it is made again, and removing what is gone is success.
    async fn forgets(&self) {
        let volume = self.made("forgets").await;
        if let Some(path) = self.mounted(&volume).await {
            fs::write(path.join("file"), "").expect("write");
        }
        self.unmounted(&volume).await;
        self.gone(&volume).await;
        self.driver
            .remove(&volume)
            .await
            .expect("removing what is gone is success");
        let volume = self.made("forgets").await;
        if let Some(path) = self.mounted(&volume).await {
            assert!(!path.join("file").exists(), "what was removed is gone");
        }
        self.unmounted(&volume).await;
        self.gone(&volume).await;
    }

    /// A driver that can copy makes a volume that is independent, and one that cannot says so.
    async fn copies(&self) {
        let (from, into) = (self.made("from").await, self.context("into"));
        if let Some(path) = self.mounted(&from).await {
            fs::write(path.join("file"), "one").expect("write");
        }
        match self.driver.clone_volume(&from, &into).await {
            Err(error) => assert!(error.is_unsupported(), "a driver that cannot copy says so: {error}"),
            Ok(()) => self.is_independent(&from, &into).await,
        }
        self.unmounted(&from).await;
        self.gone(&from).await;
        self.gone(&into).await;
    }

    async fn is_independent(&self, from: &VolumeContext, into: &VolumeContext) {
        let copy = self.mounted(into).await;
        if let (Some(from), Some(copy)) = (self.driver.directory(from), copy) {
            assert_eq!(fs::read_to_string(copy.join("file")).expect("the copy has it"), "one");
            fs::write(copy.join("file"), "two").expect("write");
            assert_eq!(
                fs::read_to_string(from.join("file")).expect("it is there"),
                "one",
                "a copy is independent"
            );
        }
        self.unmounted(into).await;
    }

    /// A caller that goes away keeps nobody from asking again.
    async fn is_given_up(&self) {
        let volume = self.context("given-up");
        once(self.driver.create(&volume)).await;
        self.driver
            .create(&volume)
            .await
            .expect("create after one that was given up");
        if !once(self.driver.mount(&volume)).await {
            self.mounted(&volume).await;
        }
        if !once(self.driver.unmount(&volume)).await {
            self.unmounted(&volume).await;
        }
        once(self.driver.remove(&volume)).await;
        // What was given up may be taken back a moment later.
        let mut removed = self.driver.remove(&volume).await;
        for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
            if removed.is_ok() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            removed = self.driver.remove(&volume).await;
        }
        removed.expect("remove after calls that were given up");
        let _ = fs::remove_dir_all(&volume.dir);
    }

    async fn takes_every_name(&self) {
        let long = "x".repeat(255);
        for name in ["a.b", "A_b-c.", "..x".trim_start_matches('.'), "x0", long.as_str()] {
            if name.parse::<crate::types::VolumeName>().is_err() {
                continue;
            }
            let volume = self.made(name).await;
            self.mounted(&volume).await;
            self.unmounted(&volume).await;
            self.gone(&volume).await;
        }
    }
}

/// Asks once, and goes away; whether it was done by then.
async fn once<T: std::fmt::Debug>(call: impl Future<Output = Result<T>>) -> bool {
    let mut call = Box::pin(call);
    match poll!(call.as_mut()) {
        std::task::Poll::Ready(result) => {
            result.expect("what is asked once");
            true
        }
        std::task::Poll::Pending => false,
    }
}

/// A driver that keeps directories, notes what it was asked, and fails when it is told to.
#[derive(Debug)]
pub struct FakeVolumes {
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    calls: Vec<String>,
    failing: BTreeMap<String, ErrorKind>,
}

impl FakeVolumes {
    /// Keeps volumes below a directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            state: Mutex::default(),
        }
    }

    /// What was asked since the last time: `create NAME`, `mount NAME`.
    pub fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.state().calls)
    }

    /// Fails from now on when it is asked for this verb.
    pub fn fail(&self, verb: &str, kind: ErrorKind) {
        self.state().failing.insert(verb.to_owned(), kind);
    }

    /// Fails no longer.
    pub fn recover(&self) {
        self.state().failing.clear();
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a volume's files are.
    pub fn place(&self, volume: &str) -> PathBuf {
        self.dir.join(volume)
    }

    fn asked(&self, verb: &str, volume: &VolumeContext) -> Result<PathBuf> {
        let mut state = self.state();
        state.calls.push(format!("{verb} {}", volume.name));
        match state.failing.get(verb) {
            Some(kind) => Err(Error::new(kind.clone(), format!("a fake that cannot {verb}"))),
            None => Ok(self.place(volume.name.as_str())),
        }
    }
}

#[async_trait]
impl VolumeDriver for FakeVolumes {
    async fn create(&self, volume: &VolumeContext) -> Result<Outcome> {
        let place = self.asked("create", volume)?;
        if place.is_dir() {
            return Ok(Outcome::Already);
        }
        make_dirs(&place).map(|()| Outcome::Done)
    }

    async fn remove(&self, volume: &VolumeContext) -> Result<()> {
        let place = self.asked("remove", volume)?;
        match fs::remove_dir_all(place) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::os("remove a volume", error)),
            _ => Ok(()),
        }
    }

    async fn mount(&self, volume: &VolumeContext) -> Result<VolumeSource> {
        self.asked("mount", volume).map(VolumeSource::Directory)
    }

    async fn unmount(&self, volume: &VolumeContext) -> Result<()> {
        self.asked("unmount", volume).map(drop)
    }
}
