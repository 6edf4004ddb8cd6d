//! The Engine API as a part of a server of one's own: the program answers `/health` itself, and leaves everything else to
//! the router, which is a hyper and tower service.
//!
//!     cargo run --example mount --features api -- SOCKET [ROOT]
//!     docker --host unix://SOCKET version
//!
//! What such a server lacks beside [`longshore::api::Server`] is in docs/api.md.
#![allow(clippy::print_stdout)]

use std::convert::Infallible;
use std::error::Error;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::{Service as _, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use longshore::Engine;
use longshore::api::{Router, router};
use tokio::net::{UnixListener, UnixStream};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let socket = arguments.next().ok_or("the path of a socket to make is needed")?;
    let root = arguments
        .next()
        .map_or_else(Engine::default_root, |root| Ok(root.into()))?;
    let api = router(Engine::open(root).await?);
    let listener = UnixListener::bind(&socket)?;
    println!("listening on {socket}");
    let ended = async {
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(serve(stream, api.clone()));
        }
    };
    let outcome = tokio::select! {
        failed = ended => failed,
        interrupted = tokio::signal::ctrl_c() => interrupted,
    };
    std::fs::remove_file(&socket)?;
    Ok(outcome?)
}

/// One connection. Attach and exec take it over, which needs `with_upgrades`.
async fn serve(stream: UnixStream, api: Router) {
    let answer = service_fn(move |request| answer(request, api.clone()));
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
    if let Err(error) = connection.with_upgrades().await {
        println!("a connection ended early: {error}");
    }
}

/// What is sent: a body of ours or of the router.
type Body = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

async fn answer(request: Request<Incoming>, api: Router) -> Result<Response<Body>, Infallible> {
    if request.uri().path() != "/health" {
        return Ok(api.call(request).await?.map(|body| body.boxed_unsync()));
    }
    let words = Full::new(Bytes::from_static(b"well\n"));
    Ok(Response::new(words.map_err(|never| match never {}).boxed_unsync()))
}
