//! A program of a container without namespaces, from fork to exec: its root directory becomes the root, and the rest is as in any other
//! container. One thread, memory of its own, system calls only.

use core::convert::Infallible;

use crate::container::{self, Context, Streams};
use crate::fail::{Done, Fail, at};
use crate::wire::{Step, field, flag};
use crate::{exec, sys, user};

/// Runs the program; reports the step that failed. `leave` gives up what is the warden's, the root directory included.
#[inline(never)]
#[unsafe(link_section = "lhchild")]
pub(crate) fn run(context: &Context<'_>, root: i32, first: bool, leave: &dyn Fn()) -> ! {
    let status = context.fd(field::FD_STATUS).unwrap_or(-1);
    let entered = context.whole().and_then(|()| enter(root));
    // Before anything of the container is looked at: nothing of the host may be open inside (CVE-2024-21626).
    leave();
    match entered.and_then(|()| launch(context, first, status)) {
        Ok(never) => match never {},
        Err(fail) => {
            fail.report(status);
            sys::exit(125)
        }
    }
}

#[unsafe(link_section = "lhchild")]
fn enter(root: i32) -> Done {
    at(Step::Pivot, sys::fchdir(root))?;
    at(Step::Pivot, sys::chroot(b".\0"))?;
    at(Step::Pivot, sys::chdir(b"/\0"))?;
    Ok(())
}

#[unsafe(link_section = "lhchild")]
fn launch(context: &Context<'_>, first: bool, status: i32) -> Done<Infallible> {
    let plan = &context.plan;
    sys::umask(0);
    container::join_cgroups(context)?;
    if let Some(cgroup) = context.fd(field::FD_CGROUP) {
        sys::close(cgroup);
    }
    container::limits(-1, plan, status)?;
    // A filter around this process may have none; then there is none to inherit either.
    let _ = sys::new_session_keyring();
    let streams = streams(context)?;
    let identity = user::resolve(plan, -1)?;
    if first {
        container::make_working_directory(plan)?;
    }
    container::own_streams(&streams, &identity)?;
    sys::umask(plan.field(field::UMASK));
    exec::become_program(context, &streams, &identity, status)
}

/// All come along: nothing outside of the root can be opened any more.
#[unsafe(link_section = "lhchild")]
fn streams(context: &Context<'_>) -> Done<Streams> {
    let terminal = context.plan.has(flag::TERMINAL);
    let stream = |position| {
        let position = if terminal { field::FD_STDIN } else { position };
        context.fd(position).ok_or(Fail::new(Step::Stdio, sys::EBADMSG))
    };
    Ok(Streams {
        fds: [stream(field::FD_STDIN)?, stream(field::FD_STDOUT)?, stream(field::FD_STDERR)?],
        terminal,
    })
}

/// Ends this process when its warden does. For the last steps: a change of ids would undo it.
#[inline(never)]
#[unsafe(link_section = "lhchild")]
pub(crate) fn end_with_parent() -> Done {
    const PR_SET_PDEATHSIG: usize = 1;
    at(Step::Session, sys::prctl(PR_SET_PDEATHSIG, 9, 0)).map(|_| ())
}
