//! A new shim for a container that goes on since its own was killed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use tokio::runtime::Handle;

use super::begin::{self, Asking};
use super::place::Place;
use super::{bereft, cgroup_of, reap};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::runtime::Launch;
use crate::runtime::cgroups::Cgroup;
use crate::runtime::detached::Detach;
use crate::runtime::native::{Shared, start, wants_user_namespace};
use crate::sys::{pidfd, userns};
use crate::types::ContainerId;

/// Spawns a shim, and has it take the container over. Its cgroup, if it has one. Blocking.
pub(super) fn renew(shared: &Shared, launch: &Launch, detach: &Detach) -> Result<Option<Arc<dyn Cgroup>>> {
    let reactor = begin::reactor_of(shared)?;
    reap::sweep();
    let place = Place::find(&detach.dir, detach.check.is_some())?;
    // Until the new shim has them open: what it prints last would be gone with it.
    let _outputs = bereft::outputs(&detach.dir)?;
    let Some((process, state)) = bereft::orphan(&detach.dir)? else {
        return Err(ended(&launch.id));
    };
    let taken = take_over(shared, launch, detach, (&place, &reactor), (process.as_fd(), state.pid));
    taken.map_err(|error| match pidfd::has_ended(process.as_fd()) {
        true => ended(&launch.id).with_source(error),
        false => error,
    })
}

/// Whatever fails at a container that has ended has failed for that.
pub(super) fn ended(id: &ContainerId) -> Error {
    let message = format!("container {} has ended", id.short());
    Error::new(ErrorKind::InvalidState, message).with_object(ObjectKind::Container, id.as_str())
}

fn take_over(
    shared: &Shared,
    launch: &Launch,
    detach: &Detach,
    (place, reactor): (&Place, &Handle),
    (process, pid): (BorrowedFd<'_>, u32),
) -> Result<Option<Arc<dyn Cgroup>>> {
    let userns = userns_of(shared, pid)?;
    let (spawned, host) = begin::spawn(shared, place, reactor, userns.as_ref().map(AsFd::as_fd))?;
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
    let cgroup = cgroup_of(shared, &launch.id, &detach.dir)?;
    let asked = Asking {
        launch,
        detach,
        place,
        control: &spawned.control,
        host,
        log: log.as_ref(),
        cgroup: cgroup.as_deref(),
        taken: Some(process),
        given: None,
    };
    match asked.ask(&mut plan) {
        Ok(_) => Ok(cgroup),
        // It says nothing of why.
        Err(error) if error.kind() == &ErrorKind::Unavailable => {
            let message = "the new shim ended before it had taken the container over";
            Err(Error::new(ErrorKind::Unavailable, message).with_source(error))
        }
        Err(error) => Err(error),
    }
}

/// The user namespace in which the former shim was: only from there can commands be led into the container.
pub(super) fn userns_of(shared: &Shared, pid: u32) -> Result<Option<OwnedFd>> {
    if !shared.userns {
        return Ok(None);
    }
    let found = userns::below_own(pid);
    found.map_err(|error| Error::os("open the user namespace of a container's shim", error))
}
