//! Files of a layout, opened without ever following a symbolic link: a layout may have come out of a stranger's archive.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::types::Digest;

/// An open layout directory.
#[derive(Debug)]
pub(super) struct LayoutDir {
    root: OwnedFd,
    shown: String,
}

impl LayoutDir {
    /// Opens a directory. The path itself is the caller's and may go through links.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let shown = path.display().to_string();
        let root = open(
            path,
            OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_RDONLY,
            Mode::empty(),
        )
        .map_err(|errno| {
            Error::os("open the image layout", io::Error::from(errno)).with_object(ObjectKind::Image, shown.clone())
        })?;
        Ok(Self { root, shown })
    }

    /// What to call the layout in messages.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Reads a small file at the top.
    pub(super) fn read_top(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let (file, size) = self.file(&[name])?;
        self.read(file, size, name, limit)
    }

    /// Opens a blob and tells its size in bytes.
    pub(super) fn blob(&self, digest: &Digest) -> Result<(File, u64)> {
        self.file(&["blobs", "sha256", &digest.hex()])
    }

    /// Reads a whole small blob.
    pub(super) fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let (file, size) = self.blob(digest)?;
        self.read(file, size, &digest.to_string(), limit)
    }

    fn read(&self, file: File, size: u64, name: &str, limit: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // The size is a hint only: the file may grow while it is read.
        if size <= limit {
            file.take(limit + 1)
                .read_to_end(&mut bytes)
                .map_err(|error| self.failed(name, error))?;
        }
        if size > limit || bytes.len() as u64 > limit {
            let message = format!("{name} in the image layout {} is larger than {limit} bytes", self.shown);
            return Err(Error::new(ErrorKind::InvalidArgument, message).with_object(ObjectKind::Manifest, name));
        }
        Ok(bytes)
    }

    fn file(&self, path: &[&str]) -> Result<(File, u64)> {
        let name = path.join("/");
        let Some((last, folders)) = path.split_last() else {
            return Err(Error::internal("an empty path in a layout"));
        };
        let mut at: Option<OwnedFd> = None;
        for folder in folders {
            let next = self.step(
                at.as_ref().map_or(self.root.as_fd(), OwnedFd::as_fd),
                folder,
                OFlag::O_DIRECTORY,
                &name,
            )?;
            at = Some(next);
        }
        // Without O_NONBLOCK, opening a FIFO would wait for a writer.
        let fd = self.step(
            at.as_ref().map_or(self.root.as_fd(), OwnedFd::as_fd),
            last,
            OFlag::O_NONBLOCK,
            &name,
        )?;
        let file = File::from(fd);
        let meta = file.metadata().map_err(|error| self.failed(&name, error))?;
        if !fs::FileType::is_file(&meta.file_type()) {
            return Err(self.hostile(&name, "is not a regular file"));
        }
        Ok((file, meta.len()))
    }

    fn step(&self, at: BorrowedFd<'_>, part: &str, flags: OFlag, name: &str) -> Result<OwnedFd> {
        let flags = flags | OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(at, part, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::ENOENT => self.missing(name),
            // O_NOFOLLOW gives ELOOP, and ENOTDIR where a directory was wanted.
            Errno::ELOOP | Errno::ENOTDIR => self.hostile(name, "is a symbolic link, or no directory"),
            Errno::ENXIO => self.hostile(name, "is not a regular file"),
            errno => self.failed(name, io::Error::from(errno)),
        })
    }

    fn missing(&self, name: &str) -> Error {
        let message = format!("there is no {name} in the image layout {}", self.shown);
        Error::new(ErrorKind::NotFound, message).with_object(ObjectKind::Image, self.shown.clone())
    }

    fn hostile(&self, name: &str, why: &str) -> Error {
        let message = format!("{name} in the image layout {} {why}", self.shown);
        Error::new(ErrorKind::UnsafeArchive, message).with_object(ObjectKind::Image, self.shown.clone())
    }

    fn failed(&self, name: &str, error: io::Error) -> Error {
        Error::os("read the image layout", error)
            .context(format!("reading {name} in the image layout {} failed", self.shown))
    }
}
