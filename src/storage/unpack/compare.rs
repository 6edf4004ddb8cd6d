//! Whether two trees are the same: kinds, modes, owners, sizes, contents, targets and devices. Times are not looked at: those
//! of implied directories are their parents', and a tree is no less whole for another.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::sys::order;

const CHUNK: usize = 128 << 10;

/// The first path at which they differ. Files and directories that this user may not read are taken at their word. Blocking.
pub(super) fn difference(one: &Path, other: &Path) -> Result<Option<PathBuf>> {
    let mut waiting = vec![PathBuf::new()];
    while let Some(dir) = waiting.pop() {
        let (Some(mut here), Some(mut there)) = (names(&one.join(&dir))?, names(&other.join(&dir))?) else {
            continue;
        };
        order::sort(&mut here);
        order::sort(&mut there);
        if let Some(odd) = here.iter().find(|name| !there.contains(name)) {
            return Ok(Some(dir.join(odd)));
        }
        if let Some(odd) = there.iter().find(|name| here.binary_search(name).is_err()) {
            return Ok(Some(dir.join(odd)));
        }
        for name in here {
            let path = dir.join(name);
            match same(&one.join(&path), &other.join(&path))? {
                Same::Not => return Ok(Some(path)),
                Same::Directories => waiting.push(path),
                Same::Others => {}
            }
        }
    }
    Ok(None)
}

enum Same {
    Not,
    Directories,
    Others,
}

/// None where this user may not look.
fn names(dir: &Path) -> Result<Option<Vec<std::ffi::OsString>>> {
    let failed = |error| Error::os(format!("read {}", dir.display()), error);
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
        entries => entries.map_err(failed)?,
    };
    let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
    names.collect::<io::Result<_>>().map(Some).map_err(failed)
}

fn same(one: &Path, other: &Path) -> Result<Same> {
    let look = |path: &Path| fs::symlink_metadata(path).map_err(|e| Error::os(format!("stat {}", path.display()), e));
    let (here, there) = (look(one)?, look(other)?);
    let of = |meta: &Metadata| (meta.mode(), meta.uid(), meta.gid(), meta.rdev());
    if of(&here) != of(&there) {
        return Ok(Same::Not);
    }
    let kind = here.file_type();
    if kind.is_dir() {
        return Ok(Same::Directories);
    }
    let equal = match () {
        () if kind.is_symlink() => fs::read_link(one).ok() == fs::read_link(other).ok(),
        () if kind.is_char_device() || kind.is_block_device() || kind.is_fifo() || kind.is_socket() => true,
        () => here.len() == there.len() && same_bytes(one, other)?,
    };
    Ok(if equal { Same::Others } else { Same::Not })
}

fn same_bytes(one: &Path, other: &Path) -> Result<bool> {
    let failed = |error| Error::os(format!("read {}", one.display()), error);
    let (mut one, mut other) = match (File::open(one), File::open(other)) {
        (Ok(one), Ok(other)) => (one, other),
        (Err(error), _) | (_, Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(true),
        (one, other) => (one.map_err(failed)?, other.map_err(failed)?),
    };
    let (mut here, mut there) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let length = one.read(&mut here).map_err(failed)?;
        if length == 0 {
            return Ok(true);
        }
        if other.read_exact(&mut there[..length]).is_err() || here[..length] != there[..length] {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn tree(dir: &Path) {
        fs::create_dir_all(dir.join("etc/deep")).unwrap();
        fs::write(dir.join("etc/passwd"), "root").unwrap();
        fs::write(dir.join("etc/deep/file"), vec![7; 300_000]).unwrap();
        symlink("passwd", dir.join("etc/link")).unwrap();
    }

    #[test]
    fn k9_every_difference_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("model");
        tree(&model);
        type Change = fn(&Path);
        let changes: [(&str, Change); 6] = [
            ("etc/deep/file", |tree| {
                fs::remove_file(tree.join("etc/deep/file")).unwrap()
            }),
            ("etc/passwd", |tree| fs::write(tree.join("etc/passwd"), "toor").unwrap()),
            ("etc/deep/file", |tree| {
                fs::write(tree.join("etc/deep/file"), vec![7; 299_999]).unwrap()
            }),
            ("etc/more", |tree| fs::write(tree.join("etc/more"), "").unwrap()),
            ("etc/link", |tree| {
                fs::remove_file(tree.join("etc/link")).unwrap();
                symlink("shadow", tree.join("etc/link")).unwrap();
            }),
            ("etc/deep", |tree| {
                fs::set_permissions(tree.join("etc/deep"), fs::Permissions::from_mode(0o700)).unwrap();
            }),
        ];
        for (number, (expected, change)) in changes.into_iter().enumerate() {
            let other = dir.path().join(number.to_string());
            tree(&other);
            assert_eq!(difference(&model, &other).unwrap(), None);
            change(&other);
            assert_eq!(difference(&model, &other).unwrap(), Some(expected.into()));
            assert_eq!(difference(&other, &model).unwrap(), Some(expected.into()));
        }
    }
}
