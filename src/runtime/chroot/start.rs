//! One start: the root directory is laid out, a warden is forked, and starts the first process.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::ask::{Asked, ask};
use super::ground;
use super::host::Host;
use super::task::ChrootTask;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::native::NativeRuntime;
use crate::runtime::native::apart::Keep;
use crate::runtime::{Launch, Started};
use crate::sys::blocking::blocking;
use crate::types::Signal;

/// What a start needs.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) native: Arc<NativeRuntime>,
    pub(super) host: Host,
}

impl Job {
    /// In a task of its own, so that a caller who goes away leaves nothing.
    pub(super) async fn run_detached(self, launch: Launch) -> Result<Started> {
        let (sender, receiver) = oneshot::channel();
        tokio::spawn(async move {
            if let Err(Ok(unwanted)) = sender.send(self.run(launch).await) {
                let _ = unwanted.task.signal(Signal::KILL, false).await;
                let _ = unwanted.task.wait().await;
                let _ = unwanted.task.remove().await;
            }
        });
        receiver
            .await
            .map_err(|_| Error::new(ErrorKind::Cancelled, "the runtime of the engine was shut down"))?
    }

    async fn run(self, launch: Launch) -> Result<Started> {
        let host = self.host;
        let native = Arc::clone(&self.native);
        let laid_out = blocking(move || {
            let asked = ask(launch, host)?;
            let clean_up = native.clean_ups(&asked.launch)?;
            let (root, found) = ground::lay_out(&asked)?;
            Ok((asked, clean_up, root, found))
        });
        let (asked, clean_up, root, found) = laid_out.await?;
        let Asked { launch, warnings, .. } = asked;
        let keep = Keep {
            root,
            landlock: host.landlock,
            clean_up,
        };
        let warden = Arc::new(self.native.keep(keep).await?);
        let started = self.native.kept_job(&warden).run_detached(launch).await;
        let mut started = match started {
            Ok(started) => started,
            Err(error) => {
                warden.end().await;
                return Err(error);
            }
        };
        started.warnings.extend(warnings.into_iter().chain(found));
        // Whoever drops the container's handle has not ended the container.
        let held = Arc::clone(&warden);
        tokio::spawn(async move { held.gone().await });
        started.task = Arc::new(ChrootTask::new(started.task, warden, host));
        Ok(started)
    }
}
