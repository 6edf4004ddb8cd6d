//! What is known of a file without opening it.

use nix::sys::stat::{FileStat, SFlag, major, minor};

/// Extended attributes, sorted by name.
pub(crate) type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// Types of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Type {
    File,
    Directory,
    Symlink,
    Fifo,
    Character,
    Block,
    Socket,
}

impl Type {
    /// As a directory's listing says it.
    pub(super) fn of_listing(kind: nix::dir::Type) -> Self {
        match kind {
            nix::dir::Type::File => Self::File,
            nix::dir::Type::Directory => Self::Directory,
            nix::dir::Type::Symlink => Self::Symlink,
            nix::dir::Type::Fifo => Self::Fifo,
            nix::dir::Type::CharacterDevice => Self::Character,
            nix::dir::Type::BlockDevice => Self::Block,
            nix::dir::Type::Socket => Self::Socket,
        }
    }
}

/// An inode, with ids as the container has them once its attributes were read.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) kind: Type,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    pub(crate) blocks: u64,
    pub(crate) mtime: (i64, i64),
    pub(crate) ctime: (i64, i64),
    pub(crate) device: (u64, u64),
    pub(crate) links: libc::nlink_t,
    /// Device and inode number.
    pub(crate) identity: (u64, u64),
}

impl Node {
    pub(crate) fn of(stat: &FileStat) -> Self {
        let kind = match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFDIR => Type::Directory,
            SFlag::S_IFLNK => Type::Symlink,
            SFlag::S_IFIFO => Type::Fifo,
            SFlag::S_IFCHR => Type::Character,
            SFlag::S_IFBLK => Type::Block,
            SFlag::S_IFSOCK => Type::Socket,
            _ => Type::File,
        };
        Self {
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            blocks: u64::try_from(stat.st_blocks).unwrap_or(0),
            mtime: (stat.st_mtime, stat.st_mtime_nsec),
            ctime: (stat.st_ctime, stat.st_ctime_nsec),
            device: (major(stat.st_rdev), minor(stat.st_rdev)),
            links: stat.st_nlink,
            identity: (stat.st_dev, stat.st_ino),
        }
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.kind == Type::Directory
    }

    pub(crate) fn is_file(&self) -> bool {
        self.kind == Type::File
    }

    /// What overlay hides a name with.
    pub(crate) fn is_whiteout(&self) -> bool {
        self.kind == Type::Character && self.device == (0, 0)
    }

    /// Whether it may have other names.
    pub(crate) fn is_linked(&self) -> bool {
        self.links > 1 && !self.is_dir()
    }

    /// Whether this is still the same thing, to open it.
    pub(super) fn is_still(&self, now: &Self) -> bool {
        self.identity == now.identity && self.kind == now.kind
    }

    /// Whether two files differ, whatever else there is to know of them.
    pub(super) fn is_other_file(&self, other: &Self) -> bool {
        let files = self.is_file() && other.is_file();
        files && (self.size, self.mtime) != (other.size, other.mtime)
    }

    /// Whether it looks the same, but for attributes, content, other names and the time of a directory.
    pub(super) fn looks_like(&self, other: &Self) -> bool {
        let own = |node: &Self| (node.kind, node.mode, node.uid, node.gid);
        let device = |node: &Self| match node.kind {
            Type::Character | Type::Block => Some(node.device),
            _ => None,
        };
        let content = |node: &Self| match node.kind {
            Type::Directory => None,
            Type::File => Some((node.size, node.mtime)),
            _ => Some((0, node.mtime)),
        };
        own(self) == own(other) && device(self) == device(other) && content(self) == content(other)
    }
}
