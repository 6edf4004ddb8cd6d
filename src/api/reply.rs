//! Answers.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::Value;

use super::error::Failure;

/// What went wrong while a body was read or written.
pub(super) type BodyError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// The body of an answer.
pub struct Body(UnsyncBoxBody<Bytes, BodyError>);

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}

impl Body {
    /// Any body.
    pub(super) fn new<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        Self(UnsyncBoxBody::new(body.map_err(Into::into)))
    }

    /// Bytes at hand.
    pub(super) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::new(Full::new(bytes.into()))
    }

    /// Bytes as they come. An error cuts the connection, so that the client knows.
    pub(super) fn stream<S, E>(stream: S) -> Self
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Into<BodyError> + 'static,
    {
        use futures_util::StreamExt as _;
        Self::new(StreamBody::new(stream.map(|item| item.map(Frame::data))))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.0).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// An answer.
pub(super) type Reply = Response<Body>;

/// `application/json`.
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Reply {
    with(status, Body::whole(Bytes::new()))
}

/// An answer with a body of no type.
pub(super) fn with(status: StatusCode, body: Body) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply
}

/// An answer in JSON, ended by a newline as Docker's.
pub(super) fn json(status: StatusCode, value: &Value) -> Reply {
    let mut text = value.to_string();
    text.push('\n');
    typed(status, JSON, Body::whole(text))
}

/// 200 and JSON.
pub(super) fn ok(value: &Value) -> Reply {
    json(StatusCode::OK, value)
}

/// An answer of some type.
pub(super) fn typed(status: StatusCode, kind: HeaderValue, body: Body) -> Reply {
    let mut reply = with(status, body);
    reply.headers_mut().insert(CONTENT_TYPE, kind);
    reply
}

/// An answer that is an error.
pub(super) fn failure(failure: &Failure) -> Reply {
    json(failure.status, &failure.body())
}
