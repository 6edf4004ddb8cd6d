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
//! - An [`Image`] is pulled from a registry, or from what lies on disk with `oci:DIR` or `docker-archive:FILE`; it is pushed,
//!   saved and loaded too.
//! - A command in a running container is an [`ExecBuilder`], in the manner of `std::process::Command`.
//! - With the feature `api`, programs that talk to Docker talk to an engine; with `remote`, an engine elsewhere, dockerd's
//!   too, has the handles of one in this process.
//! - A Dockerfile is parsed, checked and planned by [`build`], with the place of every word; it is not built yet.
//! - Programs without an async runtime wait with [`Blocking::block`].
//! - [`runtime::Command`] is a sandboxed command in a directory, without an engine.
//! - Many processes can share a root. What belongs to a live one is never touched by another.
//! - Errors say what to do: branch on [`Error::kind`], show [`Error::report`].
//!
//! # Side by side with the caller
//!
//! A container is started, looked at and stopped through its handle; a request can be given a deadline, and tells of its
//! progress. What its caller drops is undone or finished without him.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use longshore::{ContainerSpec, Engine, ExecSpec, RemoveOptions, StopOptions};
//!
//! # async fn example(engine: Engine) -> longshore::Result<()> {
//! engine.pull("postgres:16").progress(|event| println!("{event}")).deadline(Duration::from_secs(300)).await?;
//! let spec = ContainerSpec::image("postgres:16").name("db").env("POSTGRES_PASSWORD", "x");
//! let db = engine.run(spec).await?;
//! let version = db.exec(ExecSpec::new(["postgres", "--version"])).output().await?;
//! println!("{}", String::from_utf8_lossy(&version.stdout));
//! db.stop(StopOptions::default()).await?;
//! println!("{}", db.wait().await?.status);
//! db.remove(RemoveOptions::default()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! What a host cannot do is an error that says what would help, never a silent change of what was asked for:
//!
//! ```
//! use longshore::Engine;
//!
//! for missing in Engine::probe().missing() {
//!     println!("{}: {}", missing.name, missing.remedy.as_deref().unwrap_or_default());
//! }
//! ```
//!
//! # The root directory
//!
//! ```text
//! store.db, run.db    records: what survives a power loss, and what dies with the boot
//! content/            blobs by digest
//! snapshots/          unpacked layers and writable layers
//! containers/ID/      logs
//! volumes/NAME/       what volumes hold
//! networks/ID/        what drivers of one's own have of networks
//! owners/ID/lock      held while an engine (or its helper, cleaning up after it) lives
//! locks/              taken while a blob is fetched or a layer unpacked, so that it is done once
//! ```
//!
//! # Seams
//!
//! Every part can be replaced by one's own: [`registry::Registry`], [`storage::content::ContentStore`],
//! [`storage::snapshot::Snapshotter`], [`runtime::Runtime`], [`runtime::cgroups::CgroupDriver`], [`logs::LogDriver`],
//! [`volumes::VolumeDriver`], `networks::NetworkDriver`, and the managers [`ImageManager`] and [`ContainerManager`] themselves. With the feature `conformance`, the suites that our
//! own backends pass are there for others.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `engine` | yes | everything but registries over HTTP and netlink; without it, [`types`] and [`runtime`] remain |
//! | `registry` | yes | pull and push over HTTP and TLS |
//! | `network` | yes | bridge networks, published ports and names; a look at the host's links over netlink |
//! | `build` | yes | [`build`]: Dockerfiles and ignore files, parsed, checked and planned; they are not built yet |
//! | `conformance` | no | suites, fakes and tiny images for tests of one's own backends |
//! | `api` | no | the Docker Engine REST API over any engine: a server, and a router for a server of one's own |
//! | `remote` | no | [`Engine::connect`]: an engine elsewhere, over its Engine API; alone, without a root directory |
//! | `plugins` | no | volumes that one of Docker's volume plugins keeps: [`volumes::VolumePlugin`] |
//! | `cgroups-rs` | no | the crate of that name as a second cgroup driver |
#![deny(unsafe_code)]
#![cfg_attr(test, recursion_limit = "256")]

#[cfg(feature = "api")]
pub mod api;
#[cfg(any(feature = "engine", feature = "remote"))]
mod blocking;
#[cfg(feature = "build")]
pub mod build;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(any(feature = "engine", feature = "remote"))]
pub mod containers;
#[cfg(any(feature = "engine", feature = "remote"))]
#[cfg_attr(not(feature = "engine"), allow(dead_code, reason = "for the engine in this process"))]
mod driver;
#[cfg(any(feature = "engine", feature = "remote"))]
pub mod engine;
pub mod error;
#[cfg(any(feature = "engine", feature = "remote"))]
pub mod events;
#[cfg(any(feature = "engine", feature = "remote"))]
pub mod images;
#[cfg(any(feature = "engine", feature = "remote"))]
pub mod logs;
#[cfg(feature = "network")]
pub mod networks;
pub mod probe;
pub mod progress;
#[cfg(any(feature = "engine", feature = "remote"))]
pub mod registry;
#[cfg(feature = "remote")]
pub mod remote;
pub mod runtime;
#[cfg(feature = "engine")]
pub mod storage;
#[cfg(feature = "engine")]
pub mod store;
#[allow(unsafe_code)]
pub(crate) mod sys;
#[cfg(any(feature = "engine", feature = "remote"))]
pub mod system;
pub mod types;
#[cfg(any(feature = "engine", feature = "remote"))]
pub mod volumes;

#[cfg(any(feature = "engine", feature = "remote"))]
pub use self::blocking::Blocking;
#[cfg(any(feature = "engine", feature = "remote"))]
pub use self::containers::{
    AttachOptions, Attached, BindMount, CheckpointOptions, CommitOptions, ContainerExit, ContainerInfo,
    ContainerManager, ContainerSpec, ContainerState, ContainerSummary, ExecInfo, ExecSpec, Health, HealthCheck,
    HealthStatus, Lifetime, Limits, ListOptions, LogConfig, MountSpec, NamespaceMode, NetworkMode, OnUnhealthy,
    RemoveOptions, RestartPolicy, Seccomp, SeccompProfile, SlowReader, Stats, StatsOptions, StopOptions, Tmpfs, Top,
    WaitCondition,
};
#[cfg(feature = "engine")]
pub use self::engine::EngineBuilder;
#[cfg(any(feature = "engine", feature = "remote"))]
pub use self::engine::{Container, Engine, ExecBuilder, Image, Managers, Output, RunningExec, Template, Volume};
pub use self::error::{Error, ErrorKind, ObjectKind, Result};
#[cfg(any(feature = "engine", feature = "remote"))]
pub use self::images::{ImageManager, Pull};
#[cfg(any(feature = "engine", feature = "remote"))]
pub use self::logs::LogQuery;
pub use self::progress::{Progress, ProgressEvent};
#[cfg(feature = "engine")]
pub use self::runtime::Isolation;
#[cfg(any(feature = "engine", feature = "remote"))]
pub use self::system::{DiskUsage, EventQuery, PruneAll, PrunedAll, SystemInfo, SystemManager};
pub use self::types::{
    Bytes, Change, ChangeKind, ContainerId, Digest, ExitStatus, Filter, ImageId, Outcome, Platform, Reference, Signal,
};
#[cfg(any(feature = "engine", feature = "remote"))]
pub use self::volumes::{CreateVolume, VolumeManager};
