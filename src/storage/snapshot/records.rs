//! What the two directory backends share: which snapshots there are, kept as small text files that appear and disappear
//! by rename.
//!
//! ```text
//! l/<n>          a tree: a layer, or the writable directory of a container. Short names: they stand in mount options
//! l/X<n>         a link to a layer's tree in another root, which is only read
//! w/<n>          overlay's scratch directory beside a writable l/<n>; o/<n>: vfs' table of owners
//! k/<key>/record an active snapshot; the directory itself is the claim on the key
//! k/<key>/filled made when a writable copy (vfs) was whole: its time tells which files were touched since
//! c/<chain hex>  a committed snapshot: k/<key>/record, renamed
//! p/<chain hex>  committed and not known to be on the disk: what the next sync is for
//! s/<boot id>    until when, in that boot, everything that was committed is known to be on the disk
//! trash/         what is being deleted; anyone may finish that
//! ```
//!
//! A commit is the one rename of the record, so that a crash leaves either an active snapshot or a committed one.
//!
//! # Loss of power
//!
//! A commit does not wait for the disk. Its record says in which boot it was made, and when (`CLOCK_BOOTTIME`). While that
//! boot lasts, the page cache holds the whole tree, whoever was killed. [`Records::sync`] takes the time, writes the file
//! system out, and then writes the time to `s/<boot id>`. So after a reboot a record counts if it was made before the time
//! in its boot's file: it is *settled*. Any other may lack files or their data, and is passed over as if it were not there,
//! until it is committed anew, under the same name of its tree, which records above it hold.
//!
//! Only what is there is evidence: a record or a time that did not reach the disk, or only in part, makes snapshots less
//! trusted, never more. And since a parent is committed before its children, a settled snapshot stands on settled ones.
//! A file in `p/` is a hint alone. Those in `s/` are as many as boots in which something was committed, and tiny.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{AT_FDCWD, Flock, FlockArg};

use super::{SnapshotKey, Usage};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::storage::files::{self, found, random_name};
use crate::storage::ownership::Ownership;
use crate::sys::{boot, rename};
use crate::types::{ChainId, Outcome};

/// How names of trees begin that are in another root. No name that is made up for one has a capital.
const BORROWED: char = 'X';

/// A snapshot's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// The name under `l/`.
    pub(crate) tree: String,
    /// Names of the trees below, the topmost first.
    pub(crate) below: Vec<String>,
    pub(crate) parent: Option<ChainId>,
    pub(crate) usage: Usage,
    /// A container's writable layer, not a layer being unpacked.
    pub(crate) writable: bool,
    pub(crate) volatile: bool,
    /// The project whose quota limits it.
    pub(crate) project: Option<u32>,
    /// When it was committed; an active one was not.
    pub(crate) committed: Option<Moment>,
}

/// A moment of a boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moment {
    boot: String,
    /// On `CLOCK_BOOTTIME`.
    ns: u64,
}

impl Moment {
    fn now(boot: &str) -> Result<Self> {
        let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
            .map_err(|e| Error::os("clock_gettime(CLOCK_BOOTTIME)", e))?;
        Ok(Self {
            boot: boot.to_owned(),
            ns: u64::try_from(std::time::Duration::from(time).as_nanos()).unwrap_or(u64::MAX),
        })
    }

    fn text(&self) -> String {
        format!("{} {}", self.boot, self.ns)
    }

    fn parse(text: &str) -> Option<Self> {
        let (boot, ns) = text.split_once(' ')?;
        let plain = !boot.is_empty() && boot.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        plain.then_some(())?;
        Some(Self {
            boot: boot.to_owned(),
            ns: ns.parse().ok()?,
        })
    }
}

impl Record {
    fn text(&self) -> String {
        let committed = self.committed.as_ref().map_or("-".to_owned(), Moment::text);
        let parent = self.parent.map_or("-".to_owned(), |parent| parent.to_string());
        let project = self.project.map(|id| format!("project {id}\n")).unwrap_or_default();
        format!(
            "{project}tree {}\nbelow {}\nparent {parent}\nusage {} {}\nwritable {}\nvolatile {}\ncommitted {committed}\nend .\n",
            self.tree,
            self.below.join(" "),
            self.usage.bytes,
            self.usage.inodes,
            self.writable,
            self.volatile
        )
    }

    /// What a loss of power left need not be text.
    fn of(bytes: &[u8]) -> Option<Self> {
        Self::parse(std::str::from_utf8(bytes).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let tree = field("tree").filter(|tree| plain(tree))?.to_owned();
        let below: Vec<String> = field("below")?
            .split(' ')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        let parent = match field("parent")? {
            "-" => None,
            parent => Some(parent.parse().ok()?),
        };
        let (bytes, inodes) = field("usage")?.split_once(' ')?;
        let usage = Usage {
            bytes: bytes.parse().ok()?,
            inodes: inodes.parse().ok()?,
        };
        let (writable, volatile) = (field("writable")?.parse().ok()?, field("volatile")?.parse().ok()?);
        let committed = match field("committed")? {
            "-" => None,
            moment => Some(Moment::parse(moment)?),
        };
        let project = match field("project") {
            None => None,
            Some(id) => Some(id.parse().ok()?),
        };
        // A record that lost its end may have lost digits before it.
        field("end").filter(|end| *end == ".")?;
        below.iter().all(|name| plain(name)).then_some(Self {
            tree,
            below,
            parent,
            usage,
            writable,
            volatile,
            project,
            committed,
        })
    }
}

fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>> {
    found(fs::read(path)).map_err(|e| Error::os("read snapshot record", e))
}

/// After that nobody is still writing a mark.
const ABANDONED: Duration = Duration::from_secs(600);

fn plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// The records under a directory. All calls block.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    dir: PathBuf,
    boot: String,
    ownership: Ownership,
}

impl Records {
    #[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
    pub(crate) fn open(dir: &Path, ownership: Ownership) -> Result<Self> {
        files::make_dirs(dir)?;
        let dir = dir
            .canonicalize()
            .map_err(|e| Error::os(format!("resolve {}", dir.display()), e))?;
        for part in ["l", "w", "o", "k", "c", "p", "s", "trash"] {
            files::make_dirs(&dir.join(part))?;
        }
        Ok(Self {
            dir,
            boot: boot::text()?,
            ownership,
        })
    }

    /// Those of another root, which is only read.
    fn elsewhere(dir: &Path, ownership: Ownership) -> Result<Option<Self>> {
        let there = found(dir.canonicalize()).map_err(|e| Error::os(format!("resolve {}", dir.display()), e))?;
        let Some(dir) = there else { return Ok(None) };
        Ok(Some(Self {
            dir,
            boot: boot::text()?,
            ownership,
        }))
    }

    /// As in another boot.
    #[cfg(any(test, feature = "conformance"))]
    pub(crate) fn in_boot(mut self, boot: &str) -> Self {
        boot.clone_into(&mut self.boot);
        self
    }

    pub(crate) fn ownership(&self) -> &Ownership {
        &self.ownership
    }

    /// Where a tree is.
    pub(crate) fn tree(&self, name: &str) -> PathBuf {
        let own = self.entry(name);
        if name.starts_with(BORROWED)
            && let Ok(there) = fs::read_link(&own)
        {
            return there;
        }
        own
    }

    /// What stands for a tree here: itself, or a link to where it is.
    fn entry(&self, name: &str) -> PathBuf {
        self.dir.join("l").join(name)
    }

    pub(crate) fn work(&self, name: &str) -> PathBuf {
        self.dir.join("w").join(name)
    }

    pub(crate) fn owners(&self, name: &str) -> PathBuf {
        self.dir.join("o").join(name)
    }

    fn claim(&self, key: &str) -> PathBuf {
        self.dir.join("k").join(key)
    }

    fn committed(&self, chain: &ChainId) -> PathBuf {
        self.dir.join("c").join(chain.hex())
    }

    fn unsynced(&self, chain: &ChainId) -> PathBuf {
        self.dir.join("p").join(chain.hex())
    }

    fn settled(&self, boot: &str) -> PathBuf {
        self.dir.join("s").join(boot)
    }

    /// Until when everything that was committed in a boot is on the disk.
    fn settled_until(&self, boot: &str) -> Result<Option<u64>> {
        let bytes = read_bytes(&self.settled(boot))?;
        let until = |bytes: Vec<u8>| std::str::from_utf8(&bytes).ok()?.strip_suffix('\n')?.parse().ok();
        Ok(bytes.and_then(until))
    }

    /// Whether what a record says can be relied on.
    fn holds(&self, record: &Record) -> Result<bool> {
        let Some(committed) = &record.committed else {
            return Ok(false);
        };
        if record.tree.starts_with(BORROWED) && !self.tree(&record.tree).is_dir() {
            // The other root is not there, or has removed it.
            return Ok(false);
        }
        if committed.boot == self.boot {
            return Ok(true);
        }
        Ok(self
            .settled_until(&committed.boot)?
            .is_some_and(|until| committed.ns <= until))
    }

    /// One process at a time. Blocking; the kernel lets go with the file.
    fn alone(&self, what: &str) -> Result<Flock<File>> {
        let path = self.dir.join(what);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| Error::os(format!("open {}", path.display()), e))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| Error::os(format!("lock {}", path.display()), e))
    }

    /// Claims a key and makes its tree, empty, with mode 0755.
    pub(crate) fn begin(&self, key: &SnapshotKey, template: &Record) -> Result<Record> {
        check_key(key)?;
        let claim = self.claim(key);
        fs::create_dir(&claim).map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => {
                Error::new(ErrorKind::Conflict, format!("the snapshot {key} exists already"))
                    .with_object(ObjectKind::Snapshot, key)
            }
            _ => Error::os("claim snapshot key", e),
        })?;
        let begun = self.make_tree(&claim, template);
        if begun.is_err() {
            let _ = self.discard(key);
        }
        begun
    }

    fn make_tree(&self, claim: &Path, template: &Record) -> Result<Record> {
        loop {
            let record = Record {
                tree: random_name(6)?,
                ..template.clone()
            };
            // The record is there before the tree: whoever finds the key after a crash finds all that belongs to it.
            let tree = self.tree(&record.tree);
            if tree.exists() {
                continue;
            }
            // Torn by a kill, it says as little as if it were not there: the tree comes after it.
            fs::write(claim.join("record"), record.text()).map_err(|e| Error::os("write snapshot record", e))?;
            match fs::create_dir(&tree) {
                Ok(()) => {}
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(Error::os("make snapshot directory", e)),
            }
            let made = fs::metadata(&tree).map_err(|e| Error::os("stat snapshot directory", e))?;
            set_other_mode(&tree, &made, 0o755)?;
            return Ok(record);
        }
    }

    /// Limits what may be written to an active snapshot, whose directories are empty, and notes it.
    pub(crate) fn limit(&self, key: &SnapshotKey, record: &mut Record, bytes: u64) -> Result<()> {
        let (tree, work) = (self.tree(&record.tree), self.work(&record.tree));
        files::make_dirs(&work)?;
        let project = super::limit::set(&[&tree, &work], bytes)?;
        record.project = Some(project);
        let noted = files::replace(&self.claim(key).join("record"), &record.text());
        if noted.is_err() {
            super::limit::lift(&tree, project);
        }
        noted
    }

    /// Notes that an active snapshot is not to be thrown away, and sees to it that what is in it is on the disk.
    pub(crate) fn keep(&self, key: &SnapshotKey, record: Record) -> Result<()> {
        let kept = Record {
            volatile: false,
            ..record
        };
        files::replace(&self.claim(key).join("record"), &kept.text())?;
        files::sync_file_system(&self.dir)
    }

    /// Whether a limited snapshot has room for no more than a few writes.
    pub(crate) fn is_full(&self, key: &SnapshotKey) -> Result<bool> {
        let record = self.active(key)?;
        match record.project {
            Some(project) => super::limit::is_reached(&self.tree(&record.tree), project),
            None => Ok(false),
        }
    }

    /// Notes that everything the snapshot began with is in its tree, by the time of a file.
    pub(crate) fn mark_filled(&self, key: &SnapshotKey) -> Result<()> {
        fs::write(self.claim(key).join("filled"), "").map_err(|e| Error::os("mark snapshot", e))
    }

    /// When that was, on the file system's clock.
    pub(crate) fn filled(&self, key: &SnapshotKey) -> Result<Option<std::time::SystemTime>> {
        let there =
            found(fs::metadata(self.claim(key).join("filled"))).map_err(|e| Error::os("stat snapshot mark", e))?;
        there
            .map(|there| there.modified().map_err(|e| Error::os("stat snapshot mark", e)))
            .transpose()
    }

    /// An active snapshot.
    pub(crate) fn active(&self, key: &SnapshotKey) -> Result<Record> {
        check_key(key)?;
        let missing = || Error::not_found(ObjectKind::Snapshot, key.clone());
        let text = files::read(&self.claim(key).join("record"))?.ok_or_else(missing)?;
        Record::parse(&text).ok_or_else(|| damaged(key))
    }

    /// A committed snapshot that can be trusted.
    pub(crate) fn find(&self, chain: &ChainId) -> Result<Option<Record>> {
        match self.look(chain)? {
            Some(record) if self.holds(&record)? => Ok(Some(record)),
            _ => Ok(None),
        }
    }

    /// A committed snapshot, whether it can be trusted or not. A record that cannot be read is as good as none.
    fn look(&self, chain: &ChainId) -> Result<Option<Record>> {
        let bytes = read_bytes(&self.committed(chain))?;
        Ok(bytes.and_then(|bytes| Record::of(&bytes)))
    }

    /// What a committed snapshot took when it was made, trusted or not.
    pub(crate) fn usage_of(&self, chain: &ChainId) -> Result<Usage> {
        let record = self.look(chain)?;
        record
            .map(|record| record.usage)
            .ok_or_else(|| Error::not_found(ObjectKind::Snapshot, chain.to_string()))
    }

    pub(crate) fn get(&self, chain: &ChainId) -> Result<Record> {
        self.find(chain)?
            .ok_or_else(|| Error::not_found(ObjectKind::Snapshot, chain.to_string()))
    }

    /// Makes an active snapshot the committed `chain`. One that is `alone` hides all that is below it.
    pub(crate) fn commit(
        &self,
        key: &SnapshotKey,
        chain: &ChainId,
        parent: Option<&ChainId>,
        usage: Usage,
        alone: bool,
    ) -> Result<()> {
        let mut record = self.active(key)?;
        if self.find(chain)?.is_some() {
            return self.discard(key).map(drop);
        }
        if let Some(parent) = parent {
            let under = self.get(parent)?;
            if !alone {
                record.below = std::iter::once(under.tree).chain(under.below).collect();
            }
        }
        (record.parent, record.usage) = (parent.copied(), usage);
        let claim = self.claim(key);
        if fs::symlink_metadata(self.committed(chain)).is_ok() {
            let _alone = self.alone("replace.lock")?;
            if self.find(chain)?.is_some() {
                return self.discard(key).map(drop);
            }
            if let Some(distrusted) = self.look(chain)? {
                return self.replace(key, record, &distrusted, chain);
            }
            // Not even its tree is known.
            self.remove(chain)?;
        }
        self.stamp(&mut record, chain)?;
        files::replace(&claim.join("record"), &record.text())?;
        let moved = rename::rename(
            AT_FDCWD,
            claim.join("record"),
            AT_FDCWD,
            self.committed(chain),
            rename::NO_REPLACE,
        );
        match moved {
            Ok(()) => fs::remove_dir(&claim).map_err(|e| Error::os("release snapshot key", e)),
            Err(nix::errno::Errno::EEXIST) => self.discard(key).map(drop),
            Err(e) => Err(Error::os("commit snapshot", e)),
        }
    }

    /// Has a committed snapshot of another root stand for one of this: a link to its tree. Its parent is here. `false` where
    /// there is none that can be relied on. Blocking.
    pub(crate) fn borrow(&self, key: &SnapshotKey, chain: &ChainId, from: &Path) -> Result<bool> {
        if self.find(chain)?.is_some() {
            return Ok(true);
        }
        let Some(from) = Self::elsewhere(from, self.ownership.clone())? else {
            return Ok(false);
        };
        let Some(theirs) = from.find(chain)? else {
            return Ok(false);
        };
        let place = from.tree(&theirs.tree);
        if !place.is_dir()
            || theirs
                .parent
                .is_some_and(|parent| self.find(&parent).is_ok_and(|it| it.is_none()))
        {
            return Ok(false);
        }
        let alone = theirs.parent.is_some() && theirs.below.is_empty();
        let linked = self
            .link(key, &place)
            .and_then(|()| self.commit(key, chain, theirs.parent.as_ref(), theirs.usage, alone));
        if linked.is_err() {
            let _ = self.discard(key);
        }
        linked.map(|()| true)
    }

    /// Claims a key and makes a link for its tree.
    fn link(&self, key: &SnapshotKey, place: &Path) -> Result<()> {
        check_key(key)?;
        let claim = self.claim(key);
        fs::create_dir(&claim).map_err(|e| Error::os("claim snapshot key", e))?;
        let record = Record {
            tree: format!("{BORROWED}{}", random_name(8)?),
            below: Vec::new(),
            parent: None,
            usage: Usage::default(),
            writable: false,
            volatile: false,
            project: None,
            committed: None,
        };
        fs::write(claim.join("record"), record.text()).map_err(|e| Error::os("write snapshot record", e))?;
        std::os::unix::fs::symlink(place, self.entry(&record.tree)).map_err(|e| Error::os("link to a layer", e))
    }

    /// Says that a record counts from now on: everything it stands for was written before.
    fn stamp(&self, record: &mut Record, chain: &ChainId) -> Result<()> {
        let now = Moment::now(&self.boot)?;
        files::replace(&self.unsynced(chain), &now.text())?;
        record.committed = Some(now);
        Ok(())
    }

    /// Puts a tree in the place of one that is not trusted, which nobody of this boot uses. Until the new record is there
    /// the old one stands, and is not trusted: a kill in between leaves that.
    fn replace(&self, key: &SnapshotKey, mut record: Record, old: &Record, chain: &ChainId) -> Result<()> {
        let made = std::mem::replace(&mut record.tree, old.tree.clone());
        self.delete_trees(old)?;
        for (from, to) in [
            (self.entry(&made), self.entry(&old.tree)),
            (self.owners(&made), self.owners(&old.tree)),
        ] {
            found(fs::rename(from, to)).map_err(|e| Error::os("replace snapshot", e))?;
        }
        self.stamp(&mut record, chain)?;
        let text = self.claim(key).join("new");
        files::replace(&text, &record.text())?;
        fs::rename(&text, self.committed(chain)).map_err(|e| Error::os("replace snapshot record", e))?;
        self.discard(key).map(drop)
    }

    /// Directories that belong to an active snapshot, its claim last.
    pub(crate) fn directories(&self, key: &SnapshotKey) -> Vec<PathBuf> {
        if check_key(key).is_err() {
            return Vec::new();
        }
        let trees = self
            .active(key)
            .map(|record| vec![self.entry(&record.tree), self.work(&record.tree)]);
        let mut all = trees.unwrap_or_default();
        all.push(self.claim(key));
        all
    }

    /// Removes an active snapshot, begun or half removed.
    pub(crate) fn discard(&self, key: &SnapshotKey) -> Result<Outcome> {
        check_key(key)?;
        let claim = self.claim(key);
        if found(fs::symlink_metadata(&claim))
            .map_err(|e| Error::os("stat snapshot key", e))?
            .is_none()
        {
            return Ok(Outcome::Already);
        }
        // In place: nobody looks for it any more but by its key, which goes last.
        if let Some(record) = files::read(&claim.join("record"))?.and_then(|text| Record::parse(&text)) {
            if let Some(project) = record.project {
                super::limit::lift(&self.entry(&record.tree), project);
            }
            super::delete::scratch(&self.work(&record.tree));
            for path in self.trees_of(&record) {
                self.delete(&path)?;
            }
            // Mostly all that the claim holds.
            found(fs::remove_file(claim.join("record"))).map_err(|e| Error::os("remove snapshot record", e))?;
        }
        super::delete::tree(&claim)?;
        Ok(Outcome::Done)
    }

    /// Removes a committed snapshot.
    pub(crate) fn remove(&self, chain: &ChainId) -> Result<Outcome> {
        let moved = self.dir.join("trash").join(format!("{}.record", random_name(16)?));
        let renamed =
            found(fs::rename(self.committed(chain), &moved)).map_err(|e| Error::os("remove snapshot record", e))?;
        found(fs::remove_file(self.unsynced(chain))).map_err(|e| Error::os("remove snapshot mark", e))?;
        if renamed.is_none() {
            return Ok(Outcome::Already);
        }
        self.finish_removal(&moved)?;
        Ok(Outcome::Done)
    }

    /// Has a committed snapshot not count any more: as if the power had gone before it was on the disk.
    pub(crate) fn distrust(&self, chain: &ChainId) -> Result<Outcome> {
        let _alone = self.alone("replace.lock")?;
        let Some(mut record) = self.find(chain)? else {
            return Ok(Outcome::Already);
        };
        // No boot has this name, so nothing of it is ever settled.
        record.committed = Some(Moment {
            boot: "damaged".to_owned(),
            ns: u64::MAX,
        });
        files::replace(&self.committed(chain), &record.text())?;
        Ok(Outcome::Done)
    }

    fn finish_removal(&self, moved: &Path) -> Result<()> {
        let Some(bytes) = read_bytes(moved)? else {
            return Ok(());
        };
        if let Some(record) = Record::of(&bytes) {
            self.delete_trees(&record)?;
        }
        found(fs::remove_file(moved)).map_err(|e| Error::os("remove snapshot record", e))?;
        Ok(())
    }

    fn trees_of(&self, record: &Record) -> [PathBuf; 3] {
        [
            self.entry(&record.tree),
            self.work(&record.tree),
            self.owners(&record.tree),
        ]
    }

    fn delete_trees(&self, record: &Record) -> Result<()> {
        self.trees_of(record).iter().try_for_each(|path| self.trash(path))
    }

    /// Moves out of sight, then deletes: a tree that is half deleted is never seen under its name.
    fn trash(&self, path: &Path) -> Result<()> {
        let target = self.dir.join("trash").join(random_name(16)?);
        let moved = found(fs::rename(path, &target)).map_err(|e| Error::os(format!("remove {}", path.display()), e))?;
        if moved.is_none() {
            return Ok(());
        }
        self.delete(&target)
    }

    fn delete(&self, path: &Path) -> Result<()> {
        if let Ownership::Mapped(privileged) = &self.ownership
            && fs::symlink_metadata(path).is_ok_and(|there| there.is_dir())
        {
            return privileged.remove_tree(path);
        }
        super::delete::tree(path)
    }

    /// Finishes what someone began to delete and did not; returns how much that was.
    pub(crate) fn empty_trash(&self) -> Result<usize> {
        let trash = self.dir.join("trash");
        let names = files::names(&trash)?;
        for name in &names {
            let path = trash.join(name);
            if name.ends_with(".record") {
                self.finish_removal(&path)?;
            } else {
                self.delete(&path)?;
            }
        }
        Ok(names.len())
    }

    pub(crate) fn chains(&self) -> Result<Vec<ChainId>> {
        let mut chains = Vec::new();
        for name in files::names(&self.dir.join("c"))? {
            chains.extend(format!("sha256:{name}").parse::<ChainId>());
        }
        Ok(chains)
    }

    pub(crate) fn keys(&self) -> Result<Vec<SnapshotKey>> {
        files::names(&self.dir.join("k"))
    }

    /// Writes everything out, and then down that what was committed before is settled. Where nothing waits for that, or
    /// another process has just done it, no more than a look.
    pub(crate) fn sync(&self) -> Result<()> {
        let waiting = self.dir.join("p");
        if marks(&waiting)?.is_empty() {
            return Ok(());
        }
        let _alone = self.alone("sync.lock")?;
        let marks = marks(&waiting)?;
        if marks.is_empty() {
            return Ok(());
        }
        let now = Moment::now(&self.boot)?;
        files::sync_file_system(&self.dir)?;
        files::replace(&self.settled(&self.boot), &format!("{}\n", now.ns))?;
        for mark in marks {
            let path = waiting.join(&mark);
            // What another boot left needs no sync any more, and what came in between needs another.
            let later = files::read(&path)?.and_then(|text| Moment::parse(&text));
            if later.is_some_and(|mark| mark.boot == now.boot && mark.ns > now.ns) {
                continue;
            }
            found(fs::remove_file(path)).map_err(|e| Error::os("remove snapshot mark", e))?;
        }
        remove_abandoned(&waiting)
    }
}

/// What waits for a sync in a directory of marks. A mark that another process is just writing has another name until it is whole.
fn marks(dir: &Path) -> Result<Vec<String>> {
    let mut names = files::names(dir)?;
    names.retain(|name| plain(name));
    Ok(names)
}

/// Removes marks that somebody began to write, long ago, and was killed.
fn remove_abandoned(dir: &Path) -> Result<()> {
    for name in files::names(dir)?.into_iter().filter(|name| !plain(name)) {
        let path = dir.join(name);
        let written = found(fs::symlink_metadata(&path).and_then(|there| there.modified()));
        let written = written.map_err(|e| Error::os("stat snapshot mark", e))?;
        if written.is_some_and(|at| at.elapsed().is_ok_and(|age| age > ABANDONED)) {
            found(fs::remove_file(path)).map_err(|e| Error::os("remove snapshot mark", e))?;
        }
    }
    Ok(())
}

/// Gives a directory the mode and owner of another: a writable layer's root stands for the root below it.
pub(crate) fn copy_root(from: &Path, to: &Path, ownership: &Ownership) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let there = fs::metadata(from).map_err(|e| Error::os("stat root of layer", e))?;
    let own = fs::metadata(to).map_err(|e| Error::os("stat root of snapshot", e))?;
    if (there.uid(), there.gid()) != (own.uid(), own.gid()) && matches!(ownership, Ownership::Direct) {
        std::os::unix::fs::chown(to, Some(there.uid()), Some(there.gid()))
            .map_err(|e| Error::os("chown root of snapshot", e))?;
    }
    set_other_mode(to, &own, there.mode() & 0o7777)
}

/// Sets a mode, if it is not set already: on a journaling file system asking costs less.
fn set_other_mode(path: &Path, now: &fs::Metadata, mode: u32) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    if now.mode() & 0o7777 == mode {
        return Ok(());
    }
    set_mode(path, mode)
}

pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|e| Error::os("chmod", e))
}

fn damaged(name: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the record of snapshot {name} is damaged"))
        .with_object(ObjectKind::Snapshot, name)
}

fn check_key(key: &str) -> Result<()> {
    let plain = key
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if plain && (1..=128).contains(&key.len()) && !key.starts_with('.') {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "invalid snapshot key {key:?}: [a-zA-Z0-9_.-]{{1,128}}, not starting with a dot"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template() -> Record {
        Record {
            tree: String::new(),
            below: Vec::new(),
            parent: None,
            usage: Usage::default(),
            writable: false,
            volatile: false,
            project: None,
            committed: None,
        }
    }

    #[test]
    fn a_commit_of_another_boot_counts_only_once_synced() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path(), Ownership::Squashed).unwrap();
        let (a, b) = (ChainId::of(b"a"), ChainId::of(b"b"));
        for (key, chain) in [("k1", &a), ("k2", &b)] {
            records.begin(&key.to_owned(), &template()).unwrap();
            records
                .commit(&key.to_owned(), chain, None, Usage::default(), false)
                .unwrap();
            if key == "k1" {
                records.sync().unwrap();
            }
        }
        let tree_of_b = records.get(&b).unwrap().tree;
        fs::write(records.tree(&tree_of_b).join("torn"), b"").unwrap();
        let records = records.in_boot("another");
        assert!(records.find(&a).unwrap().is_some());
        assert!(records.find(&b).unwrap().is_none());
        records.begin(&"k3".to_owned(), &template()).unwrap();
        records
            .commit(&"k3".to_owned(), &b, None, Usage::default(), false)
            .unwrap();
        assert!(records.find(&b).unwrap().is_some());
        assert_eq!(fs::read_dir(dir.path().join("l")).unwrap().count(), 2);
        // Records above it know its tree by name.
        assert_eq!(records.get(&b).unwrap().tree, tree_of_b);
        assert_eq!(fs::read_dir(records.tree(&tree_of_b)).unwrap().count(), 0);
        assert!(records.keys().unwrap().is_empty());
        assert!(records.clone().in_boot("third").find(&b).unwrap().is_none());
        records.sync().unwrap();
        assert_eq!(fs::read_dir(dir.path().join("p")).unwrap().count(), 0);
        let records = records.in_boot("third");
        assert!(records.find(&a).unwrap().is_some() && records.find(&b).unwrap().is_some());
    }

    #[test]
    fn a_mark_that_is_being_written_is_let_alone() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path(), Ownership::Squashed).unwrap();
        let begin = |name: &str| {
            let path = dir.path().join("p").join(name);
            fs::write(&path, "").unwrap();
            path
        };
        let (begun, abandoned) = (begin("aa.tmp-1"), begin("bb.tmp-2"));
        let long_ago = std::time::SystemTime::now() - ABANDONED - Duration::from_secs(1);
        File::options()
            .write(true)
            .open(&abandoned)
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
        let key = "k".to_owned();
        records.begin(&key, &template()).unwrap();
        let chain = ChainId::of(b"a");
        records.commit(&key, &chain, None, Usage::default(), false).unwrap();
        records.sync().unwrap();
        assert!(begun.exists() && !abandoned.exists());
        assert!(!records.unsynced(&chain).exists());
    }

    #[test]
    fn what_reached_the_disk_in_part_is_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path(), Ownership::Squashed).unwrap();
        let (chain, key) = (ChainId::of(b"a"), "k".to_owned());
        let commit = || {
            records.begin(&key, &template()).unwrap();
            records.commit(&key, &chain, None, Usage::default(), false).unwrap();
        };
        commit();
        records.sync().unwrap();
        let settled = records.settled(&records.boot);
        let time = fs::read(&settled).unwrap();
        for damage in [&b""[..], &time[..time.len() - 1], &[0; 8]] {
            fs::write(&settled, damage).unwrap();
            assert!(records.clone().in_boot("b").find(&chain).unwrap().is_none());
        }
        fs::write(&settled, &time).unwrap();
        assert!(records.clone().in_boot("b").find(&chain).unwrap().is_some());
        let whole = fs::read(records.committed(&chain)).unwrap();
        for cut in 0..whole.len() - 1 {
            fs::write(records.committed(&chain), &whole[..cut]).unwrap();
            assert!(records.find(&chain).unwrap().is_none(), "{cut}");
        }
        fs::write(records.committed(&chain), [0xff; 20]).unwrap();
        assert!(records.find(&chain).unwrap().is_none());
        commit();
        assert!(records.find(&chain).unwrap().is_some());
    }

    #[test]
    fn keys_are_checked_and_claimed_once() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path(), Ownership::Squashed).unwrap();
        for bad in ["", ".", "..", "a/b", "a b"] {
            assert_eq!(
                records.begin(&bad.to_owned(), &template()).unwrap_err().kind(),
                &ErrorKind::InvalidArgument
            );
        }
        records.begin(&"k".to_owned(), &template()).unwrap();
        assert!(records.begin(&"k".to_owned(), &template()).unwrap_err().is_conflict());
    }

    #[test]
    fn records_come_back_as_written() {
        let record = Record {
            tree: "abc".into(),
            below: vec!["x".into(), "y".into()],
            parent: Some(ChainId::of(b"")),
            ..template()
        };
        assert_eq!(Record::parse(&record.text()), Some(record));
        assert_eq!(Record::parse("tree ../x\n"), None);
    }
}
