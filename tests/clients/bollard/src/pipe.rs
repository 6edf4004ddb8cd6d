//! The Engine API without a server: bollard talks over pipes in memory to a router in this process.

use std::path::PathBuf;

use bollard::errors::Error;
use bollard::{BollardRequest, Docker};
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderValue};
use hyper::http::uri::Uri;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use longshore::Engine;
use longshore::api::{Router, router};

/// How many bytes each way a pipe holds.
const PIPE: usize = 64 << 10;

/// A client of an engine that is opened here.
pub async fn connect(root: PathBuf) -> Result<Docker, Box<dyn std::error::Error>> {
    let api = router(Engine::open(root).await?);
    let transport = move |request| {
        let asking = ask(api.clone(), request);
        Box::pin(asking) as std::pin::Pin<Box<dyn Future<Output = _> + Send>>
    };
    let version = bollard::API_DEFAULT_VERSION;
    Ok(Docker::connect_with_custom_transport(transport, Some("http://in.memory"), 60, version)?)
}

/// A pipe per request, as a connection of which nothing else is asked.
async fn ask(api: Router, mut request: BollardRequest) -> Result<Response<Incoming>, Error> {
    let (client, server) = tokio::io::duplex(PIPE);
    tokio::spawn(async move {
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), api);
        let _ = connection.with_upgrades().await;
    });
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(client)).await?;
    tokio::spawn(connection.with_upgrades());
    to_origin(&mut request);
    Ok(sender.send_request(request).await?)
}

/// A server is asked for a path; the host has a header of its own.
fn to_origin<B>(request: &mut Request<B>) {
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
    request.headers_mut().insert(HOST, HeaderValue::from_static("in.memory"));
}
