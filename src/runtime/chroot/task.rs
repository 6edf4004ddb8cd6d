//! A running container that its warden looks after: its first process, its commands and its cgroup are as with the native runtime.

use std::sync::Arc;

use async_trait::async_trait;
use oci_spec::runtime::LinuxResources;

use super::ask::ask_exec;
use super::family;
use super::host::Host;
use crate::error::{Error, Result};
use crate::runtime::native::apart::Warden;
use crate::runtime::{ExecLaunch, ExecStarted, Exit, Task};
use crate::sys::blocking::blocking;
use crate::types::Signal;

/// A container without namespaces.
#[derive(Debug)]
pub(super) struct ChrootTask {
    inner: Arc<dyn Task>,
    warden: Arc<Warden>,
    host: Host,
}

impl ChrootTask {
    pub(super) fn new(inner: Arc<dyn Task>, warden: Arc<Warden>, host: Host) -> Self {
        Self { inner, warden, host }
    }
}

#[async_trait]
impl Task for ChrootTask {
    fn pid(&self) -> u32 {
        self.inner.pid()
    }

    /// The end of the first process is the end of all: its warden sees to that.
    async fn signal(&self, signal: Signal, all: bool) -> Result<()> {
        if all && signal != Signal::KILL {
            let (warden, first) = (self.warden.pid, self.inner.pid());
            let number = signal.number();
            let told = blocking(move || {
                family::signal_below(warden, first, number)
                    .map_err(|error| Error::os("signal a container's processes", error))
            });
            told.await?;
        }
        // With a cgroup all are killed at once, however fast they multiply.
        self.inner.signal(signal, signal == Signal::KILL).await?;
        if signal == Signal::KILL {
            let warden = Arc::clone(&self.warden);
            tokio::spawn(async move { warden.overcome().await });
        }
        Ok(())
    }

    async fn wait(&self) -> Result<Exit> {
        let exit = self.inner.wait().await?;
        self.warden.gone().await;
        Ok(exit)
    }

    async fn until_ended(&self) {
        self.inner.until_ended().await;
        self.warden.gone().await;
    }

    async fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        self.inner.resize(rows, columns).await
    }

    async fn exec(&self, exec: ExecLaunch) -> Result<ExecStarted> {
        self.inner.exec(ask_exec(exec, self.host)?).await
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
        self.inner.remove().await?;
        self.warden.gone().await;
        self.warden.forget();
        Ok(())
    }
}
