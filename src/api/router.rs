//! The router: one table of routes, and the service over it.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt as _;
use hyper::body::Body as HttpBody;
use hyper::header::{HeaderName, HeaderValue, SERVER};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response};

#[cfg(feature = "build")]
use super::builds;
use super::call::Call;
use super::connection::Turn;
use super::error::Failure;
use super::query::{Query, decode};
use super::reply::{self, Body, BodyError, Reply};
use super::version::{self, ApiVersion};
use super::{containers, exec, images, networks, refusals, system, volumes};
use crate::engine::Engine;
use crate::error::ErrorKind;

/// What a verb answers.
pub(super) type Answer = Result<Reply, Failure>;
/// A verb at work.
pub(super) type Verb = fn(Call) -> Pin<Box<dyn Future<Output = Answer> + Send>>;

/// A method, a path and a verb. In a path, `{x}` stands for one part and `{x*}` for one or more.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) verb: Verb,
}

/// Makes a table of routes: `GET "containers/json" => list;`.
macro_rules! routes {
    ($($method:ident $path:literal => $verb:path;)*) => {
        &[$($crate::api::router::Route {
            method: hyper::Method::$method,
            path: $path,
            verb: |call| Box::pin($verb(call)),
        }),*]
    };
}
pub(super) use routes;

/// Every route there is. The first that fits is taken.
const TABLES: &[&[Route]] = &[
    #[cfg(feature = "build")]
    builds::ROUTES,
    #[cfg(not(feature = "build"))]
    refusals::NO_BUILDS,
    system::ROUTES,
    containers::ROUTES,
    exec::ROUTES,
    images::ROUTES,
    networks::ROUTES,
    volumes::ROUTES,
    refusals::ROUTES,
];

/// The Engine API over an engine, as a tower and hyper service. Cheap to clone.
///
/// In a server of one's own, some things are lost that need [`Server`](super::Server)'s accept loop: `docs/api.md` lists
/// them.
#[derive(Debug, Clone)]
pub struct Router {
    engine: Arc<Engine>,
}

/// The Engine API over an engine, as a tower and hyper service.
pub fn router(engine: Engine) -> Router {
    Router {
        engine: Arc::new(engine),
    }
}

type Serving = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl Router {
    fn serve<B>(&self, mut request: Request<B>) -> Serving
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        let upgrade = hyper::upgrade::on(&mut request);
        let (parts, body) = request.into_parts();
        let engine = Engine::clone(&self.engine);
        Box::pin(async move {
            let answer = serve(engine, parts, Body::new(body), upgrade).await;
            Ok(finish(answer))
        })
    }
}

impl<B> tower_service::Service<Request<B>> for Router
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Serving;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Serving {
        self.serve(request)
    }
}

impl<B> hyper::service::Service<Request<B>> for Router
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Serving;

    fn call(&self, request: Request<B>) -> Serving {
        self.serve(request)
    }
}

async fn serve(engine: Engine, head: Parts, body: Body, upgrade: hyper::upgrade::OnUpgrade) -> Answer {
    let path = decode(head.uri.path(), false);
    let (version, rest) = version::split(&path)?;
    // Docker answers it of every path, to browsers among others.
    if head.method == Method::OPTIONS {
        return Ok(reply::empty(hyper::StatusCode::OK));
    }
    let (verb, parts) = find(&head.method, rest).ok_or_else(Failure::no_page)?;
    let turn = head.extensions.get::<Turn>().cloned();
    // Our own server asks for a client that does not; elsewhere the client must.
    let asked = head.headers.contains_key(hyper::header::UPGRADE);
    let call = Call {
        engine,
        version,
        parts,
        query: Query::parse(head.uri.query().unwrap_or_default()),
        headers: head.headers,
        body: Mutex::new(body),
        upgrade: asked.then_some(upgrade),
        turn,
    };
    // A panic is a bug of ours; the client still gets an answer, and other requests are not touched.
    let answer = AssertUnwindSafe(verb(call)).catch_unwind().await;
    answer.unwrap_or_else(|_| {
        let message = "the engine failed at this request; this is a bug, please report it";
        Err(Failure::new(
            hyper::StatusCode::INTERNAL_SERVER_ERROR,
            &ErrorKind::Internal,
            message,
        ))
    })
}

/// What every answer of Docker's carries.
fn finish(answer: Answer) -> Reply {
    let mut reply = answer.unwrap_or_else(|failure| reply::failure(&failure));
    let headers = reply.headers_mut();
    let version = HeaderValue::from_str(&ApiVersion::MAX.to_string());
    headers.insert(
        HeaderName::from_static("api-version"),
        version.unwrap_or(HeaderValue::from_static("1.44")),
    );
    headers.insert(
        HeaderName::from_static("docker-experimental"),
        HeaderValue::from_static("false"),
    );
    headers.insert(HeaderName::from_static("ostype"), HeaderValue::from_static("linux"));
    headers.insert(
        SERVER,
        HeaderValue::from_static(concat!("Longshore/", env!("CARGO_PKG_VERSION"), " (linux)")),
    );
    reply
}

/// The verb of a path, and what its placeholders stand for.
fn find(method: &Method, path: &str) -> Option<(Verb, Vec<String>)> {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    TABLES.iter().flat_map(|table| table.iter()).find_map(|route| {
        let fits = route.method == *method;
        fits.then(|| matches(route.path, &segments))
            .flatten()
            .map(|parts| (route.verb, parts))
    })
}

/// What the placeholders of a pattern stand for, where it fits.
fn matches(pattern: &str, segments: &[&str]) -> Option<Vec<String>> {
    let pattern: Vec<&str> = pattern.split('/').collect();
    let greedy = pattern.iter().position(|part| part.ends_with("*}"));
    let spare = match greedy {
        Some(_) => segments.len().checked_sub(pattern.len())?,
        None if segments.len() == pattern.len() => 0,
        None => return None,
    };
    let mut parts = Vec::new();
    let mut rest = segments;
    for (at, part) in pattern.iter().enumerate() {
        let take = if Some(at) == greedy { spare + 1 } else { 1 };
        let (here, after) = rest.split_at_checked(take)?;
        rest = after;
        if part.starts_with('{') {
            parts.push(here.join("/"));
        } else if here != [*part] {
            return None;
        }
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images_may_have_slashes() {
        let fits = |pattern, path: &str| matches(pattern, &path.split('/').collect::<Vec<_>>());
        assert_eq!(
            fits("images/{name*}/json", "images/host:5000/a/b:tag/json").unwrap(),
            ["host:5000/a/b:tag"]
        );
        assert_eq!(fits("images/{name*}/json", "images/json/json").unwrap(), ["json"]);
        assert_eq!(fits("images/{name*}/json", "images/json"), None);
        assert_eq!(fits("containers/{id}/json", "containers/a/b/json"), None);
        assert_eq!(fits("containers/{id}/json", "containers/a/json").unwrap(), ["a"]);
        assert_eq!(fits("images/{name*}", "images/a/b").unwrap(), ["a/b"]);
    }

    #[test]
    fn no_route_is_there_twice() {
        let all: Vec<String> = TABLES
            .iter()
            .flat_map(|table| table.iter())
            .map(|route| format!("{} {}", route.method, route.path))
            .collect();
        let mut once = all.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), all.len());
    }

    #[test]
    fn a_path_that_leads_nowhere() {
        assert!(find(&Method::GET, "nope").is_none());
        assert!(find(&Method::GET, "").is_none());
        assert!(find(&Method::PATCH, "containers/json").is_none());
        assert!(find(&Method::GET, "/containers//json").is_some());
    }
}
