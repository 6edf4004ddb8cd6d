//! Names of entries: cleaned or refused, and what a whiteout's name says.

use super::limits::Limits;
use super::tar::bad;
use crate::error::Result;

/// What an entry's path means. Source: OCI image-spec 1.1, layer.md#whiteouts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// The root of the layer.
    Root,
    /// A file or directory: its directory and its name.
    Path { parent: Vec<u8>, name: Vec<u8> },
    /// `.wh.<name>`: what the layers below have there is gone.
    Whiteout { parent: Vec<u8>, name: Vec<u8> },
    /// `.wh..wh..opq`: all that the layers below have in this directory is gone.
    Opaque { dir: Vec<u8> },
}

/// Cleans a path as Docker does: no leading `/`, no empty or `.` components, `..` taken by its name. One that leaves the
/// root is refused, and so is one that the kernel would not take.
pub(crate) fn clean(path: &[u8], limits: &Limits) -> Result<Vec<u8>> {
    if path.contains(&0) || path.len() > limits.path_bytes {
        return Err(bad(format!("a path of {} bytes, or with a NUL byte", path.len())));
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts
                    .pop()
                    .ok_or_else(|| bad(format!("a path that leaves the layer: {}", show(path))))?;
            }
            part if part.len() > 255 => return Err(bad("a name of more than 255 bytes")),
            part => parts.push(part),
        }
    }
    if parts.len() > limits.path_depth {
        return Err(bad(format!("a path of {} components", parts.len())));
    }
    Ok(parts.join(&b'/'))
}

/// Reads an entry's path.
pub(crate) fn target(path: &[u8], limits: &Limits) -> Result<Target> {
    let clean = clean(path, limits)?;
    if clean.is_empty() {
        return Ok(Target::Root);
    }
    let (parent, name) = split(&clean);
    if parent.split(|&b| b == b'/').any(|part| part.starts_with(b".wh.")) {
        return Err(bad(format!("a path through a whiteout: {}", show(path))));
    }
    let Some(hidden) = name.strip_prefix(b".wh.") else {
        return Ok(Target::Path {
            parent: parent.to_vec(),
            name: name.to_vec(),
        });
    };
    match hidden {
        b".wh..opq" => Ok(Target::Opaque { dir: parent.to_vec() }),
        b"" | b"." | b".." => Err(bad(format!("a whiteout of nothing: {}", show(path)))),
        hidden if hidden.starts_with(b".wh.") => Err(bad(format!("a reserved whiteout name: {}", show(path)))),
        hidden => Ok(Target::Whiteout {
            parent: parent.to_vec(),
            name: hidden.to_vec(),
        }),
    }
}

/// A clean path's directory and name.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// A clean path of a directory and a name in it.
pub(crate) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() {
        return name.to_vec();
    }
    [parent, name].join(&b'/')
}

/// A path for messages: at most 200 characters, nothing that a terminal would act on.
pub(crate) fn show(path: &[u8]) -> String {
    path.escape_ascii().take(200).map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str) -> Result<Target> {
        target(path.as_bytes(), &Limits::default())
    }

    #[test]
    fn paths_are_cleaned() {
        let path = |parent: &str, name: &str| Target::Path {
            parent: parent.into(),
            name: name.into(),
        };
        assert_eq!(of("./").unwrap(), Target::Root);
        assert_eq!(of("/etc//./passwd").unwrap(), path("etc", "passwd"));
        assert_eq!(of("a/../b").unwrap(), path("", "b"));
        assert_eq!(
            of("a/.wh.b").unwrap(),
            Target::Whiteout {
                parent: "a".into(),
                name: "b".into()
            }
        );
        assert_eq!(of(".wh..wh..opq").unwrap(), Target::Opaque { dir: "".into() });
    }

    #[test]
    fn escapes_are_refused() {
        for bad in [
            "..",
            "../x",
            "a/../../x",
            "/..",
            "a\0b",
            ".wh.",
            ".wh...",
            ".wh..",
            ".wh..wh.plnk",
            ".wh.a/b",
            "a/.wh..wh.x",
        ] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
        assert!(of(&"x".repeat(256)).is_err() && of(&"x/".repeat(300)).is_err() && of(&"x".repeat(5000)).is_err());
    }
}
