//! A registry that says and does what a test tells it to.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// A request as the mock saw it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) authorization: Option<String>,
    pub(super) range: Option<String>,
    pub(super) accept: Option<String>,
    pub(super) host: Option<String>,
    pub(super) body: String,
}

/// How a reply's body ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    Well,
    Break,
    Stall,
    /// Repeats the body for ever.
    Never,
    /// A tenth of the body at a time, a rest after each.
    Drip,
}

pub(super) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
    end: End,
}

impl Reply {
    pub(super) fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
            end: End::Well,
        }
    }

    pub(super) fn ok(body: impl Into<Bytes>) -> Self {
        Self {
            body: body.into(),
            ..Self::new(200)
        }
    }

    pub(super) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    pub(super) fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Announces a length, true or not.
    pub(super) fn length(self, length: u64) -> Self {
        self.header("content-length", length.to_string())
    }

    pub(super) fn end(mut self, end: End) -> Self {
        self.end = end;
        self
    }

    fn frames(body: Bytes, end: End) -> BoxStream<'static, io::Result<Frame<Bytes>>> {
        let data = |bytes: Bytes| stream::iter((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))));
        match end {
            End::Well => data(body).boxed(),
            End::Break => data(body)
                .chain(stream::once(async {
                    // What was written must be on its way before the connection goes.
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                    Err(io::Error::other("told to break"))
                }))
                .boxed(),
            End::Drip => {
                let size = body.len().div_ceil(10).max(1);
                let pieces: Vec<Bytes> = body.chunks(size).map(Bytes::copy_from_slice).collect();
                let rested = |piece| async move {
                    tokio::time::sleep(std::time::Duration::from_millis(60)).await;
                    Ok(Frame::data(piece))
                };
                stream::iter(pieces).then(rested).boxed()
            }
            End::Stall => data(body).chain(stream::pending()).boxed(),
            End::Never => stream::repeat_with(move || Ok(Frame::data(body.clone()))).boxed(),
        }
    }
}

type Handler = dyn Fn(&Seen) -> Reply + Send + Sync;

pub(super) struct Mock {
    address: SocketAddr,
    log: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Mock {
    pub(super) async fn start(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::serve(None, handler).await
    }

    pub(super) async fn start_tls(tls: TlsAcceptor, handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::serve(Some(tls), handler).await
    }

    async fn serve(tls: Option<TlsAcceptor>, handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let handler: Arc<Handler> = Arc::new(handler);
        let task = tokio::spawn(accept(listener, tls, Arc::clone(&log), handler));
        Self { address, log, task }
    }

    /// `127.0.0.1:port`.
    pub(super) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.log.lock().unwrap().clone()
    }

    /// How many requests had a path with this in it.
    pub(super) fn count(&self, part: &str) -> usize {
        self.seen().iter().filter(|seen| seen.path.contains(part)).count()
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, log: Arc<Mutex<Vec<Seen>>>, handler: Arc<Handler>) {
    while let Ok((socket, _)) = listener.accept().await {
        let (tls, log, handler) = (tls.clone(), Arc::clone(&log), Arc::clone(&handler));
        tokio::spawn(async move { connection(socket, tls, log, handler).await });
    }
}

async fn connection(socket: TcpStream, tls: Option<TlsAcceptor>, log: Arc<Mutex<Vec<Seen>>>, handler: Arc<Handler>) {
    let service = service_fn(move |request| answer(request, Arc::clone(&log), Arc::clone(&handler)));
    let http = hyper::server::conn::http1::Builder::new();
    // A broken connection is what many of the tests are about.
    let _ = match tls {
        None => http.serve_connection(TokioIo::new(socket), service).await,
        Some(tls) => {
            let Ok(socket) = tls.accept(socket).await else {
                return;
            };
            http.serve_connection(TokioIo::new(socket), service).await
        }
    };
}

type Body = StreamBody<BoxStream<'static, io::Result<Frame<Bytes>>>>;

async fn answer(
    request: Request<Incoming>,
    log: Arc<Mutex<Vec<Seen>>>,
    handler: Arc<Handler>,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let text = |name: &str| head.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let seen = Seen {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        authorization: text("authorization"),
        range: text("range"),
        accept: text("accept"),
        host: text("host"),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    log.lock().unwrap().push(seen.clone());
    let reply = handler(&seen);
    let mut response = Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        response = response.header(*name, value);
    }
    Ok(response
        .body(StreamBody::new(Reply::frames(reply.body, reply.end)))
        .unwrap())
}
