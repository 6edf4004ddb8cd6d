//! A container that is bound to its engine becomes a detached one while it runs.
//!
//! A shim is there first, with everything that it needs, and does nothing. Then the container's parent, the zygote, is asked to let
//! it outlive its owner, and tells the shim: from that word on, and not before, the container is detached, whoever is killed at
//! whatever moment.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::begin::{self, Asking};
use super::place::Place;
use super::renew::{ended, userns_of};
use super::seen::born;
use super::task;
use crate::error::{Error, Result};
use crate::logs::LogStream;
use crate::runtime::Launch;
use crate::runtime::detached::{Detach, DetachedOutput, HandOn};
use crate::runtime::native::helper::record::State;
use crate::runtime::native::task::BoundTask;
use crate::runtime::native::zygote::Zygote;
use crate::runtime::native::{Shared, start, wants_user_namespace};
use crate::sys::{pidfd, socket};
use crate::types::ContainerId;

/// A shim that waits for the zygote's word. Dropped, it ends, and the container is bound as before.
pub(super) struct Ready {
    id: ContainerId,
    place: Place,
    zygote: Arc<Zygote>,
    req: u64,
    line: OwnedFd,
    /// A reader of what it prints from the word on.
    output: Option<OwnedFd>,
}

pub(super) fn not_ours() -> Error {
    let needs = "a container that the native runtime has started itself";
    Error::unsupported("a longer life for a container that others run", needs)
}

/// Spawns a shim with all that it needs. Blocking.
pub(super) fn prepare(
    shared: &Shared,
    bound: BoundTask,
    launch: &Launch,
    detach: &Detach,
    streams: &HandOn,
) -> Result<Ready> {
    begin::check(launch)?;
    if bound.hooks {
        return Err(Error::unsupported(
            "a longer life for a container with hooks",
            "a container without: nobody runs them while no engine is there",
        ));
    }
    let mut place = Place::make(&detach.dir, launch.stdio.stdin, detach.check.is_some())?;
    let made = shim(shared, &bound, launch, detach, streams, &mut place);
    let (line, output) = match made {
        Ok(made) => made,
        Err(error) => {
            place.undo();
            return Err(match pidfd::has_ended(bound.process.as_fd()) {
                true => ended(&launch.id).with_source(error),
                false => error,
            });
        }
    };
    Ok(Ready {
        id: launch.id.clone(),
        place,
        zygote: bound.zygote,
        req: bound.req,
        line,
        output,
    })
}

/// The zygote's end of the line, and a reader of the output.
fn shim(
    shared: &Shared,
    bound: &BoundTask,
    launch: &Launch,
    detach: &Detach,
    streams: &HandOn,
    place: &mut Place,
) -> Result<(OwnedFd, Option<OwnedFd>)> {
    let reactor = begin::reactor_of(shared)?;
    super::reap::sweep();
    place.note_run(&run_of(bound, launch, streams)?)?;
    let userns = userns_of(shared, bound.pid)?;
    let (spawned, host) = begin::spawn(shared, place, &reactor, userns.as_ref().map(AsFd::as_fd))?;
    let ids = match wants_user_namespace(&launch.spec) {
        true => Some(shared.container_ids(spawned.child.pid, &launch.spec)?),
        false => None,
    };
    let mut plan = start::plan_of(launch, host, ids.as_ref(), false)?;
    let log = detach
        .log
        .format
        .is_some()
        .then(|| begin::open_log(&detach.log))
        .transpose()?;
    let (line, theirs) = socket::pair().map_err(|error| Error::os("make the shim's line to the zygote", error))?;
    let given = given(launch, streams, place, theirs.as_fd());
    let asked = Asking {
        launch,
        detach,
        place,
        control: &spawned.control,
        host,
        log: log.as_ref(),
        cgroup: bound.cgroup.as_deref(),
        taken: Some(bound.process.as_fd()),
        given: Some(&given),
    };
    let (_, output) = asked.ask(&mut plan)?;
    Ok((line, output))
}

/// The run as the shim finds it.
fn run_of(bound: &BoundTask, launch: &Launch, streams: &HandOn) -> Result<State> {
    Ok(State {
        pid: bound.pid,
        start_ticks: born(bound.pid).ok_or_else(|| ended(&launch.id))?,
        started_ns: streams.started_ns,
        restarts: streams.restarts,
        stdin_closed: launch.stdio.stdin && launch.stdio.terminal.is_none() && streams.stdin.is_none(),
        ..State::default()
    })
}

/// What comes along behind the container's process. In the place of a stream that has ended, something that has nothing to say.
fn given<'a>(launch: &Launch, streams: &'a HandOn, place: &'a Place, line: BorrowedFd<'a>) -> Vec<BorrowedFd<'a>> {
    let output = |wanted: LogStream| {
        let found = streams.outputs.iter().find(|(_, stream)| *stream == wanted);
        found.map_or(place.dir.as_fd(), |(end, _)| end.as_fd())
    };
    let mut all = vec![line, output(LogStream::Stdout)];
    if launch.stdio.terminal.is_none() {
        all.push(output(LogStream::Stderr));
        all.extend(streams.stdin.as_ref().map(AsFd::as_fd));
    }
    all
}

impl Ready {
    /// From the zygote's word on it is detached.
    pub(super) async fn commit(self) -> Result<Option<DetachedOutput>> {
        let kept = self.zygote.keep(self.req, self.line.as_fd()).await;
        if let Err(error) = kept {
            return Err(self.not_kept(error));
        }
        let output = self.output.map(task::chunks_of).transpose();
        Ok(output.unwrap_or_else(|error| {
            tracing::warn!(container = %self.id, error = error.report(), "what a container prints is in its log alone");
            None
        }))
    }

    fn not_kept(self, error: Error) -> Error {
        // The shim sees the end of its line.
        drop(self.line);
        self.place.undo();
        match error.errno() {
            Some(libc::ESRCH) => ended(&self.id).with_source(error),
            _ => error,
        }
    }
}
