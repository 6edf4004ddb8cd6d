//! The suite for [`Snapshotter`]: layers stack, whiteouts hide, writable snapshots are written to, and nothing is left.

use std::fmt::Debug;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::layers::{LayerBuilder, Meta};
use crate::error::Result;
use crate::storage::layer::{self, Applied, Limits};
use crate::storage::ownership::Ownership;
use crate::storage::snapshot::{Snapshotter, WritableOptions};
use crate::types::{ChainId, Digest, Mount, Outcome};

/// Makes mounts for the suite.
#[async_trait]
pub trait Mounter: Debug + Send + Sync {
    /// Mounts what a snapshotter returned.
    ///
    /// # Errors
    /// What the kernel says.
    async fn mount(&self, mounts: &[Mount]) -> Result<Box<dyn MountedTree>>;
}

/// A mounted tree; dropping it unmounts.
pub trait MountedTree: Debug + Send {
    /// Where to work in it: a directory, or `/proc/self/fd/<n>`.
    fn path(&self) -> PathBuf;
}

/// One run of the suite.
#[derive(Debug)]
pub(super) struct Suite<'a> {
    pub(super) snapshotter: &'a dyn Snapshotter,
    pub(super) mounter: &'a dyn Mounter,
    pub(super) ownership: &'a Ownership,
}

/// What every snapshotter does. It has no snapshots before and after.
///
/// # Panics
/// Where the snapshotter does not behave.
pub async fn snapshotter(snapshotter: &dyn Snapshotter, mounter: &dyn Mounter, ownership: &Ownership) {
    let suite = Suite {
        snapshotter,
        mounter,
        ownership,
    };
    suite.stacks().await;
    suite.hides().await;
    suite.hides_all().await;
    suite.keeps_metadata().await;
    suite.writes().await;
    suite.tells_differences().await;
    suite.many_layers().await;
    suite.commits_once().await;
    suite.forgets().await;
    assert_eq!(snapshotter.list().await.expect("list"), []);
    assert_eq!(snapshotter.active().await.expect("active"), Vec::<String>::new());
}

/// What a snapshotter tells of a writable snapshot after the suite's changes, by path: two backends must agree. Times are not
/// among it, as those of a run are its own.
///
/// # Panics
/// Where the snapshotter does not behave.
pub async fn differences_of(
    snapshotter: &dyn Snapshotter,
    mounter: &dyn Mounter,
    ownership: &Ownership,
) -> Vec<crate::types::Change> {
    let suite = Suite {
        snapshotter,
        mounter,
        ownership,
    };
    suite.list_of_changes().await
}

impl Suite<'_> {
    /// Unpacks a layer on top of another.
    pub(super) async fn layer(&self, parent: Option<&ChainId>, tar: &[u8]) -> (ChainId, Applied) {
        let chain = Digest::chain(parent, &Digest::of(tar));
        let key = format!("unpack-suite-{}", chain.short());
        let target = self.snapshotter.begin_layer(&key, parent).await.expect("begin_layer");
        let (bytes, ownership) = (tar.to_vec(), self.ownership.clone());
        let work = move || layer::apply(&bytes[..], &target, &ownership, &Limits::default());
        let applied = tokio::task::spawn_blocking(work).await.expect("worker").expect("apply");
        assert!(
            !self.snapshotter.exists(&chain).await.expect("exists"),
            "a layer is invisible before its commit"
        );
        self.snapshotter
            .commit_layer(&key, &chain, parent, applied.usage)
            .await
            .expect("commit_layer");
        assert!(self.snapshotter.exists(&chain).await.expect("exists"));
        assert_eq!(
            self.snapshotter.layer_usage(&chain).await.expect("layer_usage"),
            applied.usage
        );
        (chain, applied)
    }

    pub(super) async fn stack(&self, layers: &[Vec<u8>]) -> Vec<ChainId> {
        let mut chains: Vec<ChainId> = Vec::new();
        for tar in layers {
            let (chain, _) = self.layer(chains.last(), tar).await;
            chains.push(chain);
        }
        chains
    }

    async fn view(&self, chain: &ChainId) -> Box<dyn MountedTree> {
        let mounts = self.snapshotter.view(chain).await.expect("view");
        self.mounter.mount(&mounts).await.expect("mount view")
    }

    pub(super) async fn remove(&self, chains: &[ChainId]) {
        for chain in chains.iter().rev() {
            assert_eq!(self.snapshotter.remove(chain).await.expect("remove"), Outcome::Done);
            assert_eq!(
                self.snapshotter.remove(chain).await.expect("remove again"),
                Outcome::Already
            );
            assert!(!self.snapshotter.exists(chain).await.expect("exists"));
        }
    }

    async fn stacks(&self) {
        let chains = self
            .stack(&[
                LayerBuilder::new()
                    .dir("etc")
                    .file("etc/a", b"1")
                    .file("etc/b", b"1")
                    .dir("usr")
                    .symlink("bin", "usr")
                    .build(),
                LayerBuilder::new()
                    .dir("etc")
                    .file("etc/b", b"2")
                    .file("etc/c", b"2")
                    .file("usr/tool", b"2")
                    .build(),
                LayerBuilder::new()
                    .entry(b'5', "etc", "", &Meta::mode(0o711), b"")
                    .file("etc/c", b"3")
                    .build(),
            ])
            .await;
        let tree = self.view(&chains[2]).await;
        let root = tree.path();
        assert_eq!(
            (text(&root, "etc/a"), text(&root, "etc/b"), text(&root, "etc/c")),
            ("1".into(), "2".into(), "3".into())
        );
        assert_eq!(
            text(&root, "bin/tool"),
            "2",
            "a file in a directory reached through a symlink of a layer below"
        );
        assert_eq!(
            mode(&root, "etc"),
            0o711,
            "the topmost layer's mode of a directory holds"
        );
        assert!(fs::write(root.join("etc/new"), "").is_err(), "a view is read-only");
        drop(tree);
        let below = self.view(&chains[0]).await;
        assert_eq!(names(&below.path(), "etc"), ["a", "b"], "a layer below does not change");
        drop(below);
        self.remove(&chains).await;
    }

    async fn hides(&self) {
        let chains = self
            .stack(&[
                LayerBuilder::new()
                    .dir("d")
                    .file("d/x", b"")
                    .file("d/y", b"")
                    .dir("o")
                    .file("o/x", b"")
                    .dir("r")
                    .file("r/x", b"")
                    .file("f", b"")
                    .build(),
                LayerBuilder::new()
                    .whiteout("d/x")
                    .dir("o")
                    .opaque("o")
                    .file("o/new", b"")
                    .whiteout("r")
                    .whiteout("f")
                    .build(),
                LayerBuilder::new()
                    .dir("r")
                    .file("r/again", b"")
                    .dir("f")
                    .file("f/inside", b"")
                    .build(),
                LayerBuilder::new()
                    .whiteout("r")
                    .dir("r")
                    .file("r/last", b"")
                    .whiteout("o")
                    .file("o", b"file")
                    .build(),
            ])
            .await;
        for (level, path, expect) in [
            (1, "d", vec!["y"]),
            (1, "o", vec!["new"]),
            (1, "", vec!["d", "o"]),
            (2, "r", vec!["again"]),
            (2, "f", vec!["inside"]),
            (3, "r", vec!["last"]),
        ] {
            let tree = self.view(&chains[level]).await;
            assert_eq!(names(&tree.path(), path), expect, "level {level} path {path:?}");
        }
        let tree = self.view(&chains[3]).await;
        assert_eq!(text(&tree.path(), "o"), "file");
        drop(tree);
        self.remove(&chains).await;
    }

    /// An opaque mark at the root hides everything below.
    async fn hides_all(&self) {
        let layers = [
            LayerBuilder::new().file("old", b"").build(),
            LayerBuilder::new().file("/.wh..wh..opq", b"").file("new", b"").build(),
            LayerBuilder::new().file("newer", b"").build(),
        ];
        let chains = self.stack(&layers).await;
        let tree = self.view(&chains[2]).await;
        assert_eq!(names(&tree.path(), ""), ["new", "newer"]);
        drop(tree);
        self.remove(&chains).await;
    }

    async fn keeps_metadata(&self) {
        let direct = matches!(self.ownership, Ownership::Direct);
        let tar = LayerBuilder::new()
            .entry(b'5', "tmp", "", &Meta::mode(0o1777), b"")
            .entry(b'0', "su", "", &Meta::mode(0o4755), b"program")
            .hard_link("su2", "su")
            .pax("SCHILY.xattr.user.note", "kept")
            .pax("mtime", "1500000000.25")
            .file("noted", b"")
            .entry(b'0', "owned", "", &Meta::mode(0o640).owner(1000, 100), b"")
            .device("null", b'3', 1, 3)
            .symlink("dir", "tmp")
            .file("dir/through", b"symlinked directory")
            .pax("GNU.sparse.size", "1048576")
            .pax("GNU.sparse.map", "1048572,4")
            .file("sparse", b"tail")
            .build();
        let (base, applied) = self.layer(None, &tar).await;
        let (top, _) = self
            .layer(Some(&base), &LayerBuilder::new().file("other", b"").build())
            .await;
        let tree = self.view(&top).await;
        let root = tree.path();
        let stat = |path: &str| fs::symlink_metadata(root.join(path)).expect("stat");
        assert_eq!(text(&root, "tmp/through"), "symlinked directory");
        assert_eq!(stat("su").ino(), stat("su2").ino(), "hard links stay together");
        assert_eq!(
            (stat("noted").mtime(), stat("noted").mtime_nsec()),
            (1_500_000_000, 250_000_000)
        );
        assert_eq!(stat("sparse").len(), 1 << 20);
        assert!(stat("sparse").blocks() * 512 < 1 << 19, "holes stay holes");
        let note = crate::sys::xattr::get_link(&root.join("noted"), c"user.note").expect("get attribute");
        assert_eq!(note.as_deref(), Some(&b"kept"[..]));
        if direct {
            assert_eq!((mode(&root, "tmp"), mode(&root, "su")), (0o1777, 0o4755));
            assert_eq!((stat("owned").uid(), stat("owned").gid()), (1000, 100));
        }
        if applied.skipped_devices == 0 {
            assert!(stat("null").file_type().is_char_device());
        }
        drop(tree);
        self.writable_keeps_metadata(&top).await;
        self.remove(&[base, top]).await;
    }

    /// A container sees setuid bits and modes however the backend keeps them.
    async fn writable_keeps_metadata(&self, chain: &ChainId) {
        let key = "metadata".to_owned();
        let mounts = self
            .snapshotter
            .create_writable(&key, Some(chain), WritableOptions::default())
            .await
            .expect("create_writable");
        let tree = self.mounter.mount(&mounts).await.expect("mount");
        assert_eq!((mode(&tree.path(), "tmp"), mode(&tree.path(), "su")), (0o1777, 0o4755));
        let there = fs::metadata(tree.path().join("su")).expect("stat");
        assert_eq!(there.nlink(), 2, "hard links stay together");
        drop(tree);
        self.snapshotter.discard(&key).await.expect("discard");
    }

    async fn writes(&self) {
        let (base, _) = self
            .layer(
                None,
                &LayerBuilder::new()
                    .dir("d")
                    .file("d/x", b"base")
                    .file("gone", b"")
                    .build(),
            )
            .await;
        let keys = ["one".to_owned(), "two".to_owned()];
        for key in &keys {
            let mounts = self
                .snapshotter
                .create_writable(key, Some(&base), WritableOptions::default())
                .await
                .expect("create_writable");
            assert_eq!(self.snapshotter.mounts(key).await.expect("mounts"), mounts);
        }
        let again = self
            .snapshotter
            .create_writable(&keys[0], Some(&base), WritableOptions::default())
            .await;
        assert!(again.expect_err("a key is taken once").is_conflict());
        let first = self
            .mounter
            .mount(&self.snapshotter.mounts(&keys[0]).await.expect("mounts"))
            .await
            .expect("mount");
        let root = first.path();
        fs::write(root.join("d/x"), "changed").expect("write");
        fs::write(root.join("d/new"), vec![1; 100_000]).expect("write");
        fs::remove_file(root.join("gone")).expect("remove");
        assert!(self.snapshotter.usage(&keys[0]).await.expect("usage").bytes >= 100_000);
        drop(first);
        let first = self
            .mounter
            .mount(&self.snapshotter.mounts(&keys[0]).await.expect("mounts"))
            .await
            .expect("mount");
        assert_eq!(
            (text(&first.path(), "d/x"), names(&first.path(), "")),
            ("changed".into(), vec!["d".to_owned()])
        );
        let second = self
            .mounter
            .mount(&self.snapshotter.mounts(&keys[1]).await.expect("mounts"))
            .await
            .expect("mount");
        assert_eq!(
            (text(&second.path(), "d/x"), names(&second.path(), "d")),
            ("base".into(), vec!["x".to_owned()])
        );
        drop((first, second));
        for key in &keys {
            let directories = self.snapshotter.directories(key);
            assert!(
                directories.iter().any(|dir| dir.exists()),
                "a cleaner is told where the snapshot is"
            );
            assert_eq!(self.snapshotter.discard(key).await.expect("discard"), Outcome::Done);
            assert_eq!(
                self.snapshotter.discard(key).await.expect("discard again"),
                Outcome::Already
            );
            assert!(
                !directories.iter().any(|dir| dir.exists()),
                "nothing of a discarded snapshot is left"
            );
            assert!(
                self.snapshotter
                    .mounts(key)
                    .await
                    .expect_err("mounts of nothing")
                    .is_not_found()
            );
        }
        self.empty_writable().await;
        self.remove(&[base]).await;
    }

    async fn empty_writable(&self) {
        let key = "empty".to_owned();
        let mounts = self
            .snapshotter
            .create_writable(&key, None, WritableOptions::default())
            .await
            .expect("create_writable");
        let tree = self.mounter.mount(&mounts).await.expect("mount");
        assert_eq!(names(&tree.path(), ""), Vec::<String>::new());
        fs::write(tree.path().join("x"), "").expect("write");
        drop(tree);
        assert_eq!(self.snapshotter.discard(&key).await.expect("discard"), Outcome::Done);
    }

    async fn many_layers(&self) {
        let layers: Vec<_> = (0..64)
            .map(|n: usize| {
                LayerBuilder::new()
                    .dir("d")
                    .file(&format!("d/{n}"), b"")
                    .file("last", n.to_string().as_bytes())
                    .build()
            })
            .collect();
        let chains = self.stack(&layers).await;
        let tree = self.view(&chains[63]).await;
        assert_eq!(
            (names(&tree.path(), "d").len(), text(&tree.path(), "last")),
            (64, "63".into())
        );
        drop(tree);
        let mut listed = self.snapshotter.list().await.expect("list");
        let mut expect = chains.clone();
        listed.sort();
        expect.sort();
        assert_eq!(listed, expect);
        self.remove(&chains).await;
    }

    /// Several commits of one chain at once: all succeed, one counts.
    async fn commits_once(&self) {
        let chain = Digest::of(b"the same for all");
        let keys: Vec<String> = (0..8).map(|n| format!("unpack-suite-{n}")).collect();
        for key in &keys {
            self.snapshotter.begin_layer(key, None).await.expect("begin_layer");
        }
        let usage = crate::storage::snapshot::Usage::default();
        let commits = keys
            .iter()
            .map(|key| self.snapshotter.commit_layer(key, &chain, None, usage));
        for committed in futures_util::future::join_all(commits).await {
            committed.expect("commit of a chain that others commit too");
        }
        assert_eq!(self.snapshotter.list().await.expect("list"), [chain]);
        assert_eq!(self.snapshotter.active().await.expect("active"), Vec::<String>::new());
        self.remove(&[chain]).await;
    }

    /// Unfinished layers are seen by their key only, and go with it.
    async fn forgets(&self) {
        let key = "unpack-suite-half".to_owned();
        let target = self.snapshotter.begin_layer(&key, None).await.expect("begin_layer");
        let (bytes, ownership) = (
            LayerBuilder::new().dir("d").file("d/x", b"").build(),
            self.ownership.clone(),
        );
        let work = move || layer::apply(&bytes[..], &target, &ownership, &Limits::default());
        tokio::task::spawn_blocking(work).await.expect("worker").expect("apply");
        assert_eq!(
            self.snapshotter.active().await.expect("active"),
            std::slice::from_ref(&key)
        );
        assert_eq!(self.snapshotter.list().await.expect("list"), []);
        assert_eq!(self.snapshotter.discard(&key).await.expect("discard"), Outcome::Done);
        let gone = self
            .snapshotter
            .commit_layer(&key, &Digest::of(b"x"), None, Default::default())
            .await;
        assert!(gone.expect_err("commit of nothing").is_not_found());
        assert!(
            self.snapshotter
                .view(&Digest::of(b"x"))
                .await
                .expect_err("view of nothing")
                .is_not_found()
        );
        self.snapshotter.sync().await.expect("sync");
    }
}

fn text(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path)).unwrap_or_else(|e| panic!("read {path}: {e}"))
}

fn mode(root: &Path, path: &str) -> u32 {
    fs::symlink_metadata(root.join(path))
        .unwrap_or_else(|e| panic!("stat {path}: {e}"))
        .mode()
        & 0o7777
}

fn names(root: &Path, path: &str) -> Vec<String> {
    let entries = fs::read_dir(root.join(path)).unwrap_or_else(|e| panic!("read {path}: {e}"));
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
