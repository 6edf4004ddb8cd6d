//! The container engine that Rust programs embed: images, containers and their storage in your own process, as root or as
//! an ordinary user, with no daemon, and no runtime binary installed.
//!
//! ```no_run
//! use longshore::{Bytes, ContainerSpec, Engine};
//!
//! # async fn example() -> longshore::Result<()> {
//! let engine = Engine::open(Engine::default_root()?).await?;
//! let spec = ContainerSpec::image("busybox").command(["echo", "hello"]).memory(Bytes::mib(64));
//! let out = engine.run(spec).output().await?;
//! assert_eq!(out.stdout, b"hello\n");
//! # Ok(())
//! # }
//! ```
//!
//! # What there is
//!
//! - An [`Engine`] is a cheap handle on one root directory. It owns one thread; its futures only wait for that thread, so
//!   they run on any executor, or none, and an engine in a `static` is fine.
//! - A [`Container`] is bound to its engine: it cannot outlive the last handle, nor the process, however that ends. Nothing
//!   relies on `Drop`: the kernel, and a small helper process that the engine starts, clean up.
//! - An [`Image`] is pulled from a registry, or from an OCI layout on disk with `oci:DIR`.
//! - Many processes can share a root. What belongs to a live one is never touched by another.
//! - Errors say what to do: branch on [`Error::kind`], show [`Error::report`].
//!
//! # The root directory
//!
//! ```text
//! store.db, run.db    records: what survives a power loss, and what dies with the boot
//! content/            blobs by digest
//! snapshots/          unpacked layers and writable layers
//! containers/ID/      logs
//! owners/ID/lock      held while an engine (or its helper, cleaning up after it) lives
//! ```
//!
//! # Seams
//!
//! Every part can be replaced by one's own: [`registry::Registry`], [`storage::content::ContentStore`],
//! [`storage::snapshot::Snapshotter`], [`runtime::Runtime`], [`runtime::cgroups::CgroupDriver`], [`logs::LogDriver`], and
//! the managers [`ImageManager`] and [`ContainerManager`] themselves. With the feature `conformance`, the suites that our
//! own backends pass are there for others.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `engine` | yes | everything but registries over HTTP and netlink; without it, [`types`] and [`runtime`] remain |
//! | `registry` | yes | pull over HTTP and TLS |
//! | `network` | yes | a look at links and addresses over netlink |
//! | `conformance` | no | suites, fakes and tiny images for tests of one's own backends |
//! | `api` | no | the Docker Engine REST API over any engine: a server, and a router for a server of one's own |
//! | `cgroups-rs` | no | the crate of that name as a second cgroup driver |
#![deny(unsafe_code)]
#![cfg_attr(test, recursion_limit = "256")]

#[cfg(feature = "api")]
pub mod api;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "engine")]
pub mod containers;
#[cfg(feature = "engine")]
mod driver;
#[cfg(feature = "engine")]
pub mod engine;
pub mod error;
#[cfg(feature = "engine")]
pub mod events;
#[cfg(feature = "engine")]
pub mod images;
#[cfg(feature = "engine")]
pub mod logs;
#[cfg(feature = "network")]
pub mod networks;
pub mod probe;
pub mod progress;
#[cfg(feature = "engine")]
pub mod registry;
pub mod runtime;
#[cfg(feature = "engine")]
pub mod storage;
#[cfg(feature = "engine")]
pub mod store;
#[allow(unsafe_code)]
pub(crate) mod sys;
#[cfg(feature = "engine")]
pub mod system;
pub mod types;

#[cfg(feature = "engine")]
pub use self::containers::{
    AttachOptions, Attached, BindMount, ContainerExit, ContainerInfo, ContainerManager, ContainerSpec, ContainerState,
    ContainerSummary, ExecInfo, ExecSpec, Lifetime, Limits, ListOptions, NetworkMode, RemoveOptions, Seccomp,
    SlowReader, Stats, StatsOptions, StopOptions, Tmpfs, Top, WaitCondition,
};
#[cfg(feature = "engine")]
pub use self::engine::{Container, Engine, EngineBuilder, ExecBuilder, Image, Managers, Output, RunningExec};
pub use self::error::{Error, ErrorKind, ObjectKind, Result};
#[cfg(feature = "engine")]
pub use self::images::{ImageManager, Pull};
#[cfg(feature = "engine")]
pub use self::logs::LogQuery;
pub use self::progress::{Progress, ProgressEvent};
#[cfg(feature = "engine")]
pub use self::system::{DiskUsage, EventQuery, SystemInfo, SystemManager};
pub use self::types::{Bytes, ContainerId, Digest, ExitStatus, Filter, ImageId, Outcome, Platform, Reference, Signal};
