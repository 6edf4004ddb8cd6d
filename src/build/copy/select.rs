//! Which files are copied: sources as BuildKit reads them, as a list of what is below each.
//!
//! Source: `tonistiigi/fsutil/copy` and `frontend/dockerfile/dockerfile2llb/convert_copy.go` of BuildKit. A source is followed
//! to where its symlinks lead; patterns are matched with names, and those that nothing matches select nothing; of a
//! directory, what is in it is copied. `--exclude` is matched with paths below each source, and with the names of files that
//! a pattern found.

use std::sync::atomic::AtomicBool;

use super::pattern::{Pattern, has_wildcards};
use crate::build::context::{DEEPEST, Folder, Paths as _, SINGLE, View, check, parts, too_deep};
use crate::build::ignore::{Below, IgnoreFile};
use crate::build::suggest::nearest_variable;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::storage::layer::name::{join, show, split};
use crate::storage::layer::{Node, Type};

/// Something that a source named.
#[derive(Debug)]
pub(super) struct Match {
    /// Its tree, by number.
    pub(super) tree: usize,
    /// What it is called where the destination is a directory.
    pub(super) name: Vec<u8>,
    /// Where it is, without symlinks.
    pub(super) path: Vec<u8>,
    /// Whether it is a directory, of which the content is copied.
    pub(super) is_dir: bool,
    /// Whether it is unpacked, if it is an archive.
    pub(super) unpack: bool,
    /// What is copied: of a directory all below it, parents first; else itself, under an empty path.
    pub(super) items: Vec<Item>,
}

impl Match {
    /// Where a file of it is, in its tree.
    pub(super) fn path_of(&self, item: &Item) -> Vec<u8> {
        match item.path.is_empty() {
            true => self.path.clone(),
            false => join(&self.path, &item.path),
        }
    }
}

/// A file of a match.
#[derive(Debug)]
pub(super) struct Item {
    /// Below the match.
    pub(super) path: Box<[u8]>,
    pub(super) kind: Type,
    /// A directory that is only there for what is in it.
    pub(super) implied: bool,
}

/// How the sources of a step are read.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) parents: bool,
    pub(super) unpack: bool,
    pub(super) excludes: IgnoreFile,
}

/// What a path or a pattern leads to.
struct Named {
    name: Vec<u8>,
    /// Without symlinks.
    path: Vec<u8>,
    node: Node,
}

/// What finds files in one tree.
pub(super) struct Selector<'a> {
    pub(super) view: &'a View,
    pub(super) tree: usize,
    pub(super) rules: &'a Rules,
    /// What the tree is called in errors.
    pub(super) called: &'a str,
    pub(super) stop: &'a AtomicBool,
}

impl Selector<'_> {
    /// What a source of the Dockerfile stands for.
    ///
    /// # Errors
    /// `NotFound` where a path leads to nothing; `InvalidArgument` for a pattern that is none, and for directories that are
    /// too deep; `Denied`, `Os`; `Cancelled`.
    pub(super) fn select(&self, source: &str) -> Result<Vec<Match>> {
        if self.rules.parents {
            return self.with_parents(source);
        }
        let matches = self.resolve(source)?;
        let mut out = Vec::with_capacity(matches.len());
        for Named { name, path, node } in matches {
            out.push(self.expand(name, path, &node, None)?);
        }
        Ok(out)
    }

    /// Everything of the tree.
    pub(super) fn everything(&self) -> Result<Vec<Match>> {
        let Some(root) = self.view.folder(b"")? else {
            return Ok(Vec::new());
        };
        let (node, _) = root.itself()?;
        Ok(vec![self.expand(Vec::new(), Vec::new(), &node, None)?])
    }

    /// The one file of a tree, under a name.
    pub(super) fn single(&self, name: &str, unpack: bool) -> Result<Vec<Match>> {
        let Some(node) = self.view.at(SINGLE)?.map(|(node, _)| node) else {
            return Err(self.missing(SINGLE, name)?);
        };
        let mut found = self.expand(name.as_bytes().to_vec(), SINGLE.to_vec(), &node, None)?;
        found.unpack = unpack;
        Ok(vec![found])
    }

    /// `--parents`: the directories of the source's path come along, from `/./` on if that is in it.
    fn with_parents(&self, source: &str) -> Result<Vec<Match>> {
        let (base, pattern) = source.split_once("/./").unwrap_or(("/", source));
        let pattern = clean(pattern.as_bytes());
        let shown = String::from_utf8_lossy(&pattern).into_owned();
        let wanted = match pattern.is_empty() {
            true => IgnoreFile::of_patterns(["**"])?,
            false => IgnoreFile::of_patterns([&shown])?,
        };
        let mut out = Vec::new();
        for Named { name, path, node } in self.resolve(base)? {
            out.push(self.expand(name, path, &node, Some(&wanted))?);
        }
        let literal = !has_wildcards(base.as_bytes()) && !has_wildcards(&pattern);
        let nothing = out.iter().all(|found| !found.is_dir || found.items.is_empty());
        if literal && nothing && !pattern.is_empty() {
            return Err(self.missing(&join(&clean(base.as_bytes()), &pattern), source)?);
        }
        Ok(out)
    }

    /// Places that a path or a pattern names: the name, the real path, and what is there.
    fn resolve(&self, source: &str) -> Result<Vec<Named>> {
        let path = clean(source.as_bytes());
        let names: Vec<&[u8]> = parts(&path).collect();
        let plain = names.iter().take_while(|name| !has_wildcards(name)).count();
        let (fixed, pattern) = (names[..plain].join(&b'/'), names[plain..].join(&b'/'));
        if pattern.is_empty() {
            let led = self.view.follow(b"", &path, true)?;
            let Some(node) = led.node else {
                return Err(self.missing(&path, source)?);
            };
            let name = split(&path).1.to_vec();
            return Ok(vec![Named {
                name,
                path: led.path,
                node,
            }]);
        }
        let pattern = Pattern::new(&pattern);
        if !pattern.is_wellformed() {
            let message = format!("{source:?} is no pattern: a class [...] is not closed, or a backslash ends it");
            return Err(Error::invalid(message));
        }
        let led = self.view.follow(b"", &fixed, true)?;
        if led.node.is_none() {
            return Err(self.missing(&fixed, source)?);
        }
        let mut found = Vec::new();
        if let Some(folder) = self.view.folder(&led.path)? {
            self.search(&folder, &pattern, b"", &mut found, 0)?;
        }
        let excludes = &self.rules.excludes;
        let mut out = Vec::new();
        for below in found {
            let whole = join(&led.path, &below);
            let name = split(&below).1.to_vec();
            // What was found is followed like any source.
            let led = self.view.follow(b"", &whole, true)?;
            let Some(node) = led.node else {
                return Err(self.missing(&whole, source)?);
            };
            if !node.is_dir() && excludes.is_ignored(&name) {
                continue;
            }
            out.push(Named {
                name,
                path: led.path,
                node,
            });
        }
        Ok(out)
    }

    /// Paths that match, in the order of a walk. What is in a directory that matches is not looked at.
    fn search(
        &self,
        folder: &Folder<'_>,
        pattern: &Pattern<'_>,
        below: &[u8],
        found: &mut Vec<Vec<u8>>,
        depth: usize,
    ) -> Result<()> {
        if depth > DEEPEST {
            return Err(too_deep(folder.path()));
        }
        self.check()?;
        for (name, kind) in folder.names()? {
            let path = join(below, &name);
            if pattern.matches(&path) {
                found.push(path);
                continue;
            }
            if !pattern.may_match_below(&path) || self.kind(folder, &name, kind)? != Some(Type::Directory) {
                continue;
            }
            if let Some(inner) = self.view.folder(&join(folder.path(), &name))? {
                self.search(&inner, pattern, &path, found, depth + 1)?;
            }
        }
        Ok(())
    }

    fn expand(&self, name: Vec<u8>, path: Vec<u8>, node: &Node, wanted: Option<&IgnoreFile>) -> Result<Match> {
        let is_dir = node.is_dir();
        if node.kind == Type::Socket {
            let message = format!("{:?} is a socket, which no image can hold", show(&path));
            return Err(Error::invalid(message).with_object(ObjectKind::Option, show(&path)));
        }
        let mut items = Vec::new();
        if !is_dir {
            let whole = Item {
                path: Box::default(),
                kind: node.kind,
                implied: false,
            };
            items.push(whole);
        } else if let Some(folder) = self.view.folder(&path)? {
            let mut walk = Walk {
                selector: self,
                wanted,
                items: &mut items,
                ahead: Vec::new(),
            };
            walk.directory(&folder, b"", (&Below::default(), &Below::default()), 0)?;
        }
        Ok(Match {
            tree: self.tree,
            name,
            path,
            is_dir,
            unpack: self.rules.unpack && node.is_file(),
            items,
        })
    }

    fn kind(&self, folder: &Folder<'_>, name: &[u8], known: Option<Type>) -> Result<Option<Type>> {
        match known {
            Some(kind) => Ok(Some(kind)),
            None => Ok(folder.look(name)?.map(|node| node.kind)),
        }
    }

    fn check(&self) -> Result<()> {
        check(self.stop)
    }

    /// Why there is nothing under a path.
    fn missing(&self, path: &[u8], source: &str) -> Result<Error> {
        let shown = show(path);
        let called = self.called;
        if self.view.is_ignored(path) {
            let message = format!("{source:?} is left out of {called} by its ignore file (.dockerignore)");
            return Ok(Error::new(ErrorKind::NotFound, message).with_object(ObjectKind::Option, shown));
        }
        let mut message = format!("no such file or directory in {called}: {shown:?}");
        // What is near is only a help.
        if let Ok(Some(near)) = self.nearest(path) {
            message += &format!(" (did you mean {near:?}?)");
        }
        Ok(Error::new(ErrorKind::NotFound, message).with_object(ObjectKind::Option, shown))
    }

    /// A path that differs in the first name that is not there.
    fn nearest(&self, path: &[u8]) -> Result<Option<String>> {
        let names: Vec<&[u8]> = parts(path).collect();
        for at in 0..names.len() {
            let led = self.view.follow(b"", &names[..=at].join(&b'/'), true)?;
            if led.node.is_some() {
                continue;
            }
            let above = names[..at].join(&b'/');
            let led = self.view.follow(b"", &above, true)?;
            let Some(folder) = self.view.folder(&led.path)? else {
                return Ok(None);
            };
            let there = folder.names()?;
            let there: Vec<&str> = there
                .iter()
                .filter_map(|(name, _)| std::str::from_utf8(name).ok())
                .collect();
            let written = String::from_utf8_lossy(names[at]);
            // What is there by that name is a link to nothing.
            let near = nearest_variable(&written, there.into_iter().filter(|name| *name != written));
            return Ok(near.map(|near| show(&join(&above, near.as_bytes()))));
        }
        Ok(None)
    }
}

/// Down a directory, with what holds for its parents.
struct Walk<'a, 'b> {
    selector: &'a Selector<'b>,
    wanted: Option<&'a IgnoreFile>,
    items: &'a mut Vec<Item>,
    /// Directories that are only copied if something in them is.
    ahead: Vec<Vec<u8>>,
}

impl Walk<'_, '_> {
    fn directory(
        &mut self,
        folder: &Folder<'_>,
        below: &[u8],
        (wanted, excluded): (&Below, &Below),
        depth: usize,
    ) -> Result<()> {
        if depth > DEEPEST {
            return Err(too_deep(folder.path()));
        }
        self.selector.check()?;
        let excludes = &self.selector.rules.excludes;
        for (name, kind) in folder.names()? {
            let path = join(below, &name);
            let Some(kind) = self.selector.kind(folder, &name, kind)? else {
                continue;
            };
            let now_wanted = self.wanted.map(|patterns| patterns.enter(wanted, &path));
            let now_excluded = match excludes.is_empty() {
                true => Below::default(),
                false => excludes.enter(excluded, &path),
            };
            let is_wanted = now_wanted.as_ref().is_none_or(Below::is_ignored);
            let is_taken = is_wanted && !now_excluded.is_ignored();
            if is_taken && kind != Type::Socket {
                self.take(&path, kind)?;
            }
            if kind != Type::Directory {
                continue;
            }
            if excludes.skips(&now_excluded, &path) {
                continue;
            }
            if !is_wanted && self.wanted.is_some_and(|patterns| !patterns.may_match_below(&path)) {
                continue;
            }
            let Some(inner) = self.selector.view.folder(&join(folder.path(), &name))? else {
                continue;
            };
            if !is_taken {
                self.ahead.push(path.clone());
            }
            let now = (now_wanted.unwrap_or_default(), now_excluded);
            self.directory(&inner, &path, (&now.0, &now.1), depth + 1)?;
            if !is_taken && self.ahead.last() == Some(&path) {
                self.ahead.pop();
            }
        }
        Ok(())
    }

    fn take(&mut self, path: &[u8], kind: Type) -> Result<()> {
        for directory in self.ahead.drain(..) {
            self.items.push(Item {
                path: directory.into(),
                kind: Type::Directory,
                implied: true,
            });
        }
        let name = split(path).1;
        if name.starts_with(b".wh.") {
            return Err(reserved(path));
        }
        self.items.push(Item {
            path: path.into(),
            kind,
            implied: false,
        });
        Ok(())
    }
}

/// A name that would say something else in a layer. Source: OCI image-spec 1.1, layer.md#whiteouts.
pub(super) fn reserved(path: &[u8]) -> Error {
    let shown = show(path);
    let message = format!(
        "{shown:?} cannot be in an image: names that begin with \".wh.\" say in layers what was removed; leave it out by the ignore file or --exclude"
    );
    Error::invalid(message).with_object(ObjectKind::Option, shown)
}

/// A path from the root of a tree: `..` does not lead out of it.
pub(super) fn clean(path: &[u8]) -> Vec<u8> {
    let mut out: Vec<&[u8]> = Vec::new();
    for part in parts(path) {
        match part {
            b".." => drop(out.pop()),
            part => out.push(part),
        }
    }
    out.join(&b'/')
}
