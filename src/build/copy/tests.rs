//! Copies of real directories, instruction by instruction, as the layers that they make.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::*;
use crate::build::{Action, Dockerfile, Plan, PlanOptions, StageState};
use crate::error::ErrorKind;
use crate::storage::layer::tar::{Kind, Reader};
use crate::storage::layer::{LayerReader, Limits, OWNER_XATTR};
use crate::storage::ownership::Ownership;

/// Directories of a test.
struct Bench {
    dir: tempfile::TempDir,
    ignore: Option<&'static str>,
}

impl Bench {
    /// A context and a base, each described by lines: `a/`, `a/b`, `a/b 600 text`, `a -> b`.
    fn new(context: &[&str], base: &[&str]) -> Self {
        let bench = Self {
            dir: tempfile::tempdir().unwrap(),
            ignore: None,
        };
        for (name, lines) in [("context", context), ("base", base)] {
            let root = bench.path(name);
            fs::create_dir(&root).unwrap();
            fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
            for line in lines {
                make(&root, line);
            }
        }
        fs::create_dir(bench.path("scratch")).unwrap();
        bench
    }

    fn ignoring(mut self, text: &'static str) -> Self {
        self.ignore = Some(text);
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn context(&self) -> Tree {
        let mut tree = Tree::open(&self.path("context")).unwrap();
        tree.ignore = self.ignore.map(|text| Arc::new(IgnoreFile::parse(text).unwrap()));
        tree
    }

    fn base(&self) -> Tree {
        Tree::open(&self.path("base")).unwrap()
    }

    fn gather(&self, line: &str) -> Result<Gathered> {
        self.gather_from(line, self.context())
    }

    fn gather_from(&self, line: &str, tree: Tree) -> Result<Gathered> {
        let scratch = tempfile::tempdir_in(self.path("scratch")).unwrap().keep();
        let services = Services::new(scratch);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(gather(parsed(line), Some(tree), &services))
    }

    /// The entries of the layer of an instruction.
    fn layer(&self, line: &str) -> Result<Vec<String>> {
        let gathered = self.gather(line)?;
        gathered.digest()?;
        listing(&gathered, Some(&self.base()))
    }

    fn digest(&self, line: &str) -> Digest {
        self.gather(line).unwrap().digest().unwrap()
    }
}

/// A file that a line describes.
fn make(root: &Path, line: &str) {
    if let Some((path, target)) = line.split_once(" -> ") {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, path).unwrap();
        return;
    }
    let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
    let (first, text) = rest.split_once(' ').unwrap_or((rest, ""));
    let octal = u32::from_str_radix(first, 8).ok().filter(|_| first.len() >= 3);
    let (mode, text) = match octal {
        Some(mode) => (Some(mode), text),
        None => (None, rest),
    };
    let path = root.join(name);
    let missing: Vec<&Path> = path.ancestors().skip(1).take_while(|above| !above.exists()).collect();
    for above in missing.into_iter().rev() {
        fs::create_dir(above).unwrap();
        fs::set_permissions(above, fs::Permissions::from_mode(0o755)).unwrap();
    }
    match name.ends_with('/') {
        true => fs::create_dir_all(&path).unwrap(),
        false => fs::write(&path, if text.is_empty() { name } else { text }).unwrap(),
    }
    let usual = if name.ends_with('/') { 0o755 } else { 0o644 };
    fs::set_permissions(&path, fs::Permissions::from_mode(mode.unwrap_or(usual))).unwrap();
}

/// What an instruction of a Dockerfile asks for.
fn parsed(text: &str) -> Files {
    let file = Dockerfile::parse(format!("FROM scratch\n{text}\n")).unwrap();
    let plan = Plan::new(&file, &PlanOptions::new()).unwrap();
    let steps = plan.steps(0, StageState::scratch()).unwrap().steps;
    match steps.into_iter().next().unwrap().action {
        Action::Copy(copy) => Files::Copy(copy),
        Action::Add(add) => Files::Add(add),
        other => panic!("{other:?}"),
    }
}

fn tar_of(gathered: &Gathered, base: Option<&Tree>, times: Times) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    gathered.write(base, times, &mut out)?;
    Ok(out)
}

fn listing(gathered: &Gathered, base: Option<&Tree>) -> Result<Vec<String>> {
    Ok(shown(&tar_of(gathered, base, Times::Fixed(0))?))
}

/// Entries as lines: `d 755 0:0 a`, `f 644 0:0 a/b text`, `l a -> b`, `h a = b`.
fn shown(tar: &[u8]) -> Vec<String> {
    let mut reader = Reader::new(tar, Limits::default());
    let mut out = Vec::new();
    while let Some(entry) = reader.next().unwrap() {
        let path = String::from_utf8_lossy(&entry.path).trim_end_matches('/').to_owned();
        let link = String::from_utf8_lossy(&entry.link).into_owned();
        let looks = format!("{:o} {}:{} {path}", entry.mode, entry.uid, entry.gid);
        let mut content = Vec::new();
        loop {
            let piece = reader.data().unwrap();
            if piece.is_empty() {
                break;
            }
            content.extend_from_slice(piece);
            let length = piece.len();
            reader.consume(length).unwrap();
        }
        out.push(match entry.kind {
            Kind::Directory => format!("d {looks}"),
            Kind::File => format!("f {looks} {}", String::from_utf8_lossy(&content)),
            Kind::Symlink => format!("l {path} -> {link}"),
            Kind::HardLink => format!("h {path} = {link}"),
            other => format!("{other:?} {looks}"),
        });
    }
    out
}

/// Paths of a listing.
fn paths(lines: &[String]) -> Vec<&str> {
    let path = |line: &'_ str| -> usize { if line.starts_with(['l', 'h']) { 1 } else { 3 }.min(line.len()) };
    lines
        .iter()
        .map(|line| line.split(' ').nth(path(line)).unwrap())
        .collect()
}

#[test]
fn f3_where_copies_go() {
    let context = ["a 640 A", "b B", "dir/x X", "dir/sub/y Y", "empty/", "run.sh 755 S"];
    let base = ["etc/ 700", "etc/conf C", "lib -> usr/lib", "usr/lib/", "file F"];
    let bench = Bench::new(&context, &base);
    for (line, expected) in [
        ("COPY a /a", vec!["f 640 0:0 a A"]),
        ("COPY a /new", vec!["f 640 0:0 new A"]),
        ("COPY a /new/", vec!["d 755 0:0 new", "f 640 0:0 new/a A"]),
        (
            "COPY a /n/e/w",
            vec!["d 755 0:0 n", "d 755 0:0 n/e", "f 640 0:0 n/e/w A"],
        ),
        // What is there and a directory takes the file; what is in the layer of it is as in the base.
        ("COPY a /etc", vec!["d 700 0:0 etc", "f 640 0:0 etc/a A"]),
        ("COPY a /etc/conf", vec!["d 700 0:0 etc", "f 640 0:0 etc/conf A"]),
        ("COPY a /file", vec!["f 640 0:0 file A"]),
        // Symlinks of the base lead inside the base.
        (
            "COPY a /lib/",
            vec!["d 755 0:0 usr", "d 755 0:0 usr/lib", "f 640 0:0 usr/lib/a A"],
        ),
        (
            "COPY a /lib/b",
            vec!["d 755 0:0 usr", "d 755 0:0 usr/lib", "f 640 0:0 usr/lib/b A"],
        ),
        // Of a directory, its content.
        (
            "COPY dir /dir",
            vec![
                "d 755 0:0 dir",
                "d 755 0:0 dir/sub",
                "f 644 0:0 dir/sub/y Y",
                "f 644 0:0 dir/x X",
            ],
        ),
        ("COPY dir/sub/ /", vec!["f 644 0:0 y Y"]),
        ("COPY dir/sub /etc", vec!["d 700 0:0 etc", "f 644 0:0 etc/y Y"]),
        ("COPY empty /e", vec!["d 755 0:0 e"]),
        (
            "COPY a b /d/",
            vec!["d 755 0:0 d", "f 640 0:0 d/a A", "f 644 0:0 d/b B"],
        ),
        (
            "COPY a dir/sub /d/",
            vec!["d 755 0:0 d", "f 640 0:0 d/a A", "f 644 0:0 d/y Y"],
        ),
        ("COPY ./dir/../a /x", vec!["f 640 0:0 x A"]),
        ("COPY /a /x", vec!["f 640 0:0 x A"]),
        // Nothing leads out of the context.
        ("COPY ../../../a /x", vec!["f 640 0:0 x A"]),
        ("COPY --chown=7:8 a /n/x", vec!["d 755 7:8 n", "f 640 7:8 n/x A"]),
        ("COPY --chown=7 a /x", vec!["f 640 7:7 x A"]),
        ("COPY --chmod=600 a /n/x", vec!["d 600 0:0 n", "f 600 0:0 n/x A"]),
        (
            "COPY --chmod=u=rwX,go=rX run.sh a /n/",
            vec!["d 755 0:0 n", "f 755 0:0 n/run.sh S", "f 644 0:0 n/a A"],
        ),
        ("COPY --chmod=4711 dir/sub /s/", vec!["d 711 0:0 s", "f 4711 0:0 s/y Y"]),
        ("COPY <<f /h/\nhello\nf", vec!["d 755 0:0 h", "f 644 0:0 h/f hello\n"]),
        ("COPY --chmod=755 <<f /go\nhello\nf", vec!["f 755 0:0 go hello\n"]),
        (
            "COPY a <<f /h/\nx\nf",
            vec!["d 755 0:0 h", "f 640 0:0 h/a A", "f 644 0:0 h/f x\n"],
        ),
    ] {
        assert_eq!(bench.layer(line).unwrap(), expected, "{line}");
    }
}

#[test]
fn f3_patterns_find_what_go_finds() {
    let context = [
        "a.txt",
        "b.txt",
        "c.md",
        "d/e.txt",
        "d/f/g.txt",
        "[x",
        "h*",
        "s -> d",
        "home.txt",
        "home.md",
        "hom/in",
    ];
    let bench = Bench::new(&context, &[]);
    for (line, expected) in [
        ("COPY *.txt /t/", vec!["t", "t/a.txt", "t/b.txt", "t/home.txt"]),
        ("COPY ?.txt /t/", vec!["t", "t/a.txt", "t/b.txt"]),
        ("COPY [ab].txt /t/", vec!["t", "t/a.txt", "t/b.txt"]),
        ("COPY */*.txt /t/", vec!["t", "t/e.txt"]),
        ("COPY d/*/* /t/", vec!["t", "t/g.txt"]),
        ("COPY s/*.txt /t/", vec!["t", "t/e.txt"]),
        // Directories that match give what is in them.
        ("COPY d* /t/", vec!["t", "t/e.txt", "t/f", "t/f/g.txt"]),
        ("COPY d/f* /t/", vec!["t", "t/g.txt"]),
        // Nothing found is nothing copied.
        ("COPY *.none /t/", vec![]),
        ("COPY *.none a.txt /t/", vec!["t", "t/a.txt"]),
        ("COPY --exclude=*.txt hom* /t/", vec!["t", "t/in", "t/home.md"]),
        (
            "COPY --exclude=*/f --exclude=*.md . /t",
            vec![
                "t",
                "t/[x",
                "t/a.txt",
                "t/b.txt",
                "t/d",
                "t/d/e.txt",
                "t/h*",
                "t/hom",
                "t/hom/in",
                "t/home.txt",
                "t/s",
            ],
        ),
        (
            "COPY --exclude=** --exclude=!d/f/g.txt . /t",
            vec!["t", "t/d", "t/d/f", "t/d/f/g.txt"],
        ),
        ("COPY --parents d/f/g.txt /t/", vec!["t", "t/d", "t/d/f", "t/d/f/g.txt"]),
        ("COPY --parents d/./f/g.txt /t/", vec!["t", "t/f", "t/f/g.txt"]),
        (
            "COPY --parents */*.txt a.txt /t/",
            vec!["t", "t/d", "t/d/e.txt", "t/a.txt"],
        ),
        ("COPY --parents d/*/g.txt /t/", vec!["t", "t/d", "t/d/f", "t/d/f/g.txt"]),
        (
            "COPY --parents --exclude=**/g.txt d /t/",
            vec!["t", "t/d", "t/d/e.txt", "t/d/f"],
        ),
    ] {
        let lines = bench.layer(line).unwrap();
        assert_eq!(paths(&lines), expected, "{line}");
    }
}

#[test]
fn f3_what_is_not_there_is_named_with_what_is_near() {
    let bench = Bench::new(&["Makefile", "src/main.rs", "secret"], &[]).ignoring("secret");
    for (line, words) in [
        ("COPY makefil /", &["makefil", "did you mean", "Makefile"][..]),
        ("COPY src/man.rs /x", &["src/man.rs", "src/main.rs"]),
        ("COPY srx/main.rs /x", &["srx/main.rs", "did you mean \"src\""]),
        ("COPY zzzzzzzz /x", &["zzzzzzzz", "the build context"]),
        ("COPY secret /x", &["secret", ".dockerignore"]),
        ("COPY --parents src/nope /x/", &["src/nope"]),
        ("COPY nope/*.rs /x/", &["nope"]),
        ("COPY Makefile/x /x", &["Makefile/x"]),
    ] {
        let error = bench.layer(line).unwrap_err();
        assert!(error.is_not_found(), "{line}: {error:?}");
        for word in words {
            assert!(error.to_string().contains(word), "{line}: {error}");
        }
    }
    for line in ["COPY [ /x/", "COPY a[] /x/"] {
        let error = bench.layer(line).unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::InvalidArgument, "{line}: {error}");
    }
}

#[test]
fn f3_directories_and_files_do_not_take_each_others_place() {
    let bench = Bench::new(
        &["a", "d/x", "e/x/y", "deep/etc", "links/etc/z", "f/x -> y"],
        &["etc/x/y", "file", "link -> etc"],
    );
    for line in [
        "COPY d /etc",
        "COPY deep /",
        "COPY d /file",
        "COPY a /file/",
        "COPY a /file/x",
        "COPY d e /t/",
        "COPY e d /t/",
    ] {
        let error = bench.layer(line).unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::InvalidArgument, "{line}: {error}");
        assert!(error.to_string().contains('/'), "{line}: {error}");
    }
    // What a file replaces may be a symlink: it is not followed.
    assert_eq!(bench.layer("COPY d f /t/").unwrap(), ["d 755 0:0 t", "l t/x -> y"]);
    let last = bench.layer("COPY f d /t/").unwrap();
    assert_eq!(last, ["d 755 0:0 t", "f 644 0:0 t/x d/x"]);
}

#[test]
fn f3_names_of_owners_are_those_of_the_base() {
    let base = [
        "etc/passwd 644 root:x:0:0::/:/bin/sh\nnode:x:1000:1001::/:/bin/sh\nbroken:x::",
        "etc/group 644 root:x:0:\nwww:x:33:\n",
    ];
    let bench = Bench::new(&["a A"], &base);
    for (owner, ids) in [
        ("node", "1000:1001"),
        ("node:www", "1000:33"),
        ("5:www", "5:33"),
        ("node:7", "1000:7"),
        ("9", "9:9"),
    ] {
        let lines = bench.layer(&format!("COPY --chown={owner} a /a")).unwrap();
        assert_eq!(lines, [format!("f 644 {ids} a A")]);
    }
    for owner in ["nobody", "node:nobody", "broken", "4294967295", "99999999999"] {
        let error = bench.layer(&format!("COPY --chown={owner} a /a")).unwrap_err();
        assert!(error.to_string().contains("--chown"), "{owner}: {error}");
    }
    let gathered = bench.gather("COPY --chown=node a /a").unwrap();
    assert!(listing(&gathered, None).unwrap_err().to_string().contains("--link"));
    // Who the base's files belong to is asked inside the base alone.
    let hostile = Bench::new(&["a"], &["etc/passwd -> /../../../../../../../etc/group"]);
    assert!(hostile.layer("COPY --chown=root a /a").unwrap_err().is_not_found());
}

#[test]
fn f3_a_linked_copy_does_not_ask_the_base() {
    let bench = Bench::new(&["a A"], &["lib -> usr/lib", "usr/lib/", "etc/ 700"]);
    let gathered = bench.gather("COPY --link a /lib/").unwrap();
    assert_eq!(
        listing(&gathered, None).unwrap(),
        ["d 755 0:0 lib", "f 644 0:0 lib/a A"]
    );
}

#[test]
fn f3_symlinks_are_copied_and_sources_followed() {
    let bench = Bench::new(
        &[
            "real/x X",
            "link -> real",
            "file -> real/x",
            "out -> ../../../etc",
            "abs -> /real",
            "loop -> loop",
            "in/l -> ../real",
        ],
        &[],
    );
    assert_eq!(bench.layer("COPY link /d").unwrap(), ["d 755 0:0 d", "f 644 0:0 d/x X"]);
    assert_eq!(
        bench.layer("COPY file /d/").unwrap(),
        ["d 755 0:0 d", "f 644 0:0 d/file X"]
    );
    assert_eq!(bench.layer("COPY abs/x /d").unwrap(), ["f 644 0:0 d X"]);
    assert_eq!(bench.layer("COPY in /d").unwrap(), ["d 755 0:0 d", "l d/l -> ../real"]);
    assert!(bench.layer("COPY out/passwd /d").unwrap_err().is_not_found());
    assert!(bench.layer("COPY out /d").unwrap_err().is_not_found());
    assert_eq!(
        bench.layer("COPY loop /d").unwrap_err().kind(),
        &ErrorKind::InvalidArgument
    );
}

#[test]
fn f9_what_is_ignored_is_neither_copied_nor_counted() {
    let lines = [
        "keep",
        "log/a.log",
        "log/keep.log",
        "target/x",
        "target/deep/y",
        "n/node_modules/z",
        "n/src",
    ];
    let bench = Bench::new(&lines, &[]).ignoring("*.log\n**/*.log\n!**/keep.log\ntarget\n**/node_modules");
    let before = bench.digest("COPY . /");
    let copied = bench.layer("COPY . /").unwrap();
    assert_eq!(paths(&copied), ["keep", "log", "log/keep.log", "n", "n/src"]);
    fs::write(bench.path("context/target/x"), "other").unwrap();
    fs::write(bench.path("context/log/more.log"), "other").unwrap();
    fs::write(bench.path("context/target/new"), "other").unwrap();
    assert_eq!(bench.digest("COPY . /"), before);
    for gone in [
        "COPY target /",
        "COPY target/x /",
        "COPY log/a.log /",
        "COPY n/node_modules /",
    ] {
        assert!(bench.layer(gone).unwrap_err().is_not_found(), "{gone}");
    }
    assert!(
        bench
            .layer("COPY log/*.log /l/")
            .unwrap()
            .iter()
            .all(|line| !line.contains("a.log"))
    );

    let most = Bench::new(&lines, &[]).ignoring("*\n!target/deep\n!n/s*");
    let copied = most.layer("COPY . /").unwrap();
    assert_eq!(paths(&copied), ["n", "n/src", "target", "target/deep", "target/deep/y"]);
    let none = Bench::new(&lines, &[]).ignoring("**");
    assert_eq!(none.layer("COPY . /x").unwrap(), ["d 755 0:0 x"]);
}

#[test]
fn f10_times_do_not_count_and_content_does() {
    let bench = Bench::new(&["a 644 A", "d/x 644 X", "other"], &[]);
    let line = "COPY a d /t/";
    let before = bench.digest(line);
    assert_eq!(bench.digest(line), before);
    let old = fs::File::options().write(true).open(bench.path("context/a")).unwrap();
    old.set_modified(std::time::UNIX_EPOCH).unwrap();
    fs::write(bench.path("context/other"), "changed").unwrap();
    assert_eq!(bench.digest(line), before, "times, and files that are not copied");
    let mut seen = vec![before];
    let mut differs = |what: &str, digest: Digest| {
        assert!(!seen.contains(&digest), "{what}");
        seen.push(digest);
    };
    differs("destination", bench.digest("COPY a d /u/"));
    differs("order", bench.digest("COPY d a /t/"));
    differs("owner", bench.digest("COPY --chown=1 a d /t/"));
    differs("permissions", bench.digest("COPY --chmod=600 a d /t/"));
    differs("archives", bench.digest("ADD a d /t/"));
    fs::write(bench.path("context/a"), "B").unwrap();
    differs("content", bench.digest(line));
    fs::set_permissions(bench.path("context/a"), fs::Permissions::from_mode(0o755)).unwrap();
    differs("mode", bench.digest(line));
    fs::rename(bench.path("context/d/x"), bench.path("context/d/y")).unwrap();
    differs("name", bench.digest(line));
    fs::create_dir(bench.path("context/d/z")).unwrap();
    differs("directory", bench.digest(line));
    std::os::unix::fs::symlink("p", bench.path("context/d/l")).unwrap();
    differs("symlink", bench.digest(line));
    fs::remove_file(bench.path("context/d/l")).unwrap();
    std::os::unix::fs::symlink("q", bench.path("context/d/l")).unwrap();
    differs("target", bench.digest(line));
}

#[test]
fn f19_the_same_files_make_the_same_layer() {
    let lines = ["a 644 A", "d/x 600 X", "d/sub/y Y", "l -> a"];
    let one = Bench::new(&lines, &["etc/"]);
    let mut again = lines;
    again.reverse();
    let two = Bench::new(&again, &["etc/"]);
    let old = fs::File::options().write(true).open(two.path("context/a")).unwrap();
    old.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(7))
        .unwrap();
    let tar =
        |bench: &Bench, times| tar_of(&bench.gather("COPY . /etc/x/").unwrap(), Some(&bench.base()), times).unwrap();
    assert_eq!(tar(&one, Times::Fixed(5)), tar(&two, Times::Fixed(5)));
    let dated = tar(&two, Times::Real);
    let mut reader = Reader::new(dated.as_slice(), Limits::default());
    let mut found = false;
    while let Some(entry) = reader.next().unwrap() {
        if entry.path == b"etc/x/a" {
            assert_eq!(entry.mtime, (7, 0));
            found = true;
        }
    }
    assert!(found);
    let mut reader = Reader::new(dated.as_slice(), Limits::default());
    while let Some(entry) = reader.next().unwrap() {
        assert_eq!(entry.mtime.1, 0, "whole seconds");
    }
}

#[test]
fn f19_dates_of_images_are_at_most_the_builds() {
    let bench = Bench::new(&["old", "new"], &[]);
    let set = |name: &str, seconds| {
        let file = fs::File::options()
            .write(true)
            .open(bench.path("context").join(name))
            .unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
            .unwrap();
    };
    set("old", 50);
    set("new", 5000);
    let tree = Tree {
        is_context: false,
        ownership: Ownership::Squashed,
        ..bench.context()
    };
    let gathered = bench.gather_from("COPY old new /", tree).unwrap();
    let tar = tar_of(&gathered, None, Times::Fixed(100)).unwrap();
    let mut reader = Reader::new(tar.as_slice(), Limits::default());
    let mut times = Vec::new();
    while let Some(entry) = reader.next().unwrap() {
        times.push(entry.mtime.0);
    }
    assert_eq!(times, [50, 100]);
}

#[test]
fn f3_files_of_stages_keep_their_owners_and_attributes() {
    let bench = Bench::new(&["d/a A", "d/b B"], &[]);
    for (name, owner) in [("d", &b"5:6"[..]), ("d/a", b"7:8")] {
        let file = fs::File::open(bench.path("context").join(name)).unwrap();
        if crate::sys::xattr::set(&file, OWNER_XATTR, owner).is_err() {
            eprintln!("skipped: no extended attributes here");
            return;
        }
    }
    let file = fs::File::open(bench.path("context/d/b")).unwrap();
    crate::sys::xattr::set(&file, c"user.mark", b"m").unwrap();
    let tree = || Tree {
        is_context: false,
        ownership: Ownership::Squashed,
        ..bench.context()
    };
    let gathered = bench.gather_from("COPY . /", tree()).unwrap();
    let lines = listing(&gathered, None).unwrap();
    assert_eq!(lines, ["d 755 5:6 d", "f 644 7:8 d/a A", "f 644 0:0 d/b B"]);
    let tar = tar_of(&gathered, None, Times::Fixed(0)).unwrap();
    let mut reader = Reader::new(tar.as_slice(), Limits::default());
    let mut marks = 0;
    while let Some(entry) = reader.next().unwrap() {
        assert!(entry.xattrs.iter().all(|(name, _)| name == b"user.mark"));
        marks += entry.xattrs.len();
    }
    assert_eq!(marks, 1);
    // A context has neither.
    let lines = bench.layer("COPY . /").unwrap();
    assert_eq!(lines, ["d 755 0:0 d", "f 644 0:0 d/a A", "f 644 0:0 d/b B"]);
    let chowned = bench.gather_from("COPY --chown=1:2 d/a /", tree()).unwrap();
    assert_eq!(listing(&chowned, None).unwrap(), ["f 644 1:2 a A"]);
    assert_ne!(
        gathered.digest().unwrap(),
        bench.digest("COPY . /"),
        "owners count where they are kept"
    );
}

#[test]
fn f3_hard_links_stay_links_within_a_source() {
    let bench = Bench::new(&["d/a A"], &[]);
    fs::hard_link(bench.path("context/d/a"), bench.path("context/d/b")).unwrap();
    fs::hard_link(bench.path("context/d/a"), bench.path("context/c")).unwrap();
    let lines = bench.layer("COPY d c /t/").unwrap();
    assert_eq!(
        lines,
        ["d 755 0:0 t", "f 644 0:0 t/a A", "h t/b = t/a", "f 644 0:0 t/c A"]
    );
}

#[test]
fn f3_pipes_and_sockets_are_not_opened() {
    let bench = Bench::new(&["d/a A"], &[]);
    let pipe = bench.path("context/d/pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o640)).unwrap();
    fs::set_permissions(&pipe, fs::Permissions::from_mode(0o640)).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(bench.path("context/d/socket")).unwrap();
    let lines = bench.layer("COPY d /t").unwrap();
    assert_eq!(lines, ["d 755 0:0 t", "f 644 0:0 t/a A", "Fifo 640 0:0 t/pipe"]);
    assert_eq!(bench.layer("COPY d/pipe /p").unwrap(), ["Fifo 640 0:0 p"]);
    let error = bench.layer("COPY d/socket /s").unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::InvalidArgument, "{error}");
}

#[test]
fn f3_names_that_layers_reserve_are_refused() {
    let bench = Bench::new(&["d/.wh.x", "ok"], &[]);
    for line in ["COPY d /", "COPY d/.wh.x /x/", "COPY ok /.wh.ok", "COPY ok /.wh.d/x"] {
        let error = bench.layer(line).unwrap_err();
        assert!(error.to_string().contains(".wh."), "{line}: {error}");
    }
    assert_eq!(bench.layer("COPY d/.wh.x /x").unwrap().len(), 1);
}

#[test]
fn f3_trees_that_are_too_deep_are_refused() {
    let bench = Bench::new(&["a"], &[]);
    let mut path = bench.path("context");
    for _ in 0..300 {
        path.push("d");
    }
    fs::create_dir_all(&path).unwrap();
    let error = bench.layer("COPY . /").unwrap_err();
    assert!(error.to_string().contains("256 levels"), "{error}");
    // Names of any bytes, and as long as they may be.
    let name = std::ffi::OsString::from(format!("{}\u{7f}\n", "x".repeat(250)));
    let odd = Bench::new(&[], &[]);
    fs::write(odd.path("context").join(&name), "1").unwrap();
    let strange: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(&b"\xff\xfe"[..]);
    fs::write(odd.path("context").join(strange), "2").unwrap();
    assert_eq!(odd.layer("COPY . /").unwrap().len(), 2);
}

#[test]
fn f3_files_swapped_for_links_are_not_followed() {
    let bench = Bench::new(&["d/a A", "d/sub/b B"], &[]);
    let gathered = bench.gather("COPY . /t/").unwrap();
    let digest = gathered.digest().unwrap();
    assert!(
        !gathered
            .write(None, Times::Fixed(0), &mut std::io::sink())
            .unwrap()
            .changed
    );
    let outside = bench.path("secret");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("b"), "SECRET").unwrap();
    fs::remove_file(bench.path("context/d/a")).unwrap();
    std::os::unix::fs::symlink(outside.join("b"), bench.path("context/d/a")).unwrap();
    fs::rename(bench.path("context/d/sub"), bench.path("context/d/was")).unwrap();
    std::os::unix::fs::symlink(&outside, bench.path("context/d/sub")).unwrap();
    let mut out = Vec::new();
    assert!(gathered.write(None, Times::Fixed(0), &mut out).unwrap().changed);
    assert!(!String::from_utf8_lossy(&out).contains("SECRET"));
    assert_eq!(gathered.digest().unwrap(), digest, "of what was selected");
    // A device or a pipe in the place of a file is not read either.
    let pipe = bench.path("context/d/a");
    fs::remove_file(&pipe).unwrap();
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(
        gathered
            .write(None, Times::Fixed(0), &mut std::io::sink())
            .unwrap()
            .changed
    );
}

#[test]
fn f10_a_file_that_changes_meanwhile_is_told_of() {
    let bench = Bench::new(&["a A"], &[]);
    let gathered = bench.gather("COPY a /").unwrap();
    gathered.digest().unwrap();
    fs::write(bench.path("context/a"), "longer").unwrap();
    let mut out = Vec::new();
    assert!(gathered.write(None, Times::Fixed(0), &mut out).unwrap().changed);
    assert_eq!(shown(&out), ["f 644 0:0 a longer"]);
}

#[test]
fn f3_a_stopped_copy_ends() {
    let bench = Bench::new(&["a A"], &[]);
    let gathered = bench.gather("COPY . /x/").unwrap();
    gathered.stop().store(true, Ordering::Relaxed);
    assert_eq!(gathered.digest().unwrap_err().kind(), &ErrorKind::Cancelled);
    let error = gathered.write(None, Times::Real, &mut std::io::sink()).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Cancelled);
}

#[test]
fn f3_several_sources_and_a_destination_without_a_slash() {
    let bench = Bench::new(&["a A", "b B", "c/x X", "d/y Y"], &["there/", "link -> there", "file"]);
    let paths_of = |line: &str| bench.layer(line).map(|lines| paths(&lines).join(" "));
    assert_eq!(paths_of("COPY a b /there").unwrap(), "there there/a there/b");
    assert_eq!(paths_of("COPY a b /link").unwrap(), "there there/a there/b");
    assert_eq!(paths_of("COPY c d /new").unwrap(), "new new/x new/y");
    assert_eq!(paths_of("COPY c a /new").unwrap(), "new new/x new/a");
    // The second file would take the place of the first.
    for line in ["COPY a b /new", "COPY a b /file", "ADD a b /x/new"] {
        let error = bench.layer(line).unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::InvalidArgument, "{line}: {error}");
        assert!(error.to_string().contains("end with a /"), "{error}");
    }
    assert!(bench.layer("COPY a c /new").is_err());
}

#[test]
fn f6_working_directories_are_made_where_they_are_missing() {
    let bench = Bench::new(&[], &["usr/lib/", "lib -> usr/lib", "file", "etc/ 700"]);
    let of = |path: &str| {
        let mut out = Vec::new();
        make_dirs(Some(&bench.base()), path, None, Times::Fixed(0), &mut out).map(|()| out)
    };
    assert_eq!(of("/usr/lib").unwrap(), [0; 1024]);
    assert_eq!(of("/").unwrap(), [0; 1024]);
    assert_eq!(of("/lib").unwrap(), [0; 1024]);
    assert_eq!(shown(&of("/a/b").unwrap()), ["d 755 0:0 a", "d 755 0:0 a/b"]);
    assert_eq!(
        shown(&of("/lib/x").unwrap()),
        ["d 755 0:0 usr", "d 755 0:0 usr/lib", "d 755 0:0 usr/lib/x"]
    );
    assert_eq!(shown(&of("/etc/x").unwrap()), ["d 700 0:0 etc", "d 755 0:0 etc/x"]);
    assert_eq!(of("/file").unwrap_err().kind(), &ErrorKind::InvalidArgument);
    assert_eq!(of("/file/x").unwrap_err().kind(), &ErrorKind::InvalidArgument);
    let mut out = Vec::new();
    make_dirs(None, "/a", None, Times::Fixed(0), &mut out).unwrap();
    assert_eq!(shown(&out), ["d 755 0:0 a"]);
}

#[test]
fn f6_working_directories_are_the_users() {
    let bench = Bench::new(
        &[],
        &["etc/passwd me:x:9:10::/:/bin/sh", "etc/group us:x:11:", "there/"],
    );
    let of = |user: &str, base: Option<&Tree>| {
        let mut out = Vec::new();
        make_dirs(base, "/there/a/b", Some(user), Times::Fixed(0), &mut out).unwrap();
        shown(&out).join(", ")
    };
    for (user, ids) in [("5:6", "5:6"), ("me", "9:10"), ("me:us", "9:11"), ("nobody", "0:0")] {
        let expected = format!("d 755 0:0 there, d 755 {ids} there/a, d 755 {ids} there/a/b");
        assert_eq!(of(user, Some(&bench.base())), expected, "{user}");
    }
    // There is nobody to look up upon scratch.
    assert!(of("me", None).ends_with("d 755 0:0 there/a/b"));
    assert!(of("5", None).starts_with("d 755 5:5 there,"));
}

mod archives {
    use super::*;
    use crate::conformance::layers::{LayerBuilder, Meta, gzip};

    fn with(tar: &[u8], base: &[&str]) -> Bench {
        let bench = Bench::new(&["x X"], base);
        fs::write(bench.path("context/t.tar"), tar).unwrap();
        bench
    }

    /// The tar of the test below, packed with bzip2 1.0.8.
    const BZIP2: &str = "425a6839314159265359630af6450000887f80c9800000c000ef800100000365001e000808200075094a7b54d1a0d01ea068\
        24941ea640d01a1ea47729e8c5c901b3a48450a8ef30cb562dc042180655288191c38c108084e58dbd0e54e9867252271570\
        f8ed75e9520824241f8bb9229c284831857b2280";

    #[test]
    fn f4_add_unpacks_and_copy_does_not() {
        let tar = LayerBuilder::new()
            .entry(b'5', "d", "", &Meta::mode(0o700), b"")
            .entry(b'0', "d/f", "", &Meta::mode(0o4755), b"F")
            .build();
        let zst = zstd::encode_all(tar.as_slice(), 3).unwrap();
        let bzip2 = hex::decode(BZIP2).unwrap();
        for packed in [tar.clone(), gzip(&tar), zst, bzip2] {
            let bench = with(&packed, &[]);
            let unpacked = ["d 755 0:0 o", "d 700 0:0 o/d", "f 4755 0:0 o/d/f F"];
            assert_eq!(bench.layer("ADD t.tar /o/").unwrap(), unpacked);
            // It is what is in it that makes an archive, and its destination is a directory in any case.
            assert_eq!(bench.layer("ADD t.tar /o").unwrap(), unpacked);
            let lines = bench.layer("ADD --chown=3:4 t.tar /o").unwrap();
            assert_eq!(lines, ["d 755 3:4 o", "d 700 3:4 o/d", "f 4755 3:4 o/d/f F"]);
            for line in ["COPY t.tar /o/", "ADD --unpack=false t.tar /o/"] {
                assert_eq!(paths(&bench.layer(line).unwrap()), ["o", "o/t.tar"], "{line}");
            }
            let both = bench.layer("ADD t.tar x /o/").unwrap();
            assert_eq!(paths(&both), ["o", "o/d", "o/d/f", "o/x"]);
            assert_ne!(
                bench.digest("ADD t.tar /o/"),
                bench.digest("ADD --unpack=false t.tar /o/")
            );
        }
        // What only begins like an archive is none.
        let broken = with(b"BZh91AY&SY", &[]);
        assert_eq!(paths(&broken.layer("ADD t.tar /o/").unwrap()), ["o", "o/t.tar"]);
        let text = with(b"no archive at all", &[]);
        assert_eq!(
            text.layer("ADD t.tar /o/").unwrap(),
            ["d 755 0:0 o", "f 644 0:0 o/t.tar no archive at all"]
        );
    }

    #[test]
    fn f4_links_of_archives_lead_nowhere_else() {
        let tar = LayerBuilder::new()
            .symlink("up", "../../../../etc")
            .file("up/f", b"1")
            .symlink("abs", "/inner")
            .file("abs/g", b"2")
            .hard_link("abs/h", "abs/g")
            .build();
        let bench = with(&tar, &["o/", "etc/"]);
        let lines = bench.layer("ADD t.tar /o").unwrap();
        assert_eq!(
            paths(&lines),
            [
                "o",
                "o/up",
                "o/etc",
                "o/etc/f",
                "o/abs",
                "o/inner",
                "o/inner/g",
                "o/inner/h"
            ]
        );
        assert!(lines.contains(&"h o/inner/h = o/inner/g".to_owned()));
    }

    #[test]
    fn f4_archives_follow_the_links_of_the_base_below_the_destination() {
        let tar = LayerBuilder::new().file("lib/f", b"1").build();
        let bench = with(&tar, &["lib -> usr/lib", "usr/ 751", "usr/lib/ 750"]);
        let lines = bench.layer("ADD t.tar /").unwrap();
        assert_eq!(lines, ["d 751 0:0 usr", "d 750 0:0 usr/lib", "f 644 0:0 usr/lib/f 1"]);
        // Named as a directory, it takes the link's place.
        let tar = LayerBuilder::new()
            .entry(b'5', "lib", "", &Meta::mode(0o711), b"")
            .file("lib/f", b"1")
            .build();
        let bench = with(&tar, &["lib -> usr/lib", "usr/lib/"]);
        assert_eq!(
            bench.layer("ADD t.tar /").unwrap(),
            ["d 711 0:0 lib", "f 644 0:0 lib/f 1"]
        );
    }

    #[test]
    fn f4_hostile_archives_are_refused() {
        let file = |path: &str| LayerBuilder::new().file(path, b"x").build();
        for (what, tar) in [
            ("leaves", file("../../x")),
            ("reserved", file(".wh.x")),
            (
                "link to nothing",
                LayerBuilder::new().hard_link("a", "etc/passwd").build(),
            ),
            ("link out", LayerBuilder::new().hard_link("a", "../etc/passwd").build()),
            ("link to itself", LayerBuilder::new().hard_link("a", "a").build()),
        ] {
            let bench = with(&tar, &["etc/passwd"]);
            let error = bench.layer("ADD t.tar /o/").unwrap_err();
            let kinds = [ErrorKind::UnsafeArchive, ErrorKind::InvalidArgument];
            assert!(kinds.contains(error.kind()), "{what}: {error:?}");
        }
        let mut cut = file("a");
        cut.truncate(cut.len() - 1024 - 300);
        let bench = with(&cut, &[]);
        assert_eq!(
            bench.layer("ADD t.tar /").unwrap_err().kind(),
            &ErrorKind::UnsafeArchive
        );
    }
}

#[test]
fn f3_what_a_copy_asks_for_is_checked_first() {
    let bench = Bench::new(&["a"], &[]);
    for line in [
        "COPY --chmod=999 a /a",
        "COPY --chown=99999999999 a /a",
        "COPY https://h/x /a",
        "COPY https://h/x.git /a",
        "ADD --checksum=sha256:0 https://h/x /a",
        "ADD --keep-git-dir=true https://h/x.git?keep-git-dir=0 /a",
    ] {
        let error = bench.layer(line).unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::InvalidArgument, "{line}: {error}");
    }
}

/// What is read back is what the tree was.
#[test]
fn f3_a_whole_tree_comes_through() {
    let lines = ["a 600 A", "b/c/d 755 D", "b/e/ 711", "l -> b/c", "b/x -> ../a"];
    let bench = Bench::new(&lines, &[]);
    let root = fs::File::open(bench.path("context")).unwrap();
    let mut whole = Vec::new();
    LayerReader::of_tree(root.into(), &Ownership::Squashed, None)
        .write_tree(&mut whole)
        .unwrap();
    let expected: Vec<String> = shown(&whole).into_iter().filter(|line| !line.ends_with(" .")).collect();
    assert_eq!(bench.layer("COPY . /").unwrap(), expected);
}
