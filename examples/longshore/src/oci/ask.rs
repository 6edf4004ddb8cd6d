//! What is asked of the process that has a container: a line of JSON over a socket, and a line as the answer.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use longshore::{Error, ErrorKind, Signal};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Interest};
use tokio::net::UnixStream;

use super::place::{Place, SOCKET};

/// The longest line: an environment may be long.
const LONGEST: usize = 1 << 20;
/// How many descriptors come with a line: standard streams.
const STREAMS: usize = 3;
/// How long one may take that says something: what it says fits into a packet.
const PATIENCE: Duration = Duration::from_secs(10);

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Run the program.
    Start,
    /// Send a signal.
    Kill { signal: Signal, all: bool },
    /// Forget the container.
    Delete { force: bool },
    /// Answer when it has ended, with its exit code.
    Wait,
    /// Run a command; answer with its pid, and once more when it has ended, with its exit code. Standard streams come along.
    Exec(Value),
}

impl Request {
    fn to_json(&self) -> Value {
        match self {
            Self::Start => json!({"do": "start"}),
            Self::Kill { signal, all } => json!({"do": "kill", "signal": signal.number(), "all": all}),
            Self::Delete { force } => json!({"do": "delete", "force": force}),
            Self::Wait => json!({"do": "wait"}),
            Self::Exec(said) => json!({"do": "exec", "said": said}),
        }
    }

    fn of(value: &Value) -> Option<Self> {
        let flag = |key: &str| value[key].as_bool();
        match value["do"].as_str()? {
            "start" => Some(Self::Start),
            "kill" => Some(Self::Kill {
                signal: value["signal"].as_i64()?.to_string().parse().ok()?,
                all: flag("all")?,
            }),
            "delete" => Some(Self::Delete { force: flag("force")? }),
            "wait" => Some(Self::Wait),
            "exec" => value["said"].is_object().then(|| Self::Exec(value["said"].clone())),
            _ => None,
        }
    }
}

/// What comes back: a number (of `wait`, the exit code), or an error of some kind.
#[derive(Debug)]
pub struct Answer(pub Result<i64, Error>);

impl Answer {
    fn to_json(&self) -> Value {
        match &self.0 {
            Ok(number) => json!({"ok": number}),
            Err(error) => json!({"error": error.report(), "kind": error.kind().as_str()}),
        }
    }

    fn of(value: &Value) -> Option<Self> {
        if let Some(number) = value["ok"].as_i64() {
            return Some(Self(Ok(number)));
        }
        let message = value["error"].as_str()?.to_owned();
        // Those that the verbs make something of.
        let kinds = [
            ErrorKind::NotFound,
            ErrorKind::InvalidState,
            ErrorKind::InvalidArgument,
            ErrorKind::Conflict,
            ErrorKind::CommandNotFound,
            ErrorKind::CommandNotExecutable,
        ];
        let said = value["kind"].as_str()?;
        let kind = kinds
            .into_iter()
            .find(|kind| kind.as_str() == said)
            .unwrap_or(ErrorKind::Os);
        Some(Self(Err(Error::new(kind, message))))
    }
}

impl Place {
    /// Asks the process that has the container.
    ///
    /// # Errors
    /// What it answers; `InvalidState` if it is gone, and the container with it.
    ///
    /// # Cancel safety
    /// A dropped call has asked, or has not.
    pub async fn ask(&self, request: &Request) -> Result<i64, Error> {
        self.ask_with(request, &[]).await?.next().await
    }

    /// The same where standard streams go along, and more than one answer comes back.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn ask_with(&self, request: &Request, streams: &[BorrowedFd<'_>]) -> Result<Answers, Error> {
        let (_dir, path) = self.short(SOCKET)?;
        let mut stream = UnixStream::connect(path).await.map_err(|error| gone(&self.id, error))?;
        let line = format!("{}\n", request.to_json());
        let sent = send(&mut stream, line.as_bytes(), streams).await;
        sent.map_err(|error| gone(&self.id, error))?;
        Ok(Answers {
            stream: BufReader::new(stream),
            id: self.id.clone(),
        })
    }
}

fn gone(id: &str, error: io::Error) -> Error {
    Error::new(ErrorKind::InvalidState, format!("container {id:?} has stopped")).with_source(error)
}

/// What comes back, one after the other.
#[derive(Debug)]
pub struct Answers {
    stream: BufReader<UnixStream>,
    id: String,
}

impl Answers {
    /// The next.
    ///
    /// # Errors
    /// As [`Place::ask`].
    ///
    /// # Cancel safety
    /// A dropped call may have lost a part of it.
    pub async fn next(&mut self) -> Result<i64, Error> {
        let mut line = String::new();
        let read = (&mut self.stream).take(LONGEST as u64).read_line(&mut line).await;
        match read {
            Ok(0) => return Err(gone(&self.id, io::ErrorKind::UnexpectedEof.into())),
            read => read.map_err(|error| gone(&self.id, error))?,
        };
        let malformed = || Error::internal("an answer that is none, of the process that has the container");
        let value = serde_json::from_str(&line).map_err(|_| malformed())?;
        Answer::of(&value).ok_or_else(malformed)?.0
    }
}

/// Sends a line, with descriptors.
async fn send(stream: &mut UnixStream, line: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let sent = loop {
        stream.writable().await?;
        match stream.try_io(Interest::WRITABLE, || send_some(stream, line, fds)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            sent => break sent?,
        }
    };
    stream.write_all(line.get(sent..).unwrap_or_default()).await
}

/// Descriptors go with the first bytes.
fn send_some(stream: &UnixStream, line: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(STREAMS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(sendmsg(
        stream,
        &[io::IoSlice::new(line)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?)
}

/// Reads a request, and what came with it. `None` for what is none, or does not come.
pub async fn hear(stream: &UnixStream) -> Option<(Request, Vec<OwnedFd>)> {
    let (line, fds) = tokio::time::timeout(PATIENCE, line_of(stream)).await.ok()?.ok()?;
    Some((Request::of(&serde_json::from_slice(&line).ok()?)?, fds))
}

/// Sends an answer; whoever asked may be gone.
pub async fn answer(stream: &mut UnixStream, answer: &Answer) {
    let line = format!("{}\n", answer.to_json());
    let _ = tokio::time::timeout(PATIENCE, stream.write_all(line.as_bytes())).await;
}

async fn line_of(stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let (mut line, mut fds) = (Vec::new(), Vec::new());
    while !line.ends_with(b"\n") {
        if line.len() > LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        stream.readable().await?;
        match stream.try_io(Interest::READABLE, || receive_some(stream, &mut line, &mut fds)) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
    Ok((line, fds))
}

fn receive_some(stream: &UnixStream, line: &mut Vec<u8>, fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut piece = [0u8; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(STREAMS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [io::IoSliceMut::new(&mut piece)];
    let message = recvmsg(stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for one in control.drain() {
        if let RecvAncillaryMessage::ScmRights(all) = one {
            fds.extend(all);
        }
    }
    line.extend_from_slice(piece.get(..message.bytes).unwrap_or_default());
    Ok(message.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oci_requests_and_answers_say_the_same_on_both_sides() {
        for request in [
            Request::Start,
            Request::Kill {
                signal: Signal::KILL,
                all: true,
            },
            Request::Delete { force: false },
            Request::Wait,
            Request::Exec(json!({"args": ["id"]})),
        ] {
            assert_eq!(Request::of(&request.to_json()), Some(request));
        }
        for bad in [
            json!({}),
            json!({"do": "dance"}),
            json!({"do": "kill", "signal": 4096, "all": true}),
            json!({"do": "kill", "signal": "KILL", "all": true}),
            json!({"do": "delete"}),
            json!({"do": "exec", "said": 7}),
            json!(7),
        ] {
            assert_eq!(Request::of(&bad), None, "{bad}");
        }
        assert_eq!(Answer::of(&Answer(Ok(7)).to_json()).unwrap().0.unwrap(), 7);
        let error = Answer(Err(Error::new(ErrorKind::InvalidState, "not running")));
        let read = Answer::of(&error.to_json()).unwrap().0.unwrap_err();
        assert_eq!(
            (read.kind(), read.report()),
            (&ErrorKind::InvalidState, "not running".to_owned())
        );
        assert!(Answer::of(&json!({"kind": "not_found"})).is_none());
    }
}
