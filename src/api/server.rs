//! The server: sockets, connections, limits, and the drain at the end.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::connection::{Connection, MAX_HEAD, Turn};
use super::listen::{self, Listener, Mode};
use super::router::{Router, router};
use super::tls::Tls;
use crate::engine::Engine;
use crate::error::Result;

/// How long to rest where the process has no file descriptor left for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a server bears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Connections at a time, those that have become raw streams too; further ones wait. Default 10,000.
    pub connections: usize,
    /// How long the head of a request may take to arrive once it has begun, and a TLS handshake. Default 30 seconds.
    pub head_within: Duration,
    /// How long requests may go on once the server is to end. Default 10 seconds.
    pub drain_within: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            head_within: Duration::from_secs(30),
            drain_within: Duration::from_secs(10),
        }
    }
}

/// Where to listen.
#[derive(Debug)]
enum Place {
    Unix(PathBuf, Mode),
    Tcp(SocketAddr, Option<Tls>),
    Given(OwnedFd),
}

/// The Engine API over an engine, on sockets. It runs on the tokio runtime of whoever awaits it, one task per connection.
#[derive(Debug)]
#[must_use = "a server does nothing until it serves"]
pub struct Server {
    router: Router,
    places: Vec<Place>,
    group: Option<u32>,
    limits: Limits,
}

impl Server {
    /// A server that listens nowhere yet.
    pub fn new(engine: Engine) -> Self {
        Self {
            router: router(engine),
            places: Vec::new(),
            group: None,
            limits: Limits::default(),
        }
    }

    /// Listens on a path, whose file gets this mode. Whoever may write to it is root in all but name, if the engine is.
    pub fn unix(mut self, path: impl Into<PathBuf>, mode: Mode) -> Self {
        self.places.push(Place::Unix(path.into(), mode));
        self
    }

    /// Gives the files of sockets to a group.
    pub fn group(mut self, gid: u32) -> Self {
        self.group = Some(gid);
        self
    }

    /// Listens on an address. Without TLS, and without authorities in it, everybody who reaches the address is let in.
    pub fn tcp(mut self, address: SocketAddr, tls: Option<Tls>) -> Self {
        self.places.push(Place::Tcp(address, tls));
        self
    }

    /// Takes a socket that listens already, unix or TCP: of socket activation, say.
    pub fn listener(mut self, socket: impl Into<OwnedFd>) -> Self {
        self.places.push(Place::Given(socket.into()));
        self
    }

    /// Sets what the server bears.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Listens, so that clients can connect, and serves once the result does.
    ///
    /// # Errors
    /// `Conflict` if another server listens on a path, `Denied`, `InvalidArgument`, `Os`.
    ///
    /// # Cancel safety
    /// A dropped call listens nowhere.
    pub async fn bind(self) -> Result<Bound> {
        let mut listeners = Vec::new();
        for place in self.places {
            listeners.push(match place {
                Place::Unix(path, mode) => (listen::unix(&path, mode, self.group)?, None),
                Place::Tcp(address, tls) => (listen::tcp(address).await?, tls),
                Place::Given(fd) => (listen::given(fd)?, None),
            });
        }
        Ok(Bound {
            router: self.router,
            listeners,
            limits: self.limits,
            activity: Activity::new(self.limits.connections),
        })
    }

    /// Listens and serves until a future ends; then takes no more connections, lets requests finish for
    /// [`Limits::drain_within`], and closes what is left.
    ///
    /// # Errors
    /// As [`Server::bind`].
    ///
    /// # Cancel safety
    /// A dropped call closes everything at once.
    pub async fn serve_until(self, end: impl Future<Output = ()> + Send) -> Result<()> {
        self.bind().await?.serve_until(end).await;
        Ok(())
    }
}

/// A server that listens.
#[derive(Debug)]
#[must_use = "clients wait until it serves"]
pub struct Bound {
    router: Router,
    listeners: Vec<(Listener, Option<Tls>)>,
    limits: Limits,
    activity: Activity,
}

impl Bound {
    /// The addresses of its TCP sockets, with the ports that the kernel chose.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let local = |(listener, _): &(Listener, _)| match listener {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(..) => None,
        };
        self.listeners.iter().filter_map(local).collect()
    }

    /// How busy it is, from now on and while it serves.
    pub fn activity(&self) -> Activity {
        self.activity.clone()
    }

    /// Serves until a future ends, as [`Server::serve_until`].
    pub async fn serve_until(self, end: impl Future<Output = ()> + Send) {
        let (phase, phases) = watch::channel(Phase::Serving);
        let lives = Service {
            router: self.router,
            limits: self.limits,
            activity: self.activity,
            phases,
        };
        let mut accepting = JoinSet::new();
        for (listener, tls) in self.listeners {
            accepting.spawn(accept_all(lives.clone(), listener, tls));
        }
        end.await;
        phase.send_replace(Phase::Draining);
        // Their listeners close, and with them the sockets' files go.
        accepting.shutdown().await;
        let idle = lives.activity.idle();
        let drained = tokio::time::timeout(lives.limits.drain_within, idle).await;
        phase.send_replace(Phase::Closed);
        if drained.is_err() {
            tracing::info!("requests that did not end in time were cut off");
            lives.activity.idle().await;
        }
    }
}

/// How busy a server is. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Activity {
    places: Arc<Semaphore>,
    most: usize,
    changed: watch::Sender<()>,
}

impl Activity {
    fn new(most: usize) -> Self {
        let most = most.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            places: Arc::new(Semaphore::new(most)),
            most,
            changed: watch::Sender::new(()),
        }
    }

    /// How many connections there are, raw streams too.
    pub fn connections(&self) -> usize {
        self.most - self.places.available_permits().min(self.most)
    }

    /// Ends as soon as there is no connection.
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    pub async fn idle(&self) {
        let mut changed = self.changed.subscribe();
        while self.connections() > 0 {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Ends once there has been no connection for so long.
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    pub async fn idle_for(&self, length: Duration) {
        let mut changed = self.changed.subscribe();
        loop {
            self.idle().await;
            changed.mark_unchanged();
            if self.connections() == 0 && tokio::time::timeout(length, changed.changed()).await.is_err() {
                return;
            }
        }
    }
}

/// Where a server is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Phase {
    Serving,
    /// No more connections; requests are finished.
    Draining,
    /// Everything is closed.
    Closed,
}

/// Ends once a server is that far, or gone.
async fn reached(mut phases: watch::Receiver<Phase>, phase: Phase) {
    let _ = phases.wait_for(|now| *now >= phase).await;
}

/// What every connection of a server shares.
#[derive(Debug, Clone)]
struct Service {
    router: Router,
    limits: Limits,
    activity: Activity,
    phases: watch::Receiver<Phase>,
}

/// A connection's place among the many, held for as long as it lives, be it as a raw stream.
#[derive(Debug)]
pub(super) struct Lives {
    place: Option<OwnedSemaphorePermit>,
    changed: watch::Sender<()>,
    phases: watch::Receiver<Phase>,
}

impl Lives {
    /// Ends when the server closes what is left.
    pub(super) async fn closed(&self) {
        reached(self.phases.clone(), Phase::Closed).await;
    }
}

impl Drop for Lives {
    fn drop(&mut self) {
        drop(self.place.take());
        self.changed.send_replace(());
    }
}

async fn accept_all(service: Service, listener: Listener, tls: Option<Tls>) {
    loop {
        let Ok(place) = Arc::clone(&service.activity.places).acquire_owned().await else {
            return;
        };
        service.activity.changed.send_replace(());
        let lives = Arc::new(Lives {
            place: Some(place),
            changed: service.activity.changed.clone(),
            phases: service.phases.clone(),
        });
        let accepted = match &listener {
            Listener::Unix(listener, _) => listener.accept().await.map(|(io, _)| Accepted::Unix(io)),
            Listener::Tcp(listener) => listener.accept().await.map(|(io, _)| Accepted::Tcp(io, tls.clone())),
        };
        match accepted {
            Ok(accepted) => drop(tokio::spawn(welcome(service.clone(), accepted, lives))),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

enum Accepted {
    Unix(UnixStream),
    Tcp(TcpStream, Option<Tls>),
}

async fn welcome(service: Service, accepted: Accepted, lives: Arc<Lives>) {
    match accepted {
        Accepted::Unix(io) => converse(service, io, lives).await,
        Accepted::Tcp(io, None) => {
            let _ = io.set_nodelay(true);
            converse(service, io, lives).await;
        }
        Accepted::Tcp(io, Some(tls)) => {
            let _ = io.set_nodelay(true);
            let handshake = tokio::time::timeout(service.limits.head_within, tls.acceptor.accept(io));
            match handshake.await {
                Ok(Ok(io)) => converse(service, io, lives).await,
                Ok(Err(error)) => tracing::debug!(%error, "a client was not let in"),
                Err(_) => tracing::debug!("a client did not finish its handshake"),
            }
        }
    }
}

/// Serves one connection to its end.
async fn converse<T>(service: Service, io: T, lives: Arc<Lives>)
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let turn = Turn::new(lives);
    let io = TokioIo::new(Connection::new(io, turn.clone(), service.limits.head_within));
    let (router, place) = (service.router, turn.clone());
    let answer = hyper::service::service_fn(move |mut request: Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(place.clone());
        let request = request.map(|body| place.request(body));
        let answering = hyper::service::Service::call(&router, request);
        let place = place.clone();
        async move {
            let answer: Response<_> = answering.await?;
            let switches = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
            Ok::<_, std::convert::Infallible>(answer.map(|body| place.answer(body, switches)))
        }
    });
    let connection = http1::Builder::new()
        .max_buf_size(2 * MAX_HEAD)
        // As Go writes them: clients that read heads by hand may look for no other case.
        .title_case_headers(true)
        .serve_connection(io, answer)
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = reached(service.phases, Phase::Draining) => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = turn.lives.closed() => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
