//! The guide of a command into a running container: it joins the container's namespaces, but for that of processes, gives up
//! what the command may not have, starts the command as its sibling inside, and ends. No program of the container can see
//! the guide; the command that it can see has no more rights than the container.

use core::convert::Infallible;

use crate::container::{Context, Streams, join_cgroups, limits, own_streams, private_proc};
use crate::fail::{Done, Fail, at, hand};
use crate::sys::{self, AT_FDCWD, Shared, Sys};
use crate::wire::{Record, Step, field, flag};
use crate::{dev, exec, message, outfit, user};

/// Leads the command in; reports the step that failed.
#[inline(never)]
#[unsafe(link_section = "lhchild")]
pub(crate) fn run(context: &Context<'_>, told: &Shared) -> ! {
    let status = context.fd(field::FD_STATUS).unwrap_or(-1);
    match lead(context, status, told) {
        Ok(never) => match never {},
        Err(fail) => {
            fail.report(status);
            sys::exit(125)
        }
    }
}

#[unsafe(link_section = "lhchild")]
fn lead(context: &Context<'_>, status: i32, told: &Shared) -> Done<Infallible> {
    let plan = &context.plan;
    context.whole()?;
    sys::umask(0);
    join_cgroups(context)?;
    let proc = at(Step::Proc, private_proc(plan))?;
    limits(proc, plan, status)?;
    // Nothing of the host's may be open inside (CVE-2016-9962, CVE-2024-21626). The proc goes before the command is started.
    if let Some(cgroup) = context.fd(field::FD_CGROUP) {
        sys::close(cgroup);
    }
    if u64::from(plan.field(field::NAMESPACES)) & sys::CLONE_NEWUSER != 0 {
        outfit::own_pipes(plan, context.fds);
    }
    let own = match plan.has(flag::MARKED) {
        true => Some(at(Step::Join, own_namespaces())?),
        false => None,
    };
    join_namespaces(context)?;
    if let Some(own) = own {
        mark(own, status)?;
    }
    // A session keyring of its own, or none where there are none.
    let _ = sys::new_session_keyring();
    let streams = streams(context, status)?;
    let identity = user::resolve(plan, proc)?;
    own_streams(&streams, &identity)?;
    sys::umask(plan.field(field::UMASK));
    exec::become_sibling(context, &streams, &identity, status, told)
}

/// All at once: the kernel orders them, and root and working directory become the container's root.
fn join_namespaces(context: &Context<'_>) -> Done {
    let step = Step::Join;
    let container = context.fd(field::FD_TARGET).ok_or(Fail::new(step, sys::EBADMSG))?;
    let namespaces = u64::from(context.plan.field(field::NAMESPACES));
    at(step, sys::setns(container, namespaces))?;
    sys::close(container);
    if namespaces & sys::CLONE_NEWUSER != 0 {
        at(Step::Identity, sys::setresgid(0))?;
        at(Step::Identity, sys::setresuid(0))?;
    }
    Ok(())
}

/// The list of this process's namespaces, in the host's proc: the container's may be anything.
fn own_namespaces() -> Sys<i32> {
    sys::open(AT_FDCWD, b"/proc/self/ns\0", sys::O_PATH | sys::O_DIRECTORY)
}

/// A UTS namespace of the command's own, which says what the container's does: whatever the command starts is in it, and needs
/// `CAP_SYS_ADMIN` to leave it. It goes to whoever may have to find all of that.
#[inline(never)]
#[unsafe(link_section = "lhchild")]
fn mark(own: i32, status: i32) -> Done {
    at(Step::Join, sys::unshare(sys::CLONE_NEWUTS))?;
    let namespace = at(Step::Join, sys::open(own, b"uts\0", 0))?;
    sys::close(own);
    hand(status, Step::Join, namespace)
}

/// A terminal of the container's own, whose master goes to the owner, or the owner's pipes.
fn streams(context: &Context<'_>, status: i32) -> Done<Streams> {
    if !context.plan.has(flag::TERMINAL) {
        let pipe = |position| context.fd(position).ok_or(Fail::new(Step::Stdio, sys::EBADMSG));
        return Ok(Streams {
            fds: [pipe(field::FD_STDIN)?, pipe(field::FD_STDOUT)?, pipe(field::FD_STDERR)?],
            terminal: false,
        });
    }
    let step = Step::Terminal;
    let root = at(
        step,
        sys::open(AT_FDCWD, b"/\0", sys::O_PATH | sys::O_DIRECTORY),
    )?;
    let (master, peer) = dev::new_terminal(root, &context.plan)?;
    sys::close(root);
    let record = Record {
        step: step as u32,
        index: 0,
        errno: 0,
        aux: 0,
    };
    at(step, message::send(status, &record.encode(), &[], Some(master)))?;
    sys::close(master);
    Ok(Streams {
        fds: [peer; 3],
        terminal: true,
    })
}
