//! Every snapshot is a whole directory tree: works on any file system. Copies share blocks where the file system can
//! (reflink), else data is copied inside the kernel.
//!
//! Where the process may not give files away itself, committed trees belong to it, with owners and locking modes in a table
//! beside them (`o/<n>`); only the copies that containers write to get their real owners.

use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::records::{Record, Records};
use super::usage::usage_of;
use super::{LayerSource, LayerTarget, SnapshotKey, Snapshotter, Usage, WritableOptions, copy};
use crate::error::{Error, Result};
use crate::storage::files::{blocking, found};
use crate::storage::layer::Notes;
use crate::storage::ownership::Ownership;
use crate::types::{ChainId, Mount, Outcome};

/// The copying backend.
#[derive(Debug, Clone)]
pub struct Vfs {
    records: Records,
}

impl Vfs {
    /// Opens (and makes) snapshots under `dir`. A few `mkdir` calls; no scan.
    ///
    /// # Errors
    /// `ReadOnly`, `Denied`, `NoSpace` or `Os`.
    pub fn open(dir: impl AsRef<Path>, ownership: Ownership) -> Result<Self> {
        Ok(Self {
            records: Records::open(dir.as_ref(), ownership)?,
        })
    }

    /// As in the boot of that id: for tests of what a reboot leaves.
    #[cfg(any(test, feature = "conformance"))]
    #[must_use]
    pub fn in_boot(mut self, boot: &str) -> Self {
        self.records = self.records.in_boot(boot);
        self
    }

    async fn with<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> Result<T> + Send + 'static) -> Result<T> {
        let this = self.clone();
        blocking(move || work(&this)).await
    }

    fn direct(&self) -> bool {
        matches!(self.records.ownership(), Ownership::Direct)
    }

    /// Begins a snapshot that starts as a copy of its parent.
    fn begin(&self, key: &SnapshotKey, parent: Option<&ChainId>, writable: bool) -> Result<Record> {
        let under = parent.map(|parent| self.records.get(parent)).transpose()?;
        let template = Record {
            tree: String::new(),
            below: Vec::new(),
            parent: parent.copied(),
            usage: Usage::default(),
            writable,
            volatile: false,
            project: None,
            committed: None,
        };
        let record = self.records.begin(key, &template)?;
        let filled = match &under {
            Some(under) => self.fill(&under.tree, &record),
            None => Ok(()),
        };
        let filled = filled.and_then(|()| {
            if writable {
                self.records.mark_filled(key)
            } else {
                Ok(())
            }
        });
        if filled.is_err() {
            let _ = self.records.discard(key);
        }
        filled.map(|()| record)
    }

    fn fill(&self, from: &str, record: &Record) -> Result<()> {
        let tree = self.records.tree(&record.tree);
        copy::tree(&self.records.tree(from), &tree, self.direct())?;
        if self.direct() {
            return Ok(());
        }
        if record.writable {
            return copy::own(
                &tree,
                Notes::load(&self.records.owners(from))?,
                self.records.ownership(),
            );
        }
        let copied = found(std::fs::copy(
            self.records.owners(from),
            self.records.owners(&record.tree),
        ));
        copied.map(drop).map_err(|e| Error::os("copy table of owners", e))
    }
}

#[async_trait]
impl Snapshotter for Vfs {
    fn name(&self) -> &str {
        "vfs"
    }

    fn unpacks_in_parallel(&self) -> bool {
        false
    }

    async fn exists(&self, chain: &ChainId) -> Result<bool> {
        let chain = *chain;
        self.with(move |this| Ok(this.records.find(&chain)?.is_some())).await
    }

    async fn begin_layer(&self, key: &SnapshotKey, parent: Option<&ChainId>) -> Result<LayerTarget> {
        let (key, parent) = (key.clone(), parent.copied());
        self.with(move |this| {
            let record = this.begin(&key, parent.as_ref(), false)?;
            let owners = (!this.direct()).then(|| this.records.owners(&record.tree));
            Ok(LayerTarget::Merged {
                dir: this.records.tree(&record.tree),
                owners,
            })
        })
        .await
    }

    async fn commit_layer(
        &self,
        key: &SnapshotKey,
        chain: &ChainId,
        parent: Option<&ChainId>,
        usage: Usage,
    ) -> Result<()> {
        let (key, chain, parent) = (key.clone(), *chain, parent.copied());
        self.with(move |this| this.records.commit(&key, &chain, parent.as_ref(), usage, true))
            .await
    }

    async fn create_writable(
        &self,
        key: &SnapshotKey,
        parent: Option<&ChainId>,
        options: WritableOptions,
    ) -> Result<Vec<Mount>> {
        if options.size_bytes.is_some() {
            let needs = "the storage driver overlayfs: a copy of the image would count as well";
            return Err(Error::unsupported("a limit on what a container writes", needs));
        }
        let (key, parent) = (key.clone(), parent.copied());
        self.with(move |this| {
            let record = this.begin(&key, parent.as_ref(), true)?;
            Ok(vec![Mount::bind(this.records.tree(&record.tree), false)])
        })
        .await
    }

    async fn mounts(&self, key: &SnapshotKey) -> Result<Vec<Mount>> {
        let key = key.clone();
        self.with(move |this| {
            Ok(vec![Mount::bind(
                this.records.tree(&this.records.active(&key)?.tree),
                false,
            )])
        })
        .await
    }

    async fn source(&self, key: &SnapshotKey) -> Result<LayerSource> {
        let key = key.clone();
        self.with(move |this| {
            let record = this.records.active(&key)?;
            let under = record.parent.map(|parent| this.records.get(&parent)).transpose()?;
            let owners = under.as_ref().filter(|_| !this.direct());
            Ok(LayerSource::Merged {
                dir: this.records.tree(&record.tree),
                parent: under.as_ref().map(|under| this.records.tree(&under.tree)),
                owners: owners.map(|under| this.records.owners(&under.tree)),
                untouched: this.records.filled(&key)?,
            })
        })
        .await
    }

    /// The committed tree itself. Without privilege its files belong to this user, whoever owns them in the image.
    async fn view(&self, chain: &ChainId) -> Result<Vec<Mount>> {
        let chain = *chain;
        self.with(move |this| {
            Ok(vec![Mount::bind(
                this.records.tree(&this.records.get(&chain)?.tree),
                true,
            )])
        })
        .await
    }

    fn directories(&self, key: &SnapshotKey) -> Vec<PathBuf> {
        self.records.directories(key)
    }

    async fn discard(&self, key: &SnapshotKey) -> Result<Outcome> {
        let key = key.clone();
        self.with(move |this| this.records.discard(&key)).await
    }

    async fn remove(&self, chain: &ChainId) -> Result<Outcome> {
        let chain = *chain;
        self.with(move |this| this.records.remove(&chain)).await
    }

    async fn distrust(&self, chain: &ChainId) -> Result<Outcome> {
        let chain = *chain;
        self.with(move |this| this.records.distrust(&chain)).await
    }

    /// The whole copy, parents included: that is what it takes on this backend, unless blocks are shared.
    async fn usage(&self, key: &SnapshotKey) -> Result<Usage> {
        let key = key.clone();
        self.with(move |this| usage_of(&this.records.tree(&this.records.active(&key)?.tree)))
            .await
    }

    async fn layer_usage(&self, chain: &ChainId) -> Result<Usage> {
        let chain = *chain;
        self.with(move |this| this.records.usage_of(&chain)).await
    }

    async fn list(&self) -> Result<Vec<ChainId>> {
        self.with(|this| this.records.chains()).await
    }

    async fn active(&self) -> Result<Vec<SnapshotKey>> {
        self.with(|this| this.records.keys()).await
    }

    async fn empty_trash(&self) -> Result<usize> {
        self.with(|this| this.records.empty_trash()).await
    }

    async fn sync(&self) -> Result<()> {
        self.with(|this| this.records.sync()).await
    }
}
