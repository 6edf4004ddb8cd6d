//! What is open: files, and directories with the names that were in them when they were read.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStringExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use fuser::FileType;
use nix::dir::{Dir, Type};
use nix::errno::Errno;

/// An entry of a directory.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    pub(super) inode: u64,
    pub(super) kind: FileType,
    pub(super) name: OsString,
}

/// A file or directory that somebody has open.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) file: File,
    listed: Mutex<Option<Arc<[Listed]>>>,
}

impl Open {
    /// What is in a directory: read at its beginning, and then the same until it is read from the beginning again.
    pub(super) fn list(&self, from_start: bool) -> Result<Arc<[Listed]>, Errno> {
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        match &*listed {
            Some(list) if !from_start => Ok(Arc::clone(list)),
            _ => {
                let list = read(&self.file)?;
                *listed = Some(Arc::clone(&list));
                Ok(list)
            }
        }
    }
}

fn read(dir: &File) -> Result<Arc<[Listed]>, Errno> {
    use nix::fcntl::{OFlag, openat};
    use nix::sys::stat::Mode;
    // A descriptor of its own: the position in a directory belongs to the open file.
    let own = openat(dir, ".", OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut all = Vec::new();
    for entry in Dir::from_fd(own)?.iter() {
        let entry = entry?;
        all.push(Listed {
            inode: entry.ino(),
            kind: entry.file_type().map_or(FileType::RegularFile, kind),
            name: OsString::from_vec(entry.file_name().to_bytes().to_vec()),
        });
    }
    Ok(all.into())
}

fn kind(of: Type) -> FileType {
    match of {
        Type::Fifo => FileType::NamedPipe,
        Type::CharacterDevice => FileType::CharDevice,
        Type::Directory => FileType::Directory,
        Type::BlockDevice => FileType::BlockDevice,
        Type::File => FileType::RegularFile,
        Type::Symlink => FileType::Symlink,
        Type::Socket => FileType::Socket,
    }
}

/// All that is open, by the number that the kernel has for it.
#[derive(Debug, Default)]
pub(super) struct Files {
    all: HashMap<u64, Arc<Open>>,
    next: u64,
}

impl Files {
    pub(super) fn add(&mut self, file: File) -> u64 {
        self.next += 1;
        let open = Open {
            file,
            listed: Mutex::default(),
        };
        self.all.insert(self.next, Arc::new(open));
        self.next
    }

    pub(super) fn get(&self, handle: u64) -> Option<Arc<Open>> {
        self.all.get(&handle).cloned()
    }

    pub(super) fn close(&mut self, handle: u64) {
        self.all.remove(&handle);
    }
}
