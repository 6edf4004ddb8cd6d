//! Layers as directories that the kernel stacks.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::records::{Record, Records, copy_root};
use super::usage::usage_of;
use super::{LayerSource, LayerTarget, SnapshotKey, Snapshotter, Usage, WritableOptions};
use crate::error::{Error, Result};
use crate::storage::files::{blocking, make_dirs};
use crate::storage::layer::{OPAQUE_TRUSTED, OPAQUE_USER};
use crate::storage::ownership::Ownership;
use crate::sys::xattr;
use crate::types::{ChainId, Mount, MountSource, Outcome};

/// The overlay backend. Source: Documentation/filesystems/overlayfs.rst of the kernel.
#[derive(Debug, Clone)]
pub struct Overlayfs {
    records: Records,
    user_xattr: bool,
}

impl Overlayfs {
    /// Opens (and makes) snapshots under `dir`. With `user_xattr`, overlay's marks are kept in `user.*`, as a mount made in
    /// a user namespace needs (Linux 5.11). A few `mkdir` calls; no scan.
    ///
    /// # Errors
    /// `ReadOnly`, `Denied`, `NoSpace` or `Os`.
    #[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
    pub fn open(dir: impl AsRef<Path>, user_xattr: bool, ownership: Ownership) -> Result<Self> {
        Ok(Self {
            records: Records::open(dir.as_ref(), ownership)?,
            user_xattr,
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

    fn template(&self, parent: Option<&ChainId>) -> Result<Record> {
        let under = parent.map(|parent| self.records.get(parent)).transpose()?;
        let below = under
            .map(|under| std::iter::once(under.tree).chain(under.below).collect())
            .unwrap_or_default();
        Ok(Record {
            tree: String::new(),
            below,
            parent: parent.copied(),
            usage: Usage::default(),
            writable: true,
            volatile: false,
            project: None,
            committed: None,
        })
    }

    fn make_writable(
        &self,
        key: &SnapshotKey,
        parent: Option<&ChainId>,
        options: WritableOptions,
    ) -> Result<Vec<Mount>> {
        let template = Record {
            volatile: options.volatile,
            ..self.template(parent)?
        };
        let mut record = self.records.begin(key, &template)?;
        let limited = match options.size_bytes {
            Some(bytes) => self.records.limit(key, &mut record, bytes),
            None => Ok(()),
        };
        let prepared = limited.and_then(|()| self.prepare(&record));
        if prepared.is_err() {
            let _ = self.records.discard(key);
        }
        prepared?;
        Ok(vec![self.mount(&record)])
    }

    fn prepare(&self, record: &Record) -> Result<()> {
        let Some(top) = record.below.first() else {
            return Ok(());
        };
        make_dirs(&self.records.work(&record.tree))?;
        copy_root(
            &self.records.tree(top),
            &self.records.tree(&record.tree),
            self.records.ownership(),
        )
    }

    /// Whether a layer's root is opaque. The kernel looks at that mark on every directory but the root, so the stack below
    /// is left out of the mount instead.
    fn hides_all(&self, record: &Record) -> Result<bool> {
        let name = if self.user_xattr { OPAQUE_USER } else { OPAQUE_TRUSTED };
        let mark = xattr::get_link(&self.records.tree(&record.tree), name);
        Ok(mark.map_err(|e| Error::os("get opaque mark", e))?.is_some())
    }

    fn trees(&self, names: &[String]) -> Vec<PathBuf> {
        names.iter().map(|name| self.records.tree(name)).collect()
    }

    fn mount(&self, record: &Record) -> Mount {
        let upper = self.records.tree(&record.tree);
        if record.below.is_empty() {
            return Mount::bind(upper, false);
        }
        let source = MountSource::Overlay {
            lower: self.trees(&record.below),
            upper: Some(upper),
            work: Some(self.records.work(&record.tree)),
            user_xattr: self.user_xattr,
            volatile: record.volatile,
        };
        Mount {
            source,
            read_only: false,
        }
    }

    fn show(&self, record: &Record) -> Mount {
        let mut lower = vec![self.records.tree(&record.tree)];
        if record.below.is_empty() {
            return Mount::bind(lower.remove(0), true);
        }
        lower.extend(self.trees(&record.below));
        let source = MountSource::Overlay {
            lower,
            upper: None,
            work: None,
            user_xattr: self.user_xattr,
            volatile: false,
        };
        Mount {
            source,
            read_only: true,
        }
    }
}

/// Takes away the mark that a volatile overlay leaves, with which the kernel refuses a second mount: after a crash its
/// content may be torn. Here the layer is thrown away with its container, and no crash has come between, since bound
/// containers do not survive one. Source: Documentation/filesystems/overlayfs.rst, "Volatile mount".
fn forget_volatile(work: &Path) -> Result<()> {
    let inner = work.join("work");
    let mark = inner.join("incompat");
    let failed = |error| Error::os("forget the mark of a volatile overlay", error);
    // The kernel makes these directories with no permission at all; they are their owner's, who may give himself some.
    for dir in [&inner, &mark, &mark.join("volatile")] {
        match std::fs::set_permissions(dir, PermissionsExt::from_mode(0o700)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(failed)?,
        }
    }
    std::fs::remove_dir_all(mark).map_err(failed)
}

#[async_trait]
impl Snapshotter for Overlayfs {
    fn name(&self) -> &str {
        "overlayfs"
    }

    fn unpacks_in_parallel(&self) -> bool {
        true
    }

    async fn exists(&self, chain: &ChainId) -> Result<bool> {
        let chain = *chain;
        self.with(move |this| Ok(this.records.find(&chain)?.is_some())).await
    }

    async fn begin_layer(&self, key: &SnapshotKey, _parent: Option<&ChainId>) -> Result<LayerTarget> {
        let key = key.clone();
        self.with(move |this| {
            let record = this.records.begin(
                &key,
                &Record {
                    writable: false,
                    ..this.template(None)?
                },
            )?;
            Ok(LayerTarget::Overlay {
                dir: this.records.tree(&record.tree),
                user_xattr: this.user_xattr,
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
        self.with(move |this| {
            let alone = this.hides_all(&this.records.active(&key)?)?;
            this.records.commit(&key, &chain, parent.as_ref(), usage, alone)
        })
        .await
    }

    async fn borrow_layer(&self, key: &SnapshotKey, chain: &ChainId, from: &Path) -> Result<bool> {
        let (key, chain, from) = (key.clone(), *chain, from.to_owned());
        self.with(move |this| this.records.borrow(&key, &chain, &from)).await
    }

    async fn create_writable(
        &self,
        key: &SnapshotKey,
        parent: Option<&ChainId>,
        options: WritableOptions,
    ) -> Result<Vec<Mount>> {
        let (key, parent) = (key.clone(), parent.copied());
        self.with(move |this| this.make_writable(&key, parent.as_ref(), options))
            .await
    }

    async fn mounts(&self, key: &SnapshotKey) -> Result<Vec<Mount>> {
        let key = key.clone();
        self.with(move |this| {
            let record = this.records.active(&key)?;
            if record.volatile {
                forget_volatile(&this.records.work(&record.tree))?;
            }
            Ok(vec![this.mount(&record)])
        })
        .await
    }

    async fn keep(&self, key: &SnapshotKey) -> Result<()> {
        let key = key.clone();
        self.with(move |this| {
            let record = this.records.active(&key)?;
            if !record.volatile {
                return Ok(());
            }
            forget_volatile(&this.records.work(&record.tree))?;
            this.records.keep(&key, record)
        })
        .await
    }

    async fn source(&self, key: &SnapshotKey) -> Result<LayerSource> {
        let key = key.clone();
        self.with(move |this| {
            let record = this.records.active(&key)?;
            Ok(LayerSource::Overlay {
                upper: this.records.tree(&record.tree),
                lower: this.trees(&record.below),
                user_xattr: this.user_xattr,
            })
        })
        .await
    }

    async fn view(&self, chain: &ChainId) -> Result<Vec<Mount>> {
        let chain = *chain;
        self.with(move |this| Ok(vec![this.show(&this.records.get(&chain)?)]))
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

    async fn usage(&self, key: &SnapshotKey) -> Result<Usage> {
        let key = key.clone();
        self.with(move |this| usage_of(&this.records.tree(&this.records.active(&key)?.tree)))
            .await
    }

    async fn is_full(&self, key: &SnapshotKey) -> Result<bool> {
        let key = key.clone();
        self.with(move |this| this.records.is_full(&key)).await
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
