//! A program of the host's that makes or reads the processes of a container: CRIU, an OCI runtime. It runs in the zygote's pid
//! namespace, so that nothing of it outlives the zygote and what it makes as its sibling, or leaves behind, is the zygote's child;
//! in a copy of the view, with the proc of that pid namespace; in the cgroup and the network namespace of the container.
//!
//! What the container is made of lies in a tmpfs at the plan's working directory: for CRIU `d`, its devices, and each mount at
//! the place that the plan says.

use core::convert::Infallible;

use crate::container::{Context, MOST_MOUNTS, attach_mount};
use crate::fail::{Done, Fail, at};
use crate::sys::{self, AT_FDCWD, ATTR_NOSUID, Sys};
use crate::wire::{Section, Step, TOOL_FDS, field, flag};
use crate::{dev, exec, mounts, path, slim};

#[inline(never)]
#[unsafe(link_section = "lhchild")]
pub(crate) fn run(context: &Context<'_>, trees: &[i32; MOST_MOUNTS], status: i32) -> Done<Infallible> {
    let plan = &context.plan;
    let stage = at(Step::MountNamespace, surroundings(plan.text(0)))?;
    if plan.has(flag::NO_CGROUPS) {
        let hidden = slim::tmpfs(b"4k\0", ATTR_NOSUID).and_then(|empty| slim::attach(empty, b"/sys/fs/cgroup\0"));
        at(Step::MountNamespace, hidden)?;
    }
    for (index, (record, tree)) in plan.mounts().zip(trees).enumerate() {
        attach_mount(stage, index, &record, *tree)?;
    }
    let placed = match plan.has(flag::STREAMS) {
        true => own_streams(context),
        false => descriptors(context, stage, dev::nodes(plan)?),
    };
    at(Step::Stdio, placed)?;
    let argv = at(Step::Exec, exec::pointers(plan, Section::Argv, None))?;
    let env = at(Step::Exec, exec::pointers(plan, Section::Env, None))?;
    exec::ready(status)?;
    let program = plan.strings(Section::Argv).next().unwrap_or(b"\0");
    Err(Fail::new(Step::Exec, sys::execve(program, argv, env)))
}

/// Mounts of its own, and a place for those of the container.
#[unsafe(link_section = "lhchild")]
fn surroundings(place: &[u8]) -> Sys<i32> {
    sys::unshare(sys::CLONE_NEWNS)?;
    sys::make_private()?;
    slim::attach(mounts::private_proc()?, b"/proc\0")?;
    slim::attach(slim::tmpfs(b"64k\0", ATTR_NOSUID)?, place)?;
    sys::open(AT_FDCWD, place, sys::O_PATH | sys::O_DIRECTORY)
}

/// The streams that came along where every program has them. What it makes in the container has the modes that it asks for.
#[unsafe(link_section = "lhchild")]
fn own_streams(context: &Context<'_>) -> Sys<()> {
    sys::close_range(3, true)?;
    for (number, position) in [field::FD_STDIN, field::FD_STDOUT, field::FD_STDERR].into_iter().enumerate() {
        if let Some(stream) = context.fd(position) {
            sys::dup3(stream, number as i32, 0)?;
        }
    }
    sys::umask(0o022);
    Ok(())
}

/// The container's devices at their place, its streams and its network at their numbers.
#[unsafe(link_section = "lhchild")]
fn descriptors(context: &Context<'_>, stage: i32, nodes: i32) -> Sys<()> {
    sys::move_mount(nodes, path::open_or_make(stage, b"/d\0", true, true)?)?;
    let null = sys::open(nodes, b"null\0", sys::O_RDWR)?;
    let network = sys::open(AT_FDCWD, b"/proc/self/ns/net\0", 0)?;
    sys::close_range(3, true)?;
    let mut number = TOOL_FDS as i32;
    for position in [field::FD_STDIN, field::FD_STDOUT, field::FD_STDERR] {
        sys::dup3(context.fd(position).unwrap_or(null), number, 0)?;
        number += 1;
    }
    sys::dup3(network, number, 0)?;
    sys::umask(0o077);
    Ok(())
}
