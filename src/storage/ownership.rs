//! Who owns unpacked files where the engine's process may not give files away itself.

use std::fmt::Debug;
use std::os::fd::OwnedFd;
use std::path::Path;

use crate::error::Result;

/// What to change on a file after it was written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnerChange {
    /// Owner inside the image.
    pub uid: u32,
    /// Group inside the image.
    pub gid: u32,
    /// Permission bits to set after the owner (a change of owner clears setuid); `None` leaves them.
    pub mode: Option<u32>,
    /// Extended attributes that need privilege (`security.capability`): name and value.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

/// Does to files what needs privilege over them: in a user namespace, a process inside it. Blocking calls, made from
/// the blocking pool only.
pub trait Privileged: Debug + Send + Sync + 'static {
    /// Applies changes to open files (`O_PATH` is enough for owners; modes and attributes need a readable descriptor).
    ///
    /// # Errors
    /// The first that failed, as `Os` with its errno.
    fn change_owners(&self, changes: Vec<(OwnedFd, OwnerChange)>) -> Result<()>;

    /// Removes a whole tree, whoever owns what is in it. What is gone already is success.
    ///
    /// # Errors
    /// `Os` with the errno of the first entry that would not go.
    fn remove_tree(&self, path: &Path) -> Result<()>;
}

/// How owners of unpacked files are kept. Chosen once per engine.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Ownership {
    /// The process is root in the initial user namespace: `chown` works.
    Direct,
    /// An ordinary user with mapped ranges: a process in the user namespace does it.
    Mapped(std::sync::Arc<dyn Privileged>),
    /// An ordinary user with a single id: everything belongs to that user; the image's owner is noted in
    /// `user.longshore.owner` as `uid:gid` on files and directories.
    Squashed,
}
