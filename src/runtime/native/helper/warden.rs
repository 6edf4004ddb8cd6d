//! Containers without namespaces. Each has a warden, a fork of the zygote that starts its programs: what they leave behind becomes
//! the warden's child, so that it finds all of it, and the zygote finds what a dead warden leaves. A warden, and so every program that
//! it starts, is restricted to the container's root directory where the kernel has Landlock: commands in a running container are
//! in the same domain as its first process, and may signal each other.
//!
//! All of it lies where the pages of other zygotes are not: see [`crate::container::leave_to_children`].

use crate::apart;
use crate::container::Context;
use crate::exec;
use crate::fail::{Done, Fail, at};
use crate::ledger::{CONTAINER, Ledger};
use crate::message::{self, Fds};
use crate::path;
use crate::sys::{self, AT_FDCWD, CloneArgs, Sys};
use crate::wire::{HEADER, Header, NO_FD, Plan, Step, field, op, u32_at};
use crate::zygote::{CONTROL, LOCK, OWNER, SIGCHLD, SIGKILL, Zygote, refuse, reply};

/// Of a warden, which has no lock: the container's root directory.
const ROOT: i32 = LOCK;
/// How often the zygote looks again for what a dead warden has left, a millisecond each time, before it says that the warden is dead.
const LOOKS: u32 = 1000;

/// Whether a zygote without namespaces, or a warden, takes a request.
#[unsafe(link_section = "lhchild")]
pub(crate) fn takes(keeps: bool, op: u16) -> bool {
    match op {
        op::FORGET | op::KILL => true,
        op::START | op::EXEC => keeps,
        op::APART | op::SCRATCH | op::CHOWN | op::REMOVE => !keeps,
        _ => false,
    }
}

/// Makes this process the parent of what its children leave behind; returns the list of its own children.
#[unsafe(link_section = "lhchild")]
pub(crate) fn adopt_orphans() -> Sys<i32> {
    const PR_SET_CHILD_SUBREAPER: usize = 36;
    sys::prctl(PR_SET_CHILD_SUBREAPER, 1, 0)?;
    // In the proc of another pid namespace numbers are others'.
    if !numbers_are_ours()? {
        return Err(sys::ESRCH);
    }
    sys::open(AT_FDCWD, b"/proc/thread-self/children\0", 0)
}

/// Whether proc has this process under the number that it has for itself.
#[unsafe(link_section = "lhchild")]
fn numbers_are_ours() -> Sys<bool> {
    let own = sys::open(AT_FDCWD, b"/proc/self\0", sys::O_PATH | sys::O_DIRECTORY)?;
    let mut name = [0u8; 64];
    let by_number = path::numbered(&mut name, b"/proc/", sys::getpid() as u64, b"")?;
    // While it is open its inode stays what it is.
    let (one, other) = (sys::stat_fd(own), sys::statx(AT_FDCWD, by_number, 0));
    sys::close(own);
    let (one, other) = (one?, other?);
    Ok((one.inode, one.dev) == (other.inode, other.dev))
}

/// Kills the children of this process, and theirs as they come to it, until there are none.
#[inline(never)]
#[unsafe(link_section = "lhchild")]
pub(crate) fn end_all(below: i32) {
    loop {
        each_child(below, end);
        loop {
            match sys::wait(-1, true) {
                Ok((0, _)) => break,
                Ok(_) => {}
                Err(_) => return,
            }
        }
        sys::sleep_ms(1);
    }
}

/// Kills a child that lives, and reaps one that does not. Nobody else's process has a number that is waited for.
#[unsafe(link_section = "lhchild")]
fn end(child: i32) {
    if let Ok((0, _)) = sys::wait(child, true) {
        let _ = sys::kill(child, SIGKILL);
    }
}

/// Calls for each child that is in the list. Numbers are followed by a space; none is cut, as the kernel gives whole ones.
#[unsafe(link_section = "lhchild")]
fn each_child(below: i32, mut act: impl FnMut(i32)) {
    let mut buffer = [0u8; 4096];
    let (mut from, mut number) = (0, 0i32);
    while let Ok(len @ 1..) = sys::pread(below, &mut buffer, from) {
        from += len;
        for byte in buffer.get(..len).unwrap_or(&[]) {
            if byte.is_ascii_digit() {
                number = number.wrapping_mul(10).wrapping_add(i32::from(*byte - b'0'));
            } else {
                // Never a number that stands for others.
                if number > 1 {
                    act(number);
                }
                number = 0;
            }
        }
    }
}

impl Zygote {
    /// Forks a container's warden.
    #[inline(never)]
    #[unsafe(link_section = "lhchild")]
    pub(crate) fn fork_warden(&mut self, req: u64, blob: &[u8], fds: &Fds) -> Sys<()> {
        let socket = fds.get(0).ok_or(sys::EBADMSG)?;
        let root = fds.get(1).ok_or(sys::EBADMSG)?;
        let version = u32_at(blob, 0).ok_or(sys::EBADMSG)?;
        let own = sys::pidfd_open(sys::getpid())?;
        let forked = sys::fork();
        if forked == Ok(0) {
            self.become_warden([socket, own, root], version);
        }
        sys::close(own);
        let warden = forked?;
        let taken = self.take(CONTAINER, warden, req, blob.get(4..).unwrap_or(&[]));
        if taken.is_err() {
            let _ = sys::kill(warden, SIGKILL);
        }
        taken
    }

    /// In the fork. Its owner is the zygote: it ends what it keeps when that ends, or its client hangs up.
    #[inline(never)]
    #[unsafe(link_section = "lhchild")]
    fn become_warden(&mut self, fds: [i32; 3], version: u32) -> ! {
        for (fd, place) in fds.into_iter().zip([CONTROL, OWNER, ROOT]) {
            if sys::dup3(fd, place, sys::O_CLOEXEC).is_err() {
                sys::exit(1);
            }
        }
        let _ = sys::close_range(ROOT as u32 + 1, false);
        match self.enclose(version) {
            Ok(()) => self.serve(),
            Err(fail) => self.refuse_one(&fail),
        }
        end_all(self.below);
        sys::exit(0)
    }

    #[unsafe(link_section = "lhchild")]
    fn enclose(&mut self, version: u32) -> Done {
        self.keeps = true;
        self.below = at(Step::Orphans, adopt_orphans())?;
        self.children = at(Step::Orphans, sys::signalfd(1 << (SIGCHLD - 1)))?;
        self.ledger = at(Step::Orphans, Ledger::new())?;
        exec::no_new_privileges()?;
        at(Step::Restrict, restrict(version))
    }

    /// Tells the client, which asks for the container now, why there is none.
    #[unsafe(link_section = "lhchild")]
    fn refuse_one(&mut self, fail: &Fail) {
        let mut fds = Fds::none();
        let _ = message::receive(CONTROL, self.buffer, &mut fds);
        if let Some(header) = Header::decode(self.buffer.get(..HEADER).unwrap_or(&[])) {
            refuse(header.req, fail.step, fail.errno());
        }
    }

    /// Starts the container's first process, or a command in it.
    #[inline(never)]
    #[unsafe(link_section = "lhchild")]
    pub(crate) fn start_apart(&mut self, kind: u32, req: u64, blob: &'static [u8], fds: &Fds) -> Done {
        let plan = Plan::decode(blob).ok_or(Fail::new(Step::Plan, sys::EBADMSG))?;
        let child = at(Step::Clone, fork_into(&plan, fds))?;
        if child == 0 {
            let context = Context {
                plan,
                fds,
                slim: -1,
                network: None,
                outfit: None,
            };
            apart::run(&context, ROOT, kind == CONTAINER, &|| self.leave());
        }
        let taken = self.take(kind, child, req, &[]);
        if taken.is_err() {
            // The owner learns that there is none.
            let _ = sys::kill(child, SIGKILL);
        }
        at(Step::Clone, taken)
    }

    /// A warden's container has ended: so does what is left of it, and then the warden. Or a warden has ended: what it has left is the
    /// zygote's.
    #[inline(never)]
    #[unsafe(link_section = "lhchild")]
    pub(crate) fn ended_apart(&mut self, req: u64, status: i32) {
        if self.keeps {
            end_all(self.below);
        } else {
            self.end_strays();
        }
        reply(op::EXITED, req, status, &[]);
        if self.keeps {
            sys::exit(0);
        }
    }

    /// For whenever something has become of the zygote's children: one that was stopped by a program of its container goes on, and
    /// what a dead one has left ends.
    #[inline(never)]
    #[unsafe(link_section = "lhchild")]
    pub(crate) fn look_after_wardens(&self) {
        const SIGCONT: i32 = 18;
        for warden in self.ledger.processes() {
            let _ = sys::kill(warden, SIGCONT);
        }
        self.end_strays();
    }

    /// Every child of the zygote's is known, but for what dead wardens have left.
    #[unsafe(link_section = "lhchild")]
    fn end_strays(&self) {
        for _ in 0..LOOKS {
            let mut any = false;
            each_child(self.below, |child| {
                if !self.ledger.knows(child) {
                    any = true;
                    end(child);
                }
            });
            if !any {
                return;
            }
            sys::sleep_ms(1);
        }
    }
}

/// A child in the plan's cgroup, if there is one; 0 in it. Else by the older call: a filter around this process may have none of the
/// newer one.
#[unsafe(link_section = "lhchild")]
fn fork_into(plan: &Plan<'_>, fds: &Fds) -> Sys<i32> {
    if plan.field(field::FD_CGROUP) == NO_FD {
        return sys::fork();
    }
    let cgroup = fds.get(plan.field(field::FD_CGROUP)).ok_or(sys::EBADMSG)?;
    sys::clone3(&CloneArgs {
        flags: sys::CLONE_INTO_CGROUP,
        cgroup: cgroup as u64,
        exit_signal: SIGCHLD,
        ..CloneArgs::default()
    })
}

/// Restricts this process, and all that it starts, to the root directory with this version of Landlock; 0 is none. What is outside
/// cannot be opened, made or removed then, wherever a path to it comes from; processes outside cannot be traced, and from version
/// 6 on neither signalled nor spoken to over abstract sockets. Source: Documentation/userspace-api/landlock.rst.
#[unsafe(link_section = "lhchild")]
fn restrict(version: u32) -> Sys<()> {
    /// Making character and block devices: nobody may.
    const MAKE_DEVICES: u64 = 1 << 6 | 1 << 11;
    /// Abstract sockets and signals.
    const SCOPES: u64 = 3;
    let rights = match version {
        0 => return Ok(()),
        1 => (1 << 13) - 1,
        2 => (1 << 14) - 1,
        3 | 4 => (1 << 15) - 1,
        _ => (1 << 16) - 1,
    };
    let rules = sys::landlock_ruleset(&[rights, 0, if version >= 6 { SCOPES } else { 0 }])?;
    sys::landlock_allow(rules, rights & !MAKE_DEVICES, ROOT)?;
    sys::landlock_restrict(rules)?;
    sys::close(rules);
    Ok(())
}
