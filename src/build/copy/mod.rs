//! What `COPY` and `ADD` do: which files they mean, what that is for the cache, and the layer that it makes.
//!
//! Everything here reads trees that are given to it and writes a tar: nothing is mounted, and no base is changed. A file is
//! never held in memory.

mod digest;
mod layer;
mod mode;
mod owner;
mod pattern;
mod select;
#[cfg(test)]
mod tests;
mod unpack;

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use self::digest::{Stamp, Tally};
use self::layer::{Layer, Look, Source, overlaps};
use self::mode::Permissions;
use self::owner::Owner;
use self::select::{Match, Rules, Selector};
use super::context::spool::is_archive;
use super::context::{Paths as _, Services, Tree, View, fetch};
use super::ignore::IgnoreFile;
use super::plan::{AddAction, CopyAction, FileContent};
use crate::error::{Error, ObjectKind, Result};
use crate::storage::layer::Type;
use crate::storage::layer::name::split;
use crate::types::Digest;

/// What is copied.
#[derive(Debug, Clone)]
pub(crate) enum Files {
    Copy(CopyAction),
    Add(AddAction),
}

/// Which times files of a layer have, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Times {
    /// This one for what has no date of its own: files of a context, and what the build makes. What comes from archives,
    /// URLs, repositories, stages and images is at most so late.
    Fixed(i64),
    /// Their own.
    Real,
}

/// What became of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    /// Whether files changed between [`Gathered::digest`] and the end: the layer is what was read, but not what the digest
    /// says, and must not be kept for it.
    pub(crate) changed: bool,
}

/// Files to copy, all of them at hand.
#[derive(Debug)]
pub(crate) struct Gathered {
    inputs: Vec<Input>,
    /// The trees of the inputs, by number.
    trees: Vec<Origin>,
    rules: Rules,
    destination: String,
    owner: Option<String>,
    permissions: Option<String>,
    stop: Arc<AtomicBool>,
    found: OnceLock<Found>,
}

/// A tree that files come from.
#[derive(Debug)]
struct Origin {
    tree: Tree,
    /// What it is called in errors.
    called: &'static str,
    /// Whether its files have dates that mean something.
    is_dated: bool,
}

/// One source.
#[derive(Debug)]
enum Input {
    /// A path or a pattern in a tree.
    Path { tree: usize, path: String },
    /// A single file that was made or fetched, and what it is called.
    File { tree: usize, name: String, unpack: bool },
    /// A whole tree.
    Tree { tree: usize },
}

#[derive(Debug)]
struct Found {
    views: Vec<View>,
    matches: Vec<Match>,
    stamps: OnceLock<(Digest, Vec<Vec<Stamp>>)>,
}

/// Gets what is not at hand: files of URLs and repositories. `source` is the context, or the root file system that `--from`
/// names; nothing for an empty one.
///
/// # Errors
/// `InvalidArgument` for flags and sources that can never work; what a URL says; `DigestMismatch`; `Os`.
///
/// # Cancel safety
/// What was fetched is in the directory of the build, and goes with it.
pub(crate) async fn gather(files: Files, source: Option<Tree>, services: &Services) -> Result<Gathered> {
    gather_request(Request::of(files), source, services).await
}

async fn gather_request(request: Request, source: Option<Tree>, services: &Services) -> Result<Gathered> {
    request.check()?;
    let mut gathered = Gathered {
        inputs: Vec::with_capacity(request.sources.len()),
        trees: Vec::new(),
        rules: Rules {
            parents: request.parents,
            unpack: request.is_add && request.unpack != Some(false),
            excludes: IgnoreFile::of_patterns(&request.excludes)?,
        },
        destination: request.destination.clone(),
        owner: request.owner.clone(),
        permissions: request.permissions.clone(),
        stop: Arc::default(),
        found: OnceLock::new(),
    };
    let tree = match source {
        Some(tree) => tree,
        None => Tree {
            is_context: false,
            ..services.empty_tree().await?
        },
    };
    let called = match tree.is_context {
        true => "the build context",
        false => "what --from names",
    };
    let is_dated = !tree.is_context;
    gathered.trees.push(Origin { tree, called, is_dated });
    for source in &request.sources {
        let input = match source {
            FileContent::Path(path) => request.fetched(path, &mut gathered, services).await?,
            FileContent::Inline { name, content } => {
                let tree = services.inline(content.as_bytes()).await?;
                let name = split(name.as_bytes()).1.to_vec();
                let name = String::from_utf8_lossy(&name).into_owned();
                let tree = gathered.add_tree(tree, "the Dockerfile", false);
                Input::File {
                    tree,
                    name,
                    unpack: false,
                }
            }
        };
        gathered.inputs.push(input);
    }
    Ok(gathered)
}

/// Both instructions alike.
#[derive(Debug)]
struct Request {
    is_add: bool,
    owner: Option<String>,
    permissions: Option<String>,
    parents: bool,
    excludes: Vec<String>,
    sources: Vec<FileContent>,
    destination: String,
    unpack: Option<bool>,
    checksum: Option<String>,
    keep_git_dir: Option<bool>,
}

impl Request {
    fn of(files: Files) -> Self {
        match files {
            Files::Copy(copy) => Self {
                is_add: false,
                owner: copy.owner,
                permissions: copy.permissions,
                parents: copy.parents,
                excludes: copy.excludes,
                sources: copy.sources,
                destination: copy.destination,
                unpack: None,
                checksum: None,
                keep_git_dir: None,
            },
            Files::Add(add) => Self {
                is_add: true,
                owner: add.owner,
                permissions: add.permissions,
                parents: false,
                excludes: add.excludes,
                sources: add.sources,
                destination: add.destination,
                unpack: add.unpack,
                checksum: add.checksum,
                keep_git_dir: add.keep_git_dir,
            },
        }
    }

    fn check(&self) -> Result<()> {
        if self.destination.contains('\0') || self.destination.len() >= libc::PATH_MAX as usize {
            return Err(Error::invalid("the destination is too long, or has a NUL byte"));
        }
        if let Some(owner) = &self.owner {
            Owner::parse(owner)?;
        }
        if let Some(permissions) = &self.permissions {
            Permissions::parse(permissions)?;
        }
        let Some(checksum) = &self.checksum else { return Ok(()) };
        match self.sources.as_slice() {
            [FileContent::Path(path)] if fetch::is_remote(path) => fetch::check_checksum(checksum, path),
            [_] => Err(Error::invalid(
                "--checksum needs a source that is an HTTP(S) URL or a repository",
            )),
            _ => Err(Error::invalid("--checksum cannot be given for more than one source")),
        }
    }

    /// A source that may be somewhere else.
    async fn fetched(&self, path: &str, gathered: &mut Gathered, services: &Services) -> Result<Input> {
        if let Some(repository) = fetch::repository(path)? {
            if !self.is_add {
                return Err(Error::invalid("a repository cannot be a source of COPY: use ADD"));
            }
            let wanted = repository.with_flags(self.keep_git_dir, self.checksum.as_deref())?;
            let tree = fetch::clone(&wanted, services).await?;
            let tree = gathered.add_tree(tree, "the repository", true);
            return Ok(Input::Tree { tree });
        }
        if !fetch::is_remote(path) {
            return Ok(Input::Path {
                tree: 0,
                path: path.to_owned(),
            });
        }
        if !self.is_add {
            return Err(Error::invalid("a URL cannot be a source of COPY: use ADD"));
        }
        let file = fetch::download(path, self.checksum.as_deref(), services).await?;
        let tree = gathered.add_tree(file.tree, "what was downloaded", true);
        Ok(Input::File {
            tree,
            name: file.name,
            unpack: self.unpack == Some(true),
        })
    }
}

impl Gathered {
    fn add_tree(&mut self, tree: Tree, called: &'static str, is_dated: bool) -> usize {
        self.trees.push(Origin { tree, called, is_dated });
        self.trees.len() - 1
    }

    /// Set, it ends [`Gathered::digest`] and [`Gathered::write`] soon.
    pub(crate) fn stop(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// What is copied, for the cache: with the flags and the destination, without the base. Blocking; reads every file.
    ///
    /// # Errors
    /// `NotFound` for a source that is not there; `InvalidArgument`, `Denied`, `Os`, `Cancelled`.
    pub(crate) fn digest(&self) -> Result<Digest> {
        let found = self.found()?;
        if let Some((digest, _)) = found.stamps.get() {
            return Ok(*digest);
        }
        let mut tally = Tally::default();
        tally.bytes(b"longshore copy 1");
        tally.bytes(self.destination.as_bytes());
        tally.maybe(self.owner.as_deref().map(str::as_bytes));
        tally.maybe(self.permissions.as_deref().map(str::as_bytes));
        tally.number(found.matches.len() as u64);
        let stamps = digest::tally(&found.matches, &found.views, &mut tally, &self.stop)?;
        let (digest, _) = found.stamps.get_or_init(|| (tally.finish(), stamps));
        Ok(*digest)
    }

    /// Writes the layer upon a base, or upon nothing: an uncompressed tar with its end. Blocking.
    ///
    /// # Errors
    /// Those of [`Gathered::digest`]; `InvalidArgument` where a directory and something else would take each other's place;
    /// `UnsafeArchive`; what `out` says.
    pub(crate) fn write(&self, base: Option<&Tree>, times: Times, out: &mut dyn Write) -> Result<Written> {
        let found = self.found()?;
        let base = base.map(Tree::view).transpose()?;
        let owner = self.owner.as_deref().map(Owner::parse).transpose()?;
        let look = Look {
            destination: self.destination.clone(),
            owner: owner.map(|owner| owner.ids(base.as_ref())).transpose()?,
            permissions: self.permissions.as_deref().map(Permissions::parse).transpose()?,
            times,
        };
        let matches = &found.matches;
        let several = matches.len() > 1;
        let mut layer = Layer::new(out, base.as_ref(), &look, &self.stop, several);
        let mut next = 0;
        while next < matches.len() {
            let archive = self.archive_of(found, next)?;
            if let Some(file) = archive {
                layer.unpack(&file)?;
                next += 1;
                continue;
            }
            let mut end = next + 1;
            while end < matches.len() && self.archive_of(found, end)?.is_none() {
                end += 1;
            }
            self.write_files(found, next..end, &mut layer)?;
            next = end;
        }
        let changed = layer.finish()?;
        Ok(Written { changed })
    }

    /// Sources that are no archives, one after the other. Where they meet, the last one's files are written alone.
    fn write_files<W: Write>(&self, found: &Found, range: Range<usize>, layer: &mut Layer<'_, W>) -> Result<()> {
        let mut targets = Vec::with_capacity(range.len());
        let mut files = 0;
        for number in range.clone() {
            let source = self.source(found, number);
            files += usize::from(layer.takes_its_place(&source)?);
            if files > 1 && self.inputs.len() > 1 {
                let message = "with more than one source file, the destination must be a directory and end with a /";
                return Err(Error::invalid(message).with_object(ObjectKind::Option, self.destination.clone()));
            }
            targets.push(layer.place(&source)?);
        }
        let last = match range.len() {
            1 => HashMap::new(),
            _ => overlaps(&found.matches[range.clone()], &targets)?,
        };
        for (at, target) in targets.iter().enumerate() {
            let source = self.source(found, range.start + at);
            layer.copy(&source, target, &|item, to| {
                let replaced = last.get(to).is_some_and(|(by, _)| *by != at);
                replaced && item.kind != Type::Directory
            })?;
        }
        Ok(())
    }

    /// The open file of a source that is to be unpacked.
    fn archive_of(&self, found: &Found, number: usize) -> Result<Option<File>> {
        let one = &found.matches[number];
        if !one.unpack {
            return Ok(None);
        }
        let (parent, name) = split(&one.path);
        let Some(folder) = found.views[one.tree].folder(parent)? else {
            return Ok(None);
        };
        let Some((_, _, Some(file))) = folder.open(name, Type::File)? else {
            return Ok(None);
        };
        let is_archive = is_archive(&file).map_err(unpack::explain)?;
        Ok(is_archive.then_some(file))
    }

    fn source<'a>(&'a self, found: &'a Found, number: usize) -> Source<'a> {
        let one = &found.matches[number];
        let stamps = found.stamps.get().and_then(|(_, stamps)| stamps.get(number));
        Source {
            found: one,
            view: &found.views[one.tree],
            is_dated: self.trees[one.tree].is_dated,
            stamps: stamps.map(Vec::as_slice),
        }
    }

    /// The selection, made once.
    fn found(&self) -> Result<&Found> {
        if let Some(found) = self.found.get() {
            return Ok(found);
        }
        let found = self.select()?;
        Ok(self.found.get_or_init(|| found))
    }

    fn select(&self) -> Result<Found> {
        let views: Vec<View> = self
            .trees
            .iter()
            .map(|source| source.tree.view())
            .collect::<Result<_>>()?;
        let mut matches = Vec::new();
        for input in &self.inputs {
            let tree = match input {
                Input::Path { tree, .. } | Input::File { tree, .. } | Input::Tree { tree } => *tree,
            };
            let selector = Selector {
                view: &views[tree],
                tree,
                rules: &self.rules,
                called: self.trees[tree].called,
                stop: &self.stop,
            };
            match input {
                Input::Path { path, .. } => matches.extend(selector.select(path)?),
                Input::Tree { .. } => matches.extend(selector.everything()?),
                Input::File { name, unpack, .. } => matches.extend(selector.single(name, *unpack)?),
            }
        }
        Ok(Found {
            views,
            matches,
            stamps: OnceLock::new(),
        })
    }
}

/// Writes the layer of a working directory: those directories of its path that the base lacks, `0755` and root's. Nothing
/// but the end of an archive where all are there. Blocking.
///
/// # Errors
/// `InvalidArgument` where something of the path is no directory; `Denied`, `Os`; what `out` says.
pub(crate) fn make_dirs(
    base: Option<&Tree>,
    path: &str,
    user: Option<&str>,
    times: Times,
    out: &mut dyn Write,
) -> Result<()> {
    if path.contains('\0') || path.len() >= libc::PATH_MAX as usize {
        return Err(Error::invalid("the directory's path is too long, or has a NUL byte"));
    }
    let base = base.map(Tree::view).transpose()?;
    let owner = user.map(|user| owner::of_user(user, base.as_ref())).transpose()?;
    let look = Look {
        destination: path.to_owned(),
        owner: owner.flatten(),
        permissions: None,
        times,
    };
    let stop = AtomicBool::new(false);
    let mut layer = Layer::new(out, base.as_ref(), &look, &stop, false);
    let led = layer.follow(b"", path.as_bytes(), true)?;
    if !led.is_dir() {
        layer.make_dirs(&led.path, None)?;
    }
    layer.finish().map(drop)
}
