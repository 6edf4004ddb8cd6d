//! The suite over our own backends, with mounts made by this process where it may.

use std::path::PathBuf;

use async_trait::async_trait;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::overlayfs::Overlayfs;
use super::vfs::Vfs;
use super::*;
use crate::conformance::snapshots::{self, MountedTree, Mounter};
use crate::error::Error;
use crate::storage::ownership::{OwnerChange, Ownership, Privileged};
use crate::types::MountSource;

/// Mounts with mount(2) in temporary directories: needs root.
#[derive(Debug)]
struct Root;

#[derive(Debug)]
struct Mounted(tempfile::TempDir);

impl MountedTree for Mounted {
    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Detached: a process that another test is just starting may have a descriptor below it until it executes.
        umount2(self.0.path(), MntFlags::MNT_DETACH).expect("umount");
    }
}

/// Binds shown as the directories they are: for backends that only bind, as any user.
#[derive(Debug)]
struct Plain;

#[derive(Debug)]
struct Shown(PathBuf);

impl MountedTree for Shown {
    fn path(&self) -> PathBuf {
        self.0.clone()
    }
}

fn joined(dirs: &[PathBuf]) -> String {
    dirs.iter()
        .map(|dir| dir.to_str().unwrap())
        .collect::<Vec<_>>()
        .join(":")
}

#[async_trait]
impl Mounter for Root {
    async fn mount(&self, mounts: &[Mount]) -> Result<Box<dyn MountedTree>> {
        let dir = tempfile::tempdir().unwrap();
        let failed = |e| Error::os("mount", e);
        match &mounts[0].source {
            MountSource::Bind { path } => {
                mount(Some(path), dir.path(), None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(failed)?;
                if mounts[0].read_only {
                    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
                    mount(None::<&str>, dir.path(), None::<&str>, flags, None::<&str>).map_err(failed)?;
                }
            }
            MountSource::FileSystem { .. } => panic!("no storage driver says so"),
            MountSource::Overlay {
                lower,
                upper,
                work,
                user_xattr,
                ..
            } => {
                let mut options = format!("lowerdir={}", joined(lower));
                if let (Some(upper), Some(work)) = (upper, work) {
                    options += &format!(",upperdir={},workdir={}", upper.display(), work.display());
                }
                if *user_xattr {
                    options += ",userxattr";
                }
                mount(
                    Some("overlay"),
                    dir.path(),
                    Some("overlay"),
                    MsFlags::empty(),
                    Some(options.as_str()),
                )
                .map_err(failed)?;
            }
        }
        Ok(Box::new(Mounted(dir)))
    }
}

#[async_trait]
impl Mounter for Plain {
    async fn mount(&self, mounts: &[Mount]) -> Result<Box<dyn MountedTree>> {
        let MountSource::Bind { path } = &mounts[0].source else {
            return Err(Error::unsupported("an overlay", "a mounter that mounts"));
        };
        // Nothing makes it read-only: the suite's one check of that needs a mount.
        Ok(Box::new(Shown(path.clone())))
    }
}

/// Does as root what a process in a user namespace does.
#[derive(Debug)]
struct RootDoes;

impl Privileged for RootDoes {
    fn change_owners(&self, changes: Vec<(std::os::fd::OwnedFd, OwnerChange)>) -> Result<()> {
        for (fd, change) in changes {
            let (uid, gid) = (
                nix::unistd::Uid::from_raw(change.uid),
                nix::unistd::Gid::from_raw(change.gid),
            );
            nix::unistd::fchownat(&fd, c"", Some(uid), Some(gid), nix::fcntl::AtFlags::AT_EMPTY_PATH)
                .map_err(|e| Error::os("fchownat", e))?;
            if let Some(mode) = change.mode {
                nix::sys::stat::fchmod(&fd, nix::sys::stat::Mode::from_bits_truncate(mode))
                    .map_err(|e| Error::os("fchmod", e))?;
            }
        }
        Ok(())
    }

    fn remove_tree(&self, path: &std::path::Path) -> Result<()> {
        delete::tree(path)
    }
}

/// Whether this process may mount and has all ids.
fn is_root() -> bool {
    let all_ids = std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.contains("4294967295"));
    nix::unistd::geteuid().is_root() && all_ids
}

/// Whether this process may mount. An ordinary user may in a user namespace: the test runs itself again in one.
fn may_mount(test: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    let test = format!("storage::snapshot::tests::{test}");
    let program = std::env::current_exe().unwrap();
    let again = std::process::Command::new("unshare")
        .arg("-Urm")
        .arg(program)
        .args(["--exact", &test])
        .output();
    match again {
        Ok(out) if out.status.success() => {
            assert!(
                String::from_utf8_lossy(&out.stdout).contains("1 passed"),
                "{test} ran in the namespace"
            );
        }
        Ok(out) if String::from_utf8_lossy(&out.stderr).contains("unshare failed") => {
            eprintln!("skipped: no user namespaces for this user here");
        }
        Ok(out) => panic!(
            "{}{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        ),
        Err(e) => eprintln!("skipped: no unshare(1) to make a user namespace with: {e}"),
    }
    false
}

async fn suite(open: impl Fn(&std::path::Path, Ownership) -> Box<dyn Snapshotter>, ownership: Ownership) {
    // A short path: `mount(2)`, which stands in for the zygote here, cuts 64 directories off at a page without a word.
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    let snapshotter = open(dir.path(), ownership.clone());
    snapshots::snapshotter(&*snapshotter, &Root, &ownership).await;
    for part in ["l", "w", "o", "k", "c", "p", "trash"] {
        assert_eq!(std::fs::read_dir(dir.path().join(part)).unwrap().count(), 0, "{part}");
    }
}

#[tokio::test]
async fn overlayfs_as_root() {
    if is_root() {
        suite(
            |dir, ownership| Box::new(Overlayfs::open(dir, false, ownership).unwrap()),
            Ownership::Direct,
        )
        .await;
    }
}

#[tokio::test]
async fn overlayfs_with_one_id() {
    if may_mount("overlayfs_with_one_id") {
        suite(
            |dir, ownership| Box::new(Overlayfs::open(dir, true, ownership).unwrap()),
            Ownership::Squashed,
        )
        .await;
    }
}

#[tokio::test]
async fn overlayfs_with_owners_given_away() {
    if is_root() {
        let ownership = Ownership::Mapped(std::sync::Arc::new(RootDoes));
        suite(
            |dir, ownership| Box::new(Overlayfs::open(dir, true, ownership).unwrap()),
            ownership,
        )
        .await;
    }
}

#[tokio::test]
async fn vfs_with_owners() {
    if is_root() {
        for ownership in [Ownership::Direct, Ownership::Mapped(std::sync::Arc::new(RootDoes))] {
            suite(|dir, ownership| Box::new(Vfs::open(dir, ownership).unwrap()), ownership).await;
        }
    }
}

#[tokio::test]
async fn vfs_with_one_id() {
    if may_mount("vfs_with_one_id") {
        suite(
            |dir, ownership| Box::new(Vfs::open(dir, ownership).unwrap()),
            Ownership::Squashed,
        )
        .await;
    }
}

#[tokio::test]
async fn vfs_copies_get_their_owners_and_modes() {
    let ownership = if nix::unistd::geteuid().is_root() {
        Ownership::Mapped(std::sync::Arc::new(RootDoes))
    } else {
        Ownership::Squashed
    };
    let dir = tempfile::tempdir().unwrap();
    let vfs = Vfs::open(dir.path(), ownership.clone()).unwrap();
    let meta = crate::conformance::layers::Meta::mode(0o4511).owner(77, 88);
    let tar = crate::conformance::layers::LayerBuilder::new()
        .entry(b'0', "f", "", &meta, b"x")
        .build();
    let target = vfs.begin_layer(&"k".to_owned(), None).await.unwrap();
    crate::storage::layer::apply(&tar[..], &target, &ownership, &Default::default()).unwrap();
    let chain = ChainId::of(&tar);
    vfs.commit_layer(&"k".to_owned(), &chain, None, Usage::default())
        .await
        .unwrap();
    let mounts = vfs
        .create_writable(&"w".to_owned(), Some(&chain), WritableOptions::default())
        .await
        .unwrap();
    let root = Plain.mount(&mounts).await.unwrap().path();
    use std::os::unix::fs::MetadataExt;
    let there = std::fs::metadata(root.join("f")).unwrap();
    assert_eq!(there.mode() & 0o7777, 0o4511);
    if let Ownership::Mapped(_) = ownership {
        assert_eq!((there.uid(), there.gid()), (77, 88));
    } else {
        let note = crate::sys::xattr::get_link(&root.join("f"), crate::storage::layer::OWNER_XATTR).unwrap();
        assert_eq!(note.as_deref(), Some(&b"77:88"[..]));
    }
    vfs.discard(&"w".to_owned()).await.unwrap();
    assert_eq!(vfs.remove(&chain).await.unwrap(), Outcome::Done);
}

/// The same layer, written to in the same way, is told of in the same words, and makes the same layer: whatever the backend.
#[tokio::test]
async fn e4_overlayfs_and_vfs_tell_the_same() {
    if !may_mount("e4_overlayfs_and_vfs_tell_the_same") {
        return;
    }
    let (user_xattr, ownership) = match is_root() {
        true => (false, Ownership::Direct),
        false => (true, Ownership::Squashed),
    };
    let mut told = Vec::new();
    for name in ["overlayfs", "vfs"] {
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        let snapshotter: Box<dyn Snapshotter> = match name {
            "overlayfs" => Box::new(Overlayfs::open(dir.path(), user_xattr, ownership.clone()).unwrap()),
            _ => Box::new(Vfs::open(dir.path(), ownership.clone()).unwrap()),
        };
        told.push(snapshots::differences_of(&*snapshotter, &Root, &ownership).await);
    }
    assert_eq!(told[0], told[1]);
}
