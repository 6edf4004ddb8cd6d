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
        // Layers of an ordinary user belong to ids of his range, and overlayfs leaves directories without permissions: what
        // cannot be removed plainly is removed in a user namespace that maps them.
        // An engine that goes at this moment may still write.
        for _ in 0..50 {
            match std::fs::remove_dir_all(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {}
                Err(_) if path.exists() => break,
                _ => return,
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        if path.exists() {
            let _ = std::process::Command::new("unshare")
                .args(["--user", "--map-root-user", "--map-auto", "rm", "-rf"])
                .arg(&path)
                .stderr(std::process::Stdio::null())
                .status();
        }
    }
}
