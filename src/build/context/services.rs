//! What contexts are made with: a directory of one build, and a client for web servers.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::StreamExt as _;

use super::Tree;
use crate::error::{Error, ErrorKind, Result};
#[cfg(feature = "registry")]
use crate::registry::http::HttpOptions;
#[cfg(feature = "registry")]
use crate::registry::http::plain::PlainClient;
use crate::sys::blocking::blocking;
use crate::types::{ByteStream, Digest, Hasher};

/// The name of the file in a tree of a single one.
pub(crate) const SINGLE: &[u8] = b"file";
/// Bytes that are hashed and written together.
const PIECE: usize = 256 << 10;

/// What contexts and copies are made with.
#[derive(Debug, Clone)]
pub(crate) struct Services {
    /// A directory of this one build, which its caller removes.
    pub(crate) scratch: PathBuf,
    /// How web servers are reached.
    #[cfg(feature = "registry")]
    pub(crate) http: HttpOptions,
    /// How servers of repositories are reached over SSH.
    pub(crate) ssh: Ssh,
    shared: Arc<Shared>,
}

/// Who a build is to servers over SSH, and whom it believes to be one.
#[derive(Debug, Clone, Default)]
#[cfg_attr(not(feature = "registry"), allow(dead_code, reason = "for the client"))]
pub(crate) struct Ssh {
    /// The socket of an agent.
    pub(crate) agent: Option<PathBuf>,
    /// Keys of hosts, as `known_hosts` has them.
    pub(crate) known_hosts: Option<String>,
}

/// Says to work on another thread that nobody waits for it any longer, once this is dropped.
#[derive(Debug, Default)]
pub(super) struct Waiting(Arc<AtomicBool>);

impl Waiting {
    pub(super) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whether somebody still waits.
///
/// # Errors
/// `Cancelled`.
pub(crate) fn check(stop: &AtomicBool) -> Result<()> {
    match stop.load(Ordering::Relaxed) {
        true => Err(Error::new(ErrorKind::Cancelled, "the caller went away")),
        false => Ok(()),
    }
}

#[derive(Debug, Default)]
struct Shared {
    count: AtomicU64,
    #[cfg(feature = "registry")]
    client: std::sync::OnceLock<PlainClient>,
}

impl Services {
    pub(crate) fn new(scratch: PathBuf) -> Self {
        Self {
            scratch,
            #[cfg(feature = "registry")]
            http: HttpOptions::default(),
            ssh: Ssh::default(),
            shared: Arc::default(),
        }
    }

    /// A path that nothing has yet.
    pub(super) fn fresh(&self, what: &str) -> PathBuf {
        let number = self.shared.count.fetch_add(1, Ordering::Relaxed);
        self.scratch.join(format!("{what}-{number}"))
    }

    /// The client, made when it is first needed: it reads the host's certificates.
    #[cfg(feature = "registry")]
    pub(super) async fn client(&self) -> Result<PlainClient> {
        if let Some(client) = self.shared.client.get() {
            return Ok(client.clone());
        }
        let options = self.http.clone();
        let client = blocking(move || PlainClient::new(options)).await?;
        Ok(self.shared.client.get_or_init(|| client).clone())
    }

    /// A tree with nothing in it.
    ///
    /// # Errors
    /// `NoSpace`, `Os`.
    pub(crate) async fn empty_tree(&self) -> Result<Tree> {
        let directory = self.fresh("empty");
        blocking(move || made(&directory)).await
    }

    /// A tree of one file with what a Dockerfile says.
    ///
    /// # Errors
    /// `NoSpace`, `Os`.
    pub(crate) async fn inline(&self, content: &[u8]) -> Result<Tree> {
        let (directory, content) = (self.fresh("inline"), content.to_vec());
        blocking(move || {
            let tree = made(&directory)?;
            let mut file = single(&directory, 0o644)?;
            file.write_all(&content)
                .map_err(|e| Error::os("write a file of the Dockerfile", e))?;
            Ok(tree)
        })
        .await
    }

    /// A tree of one file with what a stream brings, and its digest. Not more than `most` bytes are taken.
    ///
    /// # Errors
    /// What the stream says; `InvalidArgument` for one that is too long; `NoSpace`, `Os`.
    pub(super) async fn spool(&self, mut stream: ByteStream, most: u64) -> Result<(Tree, Digest, PathBuf)> {
        let directory = self.fresh("spool");
        let place = directory.clone();
        let (tree, mut file) = blocking(move || Ok((made(&place)?, single(&place, 0o600)?))).await?;
        let (mut hasher, mut size) = (Hasher::default(), 0u64);
        let mut ended = false;
        while !ended {
            let mut pieces = Vec::new();
            let mut gathered = 0;
            while gathered < PIECE {
                let Some(piece) = stream.next().await else {
                    ended = true;
                    break;
                };
                let piece = piece?;
                gathered += piece.len();
                pieces.push(piece);
            }
            size += gathered as u64;
            if size > most {
                return Err(Error::new(
                    ErrorKind::InvalidArgument,
                    format!("more than {most} bytes: a build reads no more from one place"),
                ));
            }
            (file, hasher) = blocking(move || {
                for piece in &pieces {
                    hasher.update(piece);
                    file.write_all(piece)
                        .map_err(|e| Error::os("keep what is received", e))?;
                }
                Ok((file, hasher))
            })
            .await?;
        }
        drop(file);
        Ok((tree, hasher.finish(), directory.join("file")))
    }
}

/// A new directory as a tree.
fn made(directory: &Path) -> Result<Tree> {
    std::fs::create_dir(directory).map_err(|e| Error::os("make a directory for the build", e))?;
    Tree::open(directory)
}

/// Its one file.
fn single(directory: &Path, mode: u32) -> Result<File> {
    let path = directory.join("file");
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path);
    let file = file.map_err(|e| Error::os("make a file for the build", e))?;
    // Whatever the umask of the process takes away.
    let permissions = std::fs::Permissions::from_mode(mode);
    file.set_permissions(permissions).map_err(|e| Error::os("chmod", e))?;
    Ok(file)
}
