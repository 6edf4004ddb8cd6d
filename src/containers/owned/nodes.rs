//! The kernel's numbers for files, and where these are.
//!
//! A file is known by device and inode, so that two names of one file are one to the kernel as well. No descriptor is held for
//! what is merely known: a tree has more files than a process may have descriptors. What is asked for is looked up by name,
//! and found to be what it was, or gone.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

/// The number of the shown directory itself. Source: `FUSE_ROOT_ID` of the kernel's `fuse.h`.
pub(super) const ROOT: u64 = 1;

/// Numbers from here on are not inodes.
const OWN: u64 = 1 << 62;

/// What makes a file the same.
pub(super) type Key = (u64, u64);

pub(super) fn key(found: &Metadata) -> Key {
    (found.dev(), found.ino())
}

#[derive(Debug)]
struct Node {
    key: Key,
    /// Its names, the latest last.
    places: Vec<(u64, OsString)>,
    /// How often the kernel was told of it.
    lookups: u64,
    /// How many names lie in it.
    children: usize,
    /// Its open files.
    open: Vec<u64>,
}

impl Node {
    fn is_known(&self) -> bool {
        self.lookups > 0 || self.children > 0 || !self.open.is_empty()
    }
}

/// All that the kernel knows of.
#[derive(Debug)]
pub(super) struct Nodes {
    all: HashMap<u64, Node>,
    by_key: HashMap<Key, u64>,
    /// The device of the shown directory.
    device: u64,
    next: u64,
}

impl Nodes {
    pub(super) fn new(root: Key) -> Self {
        let node = Node {
            key: root,
            places: Vec::new(),
            lookups: 1,
            children: 0,
            open: Vec::new(),
        };
        Self {
            all: HashMap::from([(ROOT, node)]),
            by_key: HashMap::from([(root, ROOT)]),
            device: root.0,
            next: OWN,
        }
    }

    /// Tells the kernel of a file once more.
    pub(super) fn found(&mut self, parent: u64, name: &OsStr, key: Key) -> u64 {
        let number = match self.by_key.get(&key) {
            Some(number) => *number,
            None => self.add(key),
        };
        if number != ROOT {
            self.name(number, parent, name);
        }
        if let Some(node) = self.all.get_mut(&number) {
            node.lookups += 1;
        }
        number
    }

    /// By its inode where that is nobody's number: programs compare what a directory lists with what a file says.
    fn add(&mut self, key: Key) -> u64 {
        let (device, inode) = key;
        let is_free = device == self.device && (ROOT + 1..OWN).contains(&inode) && !self.all.contains_key(&inode);
        let number = match is_free {
            true => inode,
            false => {
                self.next += 1;
                self.next
            }
        };
        let node = Node {
            key,
            places: Vec::new(),
            lookups: 0,
            children: 0,
            open: Vec::new(),
        };
        self.all.insert(number, node);
        self.by_key.insert(key, number);
        number
    }

    /// A file that is known has one name more.
    pub(super) fn name_of(&mut self, parent: u64, name: &OsStr, key: Option<Key>) {
        let Some(number) = key.and_then(|key| self.by_key.get(&key).copied()) else {
            return;
        };
        if number != ROOT {
            self.name(number, parent, name);
        }
    }

    fn name(&mut self, number: u64, parent: u64, name: &OsStr) {
        let Some(node) = self.all.get_mut(&number) else { return };
        let is_same = |place: &(u64, OsString)| place.0 == parent && place.1 == name;
        match node.places.iter().position(is_same) {
            Some(index) => {
                let last = node.places.remove(index);
                node.places.push(last);
            }
            None => {
                node.places.push((parent, name.to_owned()));
                if let Some(parent) = self.all.get_mut(&parent) {
                    parent.children += 1;
                }
            }
        }
    }

    /// A name is no longer that of the file that had it.
    pub(super) fn unname(&mut self, parent: u64, name: &OsStr, key: Option<Key>) {
        let Some(number) = key.and_then(|key| self.by_key.get(&key).copied()) else {
            return;
        };
        let Some(node) = self.all.get_mut(&number) else { return };
        let before = node.places.len();
        node.places.retain(|place| place.0 != parent || place.1 != name);
        if node.places.len() < before {
            self.child_gone(parent);
        }
    }

    /// The kernel has forgotten a file so often.
    pub(super) fn forget(&mut self, number: u64, lookups: u64) {
        if let Some(node) = self.all.get_mut(&number) {
            node.lookups = node.lookups.saturating_sub(lookups);
        }
        self.drop_unknown(number);
    }

    pub(super) fn opened(&mut self, number: u64, handle: u64) {
        if let Some(node) = self.all.get_mut(&number) {
            node.open.push(handle);
        }
    }

    pub(super) fn closed(&mut self, number: u64, handle: u64) {
        if let Some(node) = self.all.get_mut(&number) {
            node.open.retain(|open| *open != handle);
        }
        self.drop_unknown(number);
    }

    /// A file of it that is open.
    pub(super) fn any_open(&self, number: u64) -> Option<u64> {
        self.all.get(&number)?.open.last().copied()
    }

    pub(super) fn key_of(&self, number: u64) -> Option<Key> {
        self.all.get(&number).map(|node| node.key)
    }

    /// Its names, the latest first: the directory's number and the name in it.
    pub(super) fn places(&self, number: u64) -> Vec<(u64, OsString)> {
        let node = self.all.get(&number);
        node.map(|node| node.places.iter().rev().cloned().collect())
            .unwrap_or_default()
    }

    /// The way from the root to a file; nothing if it has no name any more.
    pub(super) fn way(&self, number: u64) -> Option<Vec<OsString>> {
        let mut way = Vec::new();
        let mut at = number;
        while at != ROOT {
            // Directories have one name, and a way back to where it began leads nowhere.
            if way.len() > self.all.len() {
                return None;
            }
            let (parent, name) = self.all.get(&at)?.places.last()?;
            way.push(name.clone());
            at = *parent;
        }
        way.reverse();
        Some(way)
    }

    fn child_gone(&mut self, parent: u64) {
        if let Some(node) = self.all.get_mut(&parent) {
            node.children = node.children.saturating_sub(1);
        }
        self.drop_unknown(parent);
    }

    fn drop_unknown(&mut self, number: u64) {
        let mut gone = vec![number];
        while let Some(number) = gone.pop() {
            let is_known = self.all.get(&number).is_none_or(Node::is_known);
            if number == ROOT || is_known {
                continue;
            }
            let Some(node) = self.all.remove(&number) else { continue };
            self.by_key.remove(&node.key);
            for (parent, _) in node.places {
                if let Some(node) = self.all.get_mut(&parent) {
                    node.children = node.children.saturating_sub(1);
                    gone.push(parent);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(nodes: &Nodes, number: u64) -> Option<String> {
        let way = nodes.way(number)?;
        Some(way.join(OsStr::new("/")).to_string_lossy().into_owned())
    }

    #[test]
    fn j7_what_the_kernel_forgot_is_gone_and_what_lies_above_it() {
        let mut nodes = Nodes::new((1, 1));
        let dir = nodes.found(ROOT, OsStr::new("d"), (1, 2));
        let file = nodes.found(dir, OsStr::new("f"), (1, 3));
        assert_eq!(way(&nodes, file).as_deref(), Some("d/f"));
        nodes.forget(dir, 1);
        assert_eq!(way(&nodes, file).as_deref(), Some("d/f"), "it leads to what is known");
        nodes.opened(file, 7);
        nodes.forget(file, 1);
        assert_eq!(nodes.any_open(file), Some(7));
        nodes.closed(file, 7);
        assert_eq!(nodes.all.len(), 1, "{nodes:?}");
        assert_eq!(nodes.by_key.len(), 1);
        nodes.forget(ROOT, u64::MAX);
        assert_eq!(nodes.all.len(), 1, "the root is always known");
    }

    #[test]
    fn j7_names_come_and_go() {
        let mut nodes = Nodes::new((1, 1));
        let file = nodes.found(ROOT, OsStr::new("a"), (1, 3));
        assert_eq!(
            nodes.found(ROOT, OsStr::new("b"), (1, 3)),
            file,
            "two names of one file"
        );
        assert_eq!(way(&nodes, file).as_deref(), Some("b"));
        nodes.unname(ROOT, OsStr::new("b"), Some((1, 3)));
        assert_eq!(way(&nodes, file).as_deref(), Some("a"));
        nodes.unname(ROOT, OsStr::new("a"), Some((1, 3)));
        assert_eq!(way(&nodes, file), None);
        nodes.forget(file, 2);
        assert_eq!(nodes.all.len(), 1);
    }

    #[test]
    fn j7_a_circle_of_names_ends() {
        let mut nodes = Nodes::new((1, 1));
        let outer = nodes.found(ROOT, OsStr::new("o"), (1, 2));
        let inner = nodes.found(outer, OsStr::new("i"), (1, 3));
        // The host turned them around meanwhile.
        nodes.found(inner, OsStr::new("o"), (1, 2));
        assert_eq!(way(&nodes, inner), None);
    }
}
