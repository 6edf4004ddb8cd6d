//! What differs from the tree below.

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::SystemTime;

use super::ground::{Dir, too_deep};
use super::node::{Node, Type};
use super::{DEEPEST, LayerReader};
use crate::error::{Error, Result};
use crate::storage::layer::name::{join, split};
use crate::types::{Change, ChangeKind};

/// A path to be written into a layer.
#[derive(Debug)]
pub(super) struct Step {
    /// Without a leading `/`; empty for the root.
    pub(super) path: Vec<u8>,
    /// `None` while it is not known whether there is a change.
    kind: Option<ChangeKind>,
    /// Whether it is a change to tell of. A directory whose time alone is another, and a file that has got or lost another
    /// name, are none.
    listed: bool,
    /// The inode of an unchanged file with several names.
    link: Option<(u64, u64)>,
}

impl Step {
    pub(super) fn kind(&self) -> ChangeKind {
        self.kind.unwrap_or(ChangeKind::Modified)
    }

    pub(super) fn listed(self) -> Option<Change> {
        let kind = self.kind.filter(|_| self.listed && !self.path.is_empty())?;
        let path = [b"/", self.path.as_slice()].concat();
        let path = PathBuf::from(std::ffi::OsString::from_vec(path));
        Some(Change { path, kind })
    }
}

/// A name of a directory, looked at.
struct Seen {
    name: Vec<u8>,
    kind: Option<ChangeKind>,
    listed: bool,
    link: Option<(u64, u64)>,
    inside: Option<Inside>,
    /// A place for a mount, to be left out if nothing is in it.
    place: bool,
}

/// How to go on into a directory.
struct Inside {
    /// The layers below that have it, too.
    old: Vec<usize>,
    /// Whether nothing of the layers below shows through.
    complete: bool,
}

/// What the layers below have under a name.
struct Below<'a, 'b> {
    dir: &'a Dir<'b>,
    node: Node,
    dirs: Vec<usize>,
}

struct Comparison<'a> {
    reader: &'a LayerReader,
    steps: Vec<Step>,
    /// Inodes with several names, one of which is changed.
    changed: HashSet<(u64, u64)>,
}

/// As stat(2) tells times.
pub(super) fn time_of(time: SystemTime) -> (i64, i64) {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        since.subsec_nanos().into(),
    )
}

impl LayerReader {
    /// All that differs, in the order of a layer: directories before what is in them, names sorted.
    pub(super) fn compare(&self) -> Result<Vec<Step>> {
        let mut comparison = Comparison {
            reader: self,
            steps: Vec::new(),
            changed: HashSet::new(),
        };
        comparison.root()?;
        let old: Vec<usize> = (0..self.old.len()).collect();
        comparison.directory(b"", &old, self.merged, 0)?;
        comparison.take_links_along();
        let mut steps = comparison.steps;
        steps.retain(|step| step.kind.is_some());
        Ok(steps)
    }

    /// The directories of layers below at a path, as far as they show through each other.
    fn below(&self, path: &[u8], layers: &[usize]) -> Result<Vec<(usize, Dir<'_>)>> {
        let mut out = Vec::new();
        for &layer in layers {
            let Some(ground) = self.old.get(layer) else { continue };
            let Some(dir) = ground.dir(path)? else { continue };
            let last = dir.is_opaque()?;
            out.push((layer, dir));
            if last {
                break;
            }
        }
        Ok(out)
    }
}

/// What overlay shows of a name: the topmost, and of directories all that merge with it.
fn look_up<'a, 'b>(dirs: &'a [(usize, Dir<'b>)], name: &[u8], marks: bool) -> Result<Option<Below<'a, 'b>>> {
    let mut found: Option<Below<'a, 'b>> = None;
    for (layer, dir) in dirs {
        let Some(node) = dir.node(name)? else { continue };
        if marks && node.is_whiteout() {
            break;
        }
        if !node.is_dir() {
            return Ok(found.or(Some(Below {
                dir,
                node,
                dirs: Vec::new(),
            })));
        }
        let found = found.get_or_insert_with(|| Below {
            dir,
            node,
            dirs: Vec::new(),
        });
        found.dirs.push(*layer);
    }
    Ok(found)
}

impl Comparison<'_> {
    /// The root is never listed; its time says when the container was made.
    fn root(&mut self) -> Result<()> {
        let old = match self.reader.old.first() {
            Some(ground) => ground.dir(b"")?,
            None => None,
        };
        let (Some(new), Some(old)) = (self.reader.new.dir(b"")?, old) else {
            return Ok(());
        };
        let ((new, attributes), (old, before)) = (new.own_node()?, old.own_node()?);
        if !new.looks_like(&old) || attributes != before {
            self.push(b"", Some(ChangeKind::Modified), false);
        }
        Ok(())
    }

    fn push(&mut self, path: &[u8], kind: Option<ChangeKind>, listed: bool) {
        self.steps.push(Step {
            path: path.to_vec(),
            kind,
            listed,
            link: None,
        });
    }

    /// Compares what is in a directory; returns whether something is to be told of, and whether something is to be written.
    fn directory(&mut self, path: &[u8], old: &[usize], complete: bool, depth: usize) -> Result<(bool, bool)> {
        if depth > DEEPEST {
            return Err(too_deep(path));
        }
        let seen = self.look_into(path, old, complete)?;
        let (mut listed, mut written) = (false, false);
        for one in seen {
            let at = self.steps.len();
            let child = join(path, &one.name);
            self.steps.push(Step {
                path: child.clone(),
                kind: one.kind,
                listed: one.listed,
                link: one.link,
            });
            let mut below = (false, false);
            if let Some(inside) = &one.inside {
                below = self.directory(&child, &inside.old, inside.complete, depth + 1)?;
            }
            let Some(step) = self.steps.get_mut(at) else { continue };
            if one.place && !below.1 {
                step.kind = None;
            } else if below.1 {
                step.kind = step.kind.or(Some(ChangeKind::Modified));
                step.listed |= below.0;
            }
            listed |= step.kind.is_some() && step.listed;
            written |= step.kind.is_some();
        }
        Ok((listed, written))
    }

    /// Looks at every name of a directory. Nothing stays open behind it.
    fn look_into(&mut self, path: &[u8], old: &[usize], complete: bool) -> Result<Vec<Seen>> {
        let Some(new) = self.reader.new.dir(path)? else {
            return Ok(Vec::new());
        };
        let complete = complete || new.is_opaque()?;
        let below = self.reader.below(path, old)?;
        let mut names = new.names()?;
        if complete {
            for (_, dir) in &below {
                names.extend(dir.names()?);
            }
            names.sort_unstable();
            names.dedup();
        }
        let mut out = Vec::new();
        for name in names {
            out.extend(self.look_at(&new, &below, path, name, complete)?);
        }
        Ok(out)
    }

    fn look_at(
        &mut self,
        new: &Dir<'_>,
        below: &[(usize, Dir<'_>)],
        path: &[u8],
        name: Vec<u8>,
        complete: bool,
    ) -> Result<Option<Seen>> {
        let marks = self.reader.new.has_marks();
        let there = new.node(&name)?;
        let hidden = there.as_ref().is_some_and(|node| marks && node.is_whiteout());
        let old = look_up(below, &name, marks)?;
        let Some(mut node) = there.filter(|_| !hidden) else {
            // A name that went away since the directory was read was only there in the upper layer.
            let deleted = old.is_some() && (hidden || complete);
            return Ok(deleted.then(|| Seen::of(name, ChangeKind::Deleted)));
        };
        let Some(old) = old else {
            if node.is_dir() {
                // For what must not be there.
                new.dress(&name, &mut node)?;
            }
            if node.is_linked() {
                self.changed.insert(node.identity);
            }
            let place = self.reader.places.contains(&join(path, &name)) && (node.is_dir() || node.size == 0);
            let empty_place = place && !node.is_dir();
            let inside = node.is_dir().then(|| Inside {
                old: Vec::new(),
                complete: true,
            });
            return Ok((!empty_place).then(|| Seen {
                inside,
                place,
                ..Seen::of(name, ChangeKind::Added)
            }));
        };
        self.both(new, old, path, name, node, complete).map(Some)
    }

    /// A name that both have.
    fn both(
        &mut self,
        new: &Dir<'_>,
        old: Below<'_, '_>,
        path: &[u8],
        name: Vec<u8>,
        mut node: Node,
        complete: bool,
    ) -> Result<Seen> {
        let mut before = old.node.clone();
        let same = !node.is_other_file(&before)
            && self.same_attributes((new, &mut node), (old.dir, &mut before), &name)?
            && self.same_content(new, old.dir, &name, (&node, &old.node))?;
        let only_time = same && node.is_dir() && node.mtime != before.mtime && !self.holds_places(&join(path, &name));
        let only_names = same && !node.is_dir() && node.links != before.links;
        let kind = (!same || only_time || only_names).then_some(ChangeKind::Modified);
        if kind.is_some() && node.is_linked() {
            self.changed.insert(node.identity);
        }
        let inside = node.is_dir().then_some(Inside {
            old: old.dirs,
            complete: complete || !before.is_dir(),
        });
        Ok(Seen {
            kind,
            listed: !same,
            link: (kind.is_none() && node.is_linked()).then_some(node.identity),
            inside,
            place: false,
            name,
        })
    }

    /// Whether all is the same but the content. Both nodes have the container's owners then.
    fn same_attributes(&self, new: (&Dir<'_>, &mut Node), old: (&Dir<'_>, &mut Node), name: &[u8]) -> Result<bool> {
        let attributes = new.0.dress(name, new.1)?;
        let before = old.0.dress(name, old.1)?;
        Ok(new.1.looks_like(old.1) && attributes == before)
    }

    /// Whether places for mounts are made in a directory, or it is one.
    fn holds_places(&self, path: &[u8]) -> bool {
        let places = &self.reader.places;
        places.contains(path) || places.iter().any(|place| split(place).0 == path)
    }

    fn same_content(&self, new: &Dir<'_>, old: &Dir<'_>, name: &[u8], nodes: (&Node, &Node)) -> Result<bool> {
        let (node, before) = nodes;
        match node.kind {
            Type::Symlink => Ok(new.link(name)? == old.link(name)?),
            Type::File if node.size > 0 && self.may_be_touched(node) => {
                match (new.open(name, node)?, old.open(name, before)?) {
                    (Some(new), Some(old)) => same_bytes(new, old),
                    _ => Ok(false),
                }
            }
            _ => Ok(true),
        }
    }

    /// The time of a change of the inode is the kernel's own, which no program can set back.
    fn may_be_touched(&self, node: &Node) -> bool {
        self.reader.untouched.is_none_or(|untouched| node.ctime >= untouched)
    }

    /// Files of which one name is written are written under all of their names: they stay one file.
    fn take_links_along(&mut self) {
        let mut above = BTreeSet::new();
        for step in &mut self.steps {
            if step.link.is_some_and(|inode| self.changed.contains(&inode)) {
                step.kind = Some(ChangeKind::Modified);
                let mut parent = split(&step.path).0;
                while !parent.is_empty() && above.insert(parent.to_vec()) {
                    parent = split(parent).0;
                }
            }
        }
        for step in &mut self.steps {
            if step.kind.is_none() && above.contains(&step.path) {
                step.kind = Some(ChangeKind::Modified);
            }
        }
    }
}

impl Seen {
    fn of(name: Vec<u8>, kind: ChangeKind) -> Self {
        Self {
            name,
            kind: Some(kind),
            listed: true,
            link: None,
            inside: None,
            place: false,
        }
    }
}

fn same_bytes(mut one: File, mut other: File) -> Result<bool> {
    let failed = |e| Error::os("read a file to compare", e);
    let (mut left, mut right) = (Vec::new(), Vec::new());
    loop {
        left.clear();
        right.clear();
        (&mut one).take(256 << 10).read_to_end(&mut left).map_err(failed)?;
        (&mut other).take(256 << 10).read_to_end(&mut right).map_err(failed)?;
        if left != right {
            return Ok(false);
        }
        if left.is_empty() {
            return Ok(true);
        }
    }
}
