//! A new shim for a container that goes on since its own was killed.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::begin::{self, Asking};
use super::place::Place;
use super::{bereft, cgroup_of, reap};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::runtime::Launch;
use crate::runtime::cgroups::Cgroup;
use crate::runtime::detached::Detach;
use crate::runtime::native::{Shared, start, wants_user_namespace};
use crate::sys::userns;

/// Spawns a shim, and has it take the container over. Its cgroup, if it has one. Blocking.
pub(super) fn renew(shared: &Shared, launch: &Launch, detach: &Detach) -> Result<Option<Arc<dyn Cgroup>>> {
    let reactor = begin::reactor_of(shared)?;
    reap::sweep();
    let place = Place::find(&detach.dir, detach.check.is_some())?;
    // Until the new shim has them open: what it prints last would be gone with it.
    let _outputs = bereft::outputs(&detach.dir)?;
    let Some((process, state)) = bereft::orphan(&detach.dir)? else {
        let message = format!("container {} does not run any more", launch.id.short());
        return Err(Error::new(ErrorKind::InvalidState, message).with_object(ObjectKind::Container, launch.id.as_str()));
    };
    let userns = userns_of(shared, state.pid)?;
    let (spawned, host) = begin::spawn(shared, &place, &reactor, userns.as_ref().map(AsFd::as_fd))?;
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
        place: &place,
        control: &spawned.control,
        host,
        log: log.as_ref(),
        cgroup: cgroup.as_deref(),
        taken: Some(process.as_fd()),
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
