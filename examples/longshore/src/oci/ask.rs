//! What is asked of the process that has a container: a line of JSON over a socket, and a line as the answer.

use std::time::Duration;

use longshore::{Error, ErrorKind, Signal};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::place::{Place, SOCKET};

/// The longest line.
const LONGEST: u64 = 64 << 10;
/// How long one may take that says something: what it says fits into a packet.
const PATIENCE: Duration = Duration::from_secs(10);

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Run the program.
    Start,
    /// Send a signal.
    Kill { signal: Signal, all: bool },
    /// Forget the container.
    Delete { force: bool },
    /// Answer when it has ended, with its exit code.
    Wait,
}

impl Request {
    fn to_json(self) -> Value {
        match self {
            Self::Start => json!({"do": "start"}),
            Self::Kill { signal, all } => json!({"do": "kill", "signal": signal.number(), "all": all}),
            Self::Delete { force } => json!({"do": "delete", "force": force}),
            Self::Wait => json!({"do": "wait"}),
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
        let gone = |error: std::io::Error| {
            Error::new(ErrorKind::InvalidState, format!("container {:?} has stopped", self.id)).with_source(error)
        };
        let (_dir, path) = self.short(SOCKET)?;
        let mut stream = UnixStream::connect(path).await.map_err(gone)?;
        let line = format!("{}\n", request.to_json());
        stream.write_all(line.as_bytes()).await.map_err(gone)?;
        let answer = line_of(&mut stream).await.map_err(gone)?;
        let malformed = || Error::internal("an answer that is none, of the process that has the container");
        answer.and_then(|value| Answer::of(&value)).ok_or_else(malformed)?.0
    }
}

/// Reads a request. `None` for what is none, or does not come.
pub async fn hear(stream: &mut UnixStream) -> Option<Request> {
    let line = tokio::time::timeout(PATIENCE, line_of(stream)).await;
    Request::of(&line.ok()?.ok()??)
}

/// Sends an answer; whoever asked may be gone.
pub async fn answer(mut stream: UnixStream, answer: &Answer) {
    let line = format!("{}\n", answer.to_json());
    let _ = tokio::time::timeout(PATIENCE, stream.write_all(line.as_bytes())).await;
}

async fn line_of(stream: &mut UnixStream) -> std::io::Result<Option<Value>> {
    let mut line = String::new();
    BufReader::new(stream.take(LONGEST)).read_line(&mut line).await?;
    if line.is_empty() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str(&line).ok())
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
        ] {
            assert_eq!(Request::of(&request.to_json()), Some(request));
        }
        for bad in [
            json!({}),
            json!({"do": "dance"}),
            json!({"do": "kill", "signal": 4096, "all": true}),
            json!({"do": "kill", "signal": "KILL", "all": true}),
            json!({"do": "delete"}),
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
