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
use crate::runtime::native::plan::Host;
use crate::runtime::native::zygote::{self, Spawned};
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
    let spawned = begin::spawn(shared, place, reactor, userns.as_ref().map(AsFd::as_fd));
    let taken = spawned.and_then(|spawned| hand_over(shared, launch, detach, place, process, spawned));
    taken.map_err(|error| match error.kind() {
        // Killed as well: another may come through. It says nothing of why.
        ErrorKind::Unavailable => {
            let message = "the new shim ended before it had taken the container over";
            Error::new(ErrorKind::Unavailable, message).with_source(error)
        }
        _ => error,
    })
}

fn hand_over(
    shared: &Shared,
    launch: &Launch,
    detach: &Detach,
    place: &Place,
    process: BorrowedFd<'_>,
    (spawned, host): (Spawned, Host),
) -> Result<Option<Arc<dyn Cgroup>>> {
    let ids = match wants_user_namespace(&launch.spec) {
        true => Some(shared.container_ids(spawned.child.pid, &launch.spec)),
        false => None,
    };
    let ids = ids
        .transpose()
        .map_err(|error| zygote::killed(spawned.child.pidfd.as_fd(), error))?;
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
    asked.ask(&mut plan)?;
    Ok(cgroup)
}

/// The user namespace in which the former shim was: only from there can commands be led into the container.
pub(super) fn userns_of(shared: &Shared, pid: u32) -> Result<Option<OwnedFd>> {
    if !shared.userns {
        return Ok(None);
    }
    let found = userns::below_own(pid);
    found.map_err(|error| Error::os("open the user namespace of a container's shim", error))
}
