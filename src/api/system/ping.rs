//! `_ping`: whether somebody is there, and what they speak. Clients negotiate the version with it.

use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderName, HeaderValue, PRAGMA};

use super::super::call::Call;
use super::super::reply::{self, Body};
use super::super::router::Answer;

pub(super) async fn ping(_call: Call) -> Answer {
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    // To HEAD, hyper sends the head alone.
    let mut reply = reply::typed(StatusCode::OK, kind, Body::whole("OK"));
    let headers = reply.headers_mut();
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-store, must-revalidate"),
    );
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    // 1 is the classic builder, 2 BuildKit's, which is not served.
    headers.insert(
        HeaderName::from_static("builder-version"),
        HeaderValue::from_static("1"),
    );
    headers.insert(HeaderName::from_static("swarm"), HeaderValue::from_static("inactive"));
    Ok(reply)
}
