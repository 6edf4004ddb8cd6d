//! Programs of the host's that work on a container from beside it: CRIU, OCI runtimes. The helper runs them in the zygote's pid
//! namespace (`helper/tool.rs`), and takes over what they leave behind as its own children.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::helper::wire::op;
use super::hunt::{self, Mark};
use super::plan::{FdPositions, Host, Plan};
use super::start::{self, Ends};
use super::task;
use super::zygote::{self, ExitWatch, Zygote};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::cgroups::CgroupDriver;
use crate::sys::pidfd;
use crate::types::{ContainerId, ExitStatus};

/// Where tools are run, and what is known of the place.
#[derive(Debug, Clone)]
pub(crate) struct Bench {
    pub(crate) zygote: Arc<Zygote>,
    pub(crate) host: Host,
    pub(crate) cgroups: Option<Arc<dyn CgroupDriver>>,
}

/// How long processes that were killed are waited for.
pub(crate) const DYING: Duration = Duration::from_secs(10);

/// A run that was asked for. Dropped before its end, it is killed; what it had made is for its cgroup to end.
pub(crate) struct Run {
    zygote: Arc<Zygote>,
    req: u64,
    process: Option<OwnedFd>,
}

impl Run {
    /// Starts it, and waits for its end.
    pub(crate) async fn to_end(
        zygote: &Arc<Zygote>,
        plan: Plan,
        host: Host,
        id: &ContainerId,
        ends: Ends,
        with: (FdPositions, Vec<OwnedFd>),
    ) -> Result<(Self, ExitStatus, start::Stdio)> {
        Self::to_end_within(None, zygote, plan, (host, id), ends, with).await
    }

    /// The same; with a limit, it is killed when that is over, and all that it has started and that is still where it was started.
    ///
    /// # Errors
    /// `Timeout` then.
    pub(crate) async fn to_end_within(
        limit: Option<Duration>,
        zygote: &Arc<Zygote>,
        plan: Plan,
        (host, id): (Host, &ContainerId),
        ends: Ends,
        (positions, fds): (FdPositions, Vec<OwnedFd>),
    ) -> Result<(Self, ExitStatus, start::Stdio)> {
        let names = plan.names.clone();
        let req = zygote.request();
        let mut exit = zygote.watch_exit(req);
        let blob = plan.encode(positions);
        let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        let reply = zygote.send(req, op::START, &blob, &borrowed).await?;
        drop(fds);
        let mut run = Self {
            zygote: Arc::clone(zygote),
            req,
            process: None,
        };
        let (status, stdio) = ends.split();
        let reply = zygote::check(reply.await.map_err(|_| zygote::gone())?)?;
        run.process = Some(reply.descriptor("take a tool's process")?);
        let outcome = start::outcome(status, &names, host, (None, id), None).await?;
        outcome.ok_or_else(start::died_in_setup)?;
        // While it certainly lives: what it has started is found by that.
        let mark = limit.and_then(|_| run.mark());
        match limit {
            Some(limit) => {
                let ended = tokio::time::timeout(limit, exit.wait_for(Option::is_some))
                    .await
                    .is_ok();
                if !ended {
                    return Err(run.late(limit, mark).await);
                }
            }
            None => drop(exit.wait_for(Option::is_some).await),
        }
        let raw = (*exit.borrow()).unwrap_or(libc::SIGKILL);
        Ok((run, task::status(raw), stdio))
    }

    /// Its mount namespace, of which it has its own. `None` if it has ended.
    fn mark(&self) -> Option<Mark> {
        let process = self.process.as_ref()?.as_fd();
        let pid = pidfd::pid(process).ok()?;
        let mark = Mark::mounts_of(pid).ok()?;
        // Only if the number was its own all the while.
        (pidfd::pid(process).ok()? == pid).then_some(mark)
    }

    /// Kills it with all that it has started and that is in its mounts.
    async fn late(&self, limit: Duration, mark: Option<Mark>) -> Error {
        let message = format!("it took more than {} seconds, and was killed", limit.as_secs_f64());
        let late = Error::new(ErrorKind::Timeout, message);
        if let Some(process) = &self.process {
            let _ = pidfd::send_signal(process.as_fd(), libc::SIGKILL);
        }
        let Some(mark) = mark else { return late };
        match hunt::kill_all_within(DYING, &mark).await {
            Ok(()) => late,
            Err(error) => late.with_source(error),
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Some(process) = &self.process {
            let _ = pidfd::send_signal(process.as_fd(), libc::SIGKILL);
        }
        self.zygote.tell(self.req, op::FORGET);
    }
}

/// A process that a tool has made, and that the zygote has taken over.
#[derive(Debug)]
pub(crate) struct Adopted {
    pub(crate) zygote: Arc<Zygote>,
    pub(crate) req: u64,
    /// `None`: it has ended already, and `exit` says how.
    pub(crate) process: Option<OwnedFd>,
    pub(crate) exit: ExitWatch,
    /// As the zygote knows it.
    pub(crate) inner: i32,
}

/// Hands the zygote what a tool has made, by its number there. `clean_up` is what must go if the owner dies.
pub(crate) async fn adopt(zygote: &Arc<Zygote>, inner: i32, clean_up: &[u8]) -> Result<Adopted> {
    let req = zygote.request();
    let exit = zygote.watch_exit(req);
    let blob = [&inner.to_ne_bytes(), clean_up].concat();
    let reply = zygote.send(req, op::ADOPT, &blob, &[]).await?;
    let taken = reply.await.map_err(|_| zygote::gone()).and_then(zygote::check);
    let reply = taken.inspect_err(|_| zygote.unwatch_exit(req))?;
    let process = match reply.descriptor_if_any("take the container's process") {
        Ok(process) => process,
        Err(error) => {
            // Without its descriptor it could not be ended.
            zygote.kill(req).await;
            return Err(error);
        }
    };
    Ok(Adopted {
        zygote: Arc::clone(zygote),
        req,
        process,
        exit,
        inner,
    })
}

/// What travels with a tool that is given nothing of a container.
pub(crate) fn alone(ends: &Ends) -> Result<(FdPositions, Vec<OwnedFd>)> {
    let (mut positions, fds) = ends.positions(std::iter::empty(), None);
    let nobody = FdPositions::default();
    (positions.stdin, positions.stdout, positions.stderr) = (nobody.stdin, nobody.stdout, nobody.stderr);
    Ok((positions, copies(fds.into_iter().take(1))?))
}

/// Copies of descriptors, which live as long as the request.
pub(crate) fn copies<'a>(fds: impl Iterator<Item = BorrowedFd<'a>>) -> Result<Vec<OwnedFd>> {
    let copied: std::io::Result<_> = fds.map(|fd| fd.try_clone_to_owned()).collect();
    copied.map_err(|error| Error::os("copy a descriptor", error))
}

/// What a wait status says.
pub(crate) fn status(raw: i32) -> ExitStatus {
    task::status(raw)
}
