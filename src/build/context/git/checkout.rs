//! A commit as files. Everything in it is hostile: names that lead elsewhere, names that are there twice (a symlink to write
//! through), trees that are larger than any disk.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::pack::{Kind, Pack, bad};
use super::{Id, IdHasher};
use crate::build::context::fetch::Repository;
use crate::build::context::{DEEPEST, check};
use crate::error::{Error, ErrorKind, ObjectKind, Result};

/// Files and directories of a commit.
const ENTRIES: u64 = 1_000_000;
/// Their bytes.
const BYTES: u64 = 64 << 30;
/// `.gitmodules`.
const MODULES: usize = 1 << 20;

/// Another repository within one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Submodule {
    pub(super) path: PathBuf,
    pub(super) address: String,
    pub(super) commit: Id,
}

/// An entry of a tree.
struct Entry<'a> {
    mode: u32,
    name: &'a [u8],
    id: Id,
}

/// A checkout while it is made.
struct Checkout {
    pack: Pack,
    stop: Arc<AtomicBool>,
    entries: u64,
    bytes: u64,
    /// Where other repositories belong.
    links: Vec<(Vec<u8>, Id)>,
    /// What an index lists: path, mode, id.
    files: Vec<(Vec<u8>, u32, Id)>,
}

/// Writes a commit of a pack into a new directory. Returns the submodules that belong into it. Blocking.
///
/// # Errors
/// `NotFound` for a directory that the commit has not; `UnsafeArchive`; `NoSpace`, `Os`.
pub(super) fn checkout(
    pack: File,
    (commit, name): &(Id, Option<String>),
    wanted: &Repository,
    directory: &Path,
    stop: Arc<AtomicBool>,
) -> Result<Vec<Submodule>> {
    let mut checkout = Checkout {
        pack: Pack::open(pack, Arc::clone(&stop))?,
        stop,
        entries: 0,
        bytes: 0,
        links: Vec::new(),
        files: Vec::new(),
    };
    let root = tree_of(&checkout.pack.get(commit, Kind::Commit)?)?;
    let tree = checkout.find(&root, &wanted.directory)?;
    // A submodule's place is there already.
    match fs::create_dir(directory) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(Error::os("make a directory", e)),
        _ => {}
    }
    set_mode(directory, 0o755)?;
    checkout.tree(&tree, directory, b"", 0)?;
    if wanted.keep_git_dir == Some(true) && wanted.directory.is_empty() {
        checkout.git_directory(commit, name.as_deref(), wanted, &directory.join(".git"))?;
    }
    checkout.submodules(&root, &wanted.directory)
}

/// The tree of a commit.
fn tree_of(commit: &[u8]) -> Result<Id> {
    let line = commit.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let id = line.strip_prefix(b"tree ").and_then(|id| std::str::from_utf8(id).ok());
    id.and_then(|id| id.parse().ok())
        .ok_or_else(|| bad("a commit without a tree"))
}

/// The entries of a tree: each name once, and none that leads elsewhere.
fn entries(tree: &[u8]) -> Result<Vec<Entry<'_>>> {
    let cut = || bad("a tree that is cut off");
    let (mut rest, mut out, mut seen) = (tree, Vec::new(), BTreeSet::new());
    while !rest.is_empty() {
        let space = rest.iter().position(|byte| *byte == b' ').ok_or_else(cut)?;
        let mode = std::str::from_utf8(&rest[..space]).ok();
        let mode = mode
            .and_then(|mode| u32::from_str_radix(mode, 8).ok())
            .ok_or_else(cut)?;
        rest = &rest[space + 1..];
        let end = rest.iter().position(|byte| *byte == 0).ok_or_else(cut)?;
        let name = &rest[..end];
        let (id, after) = rest[end + 1..].split_first_chunk::<20>().ok_or_else(cut)?;
        rest = after;
        let leads = matches!(name, b"" | b"." | b"..") || name.eq_ignore_ascii_case(b".git");
        if leads || name.contains(&b'/') || name.len() > 255 || !seen.insert(name) {
            let shown = String::from_utf8_lossy(name).escape_debug().to_string();
            return Err(bad(format!("a tree with a name that no file may have: {shown:?}")));
        }
        out.push(Entry {
            mode,
            name,
            id: Id(*id),
        });
    }
    Ok(out)
}

impl Checkout {
    /// A directory of the commit.
    fn find(&mut self, root: &Id, path: &str) -> Result<Id> {
        let mut at = *root;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let tree = self.pack.get(&at, Kind::Tree)?;
            let found = entries(&tree)?.into_iter().find(|entry| entry.name == name.as_bytes());
            let found = found
                .filter(|entry| entry.mode & 0o170_000 == 0o040_000)
                .map(|entry| entry.id);
            at = found.ok_or_else(|| {
                let message = format!("the repository has no directory {path:?}");
                Error::new(ErrorKind::NotFound, message).with_object(ObjectKind::Option, path)
            })?;
        }
        Ok(at)
    }

    fn tree(&mut self, id: &Id, directory: &Path, path: &[u8], depth: usize) -> Result<()> {
        if depth > DEEPEST {
            return Err(bad(format!("directories that are more than {DEEPEST} deep")));
        }
        let tree = self.pack.get(id, Kind::Tree)?;
        for entry in entries(&tree)? {
            check(&self.stop)?;
            self.entries += 1;
            if self.entries > ENTRIES {
                return Err(bad(format!("more than {ENTRIES} files")));
            }
            let place = directory.join(std::ffi::OsStr::from_bytes(entry.name));
            let path = if path.is_empty() {
                entry.name.to_vec()
            } else {
                [path, entry.name].join(&b'/')
            };
            self.entry(&entry, &place, path, depth)?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry<'_>, place: &Path, path: Vec<u8>, depth: usize) -> Result<()> {
        let failed = |e| Error::os("write a file of the repository", e);
        match entry.mode & 0o170_000 {
            0o040_000 => {
                fs::create_dir(place).map_err(failed)?;
                set_mode(place, 0o755)?;
                return self.tree(&entry.id, place, &path, depth + 1);
            }
            0o160_000 => {
                fs::create_dir(place).map_err(failed)?;
                set_mode(place, 0o755)?;
                self.links.push((path.clone(), entry.id));
            }
            0o120_000 => {
                let target = self.pack.get(&entry.id, Kind::Blob)?;
                if target.is_empty() || target.len() >= libc::PATH_MAX as usize || target.contains(&0) {
                    return Err(bad("a symbolic link that is none"));
                }
                symlink(std::ffi::OsStr::from_bytes(&target), place).map_err(failed)?;
            }
            0o100_000 => {
                let mode = if entry.mode & 0o111 != 0 { 0o755 } else { 0o644 };
                let file = fs::OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(mode)
                    .open(place);
                let mut out = BufWriter::with_capacity(64 << 10, file.map_err(failed)?);
                self.bytes += self.pack.write(&entry.id, &mut out)?;
                if self.bytes > BYTES {
                    return Err(bad(format!("more than {BYTES} bytes")));
                }
                out.flush().map_err(failed)?;
                set_mode(place, mode)?;
            }
            _ => return Err(bad(format!("an entry of unknown type {:o}", entry.mode))),
        }
        self.files.push((path, entry.mode, entry.id));
        Ok(())
    }

    /// What `.gitmodules` says of the places for other repositories.
    fn submodules(&mut self, root: &Id, below: &str) -> Result<Vec<Submodule>> {
        if self.links.is_empty() {
            return Ok(Vec::new());
        }
        let tree = self.pack.get(root, Kind::Tree)?;
        let file = entries(&tree)?
            .into_iter()
            .find(|entry| entry.name == b".gitmodules")
            .map(|entry| entry.id);
        // Without it, git leaves their directories empty.
        let Some(file) = file else { return Ok(Vec::new()) };
        let text = self.pack.get(&file, Kind::Blob)?;
        if text.len() > MODULES {
            return Err(bad(".gitmodules is too large"));
        }
        let known = modules(&String::from_utf8_lossy(&text));
        let mut out = Vec::new();
        for (path, commit) in std::mem::take(&mut self.links) {
            let whole = match below {
                "" => path.clone(),
                below => [below.as_bytes(), &path].join(&b'/'),
            };
            let address = known
                .iter()
                .find(|(known, _)| known.as_bytes() == whole)
                .map(|(_, address)| address);
            if let Some(address) = address {
                out.push(Submodule {
                    path: std::ffi::OsStr::from_bytes(&path).into(),
                    address: address.clone(),
                    commit,
                });
            }
        }
        Ok(out)
    }

    /// `.git` as a clone of this commit alone has it: the same for the same commit.
    fn git_directory(&mut self, commit: &Id, name: Option<&str>, from: &Repository, directory: &Path) -> Result<()> {
        let write = |path: &str, bytes: &[u8]| -> Result<()> {
            let path = directory.join(path);
            let made = match path.parent() {
                Some(parent) => fs::create_dir_all(parent),
                None => Ok(()),
            };
            made.and_then(|()| fs::write(&path, bytes))
                .map_err(|e| Error::os("write the repository's .git", e))
        };
        let line = format!("{commit}\n");
        write("HEAD", line.as_bytes())?;
        write("shallow", line.as_bytes())?;
        let remote = from
            .remote
            .split_once("://")
            .map_or(from.remote.clone(), |(scheme, rest)| {
                format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, host)| host))
            });
        let remote = remote.replace(['\n', '"', '\\'], "");
        let config = format!(
            "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n[remote \"origin\"]\n\turl = \"{remote}\"\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n"
        );
        write("config", config.as_bytes())?;
        let plain = |name: &&str| !name.contains("..") && name.bytes().all(|byte| byte.is_ascii_graphic());
        let reference = name.and_then(|name| match name.strip_prefix("refs/heads/") {
            Some(branch) => Some(format!("refs/remotes/origin/{branch}")),
            None => name.starts_with("refs/tags/").then(|| name.to_owned()),
        });
        if let Some(reference) = reference.as_deref().filter(plain) {
            write(reference, line.as_bytes())?;
        }
        write("refs/heads/.keep", b"")?;
        fs::remove_file(directory.join("refs/heads/.keep")).map_err(|e| Error::os("write the repository's .git", e))?;
        for (id, kind) in self.pack.ids() {
            let data = self.pack.get(&id, kind)?;
            let hex = id.to_string();
            write(&format!("objects/{}/{}", &hex[..2], &hex[2..]), &loose(kind, &data)?)?;
        }
        write("index", &self.index())
    }

    /// The list of files: without what a look at them would tell, so that git looks.
    fn index(&mut self) -> Vec<u8> {
        self.files.sort();
        let mut out = b"DIRC\0\0\0\x02".to_vec();
        out.extend_from_slice(&u32::try_from(self.files.len()).unwrap_or(u32::MAX).to_be_bytes());
        for (path, mode, id) in &self.files {
            let mode = match mode & 0o170_000 {
                0o100_000 if mode & 0o111 != 0 => 0o100_755,
                0o100_000 => 0o100_644,
                kind => kind,
            };
            let begin = out.len();
            out.extend_from_slice(&[0; 24]);
            out.extend_from_slice(&u32::to_be_bytes(mode));
            out.extend_from_slice(&[0; 12]);
            out.extend_from_slice(&id.0);
            let length = u16::try_from(path.len()).unwrap_or(u16::MAX).min(0xfff);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(path);
            let length = out.len() - begin;
            out.resize(begin + (length + 8) / 8 * 8, 0);
        }
        let mut hash = IdHasher::default();
        hash.update(&out);
        out.extend_from_slice(&hash.finish().0);
        out
    }
}

/// An object in a file of its own.
fn loose(kind: Kind, data: &[u8]) -> Result<Vec<u8>> {
    let word = match kind {
        Kind::Commit => "commit",
        Kind::Tree => "tree",
        Kind::Blob => "blob",
        Kind::Tag => "tag",
    };
    let mut out = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(6));
    let head = format!("{word} {}\0", data.len());
    out.write_all(head.as_bytes())
        .and_then(|()| out.write_all(data))
        .and_then(|()| out.finish())
        .map_err(|e| Error::os("compress an object", e))
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|e| Error::os("chmod", e))
}

/// Paths and addresses of a `.gitmodules`. Source: `gitmodules(5)`.
fn modules(text: &str) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let (mut path, mut address) = (None, None);
    for line in text.lines().chain(["["]) {
        let line = line.trim();
        if line.starts_with('[') {
            if let (Some(path), Some(address)) = (path.take(), address.take()) {
                out.push((path, address));
            }
            (path, address) = (None, None);
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            continue;
        };
        let value = value.trim().trim_matches('"').to_owned();
        match key.trim() {
            "path" => path = Some(value),
            "url" => address = Some(value),
            _ => {}
        }
    }
    out
}

/// Where a submodule is: addresses that begin with `./` or `../` are relative to that of the repository around it.
pub(super) fn resolve(outer: &str, address: &str) -> String {
    if !address.starts_with("./") && !address.starts_with("../") {
        return address.to_owned();
    }
    let mut base = outer.trim_end_matches('/');
    let mut rest = address;
    let scheme = base.find("://").map_or(0, |at| at + 3);
    loop {
        if let Some(more) = rest.strip_prefix("./") {
            rest = more;
        } else if let Some(more) = rest.strip_prefix("../") {
            rest = more;
            base = match base[scheme..].rfind('/') {
                Some(at) => &base[..scheme + at],
                None => base,
            };
        } else {
            return format!("{base}/{rest}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(list: &[(&str, &[u8])]) -> Vec<u8> {
        let one = |(mode, name): &(&str, &[u8])| [mode.as_bytes(), b" ", name, b"\0", &[7; 20]].concat();
        list.iter().flat_map(one).collect()
    }

    #[test]
    fn f4_names_that_lead_elsewhere_are_refused() {
        assert_eq!(entries(&tree(&[("100644", b"a"), ("40000", b"b")])).unwrap().len(), 2);
        for bad in [&b".."[..], b".", b"", b".git", b".GIT", b"a/b", &[b'x'; 256]] {
            assert!(entries(&tree(&[("100644", bad)])).is_err(), "{bad:?}");
        }
        assert!(
            entries(&tree(&[("120000", b"a"), ("40000", b"a")])).is_err(),
            "a link to write through"
        );
        assert!(entries(b"100644 a\0short").is_err() && entries(b"x").is_err() && entries(b"9 a\0").is_err());
    }

    #[test]
    fn f18_submodules_are_where_gitmodules_says() {
        let text = "[submodule \"a\"]\n\tpath = lib/a\n\turl = ../a.git\n[submodule \"b\"]\npath=b\n[submodule \"c\"]\npath = c\nurl = https://h/c\n";
        let of = |path: &str, address: &str| (path.to_owned(), address.to_owned());
        assert_eq!(modules(text), [of("lib/a", "../a.git"), of("c", "https://h/c")]);
        assert_eq!(resolve("https://h/o/r.git", "../a.git"), "https://h/o/a.git");
        assert_eq!(resolve("https://h/o/r.git", "../../p/a.git"), "https://h/p/a.git");
        assert_eq!(resolve("https://h/o/r.git", "./a.git"), "https://h/o/r.git/a.git");
        assert_eq!(resolve("https://h/r.git", "../../../../a"), "https://h/a");
        assert_eq!(resolve("https://h/r.git", "https://x/a"), "https://x/a");
    }
}
