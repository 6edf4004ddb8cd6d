//! A request on its way to a verb.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, BodyStream};
use hyper::header::CONTENT_TYPE;
use hyper::upgrade::OnUpgrade;
use hyper::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::connection::Turn;
use super::error::Failure;
use super::fold;
use super::query::Query;
use super::reply::Body;
use super::version::ApiVersion;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind};
use crate::images::ByteStream;

/// Largest body in JSON. The largest of real clients, a container with thousands of labels, stays far below.
const MAX_JSON: usize = 4 << 20;
/// How long a body in JSON may take to arrive.
const JSON_WITHIN: Duration = Duration::from_secs(60);

/// A request on its way to a verb.
pub(super) struct Call {
    pub(super) engine: Engine,
    pub(super) version: ApiVersion,
    /// What the path's placeholders stand for.
    pub(super) parts: Vec<String>,
    pub(super) query: Query,
    pub(super) headers: HeaderMap,
    /// A body is not `Sync`, and a call is looked at from futures that move between threads.
    pub(super) body: Mutex<Body>,
    /// The connection, where the client or our server asked for it.
    pub(super) upgrade: Option<OnUpgrade>,
    /// The connection's place in our server; none in somebody else's.
    pub(super) turn: Option<Turn>,
}

impl Call {
    /// What the path's first placeholder stands for; the router has matched one.
    pub(super) fn name(&self) -> &str {
        // Docker's lists show names with a slash, and clients send them back so.
        let name = self.parts.first().map_or("", String::as_str);
        name.strip_prefix('/').unwrap_or(name)
    }

    /// The text of a header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body in JSON, or nothing if it is empty. Source: moby, `httputils.ReadJSON`.
    pub(super) async fn json<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Failure> {
        let bytes = self.small_body().await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        self.must_be_json()?;
        let read = serde_json::from_slice(&bytes).and_then(fold::read);
        read.map(Some)
            .map_err(|error| Failure::bad(format!("invalid JSON: {error}")))
    }

    /// The body as a JSON object; an empty one counts as `{}`.
    pub(super) async fn object(&mut self) -> Result<serde_json::Map<String, Value>, Failure> {
        match self.json::<Value>().await? {
            None | Some(Value::Null) => Ok(serde_json::Map::new()),
            Some(Value::Object(object)) => Ok(object),
            Some(_) => Err(Failure::bad("invalid JSON: an object is needed")),
        }
    }

    fn must_be_json(&self) -> Result<(), Failure> {
        let kind = self.headers.get(CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("application/json") {
            return Ok(());
        }
        let message = format!("unsupported Content-Type header ({kind}): must be 'application/json'");
        Err(Failure::bad(message))
    }

    async fn small_body(&mut self) -> Result<Bytes, Failure> {
        let body = self.body.get_mut().unwrap_or_else(PoisonError::into_inner);
        let read = async {
            let mut whole = BytesMut::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| Failure::bad(format!("the body was cut short: {error}")))?;
                let Ok(data) = frame.into_data() else { continue };
                if whole.len() + data.len() > MAX_JSON {
                    let message = format!("the body is larger than {MAX_JSON} bytes");
                    return Err(Failure::bad(message).status(StatusCode::PAYLOAD_TOO_LARGE));
                }
                whole.extend_from_slice(&data);
            }
            Ok(whole.freeze())
        };
        let late = || {
            let message = "the body did not arrive in time";
            Failure::new(StatusCode::REQUEST_TIMEOUT, &ErrorKind::Timeout, message)
        };
        tokio::time::timeout(JSON_WITHIN, read).await.map_err(|_| late())?
    }

    /// The body as bytes, of any length; whoever reads it sets the pace.
    pub(super) fn stream(&mut self) -> ByteStream {
        let body = self.body.get_mut().unwrap_or_else(PoisonError::into_inner);
        let body = std::mem::replace(body, Body::whole(Bytes::new()));
        Box::pin(BodyStream::new(body).filter_map(|frame| async {
            match frame.map(hyper::body::Frame::into_data) {
                Ok(Ok(data)) => Some(Ok(data)),
                Ok(Err(_trailers)) => None,
                Err(error) => Some(Err(
                    Error::new(ErrorKind::Unavailable, "the client stopped sending").with_source(error)
                )),
            }
        }))
    }
}
