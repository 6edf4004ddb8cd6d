//! Layers, well-behaved and hostile, against a directory with a canary tree beside it.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::*;
use crate::conformance::layers::{LayerBuilder, Meta, gzip};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::ownership::Ownership;
use crate::storage::snapshot::LayerTarget;

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn ownership() -> Ownership {
    if is_root() {
        Ownership::Direct
    } else {
        Ownership::Squashed
    }
}

/// A target directory, and a canary beside it that nothing may touch.
struct Bench {
    dir: tempfile::TempDir,
    before: Vec<String>,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("canary/sub")).unwrap();
        fs::write(dir.path().join("canary/passwd"), "secret").unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        let mut bench = Self {
            dir,
            before: Vec::new(),
        };
        bench.before = bench.canary();
        bench
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn overlay(&self) -> LayerTarget {
        LayerTarget::Overlay {
            dir: self.root(),
            user_xattr: true,
        }
    }

    fn merged(&self) -> LayerTarget {
        let owners = (!is_root()).then(|| self.dir.path().join("owners"));
        LayerTarget::Merged {
            dir: self.root(),
            owners,
        }
    }

    fn canary(&self) -> Vec<String> {
        let mut seen = Vec::new();
        for path in ["canary", "canary/sub", "canary/passwd"] {
            let there = fs::symlink_metadata(self.dir.path().join(path)).unwrap();
            seen.push(format!(
                "{path} {:o} {} {} {:?}",
                there.mode(),
                there.uid(),
                there.nlink(),
                there.modified().unwrap()
            ));
        }
        seen.push(fs::read_to_string(self.dir.path().join("canary/passwd")).unwrap());
        seen.extend(
            fs::read_dir(self.dir.path().join("canary"))
                .unwrap()
                .map(|e| format!("{:?}", e.unwrap().file_name()))
                .collect::<std::collections::BTreeSet<_>>(),
        );
        seen
    }

    fn apply(&self, target: &LayerTarget, bytes: &[u8]) -> Result<Applied> {
        // With helping threads, as where a processor is spare.
        let processors = Some(Processors::new(3));
        let applied = apply_with(
            bytes,
            target,
            &ownership(),
            &Limits::default(),
            processors,
            Hashing::Done,
        );
        assert_eq!(self.canary(), self.before, "something outside the target changed");
        applied
    }

    fn refuses(&self, bytes: &[u8]) -> Error {
        let error = self.apply(&self.overlay(), bytes).unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::UnsafeArchive, "{}", error.report());
        error
    }
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn writes_what_the_layer_says() {
    let bench = Bench::new();
    let tar = LayerBuilder::new()
        .entry(b'5', "./", "", &Meta::mode(0o750), b"")
        .entry(b'5', "bin/", "", &Meta::mode(0o555), b"")
        .entry(b'0', "bin/su", "", &Meta::mode(0o4755), b"program")
        .hard_link("bin/su2", "/bin/su")
        .pax("mtime", "1234567.123456789")
        .pax("SCHILY.xattr.user.note", b"a\0b\n")
        .file("a/b/c", &vec![7u8; 700_000])
        .symlink("link", "../../../canary")
        .entry(b'0', "group", "", &Meta::mode(0o666), b"")
        .entry(b'6', "fifo", "", &Meta::mode(0o600), b"")
        .file(&"long/".repeat(60), b"")
        .build();
    let applied = bench.apply(&bench.overlay(), &gzip(&tar)).unwrap();
    let root = bench.root();
    assert_eq!(applied.diff_id, crate::types::Digest::of(&tar));
    assert_eq!(
        applied.implied,
        [PathBuf::from("a"), PathBuf::from("a/b")]
            .into_iter()
            .chain((1..60).map(|n| PathBuf::from("long/".repeat(n))))
            .collect::<Vec<_>>()
    );
    let mode = |path: &str| fs::symlink_metadata(root.join(path)).unwrap().mode() & 0o7777;
    assert_eq!(
        (mode(""), mode("bin"), mode("bin/su"), mode("group"), mode("a")),
        (0o750, 0o555, 0o4755, 0o666, 0o755)
    );
    let there = fs::metadata(root.join("a/b/c")).unwrap();
    assert_eq!(
        (there.len(), there.mtime(), there.mtime_nsec()),
        (700_000, 1234567, 123456789)
    );
    let note = crate::sys::xattr::get_link(&root.join("a/b/c"), c"user.note").unwrap();
    assert_eq!(note.as_deref(), Some(&b"a\0b\n"[..]));
    assert_eq!(fs::metadata(root.join("bin")).unwrap().mtime(), 1_600_000_000);
    assert_eq!(
        fs::metadata(root.join("bin/su")).unwrap().ino(),
        fs::metadata(root.join("bin/su2")).unwrap().ino()
    );
    assert_eq!(fs::read_link(root.join("link")).unwrap(), Path::new("../../../canary"));
    assert!(fs::symlink_metadata(root.join("fifo")).unwrap().file_type().is_fifo());
    assert!(applied.usage.bytes >= 700_000 && applied.usage.inodes > 60);
    // An ordinary user cannot remove what is in a directory that he may not write.
    fs::set_permissions(root.join("bin"), PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn owners_are_kept() {
    let bench = Bench::new();
    let meta = Meta::mode(0o6750).owner(1234, 70_000);
    let tar = LayerBuilder::new()
        .entry(b'0', "file", "", &meta, b"x")
        .entry(b'5', "dir", "", &Meta::mode(0o2775).owner(5, 6), b"")
        .file("dir/inside", b"")
        .entry(b'2', "link", "nowhere", &meta, b"")
        .build();
    bench.apply(&bench.overlay(), &tar).unwrap();
    let file = fs::metadata(bench.root().join("file")).unwrap();
    assert_eq!(file.mode() & 0o7777, 0o6750);
    if is_root() {
        assert_eq!((file.uid(), file.gid()), (1234, 70_000));
        assert_eq!(fs::metadata(bench.root().join("dir/inside")).unwrap().gid(), 0);
        assert_eq!(fs::symlink_metadata(bench.root().join("link")).unwrap().uid(), 1234);
    } else {
        let note = crate::sys::xattr::get_link(&bench.root().join("file"), OWNER_XATTR).unwrap();
        assert_eq!(note.as_deref(), Some(&b"1234:70000"[..]));
    }
}

#[test]
fn a_privileged_process_gets_what_must_be_given_away() {
    #[derive(Debug, Default)]
    struct Recorder(std::sync::Mutex<Vec<(PathBuf, u32, Option<u32>)>>);
    impl crate::storage::ownership::Privileged for Recorder {
        fn change_owners(
            &self,
            changes: Vec<(std::os::fd::OwnedFd, crate::storage::ownership::OwnerChange)>,
        ) -> Result<()> {
            use std::os::fd::AsRawFd;
            for (fd, change) in changes {
                let path = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
                self.0.lock().unwrap().push((path, change.uid, change.mode));
            }
            Ok(())
        }
        fn remove_tree(&self, _: &Path) -> Result<()> {
            Ok(())
        }
    }
    let bench = Bench::new();
    let recorder = std::sync::Arc::new(Recorder::default());
    let tar = LayerBuilder::new()
        .entry(b'5', "d", "", &Meta::mode(0o700).owner(7, 7), b"")
        .entry(b'0', "d/f", "", &Meta::mode(0o4755).owner(8, 8), b"")
        .entry(b'0', "d/gone", "", &Meta::mode(0o644).owner(9, 9), b"")
        .file("d/gone", b"replaced")
        .file("mine", b"")
        .build();
    apply(
        &tar[..],
        &bench.overlay(),
        &Ownership::Mapped(recorder.clone()),
        &Limits::default(),
    )
    .unwrap();
    let root = bench.root().canonicalize().unwrap();
    let given = recorder.0.lock().unwrap().clone();
    assert_eq!(given, [(root.join("d/f"), 8, Some(0o4755)), (root.join("d"), 7, None)]);
    assert_eq!(read(root.join("d/gone")), "replaced");
}

#[test]
fn later_entries_replace_earlier_ones() {
    let bench = Bench::new();
    let tar = LayerBuilder::new()
        .file("x", b"1")
        .file("x", b"22")
        .dir("d")
        .file("d/inside", b"")
        .file("d", b"now a file")
        .file("e", b"")
        .dir("e")
        .file("e/inside", b"")
        .symlink("s", "e")
        .file("s/through", b"t")
        .file("s", b"now a file")
        .build();
    bench.apply(&bench.overlay(), &tar).unwrap();
    let root = bench.root();
    assert_eq!(
        (read(root.join("x")), read(root.join("d")), read(root.join("e/through"))),
        ("22".into(), "now a file".into(), "t".into())
    );
    assert!(fs::symlink_metadata(root.join("s")).unwrap().is_file());
}

#[test]
fn whiteouts_become_overlay_marks() {
    let bench = Bench::new();
    let tar = LayerBuilder::new()
        .whiteout("gone")
        .whiteout("a/gone")
        .dir("o")
        .opaque("o")
        .file("o/new", b"")
        .whiteout("again")
        .dir("again")
        .whiteout("file")
        .file("file", b"x")
        .dir("later")
        .whiteout("later")
        .device("raw", b'3', 0, 0)
        .build();
    bench.apply(&bench.overlay(), &tar).unwrap();
    let root = bench.root();
    for path in ["gone", "a/gone", "raw"] {
        let there = fs::symlink_metadata(root.join(path)).unwrap();
        assert!(there.file_type().is_char_device() && there.rdev() == 0, "{path}");
    }
    let opaque = |path: &str| {
        crate::sys::xattr::get_link(&root.join(path), c"user.overlay.opaque")
            .unwrap()
            .is_some()
    };
    assert_eq!(
        (opaque("o"), opaque("again"), opaque("later"), opaque("a")),
        (true, true, true, false)
    );
    assert_eq!(read(root.join("file")), "x");
}

#[test]
fn whiteouts_delete_only_what_the_layers_below_left() {
    let bench = Bench::new();
    let base = LayerBuilder::new()
        .dir("d")
        .file("d/old", b"")
        .file("d/both", b"old")
        .file("f", b"")
        .dir("e")
        .file("e/x", b"")
        .build();
    bench.apply(&bench.merged(), &base).unwrap();
    let tar = LayerBuilder::new()
        .file("d/new", b"")
        .file("d/both", b"new")
        .opaque("d")
        .whiteout("f")
        .whiteout("e")
        .whiteout("never")
        .build();
    bench.apply(&bench.merged(), &tar).unwrap();
    let mut names: Vec<_> = fs::read_dir(bench.root().join("d"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["both", "new"]);
    assert_eq!(read(bench.root().join("d/both")), "new");
    assert!(!bench.root().join("f").exists() && !bench.root().join("e").exists());
}

#[test]
fn sparse_files_in_all_formats() {
    let expect = [&[0u8; 1000][..], b"data", &[0; 96]].concat();
    let map10 = LayerBuilder::new().padded(b"1\n1000\n4\n").raw(b"data").build_open();
    let formats = [
        (
            "0.0",
            LayerBuilder::new()
                .pax("GNU.sparse.size", "1100")
                .pax("GNU.sparse.numblocks", "1")
                .pax("GNU.sparse.offset", "1000")
                .pax("GNU.sparse.numbytes", "4")
                .file("f", b"data"),
        ),
        (
            "0.1",
            LayerBuilder::new()
                .pax("GNU.sparse.size", "1100")
                .pax("GNU.sparse.map", "1000,4")
                .pax("GNU.sparse.name", "f")
                .file("GNUSparseFile.0/f", b"data"),
        ),
        (
            "1.0",
            LayerBuilder::new()
                .pax("GNU.sparse.major", "1")
                .pax("GNU.sparse.minor", "0")
                .pax("GNU.sparse.name", "f")
                .pax("GNU.sparse.realsize", "1100")
                .file("GNUSparseFile.0/f", &map10),
        ),
        ("old", LayerBuilder::new().raw(&old_sparse()).padded(b"data")),
    ];
    for (format, tar) in formats {
        let bench = Bench::new();
        bench
            .apply(&bench.overlay(), &tar.build())
            .unwrap_or_else(|e| panic!("{format}: {}", e.report()));
        assert!(fs::read(bench.root().join("f")).unwrap() == expect, "{format}");
    }
}

/// A header in the old GNU format: 1,100 bytes with 4 of data at 1,000.
fn old_sparse() -> Vec<u8> {
    let mut header = ::tar::Header::new_gnu();
    header.set_path("f").unwrap();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(4);
    header.set_entry_type(::tar::EntryType::GNUSparse);
    let bytes = header.as_mut_bytes();
    bytes[386..398].copy_from_slice(b"00000001750\0");
    bytes[398..410].copy_from_slice(b"00000000004\0");
    bytes[483..495].copy_from_slice(b"00000002114\0");
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn nothing_leaves_the_root() {
    for path in ["../canary/x", "a/../../canary/x", "/../canary/x"] {
        Bench::new().refuses(&LayerBuilder::new().file(path, b"x").build());
    }
    let bench = Bench::new();
    let canary = bench.dir.path().join("canary");
    let absolute = canary.to_str().unwrap();
    // A symlink out of the root leads to the same name inside it, which is not there.
    for target in ["../canary", absolute] {
        bench.refuses(&LayerBuilder::new().symlink("out", target).file("out/x", b"x").build());
        bench.refuses(
            &LayerBuilder::new()
                .symlink("out", target)
                .hard_link("h", "out/passwd")
                .build(),
        );
        bench.refuses(
            &LayerBuilder::new()
                .symlink("out", target)
                .whiteout("out/passwd")
                .build(),
        );
        bench.refuses(&LayerBuilder::new().symlink("out", target).opaque("out").build());
    }
    bench.refuses(&LayerBuilder::new().hard_link("h", "../canary/passwd").build());
    bench.refuses(
        &LayerBuilder::new()
            .hard_link("h", &format!("{absolute}/passwd"))
            .build(),
    );
    // Magic links lead nowhere, and a file is never opened through a symlink.
    bench.refuses(
        &LayerBuilder::new()
            .symlink("p", "/proc/self/cwd")
            .file("p/x", b"")
            .build(),
    );
    bench
        .apply(
            &bench.overlay(),
            &LayerBuilder::new()
                .symlink("f", &format!("{absolute}/passwd"))
                .file("f", b"own")
                .build(),
        )
        .unwrap();
    assert_eq!(read(bench.root().join("f")), "own");
    bench
        .apply(&bench.overlay(), &LayerBuilder::new().file("/abs", b"in").build())
        .unwrap();
    assert_eq!(read(bench.root().join("abs")), "in");
}

#[test]
fn malformed_layers_are_refused() {
    let bench = Bench::new();
    let good = LayerBuilder::new().file("f", &[1; 2000]).build();
    for cut in [1, 511, 513, 1000, 2559] {
        bench.refuses(&good[..cut]);
    }
    bench.refuses(&[good.clone(), b"trailing".to_vec()].concat());
    bench.refuses(&gzip(&good)[..40]);
    bench.refuses(&[gzip(&good), b"trailing".to_vec()].concat());
    bench.refuses(&[7; 512]);
    bench.refuses(
        &LayerBuilder::new()
            .entry(b'x', "p", "", &Meta::default(), &vec![b'a'; (1 << 20) + 1])
            .build(),
    );
    bench.refuses(
        &LayerBuilder::new()
            .entry(b'L', "p", "", &Meta::default(), &vec![b'a'; 5000])
            .file("x", b"")
            .build(),
    );
    bench.refuses(&LayerBuilder::new().entry(b'Z', "p", "", &Meta::default(), b"").build());
    bench.refuses(&LayerBuilder::new().pax("size", "99999999999").file("x", b"").build());
    bench.refuses(
        &LayerBuilder::new()
            .pax("GNU.sparse.size", "10")
            .pax("GNU.sparse.map", "8,4")
            .file("x", b"data")
            .build(),
    );
    bench.refuses(&LayerBuilder::new().hard_link("x", "x").build());
    bench.refuses(&LayerBuilder::new().file("f2", b"").file("f2/below", b"").build());
    bench.refuses(
        &LayerBuilder::new()
            .entry(b'0', "u", "", &Meta::default().owner(1 << 20, 0), b"")
            .pax("uid", "4294967295")
            .file("v", b"")
            .build(),
    );
    // Zeros behind the end are padding, as tar writes it; a missing end mark is what Go's writer may leave.
    bench
        .apply(&bench.overlay(), &[good.clone(), vec![0; 9000]].concat())
        .unwrap();
    bench.apply(&bench.overlay(), &good[..good.len() - 1024]).unwrap();
    bench.apply(&bench.overlay(), b"").unwrap();
}

#[test]
fn bombs_stop_at_the_limits() {
    let bench = Bench::new();
    let mut limits = Limits::default();
    (limits.stream_bytes, limits.entries) = (100_000, 10);
    let big = gzip(&LayerBuilder::new().file("f", &vec![0; 1 << 20]).build());
    let many = (0..20)
        .fold(LayerBuilder::new(), |tar, n| tar.file(&n.to_string(), b""))
        .build();
    let padding = gzip(&[LayerBuilder::new().build(), vec![0; 1 << 20]].concat());
    for bytes in [big, many, padding] {
        let error = apply(&bytes[..], &bench.overlay(), &ownership(), &limits).unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::UnsafeArchive, "{}", error.report());
    }
}

#[test]
fn devices_are_made_or_counted() {
    let bench = Bench::new();
    let tar = LayerBuilder::new()
        .device("null", b'3', 1, 3)
        .device("disk", b'4', 7, 0)
        .build();
    let applied = bench.apply(&bench.overlay(), &tar).unwrap();
    let there = fs::symlink_metadata(bench.root().join("null"));
    if applied.skipped_devices == 0 {
        assert_eq!(there.unwrap().rdev(), nix::sys::stat::makedev(1, 3));
    } else {
        assert_eq!((applied.skipped_devices, there.is_err()), (2, true));
    }
}

#[test]
fn h21_no_device_is_written_where_nothing_keeps_it_from_working() {
    let bench = Bench::new();
    for kind in [b'3', b'4'] {
        let tar = LayerBuilder::new().device("disk", kind, 7, 0).build();
        let plain = Plain {
            no_devices: true,
            ..Plain::default()
        };
        let refused = apply_plain(&tar[..], &bench.root(), plain, &ownership(), &Limits::default()).unwrap_err();
        assert!(
            refused.is_unsupported() && refused.report().contains("disk"),
            "{}",
            refused.report()
        );
        assert!(fs::symlink_metadata(bench.root().join("disk")).is_err());
    }
}

#[test]
fn marks_of_overlay_are_not_for_layers_to_set() {
    let bench = Bench::new();
    let tar = LayerBuilder::new()
        .pax("SCHILY.xattr.user.overlay.redirect", "/x")
        .pax("SCHILY.xattr.trusted.overlay.opaque", "y")
        .dir("d")
        .build();
    bench.apply(&bench.overlay(), &tar).unwrap();
    assert!(
        crate::sys::xattr::list_link(&bench.root().join("d"))
            .unwrap()
            .is_empty()
    );
}

#[test]
fn an_unwritable_directory_can_be_filled() {
    let bench = Bench::new();
    let tar = LayerBuilder::new()
        .entry(b'5', "d", "", &Meta::mode(0), b"")
        .file("d/f", b"x")
        .build();
    bench.apply(&bench.overlay(), &tar).unwrap();
    assert_eq!(
        fs::metadata(bench.root().join("d")).unwrap().permissions().mode() & 0o777,
        0
    );
    fs::set_permissions(bench.root().join("d"), fs::Permissions::from_mode(0o700)).unwrap();
}

/// All of a tree: path, kind and mode, link count, time, and what is in it. Times that no entry set look all the same.
fn listing(root: &Path) -> Vec<String> {
    const RECENT: i64 = 1_700_000_000;
    let mut seen = Vec::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let there = fs::symlink_metadata(&path).unwrap();
            let (mode, links) = (there.mode(), there.nlink());
            let time = there.mtime().min(RECENT);
            let content = match there.file_type() {
                kind if kind.is_dir() => {
                    dirs.push(path.clone());
                    format!("{:?}", crate::sys::xattr::list_link(&path).unwrap())
                }
                kind if kind.is_symlink() => format!("{:?}", fs::read_link(&path).unwrap()),
                kind if kind.is_file() => read(&path),
                _ => String::new(),
            };
            seen.push(format!(
                "{} {mode:o} {links} {time} {content}",
                path.strip_prefix(root).unwrap().display()
            ));
        }
    }
    seen.sort();
    seen
}

#[test]
fn many_small_files_are_written_by_all_who_are_free() {
    let bench = Bench::new();
    let mut tar = LayerBuilder::new();
    for number in 0..9000u32 {
        if number % 100 == 0 {
            tar = tar.dir(&format!("d{}", number / 100));
        }
        let path = format!("d{}/f{number}", number / 100);
        tar = tar.entry(
            b'0',
            &path,
            "",
            &Meta::mode(0o640 | (number % 8)),
            &vec![b'x'; number as usize % 700],
        );
        if number % 1000 == 999 {
            tar = tar
                .hard_link(&format!("h{number}"), &path)
                .file(&path, b"again")
                .whiteout("d0/f0");
        }
    }
    let tar = tar.build();
    let applied = bench.apply(&bench.overlay(), &tar).unwrap();
    assert_eq!(
        (applied.diff_id, applied.usage.inodes),
        (crate::types::Digest::of(&tar), 9000 + 90 + 9)
    );
    let alone = Bench::new();
    let same = apply(&tar[..], &alone.overlay(), &ownership(), &Limits::default()).unwrap();
    assert_eq!(same.usage, applied.usage);
    assert!(listing(&bench.root()) == listing(&alone.root()));
}

#[test]
fn a_failure_of_a_helper_fails_the_layer() {
    let bench = Bench::new();
    let long = "x".repeat(255);
    let mut tar = (0..500).fold(LayerBuilder::new(), |tar, number| tar.file(&format!("f{number}"), b"x"));
    tar = tar.dir(&long);
    for depth in 0..14 {
        tar = tar.dir(&vec![long.as_str(); depth + 1].join("/"));
    }
    let good = bench.apply(&bench.overlay(), &tar.build());
    assert!(good.is_ok(), "{:?}", good.err());
    // The directory takes no more files: whoever writes them, the layer fails.
    let bench = Bench::new();
    let root = bench.root();
    let flags = nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_DIRECTORY;
    let gone = nix::fcntl::open(&root, flags, nix::sys::stat::Mode::empty()).unwrap();
    fs::remove_dir(&root).unwrap();
    let fresh = crew::Fresh {
        dir: std::sync::Arc::new(gone),
        name: b"f".to_vec(),
        path: b"f".to_vec(),
        make: 0o644,
        set: None,
        owner: None,
        time: nix::sys::time::TimeSpec::new(0, 0),
        length: 0,
    };
    let mut crew = crew::Crew::new(Some(Processors::new(3)));
    assert!(crew.takes(0));
    crew.push(fresh).unwrap();
    let error = crew.finish().unwrap_err();
    assert!(error.report().contains("unpack f"), "{}", error.report());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_parser_never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..4096)) {
        parse_all(&bytes);
    }

    #[test]
    fn the_parser_never_panics_on_nearly_good_headers(
        edits in proptest::collection::vec((0usize..3072, proptest::num::u8::ANY), 0..24),
        fix in proptest::bool::ANY,
    ) {
        let mut bytes = LayerBuilder::new().pax("mtime", "1.5").pax("GNU.sparse.map", "0,4").pax("GNU.sparse.size", "9").file("f", b"data").symlink("s", "t").build();
        for (at, byte) in edits {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        if fix {
            for block in bytes.chunks_exact_mut(512) {
                let sum: u32 = block.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) }).sum();
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        parse_all(&bytes);
    }

    /// Whatever the order of entries, helpers change nothing of what comes out.
    #[test]
    fn helpers_do_not_show(
        steps in proptest::collection::vec((0usize..7, 0usize..8, 0usize..8), 1..40),
    ) {
        const PATHS: [&str; 8] = ["a", "b", "a/x", "b/x", "a/x/y", "b/x/y", "a/z", "b/z"];
        let mut tar = LayerBuilder::new();
        for (number, (kind, path, other)) in steps.into_iter().enumerate() {
            let (path, other) = (PATHS[path], PATHS[other]);
            tar = match kind {
                0 | 1 => tar.file(path, number.to_string().as_bytes()),
                2 => tar.dir(path),
                3 => tar.symlink(path, &format!("/{other}")),
                4 => tar.hard_link(path, other),
                5 => tar.whiteout(path),
                _ => tar.entry(b'0', path, "", &Meta::mode(0o4755).owner(7, 7), b"set"),
            };
        }
        let tar = tar.build();
        let (helped, alone) = (Bench::new(), Bench::new());
        let one = helped.apply(&helped.overlay(), &tar).map(|applied| (applied.usage, applied.implied));
        let other = apply(&tar[..], &alone.overlay(), &ownership(), &Limits::default()).map(|applied| (applied.usage, applied.implied));
        match (one, other) {
            (Ok(one), Ok(other)) => {
                proptest::prop_assert_eq!(one, other);
                proptest::prop_assert_eq!(listing(&helped.root()), listing(&alone.root()));
            }
            (Err(one), Err(other)) => proptest::prop_assert_eq!(one.kind(), other.kind()),
            (one, other) => panic!("{one:?} with helpers, {other:?} alone"),
        }
    }

    #[test]
    fn paths_stay_inside(parts in proptest::collection::vec(proptest::sample::select(vec!["..", ".", "", "a", "b", "s", "out"]), 1..8)) {
        let bench = Bench::new();
        let tar = LayerBuilder::new().dir("a").symlink("s", "../a/..").symlink("out", "/../../canary").file(&parts.join("/"), b"x").hard_link("h", &parts.join("/")).build();
        let _ = bench.apply(&bench.overlay(), &tar);
    }
}

fn parse_all(bytes: &[u8]) {
    let mut reader = tar::Reader::new(bytes, Limits::default());
    for _ in 0..100 {
        match reader.next() {
            Ok(Some(entry)) => drop(name::target(&entry.path, &Limits::default())),
            Ok(None) | Err(_) => return,
        }
    }
}

/// Not a check: says how far extraction is from the bare writes. Run with `--release -- --ignored --nocapture measure`.
#[test]
#[ignore = "a measurement"]
fn measure() {
    use std::io::Write;
    let mut noise = vec![0u8; 400_000];
    let mut state = 1u32;
    for pair in noise.chunks_mut(2) {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        pair.fill((state >> 24) as u8);
    }
    let files: Vec<(String, &[u8])> = (0..20_000usize)
        .map(|n| {
            (
                format!("d{}/f{n}", n / 100),
                if n % 16 == 0 {
                    &noise[n..n + 150_000]
                } else {
                    &noise[n..n + 3_000]
                },
            )
        })
        .collect();
    let mut tar = (0..200).fold(LayerBuilder::new(), |tar, n| tar.dir(&format!("d{n}")));
    tar = files.iter().fold(tar, |tar, (path, data)| tar.file(path, data));
    let tar = tar.build();
    let packed = gzip(&tar);
    eprintln!(
        "{} files, {} MB tar, {} MB gzip",
        files.len(),
        tar.len() >> 20,
        packed.len() >> 20
    );
    for round in 0..4 {
        let bare = Bench::new();
        let start = std::time::Instant::now();
        (0..200).for_each(|n| fs::create_dir(bare.root().join(format!("d{n}"))).unwrap());
        files.iter().for_each(|(path, data)| {
            fs::File::create_new(bare.root().join(path))
                .unwrap()
                .write_all(data)
                .unwrap()
        });
        let bare = start.elapsed();
        let times: Vec<_> = [&tar, &packed]
            .iter()
            .map(|bytes| {
                let bench = Bench::new();
                let start = std::time::Instant::now();
                apply(&bytes[..], &bench.overlay(), &ownership(), &Limits::default()).unwrap();
                start.elapsed()
            })
            .collect();
        let start = std::time::Instant::now();
        let _ = crate::types::Digest::of(&tar);
        let hash = start.elapsed();
        let start = std::time::Instant::now();
        std::io::copy(
            &mut flate2::bufread::MultiGzDecoder::new(&packed[..]),
            &mut std::io::sink(),
        )
        .unwrap();
        eprintln!(
            "round {round}: bare writes {bare:?}, sha256 {hash:?}, inflate {:?}; plain layer {:?}, gzip layer {:?}",
            start.elapsed(),
            times[0],
            times[1]
        );
    }
}
