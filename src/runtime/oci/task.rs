//! A running container that an OCI runtime has made. What concerns its first process, its cgroup and its terminal is as with
//! the native runtime; commands and the end of it are the OCI runtime's.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use oci_spec::runtime::LinuxResources;

use super::bundle::Place;
use super::call::{Call, Work};
use super::create::Job;
use super::exec;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::runtime::cgroups::Cgroup;
use crate::runtime::native::tool::Bench;
use crate::runtime::{ExecLaunch, ExecStarted, Exit, Task};
use crate::sys::blocking::blocking;
use crate::types::{ContainerId, Signal};

/// What is known of a container.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    pub(super) job: Job,
    pub(super) id: ContainerId,
    pub(super) work: Arc<Work>,
    pub(super) place: Place,
    pub(super) cgroup: Option<Arc<dyn Cgroup>>,
    /// Whether it has a seccomp profile.
    pub(super) seccomp: bool,
}

impl Parts {
    /// A run of the program about this container.
    pub(super) fn call<'a>(&'a self, bench: &'a Bench) -> Call<'a> {
        Call {
            bench,
            program: &self.job.program,
            name: &self.job.name,
            id: &self.id,
            work: &self.work,
        }
    }

    pub(super) fn not_running(&self) -> Error {
        let message = format!("container {} is not running", self.id.short());
        Error::new(ErrorKind::InvalidState, message).with_object(ObjectKind::Container, self.id.as_str())
    }
}

/// A container of an OCI runtime.
#[derive(Debug)]
pub(super) struct OciTask {
    parts: Parts,
    inner: Arc<dyn Task>,
}

impl OciTask {
    pub(super) fn new(parts: Parts, inner: Arc<dyn Task>) -> Self {
        Self { parts, inner }
    }

    /// Also where whatever this runs in has had its turn: then nothing of tokio's is ready otherwise.
    fn has_ended(&self) -> bool {
        tokio::task::unconstrained(self.inner.until_ended())
            .now_or_never()
            .is_some()
    }
}

#[async_trait]
impl Task for OciTask {
    fn pid(&self) -> u32 {
        self.inner.pid()
    }

    async fn signal(&self, signal: Signal, all: bool) -> Result<()> {
        self.inner.signal(signal, all).await
    }

    async fn wait(&self) -> Result<Exit> {
        self.inner.wait().await
    }

    async fn until_ended(&self) {
        self.inner.until_ended().await;
    }

    async fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        self.inner.resize(rows, columns).await
    }

    async fn exec(&self, exec: ExecLaunch) -> Result<ExecStarted> {
        if self.has_ended() {
            return Err(self.parts.not_running());
        }
        exec::run_detached(self.parts.clone(), Arc::clone(&self.inner), exec).await
    }

    async fn pause(&self) -> Result<()> {
        self.inner.pause().await
    }

    async fn resume(&self) -> Result<()> {
        self.inner.resume().await
    }

    async fn update(&self, resources: &LinuxResources) -> Result<()> {
        self.inner.update(resources).await
    }

    async fn remove(&self) -> Result<()> {
        if !self.has_ended() {
            return self.inner.remove().await;
        }
        // The counters go with the cgroup, which the runtime removes too.
        self.inner.wait().await?;
        // Whoever removes it once more finds that gone.
        if self.parts.work.dir().exists() {
            self.delete().await;
        }
        self.inner.remove().await?;
        let work = Arc::clone(&self.parts.work);
        blocking(move || work.remove()).await
    }
}

impl OciTask {
    /// The runtime forgets it: hooks for the end run, and what it has made of cgroups goes. What stays nevertheless lies below the
    /// owner's own, and in the container's directory, and goes with those. Not by the zygote that had it, which may be gone.
    async fn delete(&self) {
        let parts = &self.parts;
        let deleted = match parts.job.native.bench().await {
            Ok(bench) => {
                let words = ["delete", "--force", parts.id.as_str()];
                parts.call(&bench).verb("delete", &words).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = deleted {
            tracing::warn!(container = %parts.id, error = error.report(), "a runtime could not forget a container");
        }
    }
}
