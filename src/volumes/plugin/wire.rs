//! One question and one answer: JSON over HTTP, with a connection of its own.

use std::path::PathBuf;
use std::pin::pin;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::error::{Error, ErrorKind, ObjectKind, Result};

/// What is spoken. Source: moby, `pkg/plugins/transport`.
const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/vnd.docker.plugins.v1.2+json");
/// More than any answer has to say: a list of some ten thousand volumes.
const MAX_ANSWER: usize = 4 << 20;
/// How much of a plugin's words an error repeats.
const MAX_WORDS: usize = 500;

/// The way to a plugin.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) name: String,
    socket: PathBuf,
}

/// What a plugin answers.
#[derive(Debug)]
pub(super) enum Answer {
    /// An object.
    Said(Value),
    /// It will not, in its own words.
    Refused(String),
    /// It has no such call.
    Unknown,
}

impl Wire {
    pub(super) fn new(name: String, socket: PathBuf) -> Self {
        Self { name, socket }
    }

    #[cfg(test)]
    pub(super) fn socket(&self) -> &std::path::Path {
        &self.socket
    }

    /// # Cancel safety
    /// A dropped call closes its connection.
    pub(super) async fn ask(&self, method: &str, body: &Value) -> Result<Answer> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| self.absent(e))?;
        let request = Request::post(format!("/{method}"))
            .header(HOST, "plugin")
            .header(ACCEPT, MEDIA_TYPE)
            .header(CONTENT_TYPE, MEDIA_TYPE)
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|error| Error::internal("a question that cannot be asked over HTTP").with_source(error))?;
        let handshake = hyper::client::conn::http1::Builder::new()
            .max_headers(64)
            .handshake(TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.map_err(|e| self.broken(method, e))?;
        let exchange = async {
            let answer = sender.send_request(request).await.map_err(|e| self.broken(method, e))?;
            self.read(method, answer).await
        };
        // Both here: a caller that goes away leaves no connection behind.
        match select(pin!(exchange), pin!(connection)).await {
            Either::Left((answer, _)) => answer,
            Either::Right((_, exchange)) => exchange.await,
        }
    }

    async fn read<B>(&self, method: &str, answer: Response<B>) -> Result<Answer>
    where
        B: hyper::body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let code = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|failed| {
            self.nonsense(method, "what breaks off or is too long")
                .with_source(failed)
        })?;
        let body = body.to_bytes();
        let said = serde_json::from_slice::<Value>(&body).ok().filter(Value::is_object);
        let words = said.as_ref().and_then(|said| said["Err"].as_str());
        if let Some(words) = words.filter(|words| !words.is_empty()) {
            return Ok(Answer::Refused(words.to_owned()));
        }
        match (code, said) {
            (StatusCode::NOT_FOUND, _) => Ok(Answer::Unknown),
            (StatusCode::OK, Some(said)) => Ok(Answer::Said(said)),
            // Some say nothing where there is nothing to say.
            (StatusCode::OK, None) if body.iter().all(u8::is_ascii_whitespace) => Ok(Answer::Said(Value::Null)),
            (code, _) if !code.is_success() => Ok(Answer::Refused(format!("{code}"))),
            _ => Err(self.nonsense(method, "no JSON object")),
        }
    }

    fn about(&self, kind: ErrorKind, message: String) -> Error {
        Error::new(kind, message)
            .with_object(ObjectKind::Backend, self.name.as_str())
            .with_step("talk to a volume plugin")
    }

    fn absent(&self, error: std::io::Error) -> Error {
        let kind = match error.kind() {
            std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            _ => ErrorKind::Unavailable,
        };
        let (name, socket) = (&self.name, self.socket.display());
        let message = format!(
            "the volume plugin {name:?} does not answer at {socket}: look whether it runs, and who may connect"
        );
        self.about(kind, message).with_source(error)
    }

    fn broken(&self, method: &str, error: hyper::Error) -> Error {
        let message = format!("the volume plugin {:?} broke off at {method}", self.name);
        self.about(ErrorKind::Unavailable, message).with_source(error)
    }

    /// It answered what nobody can use.
    pub(super) fn nonsense(&self, method: &str, what: &str) -> Error {
        let message = format!("the volume plugin {:?} answered {method} with {what}", self.name);
        self.about(ErrorKind::Unavailable, message)
    }

    /// It has no such call.
    pub(super) fn unknown(&self, method: &str) -> Error {
        self.nonsense(method, "that it does not know the call")
    }

    /// It will not.
    pub(super) fn refused(&self, method: &str, words: &str) -> Error {
        let words: String = words.chars().take(MAX_WORDS).flat_map(shown).collect();
        let message = format!("the volume plugin {:?} refused {method}: {words}", self.name);
        self.about(ErrorKind::Denied, message)
    }
}

/// A plugin's words have no say in how a terminal looks.
fn shown(letter: char) -> impl Iterator<Item = char> {
    let escaped = letter.is_control().then(|| letter.escape_default());
    let plain = escaped.is_none().then_some(letter);
    escaped.into_iter().flatten().chain(plain)
}
