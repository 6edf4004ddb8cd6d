//! Connects a container's streams with those that this process was given, and lets go of them.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::JoinHandle;

use longshore::Error;
use longshore::runtime::Started;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// What copies between a container and this process' streams.
#[derive(Debug, Default)]
pub struct Streams {
    outputs: Vec<JoinHandle<()>>,
    /// Closed to end the copying of stdin, which may never end by itself.
    stop: Option<UnixStream>,
}

impl Streams {
    /// Copies from now on, each stream on a thread of its own.
    pub fn connect(started: &mut Started) -> Result<Self, Error> {
        let failed = |error: io::Error| Error::os("connect the container's streams", error);
        let mut streams = Self::default();
        for (from, to) in [
            (started.stdout.take(), rustix::stdio::stdout()),
            (started.stderr.take(), rustix::stdio::stderr()),
        ] {
            if let Some(from) = from {
                let to = copy_of(to).map_err(failed)?;
                streams.outputs.push(std::thread::spawn(move || copy(from, to)));
            }
        }
        if let Some(to) = started.stdin.take() {
            let from = copy_of(rustix::stdio::stdin()).map_err(failed)?;
            let (stop, stopped) = UnixStream::pair().map_err(failed)?;
            streams.stop = Some(stop);
            std::thread::spawn(move || feed(from, to, &stopped));
        }
        Ok(streams)
    }

    /// Waits until all that it printed has been passed on. Its processes are gone: nobody prints more.
    pub fn finish(self) {
        drop(self.stop);
        for output in self.outputs {
            let _ = output.join();
        }
    }
}

fn copy_of(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    fd.try_clone_to_owned()
}

/// Whoever reads may be gone: then the container prints to nobody, as it would by itself.
fn copy(from: OwnedFd, to: OwnedFd) {
    let (mut from, mut to) = (File::from(from), File::from(to));
    if io::copy(&mut from, &mut to).is_err() {
        let _ = io::copy(&mut from, &mut io::sink());
    }
}

fn feed(from: OwnedFd, to: OwnedFd, stopped: &UnixStream) {
    let (mut from, mut to) = (File::from(from), File::from(to));
    let mut buffer = vec![0; 64 << 10];
    loop {
        let mut wanted = [PollFd::new(&from, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
        match poll(&mut wanted, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) if !wanted[1].revents().is_empty() => return,
            Ok(_) => {}
        }
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) if to.write_all(&buffer[..count]).is_err() => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Lets go of the streams that this process was given: whoever reads them sees their end.
pub fn let_go() -> Result<(), Error> {
    let failed = |error: io::Error| Error::os("let go of the standard streams", error);
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(failed)?;
    rustix::stdio::dup2_stdin(&null)
        .and_then(|()| rustix::stdio::dup2_stdout(&null))
        .and_then(|()| rustix::stdio::dup2_stderr(&null))
        .map_err(|errno| failed(errno.into()))
}

/// Hands our side of a terminal to whoever listens at a socket, with a name for it, as runc does. Blocking.
pub fn hand_over(terminal: BorrowedFd<'_>, socket: &Path) -> Result<(), Error> {
    let failed = |error: io::Error| Error::os(format!("hand the terminal over at {}", socket.display()), error);
    let stream = UnixStream::connect(socket).map_err(failed)?;
    let fds = [terminal];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Error::internal("no room for a descriptor"));
    }
    let name = [io::IoSlice::new(b"/dev/ptmx")];
    sendmsg(stream.as_fd(), &name, &mut control, SendFlags::NOSIGNAL).map_err(|errno| failed(errno.into()))?;
    Ok(())
}
