//! An engine that is elsewhere: the managers over a Docker Engine API, dockerd's or one of ours, on a unix socket, over TCP
//! or TLS.
//!
//! ```no_run
//! # async fn example() -> longshore::Result<()> {
//! use longshore::{ContainerSpec, Engine};
//! let engine = Engine::connect("unix:///run/docker.sock").await?;
//! let out = engine.run(ContainerSpec::image("busybox").command(["echo", "hello"])).output().await?;
//! assert_eq!(out.stdout, b"hello\n");
//! # Ok(())
//! # }
//! ```
//!
//! Connecting asks `_ping` once and agrees on the newest version of the API that both ends speak; every later request names
//! it in its path. Each request has a connection of its own. They are kept on a thread of the client's, which ends with the
//! last handle, so futures and streams can be awaited on any executor, or none.
//!
//! An error is the one that the other end had: kind, object, step and errno come over in our own part of the answer. dockerd
//! has none; its codes and words are read instead.
//!
//! # What the API does not say
//!
//! - How a process ended is a code: one that a signal ended has 128 more than the signal, and no [`ExitStatus::signal`].
//! - [`Lifetime`](crate::Lifetime) is the other engine's to choose, and limits are never best effort.
//! - A command whose program is missing starts, says so in its output and ends with 127, or 126 if it cannot be executed.
//! - An image has no blobs of layers and no history in [`ImageInfo`](crate::images::ImageInfo), and its manifest has a size
//!   since version 1.48.
//! - Networks that [`NetworkMode`](crate::containers::NetworkMode) has no word for are shown as none.
//! - A build has nothing of this host but its context: no secrets, agents, named contexts, several platforms, outputs that are
//!   files. Its progress is that of Docker's own builder, and an error has no [`StepFailure`](crate::build::StepFailure).
//! - Progress comes in the other end's words: [`ProgressEvent::Remote`](crate::ProgressEvent).
//!
//! [`ExitStatus::signal`]: crate::ExitStatus::signal

#[cfg(all(feature = "engine", feature = "build"))]
mod build_context;
#[cfg(all(feature = "engine", feature = "build"))]
mod builds;
mod client;
mod containers;
mod endpoint;
mod error;
mod hijack;
mod images;
mod json;
mod logs;
#[cfg(feature = "network")]
mod networks;
mod pieces;
mod places;
mod spec;
mod stats;
mod system;
mod volumes;

use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use self::client::Client;
pub use self::endpoint::{ClientTls, Endpoint};
use crate::engine::{Engine, Managers};
use crate::error::{Error, ObjectKind, Result};

/// A connection about to be made. Awaiting it yields the [`Engine`].
#[derive(Debug, Clone)]
#[must_use = "nothing is connected until it is awaited"]
pub struct Connect {
    endpoint: String,
    tls: Option<ClientTls>,
    newest: u16,
    deadline: Option<Duration>,
}

impl Engine {
    /// An engine elsewhere: `unix:///run/docker.sock`, `tcp://build-box:2375`.
    ///
    /// Awaited, it is `InvalidArgument` for an endpoint that is none, `Unavailable` or `Denied` where nobody answers or one
    /// may not connect, `Unsupported` for an engine that is too old. A dropped call leaves nothing.
    pub fn connect(endpoint: impl Into<String>) -> Connect {
        Connect {
            endpoint: endpoint.into(),
            tls: None,
            newest: client::NEWEST,
            deadline: None,
        }
    }
}

impl Connect {
    /// Speaks TLS, over TCP.
    pub fn tls(mut self, tls: ClientTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Speaks no newer version of the API than `1.minor`. Default the newest that is known here, 1.56.
    pub fn newest(mut self, minor: u16) -> Self {
        self.newest = minor.clamp(client::OLDEST, client::NEWEST);
        self
    }

    /// How long connecting may take. For the verbs of the engine see [`Engine::deadline`].
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.deadline = Some(limit);
        self
    }

    async fn managers(self) -> Result<Managers> {
        let endpoint: Endpoint = self.endpoint.parse()?;
        if let (Endpoint::Unix(_), Some(_)) = (&endpoint, &self.tls) {
            let error =
                Error::invalid("TLS is spoken over TCP, not on a unix socket; leave it out, or say tcp://HOST:PORT");
            return Err(error.with_object(ObjectKind::Option, "tls"));
        }
        let client = Client::connect(endpoint, self.tls, self.newest, self.deadline).await?;
        tracing::debug!(?client, "connected");
        let managers = Managers::default()
            .images(Arc::new(images::Images(client.clone())))
            .containers(Arc::new(containers::Containers(client.clone())))
            .volumes(Arc::new(volumes::Volumes(client.clone())))
            .system(Arc::new(system::System(client.clone())));
        #[cfg(all(feature = "engine", feature = "build"))]
        let managers = managers.builds(Arc::new(builds::Builds(client.clone())));
        #[cfg(feature = "network")]
        let managers = managers.networks(Arc::new(networks::Networks(client)));
        Ok(managers)
    }
}

impl IntoFuture for Connect {
    type Output = Result<Engine>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<Engine>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { Ok(Engine::from_managers(self.managers().await?)) })
    }
}
