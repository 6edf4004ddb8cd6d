//! What every snapshotter tells of what was written: the list is that of a comparison of two whole trees, and the layer,
//! put on the parent, gives the same tree.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File, FileTimes};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::layers::{LayerBuilder, Meta};
use super::snapshots::{MountedTree, Suite};
use crate::storage::layer::LayerReader;
use crate::storage::ownership::Ownership;
use crate::storage::snapshot::WritableOptions;
use crate::sys::xattr;
use crate::types::{ChainId, Change, ChangeKind};

/// Everything that a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Looks {
    mode: u32,
    owner: (u32, u32),
    device: u64,
    mtime: (i64, i64),
    target: Option<PathBuf>,
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
    content: Vec<u8>,
    /// All names of it.
    names: BTreeSet<PathBuf>,
}

type Tree = BTreeMap<PathBuf, Looks>;

fn tree_of(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut inodes: HashMap<u64, BTreeSet<PathBuf>> = HashMap::new();
    let mut waiting = vec![PathBuf::from("/")];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(root.join(dir.strip_prefix("/").expect("absolute"))).expect("read_dir") {
            let entry = entry.expect("entry");
            let (path, there) = (dir.join(entry.file_name()), entry.metadata().expect("stat"));
            if there.is_dir() {
                waiting.push(path.clone());
            } else {
                inodes.entry(there.ino()).or_default().insert(path.clone());
            }
            tree.insert(path, looks(&entry.path(), &there));
        }
    }
    for names in inodes.into_values() {
        for name in &names {
            tree.get_mut(name).expect("seen").names = names.clone();
        }
    }
    tree
}

fn looks(path: &Path, there: &fs::Metadata) -> Looks {
    let kept = |name: &std::ffi::CString| {
        let name = name.to_bytes();
        name.starts_with(b"user.") && !name.starts_with(b"user.overlay.")
    };
    let names = xattr::list_link(path).expect("list attributes");
    let mut attributes: Vec<_> = names
        .into_iter()
        .filter(kept)
        .map(|name| {
            let value = xattr::get_link(path, &name).expect("get attribute");
            (name.into_bytes(), value.unwrap_or_default())
        })
        .collect();
    attributes.sort();
    Looks {
        mode: there.mode(),
        owner: (there.uid(), there.gid()),
        device: if there.file_type().is_char_device() || there.file_type().is_block_device() {
            there.rdev()
        } else {
            0
        },
        mtime: (there.mtime(), there.mtime_nsec()),
        target: there.is_symlink().then(|| fs::read_link(path).expect("readlink")),
        attributes,
        content: if there.is_file() {
            fs::read(path).expect("read")
        } else {
            Vec::new()
        },
        names: BTreeSet::new(),
    }
}

/// The list, from two whole trees.
fn differences(old: &Tree, new: &Tree) -> Vec<Change> {
    let mut kinds: BTreeMap<PathBuf, ChangeKind> = BTreeMap::new();
    for (path, looks) in new {
        let kind = match old.get(path) {
            None => ChangeKind::Added,
            Some(before) if same_but_time(before, looks) => continue,
            Some(_) => ChangeKind::Modified,
        };
        kinds.insert(path.clone(), kind);
    }
    for path in old.keys().filter(|path| !new.contains_key(*path)) {
        let parent = path.parent().expect("a parent");
        // What is in a directory that is gone is not told of.
        if parent == Path::new("/") || new.get(parent).is_some_and(is_dir) || !old.contains_key(parent) {
            kinds.insert(path.clone(), ChangeKind::Deleted);
        } else if new.contains_key(parent) {
            continue;
        }
    }
    for path in kinds.keys().cloned().collect::<Vec<_>>() {
        for above in path.ancestors().skip(1).filter(|above| *above != Path::new("/")) {
            kinds.entry(above.to_owned()).or_insert(ChangeKind::Modified);
        }
    }
    let mut changes: Vec<_> = kinds.into_iter().map(|(path, kind)| Change { path, kind }).collect();
    changes.sort();
    changes
}

fn is_dir(looks: &Looks) -> bool {
    looks.mode & libc::S_IFMT == libc::S_IFDIR
}

fn same_but_time(one: &Looks, other: &Looks) -> bool {
    let (mut one, mut other) = (one.clone(), other.clone());
    one.names.clear();
    other.names.clear();
    if is_dir(&one) && is_dir(&other) {
        other.mtime = one.mtime;
    }
    one == other
}

fn base() -> Vec<u8> {
    LayerBuilder::new()
        .dir("d")
        .file("d/x", b"base")
        .file("d/y", b"")
        .file("d/z", b"to be renamed")
        .dir("gone")
        .dir("gone/in")
        .file("gone/in/a", b"")
        .file("gone-file", b"")
        .dir("opaque")
        .file("opaque/one", b"1")
        .file("opaque/two", b"2")
        .dir("opaque/sub")
        .file("opaque/sub/old", b"")
        .file("to-dir", b"")
        .dir("to-file")
        .file("to-file/z", b"")
        .file("same", b"same")
        .file("same-time", b"before")
        .file("only-mode", b"")
        .file("only-time", b"")
        .pax("SCHILY.xattr.user.old", "1")
        .file("attributes", b"")
        .symlink("link", "same")
        .dir("deep")
        .dir("deep/er")
        .file("deep/er/leaf", b"")
        .dir("only-dir-time")
        .dir("untouched")
        .file("untouched/u", b"")
        .file("first", b"linked")
        .hard_link("second", "first")
        .entry(b'0', "su", "", &Meta::mode(0o4755).owner(1000, 1000), b"program")
        .build()
}

fn top() -> Vec<u8> {
    LayerBuilder::new()
        .dir("d")
        .file("d/x", b"of the second layer")
        .whiteout("untouched/u")
        .file("untouched/new", b"")
        .dir("opaque")
        .file("opaque/three", b"3")
        .build()
}

fn time(seconds: i64, nanos: u32) -> SystemTime {
    let whole = match u64::try_from(seconds) {
        Ok(seconds) => SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        Err(_) => SystemTime::UNIX_EPOCH - Duration::from_secs(seconds.unsigned_abs()),
    };
    whole + Duration::from_nanos(nanos.into())
}

/// Does what containers do, and what hostile ones do.
fn change(root: &Path, direct: bool) {
    let at = |path: &str| root.join(path);
    let write = |path: &str, bytes: &[u8]| fs::write(at(path), bytes).expect(path);
    write("d/x", b"changed");
    write("d/new", b"new");
    fs::remove_file(at("d/y")).expect("rm");
    fs::rename(at("d/z"), at("d/renamed")).expect("mv");
    fs::remove_dir_all(at("gone")).expect("rm -r");
    fs::remove_file(at("gone-file")).expect("rm");
    fs::remove_dir_all(at("opaque")).expect("rm -r");
    fs::create_dir_all(at("opaque/sub")).expect("mkdir");
    write("opaque/one", b"again");
    write("opaque/sub/new", b"");
    fs::remove_file(at("to-dir")).expect("rm");
    fs::create_dir(at("to-dir")).expect("mkdir");
    write("to-dir/in", b"");
    fs::remove_dir_all(at("to-file")).expect("rm -r");
    write("to-file", b"file");
    let there = fs::metadata(at("same-time")).expect("stat");
    write("same-time", b"after!");
    let file = File::options().write(true).open(at("same-time")).expect("open");
    file.set_times(FileTimes::new().set_modified(there.modified().expect("time")))
        .expect("touch");
    fs::set_permissions(at("only-mode"), fs::Permissions::from_mode(0o2711)).expect("chmod");
    let file = File::options().write(true).open(at("only-time")).expect("open");
    file.set_times(FileTimes::new().set_modified(time(-5, 500_000_000)))
        .expect("touch");
    xattr::set_link(&at("attributes"), c"user.new", b"\0binary\n").expect("set attribute");
    fs::remove_file(at("link")).expect("rm");
    symlink("/etc/../../../somewhere", at("link")).expect("ln -s");
    write("deep/er/leaf", b"deep");
    write("only-dir-time/x", b"");
    fs::remove_file(at("only-dir-time/x")).expect("rm");
    strange(root);
    if direct {
        for (path, owner) in [("d/new", 3_000_000), ("same-owner-dir", 77)] {
            if !at(path).exists() {
                fs::create_dir(at(path)).expect("mkdir");
            }
            std::os::unix::fs::chown(at(path), Some(owner), Some(owner + 1)).expect("chown");
        }
        nix::sys::stat::mknod(
            &at("device"),
            nix::sys::stat::SFlag::S_IFBLK,
            nix::sys::stat::Mode::from_bits_truncate(0o640),
            nix::sys::stat::makedev(259, 200_000),
        )
        .expect("mknod");
    }
}

/// Names, types and sizes that are made to break readers.
fn strange(root: &Path) {
    let at = |path: &str| root.join(path);
    let write = |path: &str, bytes: &[u8]| fs::write(at(path), bytes).expect(path);
    write("fresh", b"two names");
    fs::hard_link(at("fresh"), at("fresh-too")).expect("ln");
    fs::hard_link(at("first"), at("third")).expect("ln");
    nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o600)).expect("mkfifo");
    fs::write(root.join(OsStr::from_bytes(b"odd \xff\n\tname=1")), b"odd").expect("write");
    let long = format!("{0}/{0}", "l".repeat(200));
    fs::create_dir(at(&"l".repeat(200))).expect("mkdir");
    write(&long, b"long");
    symlink("t".repeat(300), at("long-target")).expect("ln -s");
    symlink("fifo", at("to-fifo")).expect("ln -s");
    let mut sparse = File::create(at("sparse")).expect("create");
    sparse.write_all(b"head").expect("write");
    sparse.seek(SeekFrom::Start(3 << 20)).expect("seek");
    sparse.write_all(b"middle").expect("write");
    sparse.set_len(5 << 20).expect("truncate");
    let hole = File::create(at("hole")).expect("create");
    hole.set_len((2 << 20) + 1).expect("truncate");
    hole.write_at(b"!", 2 << 20).expect("write");
    File::create(at("only-hole"))
        .expect("create")
        .set_len(2 << 20)
        .expect("truncate");
    write("unreadable", b"locked");
    fs::set_permissions(at("unreadable"), fs::Permissions::from_mode(0o400)).expect("chmod");
}

impl Suite<'_> {
    async fn writable(&self, key: &str, chain: Option<&ChainId>) -> Box<dyn MountedTree> {
        let options = WritableOptions::default();
        let mounts = self.snapshotter.create_writable(&key.to_owned(), chain, options).await;
        self.mounter
            .mount(&mounts.expect("create_writable"))
            .await
            .expect("mount")
    }

    async fn reader(&self, key: &str) -> LayerReader {
        let source = self.snapshotter.source(&key.to_owned()).await.expect("source");
        LayerReader::open(&source, self.ownership, None).expect("open what was written")
    }

    async fn discard(&self, key: &str) {
        self.snapshotter.discard(&key.to_owned()).await.expect("discard");
    }

    /// The list, the layer and the tree of a writable snapshot.
    pub(super) async fn tells_differences(&self) {
        let chains = self.stack(&[base(), top()]).await;
        let parent = chains[1];
        let pristine = self.writable("pristine", Some(&parent)).await;
        let before = tree_of(&pristine.path());
        let reader = self.reader("pristine").await;
        assert_eq!(reader.changes().expect("changes"), [], "nothing was written yet");
        let mut empty = Vec::new();
        assert!(!reader.write_layer(&mut empty).expect("layer"), "no difference");
        assert_eq!(empty, [0; 1024], "an empty archive");
        drop(pristine);

        let written = self.writable("written", Some(&parent)).await;
        change(&written.path(), matches!(self.ownership, Ownership::Direct));
        let after = tree_of(&written.path());
        let reader = self.reader("written").await;
        let mut changes = reader.changes().expect("changes");
        let in_order = changes.clone();
        changes.sort();
        assert_eq!(changes, differences(&before, &after), "the list of a full comparison");
        let mut tar = Vec::new();
        assert!(reader.write_layer(&mut tar).expect("layer"));
        let mut again = Vec::new();
        reader.write_layer(&mut again).expect("layer");
        assert!(tar == again, "the same changes make the same layer");
        assert_eq!(in_order.len(), changes.len());
        drop(written);
        self.put_on_parent(&parent, &tar, &after).await;
        self.whole_tree(&reader, &after).await;
        drop(reader);
        self.discard("pristine").await;
        self.discard("written").await;
        self.remove(&chains).await;
        self.without_a_layer_below().await;
    }

    pub(super) async fn list_of_changes(&self) -> Vec<Change> {
        let chains = self.stack(&[base(), top()]).await;
        let tree = self.writable("written", Some(&chains[1])).await;
        change(&tree.path(), matches!(self.ownership, Ownership::Direct));
        let changes = self.reader("written").await.changes().expect("changes");
        drop(tree);
        self.discard("written").await;
        self.remove(&chains).await;
        changes
    }

    async fn put_on_parent(&self, parent: &ChainId, tar: &[u8], expect: &Tree) {
        let (chain, _) = self.layer(Some(parent), tar).await;
        let tree = self.writable("again", Some(&chain)).await;
        same(&tree_of(&tree.path()), expect, self.ownership);
        let reader = self.reader("again").await;
        assert_eq!(reader.changes().expect("changes"), []);
        drop((tree, reader));
        self.discard("again").await;
        self.remove(&[chain]).await;
    }

    /// The archive of the whole, as the one layer of an image.
    async fn whole_tree(&self, reader: &LayerReader, expect: &Tree) {
        let mut tar = Vec::new();
        reader.write_tree(&mut tar).expect("tree");
        let (chain, _) = self.layer(None, &tar).await;
        let tree = self.writable("whole", Some(&chain)).await;
        same(&tree_of(&tree.path()), expect, self.ownership);
        drop(tree);
        self.discard("whole").await;
        self.remove(&[chain]).await;
    }

    /// What is hostile beyond what a layer can say is left out or refused, and reading never hangs.
    async fn without_a_layer_below(&self) {
        let tree = self.writable("nothing", None).await;
        let root = tree.path();
        fs::write(root.join("f"), b"").expect("write");
        fs::write(root.join(".wh.trap"), b"").expect("write");
        fs::create_dir(root.join(".wh.dir")).expect("mkdir");
        fs::write(root.join(".wh.dir/x"), b"").expect("write");
        let socket = std::os::unix::net::UnixListener::bind(root.join("socket")).expect("bind");
        fs::create_dir(root.join("proc")).expect("mkdir");
        let reader = self.reader("nothing").await.without(&["/proc", "/f"]);
        let list: Vec<_> = reader.changes().expect("changes").into_iter().map(|c| c.path).collect();
        let expect = ["/.wh.dir", "/.wh.dir/x", "/.wh.trap", "/socket"].map(PathBuf::from);
        assert_eq!(list, expect, "a place for a mount that was made is no change");
        let mut tar = Vec::new();
        reader.write_layer(&mut tar).expect("layer");
        assert_eq!(tar, [0; 1024], "what a layer cannot hold is left out");
        drop(socket);
        let mut deep = root.join("deep");
        for _ in 0..300 {
            deep.push("d");
        }
        fs::create_dir_all(&deep).expect("mkdir -p");
        let error = reader.changes().expect_err("deeper than a layer");
        assert_eq!(error.kind(), &crate::error::ErrorKind::InvalidState);
        drop((tree, reader));
        self.discard("nothing").await;
    }
}

/// Compares trees. Without privilege, what cannot be kept is not expected.
fn same(is: &Tree, expect: &Tree, ownership: &Ownership) {
    let paths = |tree: &Tree| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(paths(is), paths(expect));
    for (path, expect) in expect {
        let mut is = is[path].clone();
        if matches!(ownership, Ownership::Squashed) {
            is.owner = expect.owner;
        }
        assert_eq!(&is, expect, "{}", path.display());
    }
}
