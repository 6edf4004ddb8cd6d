//! What an archive holds, by path. Pure.

use std::collections::BTreeMap;

use crate::error::{Error, ErrorKind, Result};
use crate::types::Digest;

/// Links to links: how many are followed.
const MAX_LINKS: usize = 16;

/// A file of an archive, which is in the content store now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::images) struct Stored {
    pub(in crate::images) digest: Digest,
    pub(in crate::images) size: u64,
}

/// The files of an archive by their paths, and its links.
#[derive(Debug, Default)]
pub(in crate::images) struct Contents {
    files: BTreeMap<String, Stored>,
    links: BTreeMap<String, String>,
}

impl Contents {
    /// A later entry of the same path counts, as with every reader of tars.
    pub(super) fn add(&mut self, path: String, stored: Stored) {
        self.links.remove(&path);
        self.files.insert(path, stored);
    }

    /// A link, symbolic or hard: Docker before 25 and podman save a layer that two images share once, and link to it.
    pub(super) fn add_link(&mut self, path: String, target: String) {
        self.files.remove(&path);
        self.links.insert(path, target);
    }

    /// The file of a path, which an archive's own metadata names.
    pub(super) fn file(&self, path: &str) -> Result<Option<Stored>> {
        let mut path = inside("", path)?;
        for _ in 0..MAX_LINKS {
            if let Some(stored) = self.files.get(&path) {
                return Ok(Some(*stored));
            }
            match self.links.get(&path) {
                Some(target) => path.clone_from(target),
                None => return Ok(None),
            }
        }
        Err(unsafe_name("links in a circle", &path))
    }

    /// The blob of a layout.
    pub(super) fn blob(&self, digest: &Digest) -> Option<Stored> {
        let path = format!("blobs/sha256/{}", digest.hex());
        self.file(&path)
            .ok()
            .flatten()
            .filter(|stored| stored.digest == *digest)
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }
}

/// A path as a path of the archive, told from a directory of it.
///
/// # Errors
/// `UnsafeArchive` for one that leads out of the archive, and for one that is no text.
pub(super) fn inside(dir: &str, path: &str) -> Result<String> {
    if path.starts_with('/') || path.contains('\0') {
        return Err(unsafe_name("an absolute path", path));
    }
    let mut parts: Vec<&str> = dir.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop().ok_or_else(|| unsafe_name("a path out of it", path))?),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

/// The directory of a path.
pub(super) fn dir_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

pub(super) fn text(bytes: &[u8]) -> Result<&str> {
    let shown = || String::from_utf8_lossy(bytes).into_owned();
    std::str::from_utf8(bytes).map_err(|_| unsafe_name("a path that is no text", &shown()))
}

pub(super) fn unsafe_name(what: &str, name: &str) -> Error {
    let shown: String = name.chars().filter(|c| !c.is_control()).take(120).collect();
    Error::new(ErrorKind::UnsafeArchive, format!("the archive has {what}: {shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        for (dir, path, expected) in [
            ("", "./a//b/", "a/b"),
            ("x/y", "../z/layer.tar", "x/z/layer.tar"),
            ("x", "..", ""),
            ("", "a/../b", "b"),
        ] {
            assert_eq!(inside(dir, path).unwrap(), expected, "{dir:?} {path:?}");
        }
        for (dir, path) in [
            ("", "../a"),
            ("", "/etc/passwd"),
            ("x", "../../a"),
            ("", "a/../../b"),
            ("", "a\0b"),
        ] {
            assert_eq!(
                inside(dir, path).unwrap_err().kind(),
                &ErrorKind::UnsafeArchive,
                "{path:?}"
            );
        }
        assert_eq!(text(b"\xff").unwrap_err().kind(), &ErrorKind::UnsafeArchive);
    }

    #[test]
    fn links_are_followed_and_circles_found() {
        let stored = Stored {
            digest: Digest::of(b"x"),
            size: 1,
        };
        let mut contents = Contents::default();
        contents.add("a/layer.tar".into(), stored);
        contents.add_link("b/layer.tar".into(), "a/layer.tar".into());
        contents.add_link("c".into(), "d".into());
        contents.add_link("d".into(), "c".into());
        assert_eq!(contents.file("./b/layer.tar").unwrap(), Some(stored));
        assert_eq!(contents.file("nothing").unwrap(), None);
        assert_eq!(contents.file("c").unwrap_err().kind(), &ErrorKind::UnsafeArchive);
    }
}
