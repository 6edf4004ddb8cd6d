//! A container that is bound to its engine becomes a detached one while it runs.
//!
//! A shim is there first, with everything that it needs, and does nothing. Then the container's parent, the zygote, is asked to let
//! it outlive its owner, and tells the shim: from that word on, and not before, the container is detached, whoever is killed at
//! whatever moment.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};

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
use crate::sys::blocking::blocking;
use crate::sys::{pidfd, socket};
use crate::types::ContainerId;

/// How long a shim that is not needed may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often is looked whether it has, in milliseconds.
const PAUSE: u8 = 10;

/// A shim that waits for the zygote's word. Dropped, it ends, and the container is bound as before.
pub(in crate::runtime::native) struct Ready {
    id: ContainerId,
    place: Place,
    zygote: Arc<Zygote>,
    req: u64,
    made: Made,
}

/// What a shim that waits is held by.
struct Made {
    /// Its process.
    shim: OwnedFd,
    /// The zygote's end of its line.
    line: OwnedFd,
    /// A reader of what the container prints from the word on.
    output: Option<OwnedFd>,
}

pub(super) fn not_ours() -> Error {
    let needs = "a container that the native runtime has started itself";
    Error::unsupported("a longer life for a container that others run", needs)
}

/// Spawns a shim with all that it needs. Blocking.
pub(in crate::runtime::native) fn prepare(
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
    let made = match made {
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
        made,
    })
}

fn shim(
    shared: &Shared,
    bound: &BoundTask,
    launch: &Launch,
    detach: &Detach,
    streams: &HandOn,
    place: &mut Place,
) -> Result<Made> {
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
    Ok(Made {
        shim: spawned.child.pidfd,
        line,
        output,
    })
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
    pub(in crate::runtime::native) async fn commit(self) -> Result<Option<DetachedOutput>> {
        let kept = self.zygote.keep(self.req, self.made.line.as_fd()).await;
        let (id, output) = match kept {
            Ok(()) => (self.id, self.made.output),
            Err(error) => blocking(move || self.not_kept(error)).await?,
        };
        let output = output.map(task::chunks_of).transpose();
        Ok(output.unwrap_or_else(|error| {
            tracing::warn!(container = %id, error = error.report(), "what a container prints is in its log alone");
            None
        }))
    }

    /// The zygote did not say yes. Blocking: whoever asks again finds no shim. No error where the zygote was killed after it had given
    /// its word: that counts.
    fn not_kept(self, error: Error) -> Result<(ContainerId, Option<OwnedFd>)> {
        let Self { id, place, made, .. } = self;
        let Made { shim, line, output } = made;
        // The shim sees the end of its line, if it has not read the word.
        drop(line);
        if has_word(&place, shim.as_fd()) {
            return Ok((id, output));
        }
        place.undo();
        Err(match error.errno() {
            Some(libc::ESRCH) => ended(&id).with_source(error),
            _ => error,
        })
    }
}

#[cfg(test)]
impl Ready {
    /// As a zygote that is killed before it can say that it has.
    pub(in crate::runtime::native) fn give_word(&self) -> std::io::Result<()> {
        let word = crate::runtime::native::helper::wire::KEPT.to_ne_bytes();
        socket::send(self.made.line.as_fd(), [&word, &[]], &[]).map(drop)
    }
}

/// Whether a shim whose line has ended had been given the word: if not, it ends.
fn has_word(place: &Place, shim: BorrowedFd<'_>) -> bool {
    let begun = Instant::now();
    let mut wanted = [PollFd::new(shim, PollFlags::POLLIN)];
    loop {
        // In this order: of one that has ended, what is read then is the last.
        let ended = poll(&mut wanted, PAUSE).is_ok_and(|ready| ready > 0);
        if place.is_run() {
            return true;
        }
        // One that cannot be killed is not about to take anything over.
        if ended || begun.elapsed() > 2 * PATIENCE {
            return false;
        }
        if begun.elapsed() > PATIENCE {
            let _ = pidfd::send_signal(shim, libc::SIGKILL);
        }
    }
}
