//! Blobs as plain files: `blobs/sha256/<hex>`, written as `ingest/<owner>-<random>` and renamed into place.
//!
//! What may be worth going on with, the layer of a pull, is written as `partial/<hex>` instead, by whoever holds the flock(2)
//! on that file. It belongs to no owner: whoever pulls next reads it back and asks for the rest. Nobody else ever reads it,
//! and what was not touched for a day is swept.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::{BlobInfo, ContentStore, Ingest};
use crate::error::{Error, ObjectKind, Result};
use crate::storage::files::{self, blocking, check_owner, found, random_name};
use crate::storage::room::Room;
use crate::sys::writeback;
use crate::types::{Digest, Hasher, Outcome};

/// The kernel is told to write out a blob in pieces of so many bytes.
const WRITE_OUT: u64 = 4 << 20;
/// So many blobs are synced at a time: each has a descriptor meanwhile.
const AT_ONCE: usize = 32;
/// An attempt that ends with fewer bytes leaves nothing: another request costs as much as fetching them again.
const WORTH: u64 = 128 << 10;
/// How long the rest of a blob is waited for.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// When blobs reach the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Durability {
    /// By [`ContentStore::sync`], before the record that names them is written. The kernel begins to write them out while
    /// they come in, so that there is little left to wait for.
    #[default]
    Lazy,
    /// Each blob's data and directory entry before its commit returns.
    EachBlob,
}

/// Blobs in a directory, shared by any number of processes.
#[derive(Debug, Clone)]
pub struct LocalContent {
    blobs: PathBuf,
    ingest: PathBuf,
    partial: PathBuf,
    owner: String,
    durability: Durability,
    /// Blobs of other roots, which are only read.
    more: Arc<[PathBuf]>,
}

impl LocalContent {
    /// Opens (and makes) a store under `dir`. `owner` marks unfinished files, so that a sweeper can tell whose they are.
    /// Blocking, but only for a few `mkdir` calls.
    ///
    /// # Errors
    /// `InvalidArgument` for an owner that is not `[a-zA-Z0-9]{1,64}`; `ReadOnly`, `Denied`, `NoSpace` or `Os`.
    #[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
    pub fn open(dir: impl AsRef<Path>, owner: impl Into<String>) -> Result<Self> {
        let (dir, owner) = (dir.as_ref(), owner.into());
        check_owner(&owner)?;
        let store = Self {
            blobs: dir.join("blobs/sha256"),
            ingest: dir.join("ingest"),
            partial: dir.join("partial"),
            owner,
            durability: Durability::default(),
            more: Arc::default(),
        };
        files::make_dirs(&store.blobs)?;
        files::make_dirs(&store.ingest)?;
        files::make_dirs(&store.partial)?;
        Ok(store)
    }

    /// Has blobs that are not here be looked for in other roots, given by their directories of blobs. Those are only read, and
    /// a list does not show them.
    #[must_use]
    pub fn with_more(mut self, dirs: impl IntoIterator<Item = PathBuf>) -> Self {
        self.more = dirs.into_iter().map(|dir| dir.join("blobs/sha256")).collect();
        self
    }

    /// Where a blob is: here, or in the first of the other roots that has it.
    fn place(&self, digest: &Digest) -> PathBuf {
        let own = self.path(digest);
        if self.more.is_empty() || own.exists() {
            return own;
        }
        let elsewhere = self
            .more
            .iter()
            .map(|dir| dir.join(digest.hex()))
            .find(|file| file.exists());
        elsewhere.unwrap_or(own)
    }

    /// Chooses when blobs reach the disk.
    #[must_use]
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Removes unfinished files whose owner is dead, and those that nobody went on with for a day; returns how many. Blocking.
    ///
    /// # Errors
    /// `Os` if the directory cannot be listed or a file cannot be removed.
    pub fn sweep(&self, alive: &dyn Fn(&str) -> bool) -> Result<usize> {
        let mut removed = 0;
        for name in files::names(&self.ingest)? {
            let dead = name.split_once('-').is_none_or(|(owner, _)| !alive(owner));
            if !dead {
                continue;
            }
            let gone = found(fs::remove_file(self.ingest.join(&name)));
            removed += usize::from(gone.map_err(|e| Error::os(format!("remove {name}"), e))?.is_some());
        }
        Ok(removed + self.sweep_partial(SystemTime::now())?)
    }

    fn sweep_partial(&self, now: SystemTime) -> Result<usize> {
        let mut removed = 0;
        for name in files::names(&self.partial)? {
            let path = self.partial.join(name);
            let touched = fs::metadata(&path).and_then(|metadata| metadata.modified());
            let Some(touched) = found(touched).map_err(|e| Error::os("stat unfinished blob", e))? else {
                continue;
            };
            let old = now.duration_since(touched).is_ok_and(|age| age >= PATIENCE);
            removed += usize::from(old && drop_partial(&path)?);
        }
        Ok(removed)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    fn begin(&self, expected: Option<Digest>, size: Option<u64>) -> Result<LocalIngest> {
        let path = self.ingest.join(format!("{}-{}", self.owner, random_name(16)?));
        let file = File::options()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|e| Error::os("make ingest file", e))?;
        Ok(self.written_to(Sink::Own(file), path, expected, size))
    }

    /// Takes up what was left of a blob. Where somebody else is at it, a file of one's own is begun.
    fn take_up(&self, digest: Digest, size: u64) -> Result<LocalIngest> {
        let path = self.partial.join(digest.hex());
        let Some(file) = lock_partial(&path, true)? else {
            return self.begin(Some(digest), Some(size));
        };
        let failed = |e| Error::os("look at an unfinished blob", e);
        let mut left = file.metadata().map_err(failed)?.len();
        if left > size {
            file.set_len(0).map_err(failed)?;
            left = 0;
        }
        let mut ingest = self.written_to(Sink::Partial(file), path, Some(digest), Some(size));
        (ingest.left, ingest.begun) = (left, left);
        Ok(ingest)
    }

    fn written_to(&self, file: Sink, path: PathBuf, expected: Option<Digest>, size: Option<u64>) -> LocalIngest {
        LocalIngest {
            file,
            path,
            blobs: self.blobs.clone(),
            hasher: Hasher::default(),
            left: 0,
            written: 0,
            begun: 0,
            out: None,
            room: None,
            asked: false,
            refused: false,
            published: false,
            expected,
            size,
            durability: self.durability,
        }
    }
}

/// Opens a partial file for oneself; none where somebody else has it, or where it is not there and is not to be made.
fn lock_partial(path: &Path, make: bool) -> Result<Option<Flock<File>>> {
    let failed = |e| Error::os("open an unfinished blob", e);
    loop {
        let opened = File::options()
            .read(true)
            .write(true)
            .create(make)
            .truncate(false)
            .open(path);
        let Some(file) = found(opened).map_err(failed)? else {
            return Ok(None);
        };
        let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, Errno::EINTR)) => continue,
            Err((_, errno)) => return Err(Error::os("lock an unfinished blob", errno)),
        };
        // Whoever had it may have made a blob of it, or removed it, since it was opened.
        let there = found(fs::metadata(path))
            .map_err(failed)?
            .map(|metadata| metadata.ino());
        if there == Some(file.metadata().map_err(failed)?.ino()) {
            return Ok(Some(file));
        }
    }
}

/// Whether there was one that nobody had, and that is gone now.
fn drop_partial(path: &Path) -> Result<bool> {
    let Some(_held) = lock_partial(path, false)? else {
        return Ok(false);
    };
    let gone = found(fs::remove_file(path)).map_err(|e| Error::os("remove an unfinished blob", e))?;
    Ok(gone.is_some())
}

/// All data is on its way before the first file is waited for, and has arrived before the first is synced: so a file system
/// with a journal commits it once, with that sync, and finds it done at the others.
fn sync_together(paths: &[PathBuf]) -> Result<()> {
    let mut files = Vec::with_capacity(paths.len());
    for path in paths {
        files.extend(found(File::open(path)).map_err(|e| Error::os("open blob", e))?);
    }
    for file in &files {
        let _ = writeback::begin(file, 0, 0);
    }
    for file in &files {
        // Whoever is told of what went wrong here is not told again by the sync.
        writeback::wait(file).map_err(|e| Error::os("write out blob", e))?;
    }
    for file in &files {
        file.sync_data().map_err(|e| Error::os("fdatasync blob", e))?;
    }
    Ok(())
}

fn sync_dir(dir: &Path) -> Result<()> {
    let dir = File::open(dir).map_err(|e| Error::os("open blobs", e))?;
    dir.sync_all().map_err(|e| Error::os("fsync blobs", e))
}

/// Where an ingest writes.
#[derive(Debug)]
enum Sink {
    /// A file that goes with the ingest.
    Own(File),
    /// A file that others may go on with.
    Partial(Flock<File>),
}

impl std::ops::Deref for Sink {
    type Target = File;

    fn deref(&self) -> &File {
        match self {
            Self::Own(file) => file,
            Self::Partial(file) => file,
        }
    }
}

/// A blob being written to its temporary file.
#[derive(Debug)]
struct LocalIngest {
    file: Sink,
    path: PathBuf,
    blobs: PathBuf,
    hasher: Hasher,
    /// Bytes of an earlier attempt, behind those that were read back.
    left: u64,
    written: u64,
    /// How much of that the kernel was told to write out.
    begun: u64,
    /// Who tells it.
    out: Option<WriteOut>,
    /// What was asked for of the disk, once something is written.
    room: Option<Room>,
    asked: bool,
    /// Whether what is there is of no use: wrong, or on a disk that is full.
    refused: bool,
    published: bool,
    expected: Option<Digest>,
    size: Option<u64>,
    durability: Durability,
}

/// Has a file written out by a thread of its own, piece by piece: where a disk has much to do, even asking it takes time.
/// No promise: the sync at the end is what counts, and does all the work where this cannot.
#[derive(Debug)]
struct WriteOut {
    ranges: SyncSender<(u64, u64)>,
    thread: JoinHandle<()>,
}

impl WriteOut {
    fn of(file: &File) -> Option<Self> {
        let file = file.try_clone().ok()?;
        let (ranges, asked) = sync_channel::<(u64, u64)>(1);
        let thread = std::thread::Builder::new().name("longshore-out".into());
        let work = move || {
            for (offset, length) in asked {
                let _ = writeback::begin(&file, offset, length);
            }
        };
        let thread = thread.spawn(work).ok()?;
        Some(Self { ranges, thread })
    }

    /// Its descriptor is closed when this returns.
    fn end(self) {
        drop(self.ranges);
        // It does nothing that panics.
        let _ = self.thread.join();
    }
}

impl LocalIngest {
    fn begin_write_out(&mut self) {
        if self.out.is_none() {
            self.out = WriteOut::of(&self.file);
        }
        let range = (self.begun, self.written - self.begun);
        // If it is not done with what it was asked before, it is asked for more at once later.
        if self.out.as_ref().is_some_and(|out| out.ranges.try_send(range).is_ok()) {
            self.begun = self.written;
        }
    }

    fn add(&mut self, bytes: &[u8]) -> Result<()> {
        super::check_room(self.expected.as_ref(), self.size, self.written, bytes.len())?;
        self.ask_for_room(bytes.len());
        (&*self.file).write_all(bytes).map_err(|e| Error::os("write blob", e))
    }

    fn ask_for_room(&mut self, length: usize) {
        if !std::mem::replace(&mut self.asked, true) {
            self.room = Room::of(&self.file, self.size.unwrap_or(0), self.written, None);
        }
        if let Some(room) = &mut self.room {
            room.before(&self.file, self.written + length as u64);
        }
    }

    /// Whether somebody may go on with it later.
    fn is_of_use(&self) -> bool {
        matches!(self.file, Sink::Partial(_)) && !self.refused && self.written.saturating_add(self.left) >= WORTH
    }

    fn publish(&self, digest: &Digest) -> Result<()> {
        let target = self.blobs.join(digest.hex());
        if self.durability == Durability::EachBlob {
            self.file.sync_data().map_err(|e| Error::os("fdatasync blob", e))?;
        }
        // Over what may be there: these bytes were checked a moment ago, those may have lost theirs with the power.
        fs::rename(&self.path, &target).map_err(|e| Error::os("rename blob into place", e))?;
        if self.durability == Durability::EachBlob {
            sync_dir(&self.blobs)?;
        }
        Ok(())
    }
}

impl Ingest for LocalIngest {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if self.left > 0 {
            return Err(Error::internal(
                "a blob was gone on with before what is there was read back",
            ));
        }
        if let Err(error) = self.add(bytes) {
            self.refused = true;
            return Err(error);
        }
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        if self.written - self.begun >= WRITE_OUT {
            self.begin_write_out();
        }
        Ok(())
    }

    fn digest(&self) -> Option<Digest> {
        Some(self.hasher.clone().finish())
    }

    fn reader(&self) -> Result<Option<File>> {
        let file = File::open(&self.path).map_err(|e| Error::os("open ingest file", e))?;
        Ok(Some(file))
    }

    fn left(&self) -> u64 {
        self.left
    }

    fn read_back(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let failed = |e| Error::os("read an unfinished blob back", e);
        let length = (&*self.file).read(&mut buffer[..most]).map_err(failed)?;
        if length == 0 && most > 0 {
            self.refused = true;
            return Err(failed(std::io::ErrorKind::UnexpectedEof.into()));
        }
        self.hasher.update(&buffer[..length]);
        self.left -= length as u64;
        self.written += length as u64;
        Ok(length)
    }

    fn commit(mut self: Box<Self>) -> Result<BlobInfo> {
        let digest = std::mem::take(&mut self.hasher).finish();
        // What does not hash to its name now never will.
        self.refused = true;
        super::check_whole(self.expected.as_ref(), self.size, &digest, self.written)?;
        self.publish(&digest)?;
        self.published = true;
        Ok(BlobInfo {
            digest,
            size: self.written,
        })
    }
}

impl Drop for LocalIngest {
    fn drop(&mut self) {
        // A lock ends with the last descriptor: whoever goes on with the file must not find it taken.
        if let (Some(out), Sink::Partial(_), false) = (self.out.take(), &self.file, self.published) {
            out.end();
        }
        // After a commit the name is another's, if it is there at all.
        if self.published {
            return;
        }
        if self.is_of_use() {
            if let Some(room) = self.room.take() {
                room.end(&self.file, self.written);
            }
            return;
        }
        // After a kill the sweeper finds it. A partial file is locked until its descriptor goes: nobody else has the name.
        let _ = fs::remove_file(&self.path);
    }
}

#[async_trait]
impl ContentStore for LocalContent {
    async fn info(&self, digest: &Digest) -> Result<Option<BlobInfo>> {
        let (store, digest) = (self.clone(), *digest);
        blocking(move || {
            let there = found(fs::metadata(store.place(&digest))).map_err(|e| Error::os("stat blob", e))?;
            Ok(there.map(|metadata| BlobInfo {
                digest,
                size: metadata.len(),
            }))
        })
        .await
    }

    async fn open(&self, digest: &Digest) -> Result<File> {
        let (store, digest) = (self.clone(), *digest);
        blocking(move || {
            let file = found(File::open(store.place(&digest))).map_err(|e| Error::os("open blob", e))?;
            file.ok_or_else(|| Error::not_found(ObjectKind::Blob, digest.to_string()))
        })
        .await
    }

    async fn ingest(&self, digest: Option<&Digest>, size: Option<u64>) -> Result<Box<dyn Ingest>> {
        let (store, digest) = (self.clone(), digest.copied());
        blocking(move || Ok(Box::new(store.begin(digest, size)?) as Box<dyn Ingest>)).await
    }

    async fn resume(&self, digest: &Digest, size: u64) -> Result<Box<dyn Ingest>> {
        let (store, digest) = (self.clone(), *digest);
        blocking(move || Ok(Box::new(store.take_up(digest, size)?) as Box<dyn Ingest>)).await
    }

    async fn forget(&self, digest: &Digest) -> Result<()> {
        let path = self.partial.join(digest.hex());
        blocking(move || drop_partial(&path).map(drop)).await
    }

    async fn remove(&self, digest: &Digest) -> Result<Outcome> {
        let (path, partial) = (self.path(digest), self.partial.join(digest.hex()));
        blocking(move || {
            drop_partial(&partial)?;
            let gone = found(fs::remove_file(path)).map_err(|e| Error::os("remove blob", e))?;
            Ok(if gone.is_some() {
                Outcome::Done
            } else {
                Outcome::Already
            })
        })
        .await
    }

    async fn list(&self) -> Result<Vec<BlobInfo>> {
        let blobs = self.blobs.clone();
        blocking(move || {
            let mut list = Vec::new();
            for name in files::names(&blobs)? {
                let Ok(digest) = format!("sha256:{name}").parse() else {
                    continue;
                };
                let there = found(fs::metadata(blobs.join(name))).map_err(|e| Error::os("stat blob", e))?;
                list.extend(there.map(|metadata| BlobInfo {
                    digest,
                    size: metadata.len(),
                }));
            }
            Ok(list)
        })
        .await
    }

    /// Their data, then their names. Not the whole file system: it also holds trees that can be made again.
    async fn sync(&self, blobs: &[Digest]) -> Result<()> {
        let (dir, paths) = (
            self.blobs.clone(),
            blobs.iter().map(|blob| self.path(blob)).collect::<Vec<_>>(),
        );
        blocking(move || {
            for some in paths.chunks(AT_ONCE) {
                sync_together(some)?;
            }
            sync_dir(&dir)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[tokio::test]
    async fn suite() {
        let dir = tempfile::tempdir().unwrap();
        crate::conformance::storage::content(&LocalContent::open(dir.path(), "me").unwrap()).await;
        assert_eq!(fs::read_dir(dir.path().join("ingest")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn sweep_removes_only_what_the_dead_left() {
        let dir = tempfile::tempdir().unwrap();
        let (mine, theirs) = (
            LocalContent::open(dir.path(), "me").unwrap(),
            LocalContent::open(dir.path(), "them").unwrap(),
        );
        let (_a, b) = (mine.begin(None, None).unwrap(), theirs.begin(None, None).unwrap());
        std::mem::forget(b);
        assert_eq!(mine.sweep(&|owner| owner == "me").unwrap(), 1);
        assert_eq!(mine.sweep(&|owner| owner == "me").unwrap(), 0);
        assert_eq!(fs::read_dir(dir.path().join("ingest")).unwrap().count(), 1);
    }

    fn piece() -> Vec<u8> {
        (0..200_000u32).map(|n| (n % 253) as u8).collect()
    }

    /// An attempt that gets so far.
    fn attempt(store: &LocalContent, bytes: &[u8], far: usize) -> Box<LocalIngest> {
        let mut ingest = Box::new(store.take_up(Digest::of(bytes), bytes.len() as u64).unwrap());
        read_all_back(&mut ingest);
        let from = ingest.written as usize;
        ingest.write(&bytes[from..far]).unwrap();
        ingest
    }

    fn read_all_back(ingest: &mut LocalIngest) -> u64 {
        let mut buffer = [0; 1000];
        let mut total = 0;
        while ingest.left() > 0 {
            total += ingest.read_back(&mut buffer).unwrap() as u64;
        }
        assert_eq!(ingest.read_back(&mut buffer).unwrap(), 0);
        total
    }

    #[test]
    fn c6_what_was_cut_off_is_gone_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let (mine, theirs) = (
            LocalContent::open(dir.path(), "me").unwrap(),
            LocalContent::open(dir.path(), "them").unwrap(),
        );
        let bytes = piece();
        drop(attempt(&mine, &bytes, 150_000));
        // Whoever comes next, in whatever process, begins there. Nobody can skip the part that must be hashed.
        let mut next = Box::new(theirs.take_up(Digest::of(&bytes), 200_000).unwrap());
        assert_eq!(next.left(), 150_000);
        assert!(next.write(b"x").is_err());
        assert_eq!(read_all_back(&mut next), 150_000);
        // While it is at it, nobody else reads or removes its file.
        assert_eq!(mine.take_up(Digest::of(&bytes), 200_000).unwrap().left(), 0);
        assert!(!drop_partial(&theirs.partial.join(Digest::of(&bytes).hex())).unwrap());
        next.write(&bytes[150_000..]).unwrap();
        assert_eq!(next.commit().unwrap().digest, Digest::of(&bytes));
        assert!(fs::read(mine.path(&Digest::of(&bytes))).unwrap() == bytes);
        assert_eq!(fs::read_dir(&mine.partial).unwrap().count(), 0);
    }

    #[test]
    fn c6_what_is_of_no_use_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalContent::open(dir.path(), "me").unwrap();
        let bytes = piece();
        let count = || fs::read_dir(&store.partial).unwrap().count();
        drop(attempt(&store, &bytes, 1000));
        assert_eq!(count(), 0, "too little");
        let mut long = attempt(&store, &bytes, 200_000);
        assert!(long.write(b"more").is_err());
        drop(long);
        assert_eq!(count(), 0, "too long");
        let mut wrong = Box::new(store.take_up(Digest::of(&bytes), 200_000).unwrap());
        wrong.write(&vec![7; 200_000]).unwrap();
        assert_eq!(wrong.commit().unwrap_err().kind(), &ErrorKind::DigestMismatch);
        assert_eq!(count(), 0, "other bytes");
        // Longer than the blob can be: not even looked at.
        fs::write(store.partial.join(Digest::of(&bytes).hex()), vec![0; 300_000]).unwrap();
        assert_eq!(store.take_up(Digest::of(&bytes), 200_000).unwrap().left(), 0);
    }

    #[tokio::test]
    async fn c6_what_nobody_goes_on_with_is_swept_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalContent::open(dir.path(), "me").unwrap();
        let bytes = piece();
        drop(attempt(&store, &bytes, 150_000));
        let (now, count) = (SystemTime::now(), || fs::read_dir(&store.partial).unwrap().count());
        assert_eq!(store.sweep_partial(now).unwrap(), 0);
        let busy = attempt(&store, &bytes, 160_000);
        assert_eq!(store.sweep_partial(now + 2 * PATIENCE).unwrap(), 0, "somebody is at it");
        drop(busy);
        assert_eq!(store.sweep_partial(now + 2 * PATIENCE).unwrap(), 1);
        drop(attempt(&store, &bytes, 150_000));
        store.forget(&Digest::of(&bytes)).await.unwrap();
        assert_eq!(count(), 0);
        drop(attempt(&store, &bytes, 150_000));
        store.remove(&Digest::of(&bytes)).await.unwrap();
        assert_eq!(count(), 0);
        assert!(store.list().await.unwrap().is_empty());
    }

    #[test]
    fn owners_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        for bad in ["", "a-b", "../x", "a b"] {
            assert_eq!(
                LocalContent::open(dir.path(), bad).unwrap_err().kind(),
                &ErrorKind::InvalidArgument
            );
        }
    }
}
