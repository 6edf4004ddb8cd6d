//! Roots for engines.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::scratch;

/// A directory for an engine's root, on the disk that `TMPDIR` names.
#[derive(Debug)]
pub struct TempRoot {
    path: PathBuf,
    dir: Option<TempDir>,
}

impl TempRoot {
    pub fn new() -> Self {
        let dir = scratch::fresh("root");
        Self {
            path: dir.path().to_path_buf(),
            dir: Some(dir),
        }
    }

    /// One that others use as well, and that stays.
    pub fn shared(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
            dir: None,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempRoot {
    fn drop(&mut self) {
        let Some(dir) = self.dir.take() else { return };
        let path = dir.keep();
        // An engine that goes at this moment may still write, and overlayfs leaves directories without permissions.
        for _ in 0..200 {
            let removed = std::fs::remove_dir_all(&path);
            if removed.is_ok() || !path.exists() {
                return;
            }
            remove_as_mapped_root(&path);
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// Layers of an ordinary user belong to ids of his range, and may have no permissions for himself: they are removed in a
/// user namespace, with his range where he has one.
fn remove_as_mapped_root(path: &Path) {
    for maps in [&["--map-root-user", "--map-auto"][..], &["--map-root-user"]] {
        let _ = std::process::Command::new("unshare")
            .arg("--user")
            .args(maps)
            .args(["rm", "-rf"])
            .arg(path)
            .stderr(std::process::Stdio::null())
            .status();
        if !path.exists() {
            return;
        }
    }
}
