//! Requests: a connection each, on the client's own thread, so that callers need no runtime of their own.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, UPGRADE, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::endpoint::{ClientTls, Endpoint, server_name};
use super::error;
use crate::driver::{Driver, Spawner};
use crate::error::{Error, ErrorKind, Result};
use crate::images::ByteStream;
use crate::types::Filter;

/// The newest version of the API that is spoken here.
pub(super) const NEWEST: u16 = 56;
/// The oldest. Docker 29 serves nothing before 1.40, and longshore nothing before 1.24.
pub(super) const OLDEST: u16 = 24;

/// From here on `wait` looks at its condition. Source: the history of the Engine API, 1.30.
const CONDITIONS: u16 = 30;

/// More than any answer that is one piece of JSON.
const MAX_ANSWER: usize = 64 << 20;
/// More than any error has to say.
const MAX_ERROR: usize = 1 << 20;
/// How long a connection may take. What comes after it takes as long as it takes; deadlines are the caller's.
const CONNECT: Duration = Duration::from_secs(30);

type Body = UnsyncBoxBody<Bytes, Error>;

/// A way to an engine. Cheap to clone.
#[derive(Clone)]
pub(super) struct Client(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    tls: Option<ClientTls>,
    /// What follows `1.` in paths.
    version: u16,
    driver: Driver,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("endpoint", &self.0.endpoint)
            .field("version", &self.0.version)
            .finish_non_exhaustive()
    }
}

/// What is asked for.
pub(super) struct Ask {
    method: Method,
    path: String,
    query: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Body,
}

fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

impl Ask {
    fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            query: String::new(),
            headers: Vec::new(),
            body: empty(),
        }
    }

    pub(super) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(super) fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path)
    }

    pub(super) fn head(path: impl Into<String>) -> Self {
        Self::new(Method::HEAD, path)
    }

    pub(super) fn put(path: impl Into<String>) -> Self {
        Self::new(Method::PUT, path)
    }

    pub(super) fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path)
    }

    /// Adds a part of the query.
    pub(super) fn with(mut self, key: &str, value: impl fmt::Display) -> Self {
        self.query.push(if self.query.is_empty() { '?' } else { '&' });
        self.query
            .push_str(&format!("{key}={}", quoted(&value.to_string(), "")));
        self
    }

    /// Adds a part of the query, if there is something to say.
    pub(super) fn with_some(self, key: &str, value: Option<impl fmt::Display>) -> Self {
        match value {
            None => self,
            Some(value) => self.with(key, value),
        }
    }

    /// Adds a flag that is set.
    pub(super) fn flag(self, key: &str, set: bool) -> Self {
        if set { self.with(key, 1) } else { self }
    }

    /// Adds a filter, in the shape that every version takes.
    pub(super) fn filter(self, filter: &Filter) -> Self {
        let terms = filter
            .keys()
            .map(|key| (key.to_owned(), Value::from(filter.values(key).to_vec())));
        let terms: serde_json::Map<String, Value> = terms.collect();
        if terms.is_empty() {
            return self;
        }
        self.with("filters", Value::Object(terms))
    }

    pub(super) fn header(mut self, name: &'static str, value: &str) -> Result<Self> {
        let value = HeaderValue::from_str(value).map_err(|_| Error::invalid(format!("{name} cannot be a header")))?;
        self.headers.push((HeaderName::from_static(name), value));
        Ok(self)
    }

    pub(super) fn json(mut self, body: &Value) -> Self {
        self.headers
            .push((CONTENT_TYPE, HeaderValue::from_static("application/json")));
        let bytes = Bytes::from(body.to_string());
        self.body = Full::new(bytes).map_err(|never| match never {}).boxed_unsync();
        self
    }

    /// Sends bytes as they come.
    pub(super) fn stream(mut self, bytes: ByteStream) -> Self {
        self.headers
            .push((CONTENT_TYPE, HeaderValue::from_static("application/x-tar")));
        self.body = StreamBody::new(bytes.map_ok(Frame::data)).boxed_unsync();
        self
    }

    /// Asks for the connection itself.
    pub(super) fn upgrade(mut self) -> Self {
        self.headers.push((CONNECTION, HeaderValue::from_static("Upgrade")));
        self.headers.push((UPGRADE, HeaderValue::from_static("tcp")));
        self
    }

    fn request(self, host: &str, version: Option<u16>) -> Result<Request<Body>> {
        let version = version.map(|minor| format!("/v1.{minor}")).unwrap_or_default();
        let target = format!("{version}/{}{}", self.path, self.query);
        let mut request = Request::builder().method(self.method).uri(target).header(HOST, host);
        request = request.header(USER_AGENT, concat!("longshore/", env!("CARGO_PKG_VERSION")));
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        let request = request.body(self.body);
        request.map_err(|error| Error::invalid("this cannot be asked for over HTTP").with_source(error))
    }
}

/// A name as a part of a path.
pub(super) fn segment(name: &str) -> String {
    quoted(name, ":@")
}

/// The name of an image, whose slashes stay.
pub(super) fn image_path(name: &str) -> String {
    quoted(name, "/:@")
}

/// Percent-encodes what is not plain. Source: RFC 3986, section 2.3.
fn quoted(text: &str, also: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || also.as_bytes().contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

impl Client {
    /// Asks who is there and what they speak, and agrees on the newest version that both do.
    pub(super) async fn connect(
        endpoint: Endpoint,
        tls: Option<ClientTls>,
        newest: u16,
        deadline: Option<Duration>,
    ) -> Result<Self> {
        let driver = Driver::start()?;
        let (to, with) = (endpoint.clone(), tls.clone());
        let ping = driver.spawner().call_within(deadline, async move {
            let answer = exchange(&to, with.as_ref(), Ask::get("_ping"), None).await?;
            let theirs = answer
                .headers()
                .get("api-version")
                .and_then(|value| value.to_str().ok());
            agreed(theirs, newest)
        });
        let version = ping.await?;
        Ok(Self(Arc::new(Inner {
            endpoint,
            tls,
            version,
            driver,
        })))
    }

    /// Whether waiting can be for more than that a container does not run.
    pub(super) fn has_conditions(&self) -> bool {
        self.0.version >= CONDITIONS
    }

    pub(super) fn spawner(&self) -> &Spawner {
        self.0.driver.spawner()
    }

    /// An answer that is no error; its body can be read on any executor, as long as the client is there.
    pub(super) async fn send(&self, ask: Ask) -> Result<Response<Incoming>> {
        let inner = Arc::clone(&self.0);
        self.spawner()
            .call(async move { exchange(&inner.endpoint, inner.tls.as_ref(), ask, Some(inner.version)).await })
            .await
    }

    /// An answer whose body says nothing.
    pub(super) async fn tell(&self, ask: Ask) -> Result<StatusCode> {
        let answer = self.send(ask).await?;
        let code = answer.status();
        whole(answer, MAX_ANSWER).await?;
        Ok(code)
    }

    /// An answer in JSON.
    pub(super) async fn json(&self, ask: Ask) -> Result<Value> {
        let answer = self.send(ask).await?;
        read_json(answer).await
    }
}

/// The body of an answer that is one piece of JSON.
pub(super) async fn read_json(answer: Response<Incoming>) -> Result<Value> {
    let bytes = whole(answer, MAX_ANSWER).await?;
    serde_json::from_slice(&bytes).map_err(|failed| error::nonsense("no JSON").with_source(failed))
}

async fn whole(answer: Response<Incoming>, most: usize) -> Result<Bytes> {
    let body = Limited::new(answer.into_body(), most).collect().await;
    let body = body.map_err(|failed| broken("the answer broke off").with_source(failed))?;
    Ok(body.to_bytes())
}

/// The connection, or what it carries, failed.
pub(super) fn broken(what: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, what).with_step("talk to the engine")
}

/// The lower of both versions. A server that names none is as old as they come.
fn agreed(theirs: Option<&str>, ours: u16) -> Result<u16> {
    let Some(text) = theirs else { return Ok(OLDEST) };
    let minor = text.strip_prefix("1.").and_then(|minor| minor.parse::<u16>().ok());
    let minor = minor.ok_or_else(|| error::nonsense(format_args!("the API version {text:?}")))?;
    if minor < OLDEST {
        let needs = format!("an engine that speaks version 1.{OLDEST} of the API or a newer one, not {text}");
        return Err(Error::unsupported("the endpoint", needs));
    }
    Ok(minor.min(ours))
}

/// Connects and asks. Runs on the driver, where the connection stays as long as the answer is read.
async fn exchange(
    endpoint: &Endpoint,
    tls: Option<&ClientTls>,
    ask: Ask,
    version: Option<u16>,
) -> Result<Response<Incoming>> {
    let host = match endpoint {
        Endpoint::Unix(_) => "localhost".to_owned(),
        Endpoint::Tcp { .. } => endpoint.to_string().trim_start_matches("tcp://").to_owned(),
    };
    let request = ask.request(&host, version)?;
    let stream = tokio::time::timeout(CONNECT, open(endpoint, tls)).await;
    let stream = stream.map_err(|_| unreachable(endpoint))??;
    let handshake = hyper::client::conn::http1::handshake::<_, Body>(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|failed| unreachable(endpoint).with_source(failed))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to an engine ended early");
        }
    });
    let answer = sender.send_request(request).await;
    let answer = answer.map_err(|failed| broken("the engine did not answer").with_source(failed))?;
    let code = answer.status();
    if code.is_success() || code == StatusCode::NOT_MODIFIED || code == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(answer);
    }
    let body = whole(answer, MAX_ERROR).await.unwrap_or_default();
    Err(error::of_answer(code.as_u16(), &body))
}

fn unreachable(endpoint: &Endpoint) -> Error {
    let message = format!("no engine answers at {endpoint}: look whether it runs, and who may connect");
    Error::new(ErrorKind::Unavailable, message).with_step("connect to the engine")
}

/// Either sort of stream.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn open(endpoint: &Endpoint, tls: Option<&ClientTls>) -> Result<Box<dyn Stream>> {
    let failed = |error: std::io::Error| {
        let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
        let kind = if denied {
            ErrorKind::Denied
        } else {
            ErrorKind::Unavailable
        };
        unreachable(endpoint).with_kind(kind).with_source(error)
    };
    let (host, port) = match endpoint {
        Endpoint::Unix(path) => return Ok(Box::new(UnixStream::connect(path).await.map_err(failed)?)),
        Endpoint::Tcp { host, port } => (host, Endpoint::port(*port, tls.is_some())),
    };
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    let Some(tls) = tls else { return Ok(Box::new(stream)) };
    let stream = tls
        .connector
        .connect(server_name(host)?, stream)
        .await
        .map_err(failed)?;
    Ok(Box::new(stream))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a6_the_lower_of_both_versions() {
        assert_eq!(agreed(Some("1.44"), 56).unwrap(), 44);
        assert_eq!(agreed(Some("1.60"), 56).unwrap(), 56);
        assert_eq!(agreed(None, 56).unwrap(), OLDEST);
        assert!(agreed(Some("1.12"), 56).unwrap_err().is_unsupported());
        for odd in ["", "2.0", "1.x", "1.99999999"] {
            assert_eq!(
                agreed(Some(odd), 56).unwrap_err().kind(),
                &ErrorKind::Unavailable,
                "{odd}"
            );
        }
    }

    #[test]
    fn targets_hold_whatever_is_asked_for() {
        let ask = Ask::post(format!("images/{}/tag", image_path("host:5000/a b/c?x#y")))
            .with("repo", "a/b")
            .with_some("none", None::<&str>)
            .flag("off", false)
            .flag("on", true)
            .filter(&Filter::new().with("label", "a=b"));
        let request = ask.request("box:1", Some(44)).unwrap();
        assert_eq!(
            request.uri(),
            "/v1.44/images/host:5000/a%20b/c%3Fx%23y/tag?repo=a%2Fb&on=1&filters=%7B%22label%22%3A%5B%22a%3Db%22%5D%7D"
        );
        assert_eq!(request.headers()[HOST], "box:1");
        assert_eq!(segment("../a/b"), "..%2Fa%2Fb");
    }
}
