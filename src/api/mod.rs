//! The Docker Engine REST API over any [`Engine`](crate::Engine): what the `docker` command, compose, and client libraries
//! speak. `docs/api.md` says which routes there are and where they differ from Docker's.
//!
//! ```no_run
//! # async fn example(stop: impl Future<Output = ()> + Send) -> longshore::Result<()> {
//! use longshore::{Engine, api};
//! let engine = Engine::open(Engine::default_root()?).await?;
//! let server = api::Server::new(engine).unix("/run/longshore.sock", api::Mode(0o660));
//! server.serve_until(stop).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # How it is made
//!
//! - [`Server`]: sockets, connections, limits, the drain at the end. It runs on the caller's tokio runtime and starts no
//!   thread; it touches no signal, environment or other state of the process.
//! - [`Router`]: a tower and hyper service of one table, route by route. It can be mounted in a server of one's own (axum:
//!   `fallback_service`), or driven over a pipe in memory. `docs/api.md` says what is lost without our own [`Server`].
//! - A folder or file per group of routes; each verb translates JSON to what a manager takes, calls it once, and translates
//!   back. Translations are pure functions.
//! - `error`: Docker's codes and words, made of kinds. `version` and `fields`: what differs between versions, as data.
//! - `hijack`: connections that become raw streams.
//!
//! Nothing here knows more of an engine than its managers say, so a wrapper or a fake behind
//! [`Engine::from_managers`](crate::Engine::from_managers) is served just the same.

mod auth;
#[cfg(feature = "build")]
mod builds;
mod call;
mod connection;
mod containers;
mod error;
mod exec;
mod fields;
mod filters;
mod fold;
mod frame;
mod hijack;
mod images;
mod jsonl;
mod listen;
mod networks;
mod object;
mod query;
mod refusals;
mod reply;
mod router;
mod server;
mod system;
#[cfg(test)]
mod tests;
mod times;
mod tls;
mod version;
mod volumes;

pub use self::listen::Mode;
pub use self::reply::Body;
pub use self::router::{Router, router};
pub use self::server::{Activity, Bound, Limits, Server};
pub use self::tls::Tls;
pub use self::version::ApiVersion;
