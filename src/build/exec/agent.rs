//! `RUN --mount=type=ssh`: a socket of the build's own, of the owner and the mode that the mount asks for, and behind it the
//! agent that the embedder names. An agent may well refuse everybody but its own user, and its socket is that user's alone;
//! what connects to it here is the embedder, who was allowed to name it.

use std::fs::{self, File, Permissions};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixListener as Socket;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use crate::build::dockerfile::Mount;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::storage::ownership::{OwnerChange, Ownership};
use crate::sys::blocking::blocking;

/// Connections of one mount at a time; more wait.
const MOST: usize = 32;
/// After an error of `accept`, which is as a rule that there are too many open files.
const PAUSE: Duration = Duration::from_millis(50);

/// A socket while it is answered: until this is dropped.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) socket: PathBuf,
    answering: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

/// Makes a socket in a directory and answers it with an agent.
///
/// # Errors
/// `NotFound` where there is no agent; `InvalidArgument` for what is no socket; `Os`.
pub(super) async fn relay(
    id: &str,
    agent: &Path,
    mount: &Mount,
    directory: PathBuf,
    layers: &Ownership,
) -> Result<Relay> {
    let mode = mount.mode.unwrap_or(0o600);
    let owner = (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
    let (agent, layers, id) = (agent.to_owned(), layers.clone(), id.to_owned());
    let (socket, listener, agent) = blocking(move || {
        check(&agent, &id)?;
        let (socket, listener) = listen(&directory, mode, owner, &layers)?;
        Ok((socket, listener, agent))
    })
    .await?;
    let listener = UnixListener::from_std(listener).map_err(|e| Error::os("listen for an agent", e))?;
    let answering = tokio::spawn(answer(listener, agent));
    Ok(Relay { socket, answering })
}

fn check(agent: &Path, id: &str) -> Result<()> {
    let said = |kind, message: String| Err(Error::new(kind, message).with_object(ObjectKind::Option, id));
    match fs::metadata(agent) {
        Ok(found) if found.file_type().is_socket() => Ok(()),
        Ok(_) => said(
            ErrorKind::InvalidArgument,
            format!("the agent {id:?} is no socket: {}", agent.display()),
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => said(
            ErrorKind::NotFound,
            format!("the agent {id:?} has no socket at {}", agent.display()),
        ),
        Err(error) => Err(Error::os(format!("look at the socket of the agent {id:?}"), error)),
    }
}

/// Blocking.
fn listen(directory: &Path, mode: u32, owner: (u32, u32), layers: &Ownership) -> Result<(PathBuf, Socket)> {
    let failed = |error| Error::os("make a socket for an agent", error);
    fs::create_dir(directory).map_err(failed)?;
    let place = File::open(directory).map_err(failed)?;
    // By the directory's descriptor: a path of a socket has a hundred bytes at most, and a root's may have more.
    let short = PathBuf::from(format!("/proc/self/fd/{}/agent", place.as_raw_fd()));
    let listener = Socket::bind(&short).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let path = directory.join("agent");
    fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(failed)?;
    match layers {
        Ownership::Direct => chown(&path, Some(owner.0), Some(owner.1)).map_err(failed)?,
        Ownership::Mapped(privileged) if owner != (0, 0) => {
            let socket = fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(&path);
            let change = OwnerChange {
                uid: owner.0,
                gid: owner.1,
                ..OwnerChange::default()
            };
            privileged.change_owners(vec![(socket.map_err(failed)?.into(), change)])?;
        }
        // All ids are one.
        _ => {}
    }
    Ok((path, listener))
}

/// Until it is dropped, with all connections.
async fn answer(listener: UnixListener, agent: PathBuf) {
    let mut open = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if open.len() < MOST => match accepted {
                Ok((client, _)) => open.push(forward(client, &agent)),
                Err(error) => {
                    tracing::debug!(error = %error, "nobody could be connected to an agent");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            _ = open.next(), if !open.is_empty() => {}
        }
    }
}

/// What fails ends the connection, as an agent that goes away does.
async fn forward(mut client: UnixStream, agent: &Path) {
    let copied = async {
        let mut server = UnixStream::connect(agent).await?;
        tokio::io::copy_bidirectional(&mut client, &mut server).await
    };
    if let Err(error) = copied.await {
        tracing::debug!(error = %error, "a connection to an agent failed");
    }
}
