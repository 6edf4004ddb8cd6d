//! The zygote: pid 1 of its owner's pid namespace. It takes requests, clones containers, tells how they end, and when its
//! owner dies it kills them all, cleans up behind them, and goes.

use crate::container::{self, Context};
use crate::fail::{Done, Fail, at};
use crate::ledger::{CONTAINER, EXEC, JOINING, KEPT, Ledger, SCRATCH, WORKER};
use crate::message::{self, Fds};
use crate::sys::{self, CloneArgs, PollFd, Shared, Sys};
use crate::wire::{FLAG_APART, FLAG_BIND_DEVICES, FLAG_MEMFD, FLAG_SHIM, FLAG_USERNS, HEADER, Header, INLINE, LARGEST, Plan, Section, Strings, field, op, u32_at};
use crate::netns::Networks;
use crate::wire::{NO_FD, Step, flag};
#[cfg(shim)]
use crate::{shim, wire::FLAG_JOIN_USERNS};
use crate::{everyone, house, join, warden, look, outfit, remove, slim, worker};

/// Descriptors that the owner put there.
pub(crate) const CONTROL: i32 = 3;
pub(crate) const OWNER: i32 = 4;
pub(crate) const LOCK: i32 = 5;

pub(crate) const SIGCHLD: u64 = 17;
pub(crate) const SIGKILL: i32 = 9;
/// In a guide's word: its command has ended, and that was told.
const ENDED: i32 = -1;
/// How long the clean-up waits for processes that will not go: 1.5 seconds in all.
const PATIENCE_MS: u64 = 1500;

pub(crate) struct Zygote {
    slim: i32,
    strangers: Strangers,
    networks: Networks,
    pub(crate) children: i32,
    /// Without namespaces: the list of this process' children, in proc. Else -1.
    pub(crate) below: i32,
    /// This is a container's warden.
    pub(crate) keeps: bool,
    pub(crate) ledger: Ledger,
    pub(crate) buffer: &'static mut [u8],
}

/// The helper's main program.
pub(crate) fn run() -> ! {
    tidy();
    let Ok(buffer) = sys::map(HEADER + INLINE) else {
        sys::exit(1)
    };
    // The owner is gone, or there is none: a container runs this by way of `/proc/self/exe`, and gets nothing for it.
    let Some((hello, fds)) = await_hello(buffer) else {
        sys::exit(125)
    };
    // A shim is another program: this one would kill what was to outlive its owner.
    if cfg!(not(shim)) && hello.flags & FLAG_SHIM != 0 {
        refuse(hello.req, Step::Plan, sys::ENOSYS);
        sys::exit(1)
    }
    #[cfg(shim)]
    if hello.flags & FLAG_JOIN_USERNS != 0 {
        let fail = shim::move_in(&fds);
        refuse(hello.req, fail.step, fail.errno());
        sys::exit(1)
    }
    fds.close();
    let mut zygote = match set_up(hello.flags, buffer) {
        Ok(zygote) => zygote,
        Err(fail) => {
            reply(
                op::FAILED,
                hello.req,
                fail.errno(),
                &(fail.step as u32).to_ne_bytes(),
            );
            sys::exit(1)
        }
    };
    reply(op::DONE, hello.req, 0, &[]);
    #[cfg(shim)]
    if hello.flags & FLAG_SHIM != 0 {
        shim::run(zygote)
    }
    zygote.serve();
    zygote.clean_up();
    sys::exit(0)
}

/// Nothing of the owner's process may matter here: signals, descriptors, umask, session, name.
fn tidy() {
    const PR_SET_NAME: usize = 15;
    container::leave_to_children();
    sys::reset_signals();
    sys::set_mask(1 << (SIGCHLD - 1));
    let _ = sys::close_range(LOCK as u32 + 1, false);
    for fd in [CONTROL, OWNER, LOCK] {
        sys::set_cloexec(fd);
    }
    let _ = sys::prctl(PR_SET_NAME, b"longshore\0".as_ptr() as usize, 0);
    let _ = sys::setsid();
    let _ = sys::chdir(b"/\0");
    sys::umask(0o022);
}

/// The owner writes the id map first; until then this process can be dumped, or the map's files were root's.
fn await_hello(buffer: &mut [u8]) -> Option<(Header, Fds)> {
    let mut fds = Fds::none();
    let len = message::receive(CONTROL, buffer, &mut fds).ok()?;
    let header = Header::decode(buffer.get(..len)?).filter(|header| header.op == op::HELLO)?;
    Some((header, fds))
}

fn set_up(flags: u32, buffer: &'static mut [u8]) -> Done<Zygote> {
    if flags & FLAG_USERNS != 0 {
        at(Step::Identity, sys::setresgid(0))?;
        at(Step::Identity, sys::setresuid(0))?;
    }
    let apart = flags & FLAG_APART != 0;
    let slim = if apart { -1 } else { slim::make(flags & FLAG_BIND_DEVICES != 0)? };
    sys::set_dumpable(false);
    let below = if apart { at(Step::Orphans, warden::adopt_orphans())? } else { -1 };
    let children = at(Step::SlimNamespace, sys::signalfd(1 << (SIGCHLD - 1)))?;
    let ledger = at(Step::SlimNamespace, Ledger::new())?;
    Ok(Zygote {
        slim,
        strangers: Strangers::default(),
        networks: Networks::none(),
        children,
        below,
        keeps: false,
        ledger,
        buffer,
    })
}

/// Tells the owner something. It waits for that, so a message that cannot be sent, for want of memory, say, ends the
/// conversation: then the owner knows, and this process cleans up.
pub(crate) fn reply(op: u16, req: u64, arg: i32, body: &[u8]) {
    const TRIES: u32 = 200;
    for _ in 0..TRIES {
        if send(op, req, arg, body, None).is_ok() {
            return;
        }
        sys::sleep_ms(5);
    }
    sys::hang_up(CONTROL);
}

/// Hands the owner a descriptor. A refusal (too many on their way, say) is the caller's to tell.
fn hand_over(op: u16, req: u64, arg: i32, fd: i32) -> Sys<()> {
    send(op, req, arg, &[], Some(fd))
}

fn send(op: u16, req: u64, arg: i32, body: &[u8], fd: Option<i32>) -> Sys<()> {
    const EPIPE: i32 = 32;
    const ECONNRESET: i32 = 104;
    let header = Header {
        op,
        req,
        len: body.len() as u32,
        arg,
        flags: 0,
    };
    match message::send(CONTROL, &header.encode(), body, fd) {
        // Nobody is there to be told.
        Err(EPIPE | ECONNRESET) => Ok(()),
        result => result.map(|_| ()),
    }
}

fn answer(req: u64, result: Sys<()>) {
    match result {
        Ok(()) => reply(op::DONE, req, 0, &[]),
        Err(errno) => refuse(req, Step::Privileged, errno),
    }
}

pub(crate) fn refuse(req: u64, step: Step, errno: i32) {
    reply(op::FAILED, req, errno, &(step as u32).to_ne_bytes());
}

impl Zygote {
    /// Until the owner is gone, or wants this to end.
    pub(crate) fn serve(&mut self) {
        const POLLIN: i16 = 1;
        loop {
            let mut fds = [CONTROL, OWNER, self.children].map(|fd| PollFd {
                fd,
                events: POLLIN,
                revents: 0,
            });
            match sys::poll(&mut fds, self.networks.wait()) {
                Err(_) => continue,
                Ok(0) if self.networks.fill().is_err() => return,
                Ok(_) => {}
            }
            if fds[2].revents != 0 {
                self.reap();
            }
            if fds[1].revents != 0 {
                return;
            }
            if fds[0].revents != 0 && !self.request() {
                return;
            }
        }
    }

    fn reap(&mut self) {
        let mut sink = [0u8; 128];
        while sys::read(self.children, &mut sink).is_ok() {}
        while let Ok((pid, status)) = sys::wait(-1, true) {
            if pid == 0 {
                break;
            }
            if let Some((req, told)) = self.ledger.joining(|joining, _| joining == pid) {
                self.joined(pid, req, Shared::at(told));
                continue;
            }
            match self.ledger.ended(pid) {
                Some((CONTAINER, req)) if self.below >= 0 => self.ended_apart(req, status),
                Some((CONTAINER | EXEC, req)) => reply(op::EXITED, req, status, &[]),
                Some((KEPT, line)) => {
                    let line = line as i32;
                    let _ = message::send(line, &status.to_ne_bytes(), &[], None);
                    sys::close(line);
                }
                // A worker that ended well has answered by itself.
                Some((WORKER, req)) if status != 0 => refuse(req, Step::Privileged, sys::EPROTO),
                Some(_) => {}
                None => self.ended_early(pid, status),
            }
        }
        if self.below >= 0 && !self.keeps {
            self.look_after_wardens();
        }
    }

    /// What led a command into a container has ended; the command, its sibling, is ours from now on.
    fn joined(&mut self, pid: i32, req: u64, told: Shared) {
        let command = told.get();
        told.unmap();
        let _ = self.ledger.ended(pid);
        match command {
            0 => refuse(req, Step::Join, sys::ECHILD),
            ENDED => {}
            command => {
                if let Err(errno) = self.take(EXEC, command, req, &[]) {
                    let _ = sys::kill(command, SIGKILL);
                    refuse(req, Step::Join, errno);
                }
            }
        }
    }

    /// A child that others have made is the owner's only with its descriptor: without, nobody could end it.
    #[inline(never)]
    pub(crate) fn take(&mut self, kind: u32, child: i32, req: u64, list: &[u8]) -> Sys<()> {
        // It is not reaped yet, so the number is still its own.
        let process = sys::pidfd_open(child)?;
        let noted = self.ledger.add(kind, child, req, list);
        let taken = noted.and_then(|()| hand_over(op::STARTED, req, child, process));
        sys::close(process);
        if taken.is_err() {
            self.ledger.forget(kind, req);
        }
        taken
    }

    /// Takes over what a tool has made: a child that nobody knows yet, or has been told of when it ended.
    fn adopt(&mut self, req: u64, blob: &[u8]) -> Sys<()> {
        let child = u32_at(blob, 0).unwrap_or(0) as i32;
        let list = blob.get(4..).unwrap_or(&[]);
        // A number of 0 or below would stand for others.
        if child <= 1 || !Strings(list).well_formed() {
            return Err(sys::ECHILD);
        }
        let status = match sys::wait(child, true) {
            Ok((0, _)) => return self.take(CONTAINER, child, req, list),
            Ok((_, status)) => status,
            Err(errno) => self.strangers.take(child).ok_or(errno)?,
        };
        reply(op::STARTED, req, child, &[]);
        reply(op::EXITED, req, status, &[]);
        Ok(())
    }

    /// A command that ended before its guide did, or what a tool has made and nobody has asked for yet.
    fn ended_early(&mut self, pid: i32, status: i32) {
        if let Some((req, told)) = self.ledger.joining(|_, told| Shared::at(told).get() == pid) {
            Shared::at(told).set(ENDED);
            reply(op::STARTED, req, pid, &[]);
            reply(op::EXITED, req, status, &[]);
            return;
        }
        self.strangers.note(pid, status);
    }

    /// Takes one request. False at the end of the conversation.
    fn request(&mut self) -> bool {
        let mut fds = Fds::none();
        if let Some(head) = self.buffer.get_mut(..HEADER) {
            head.fill(0);
        }
        let len = match message::receive(CONTROL, self.buffer, &mut fds) {
            Ok(0) => return false,
            Ok(len) => len,
            Err(errno @ (sys::EMFILE | sys::EBADMSG)) => return self.refuse_cut(errno),
            Err(_) => return false,
        };
        // Anything else is not of this version, and whom to answer is not known.
        let header = Header::decode(self.buffer.get(..len).unwrap_or(&[]));
        if let Some(header) = &header {
            self.dispatch(header, len, &fds);
        }
        fds.close();
        header.is_some()
    }

    /// A request that did not arrive whole: its sender waits for an answer. False if that is not to be known.
    #[inline(never)]
    fn refuse_cut(&mut self, errno: i32) -> bool {
        let Some(header) = Header::decode(self.buffer) else {
            return false;
        };
        refuse(header.req, Step::Plan, errno);
        true
    }

    fn dispatch(&mut self, header: &Header, len: usize, fds: &Fds) {
        // SAFETY: the buffer lives as long as the process, and is written only by the next `receive`, after this borrow.
        let inline: &'static [u8] = unsafe { core::slice::from_raw_parts(self.buffer.as_ptr(), self.buffer.len()) };
        let blob = match blob_of(header, inline.get(HEADER..len).unwrap_or(&[]), fds) {
            Ok(blob) => blob,
            Err(errno) => {
                refuse(header.req, Step::Plan, errno);
                return;
            }
        };
        self.carry_out(header, blob, fds);
        if header.flags & FLAG_MEMFD != 0 {
            sys::unmap(blob);
        }
    }

    fn carry_out(&mut self, header: &Header, blob: &'static [u8], fds: &Fds) {
        let req = header.req;
        if self.below >= 0 && !warden::takes(self.keeps, header.op) {
            return refuse(req, Step::Plan, sys::ENOSYS);
        }
        match header.op {
            op::START | op::EXEC if self.keeps => {
                let kind = if header.op == op::START { CONTAINER } else { EXEC };
                if let Err(fail) = self.start_apart(kind, req, blob, fds) {
                    refuse(req, fail.step, fail.errno());
                }
            }
            op::APART if self.below >= 0 => {
                if let Err(errno) = self.fork_warden(req, blob, fds) {
                    refuse(req, Step::Clone, errno);
                }
            }
            op::START => {
                if let Err(fail) = self.start(req, blob, fds) {
                    refuse(req, fail.step, fail.errno());
                }
            }
            op::FORGET => self.ledger.forget(CONTAINER, req),
            op::KILL => {
                if let Some(process) = self.ledger.process(req) {
                    let _ = sys::kill(process, SIGKILL);
                }
                reply(op::DONE, req, 0, &[]);
            }
            op::EXEC => {
                if let Err(fail) = self.exec(req, blob, fds) {
                    refuse(req, fail.step, fail.errno());
                }
            }
            op::ADOPT => {
                if let Err(errno) = self.adopt(req, blob) {
                    refuse(req, Step::Join, errno);
                }
            }
            op::KEEP => answer(req, self.keep(blob, fds)),
            op::SCRATCH if blob.is_empty() => self.ledger.forget(SCRATCH, req),
            // A part of a list would be what goes in the end, and the rest would stay.
            op::SCRATCH if !Strings(blob).well_formed() => refuse(req, Step::Plan, sys::EBADMSG),
            op::SCRATCH => answer(req, self.ledger.add(SCRATCH, 0, req, blob)),
            op::CHOWN => answer(req, worker::change_owners(blob, fds)),
            op::REMOVE => self.work(req, || answer(req, worker::remove_trees(blob))),
            op::LOOK => self.beside(req, fds, look::serve),
            op::HOUSE => self.beside(req, fds, house::serve),
            op::SIGNAL => self.work(req, || answer(req, worker::signal_all(blob, fds))),
            op::MOUNT => self.work(req, || match worker::mount(blob, fds) {
                Ok(tree) => {
                    if let Err(errno) = hand_over(op::DONE, req, 0, tree) {
                        refuse(req, Step::Mount, errno);
                    }
                }
                Err(errno) => refuse(req, Step::Mount, errno),
            }),
            _ => refuse(req, Step::Plan, sys::ENOSYS),
        }
    }

    /// A container outlives the owner from now on. What counts is that whoever looks after it has been told.
    #[inline(never)]
    #[unsafe(link_section = "lhchild")]
    fn keep(&mut self, blob: &[u8], fds: &Fds) -> Sys<()> {
        let word = |at: usize| u32_at(blob, at).map(u64::from).ok_or(sys::EBADMSG);
        let req = word(0)? | word(4)? << 32;
        if !self.ledger.has_container(req) {
            return Err(sys::ESRCH);
        }
        let line = sys::duplicate(fds.get(0).ok_or(sys::EBADMSG)?)?;
        let told = message::send(line, &crate::wire::KEPT.to_ne_bytes(), &[], None);
        match told {
            Ok(_) => self.ledger.keep(req, line),
            Err(_) => sys::close(line),
        }
        told.map(drop)
    }

    /// Does slow work in a child, which answers by itself.
    fn work(&mut self, req: u64, job: impl FnOnce()) {
        match sys::fork() {
            Ok(0) => {
                job();
                sys::exit(0)
            }
            Ok(pid) => {
                if self.ledger.add(WORKER, pid, req, &[]).is_err() {
                    let _ = sys::kill(pid, SIGKILL);
                    refuse(req, Step::Privileged, sys::ENOMEM);
                }
            }
            Err(errno) => refuse(req, Step::Privileged, errno),
        }
    }

    /// Serves the owner in a child, as long as its socket is open: it keeps nothing else of the zygote's.
    fn beside(&mut self, req: u64, fds: &Fds, serve: fn(i32) -> !) {
        let Some(socket) = fds.get(0) else {
            return refuse(req, Step::Privileged, sys::EBADMSG);
        };
        match sys::fork() {
            Ok(0) => {
                self.leave();
                sys::close(self.slim);
                serve(socket)
            }
            Ok(pid) => {
                let noted = self.ledger.add(WORKER, pid, req, &[]);
                if noted.is_err() {
                    let _ = sys::kill(pid, SIGKILL);
                }
                answer(req, noted);
            }
            Err(errno) => refuse(req, Step::Privileged, errno),
        }
    }

    fn start(&mut self, req: u64, blob: &'static [u8], fds: &Fds) -> Done {
        let plan = Plan::decode(blob).ok_or(Fail::new(Step::Plan, sys::EBADMSG))?;
        let (pid, pidfd) = self.clone_container(&plan, fds, &|| {})?;
        let noted = self.ledger.add(CONTAINER, pid, req, plan.section(Section::Cleanup));
        let told = noted.and_then(|()| hand_over(op::STARTED, req, pid, pidfd));
        sys::close(pidfd);
        if told.is_err() {
            // The owner learns that there is no container; what it made for it is its own again.
            let _ = sys::kill(pid, SIGKILL);
            self.ledger.forget(CONTAINER, req);
        }
        at(Step::Clone, told)
    }

    /// Makes the first process of a container: its number, and a descriptor of it. `leave` is called in it.
    pub(crate) fn clone_container(&mut self, plan: &Plan<'_>, fds: &Fds, leave: &dyn Fn()) -> Done<(i32, i32)> {
        let mut pidfd = -1i32;
        let mut args = CloneArgs {
            flags: sys::CLONE_PIDFD | u64::from(plan.field(field::NAMESPACES)),
            pidfd: &raw mut pidfd as u64,
            exit_signal: SIGCHLD,
            ..CloneArgs::default()
        };
        if plan.field(field::FD_CGROUP) != NO_FD {
            let cgroup = fds
                .get(plan.field(field::FD_CGROUP))
                .ok_or(Fail::new(Step::Clone, sys::EBADMSG))?;
            args.flags |= sys::CLONE_INTO_CGROUP;
            args.cgroup = cgroup as u64;
        }
        let outfit = outfit::Line::new(plan.has(flag::OWN_USERNS))?;
        let joined = fds.get(plan.field(field::FD_JOIN_PID)).map(Pids::join).transpose()?;
        let network = self.networks.take(&mut args.flags);
        let cloned = sys::clone3(&args);
        if let Some(own) = joined {
            own.back(cloned == Ok(0));
        }
        if cloned.is_err() {
            outfit.close();
            if let Some(network) = network {
                sys::close(network);
            }
        }
        let pid = at(Step::Clone, cloned)?;
        if pid == 0 {
            self.leave();
            leave();
            container::run(&Context {
                plan: *plan,
                fds,
                slim: self.slim,
                network,
                outfit: outfit.container_end(),
            });
        }
        // Whoever has entered it keeps it.
        if let Some(network) = network {
            sys::close(network);
        }
        if let Err(fail) = self.outfit(plan, fds, pid, (&outfit, leave)) {
            let _ = sys::kill(pid, SIGKILL);
            sys::close(pidfd);
            return Err(fail);
        }
        Ok((pid, pidfd))
    }

    /// The zygote of a shim's session: a fork of the shim that serves one client, over a socket and with its process at the
    /// numbers that a zygote expects.
    pub(crate) fn session(&mut self) -> Sys<()> {
        sys::close(self.children);
        self.children = sys::signalfd(1 << (SIGCHLD - 1))?;
        self.ledger = Ledger::new()?;
        self.serve();
        Ok(())
    }

    /// What a child must not have of the zygote.
    pub(crate) fn leave(&self) {
        for kept in self.ledger.kept() {
            sys::close(kept.req as i32);
        }
        for fd in [CONTROL, OWNER, LOCK, self.children, self.below] {
            sys::close(fd);
        }
        self.networks.leave();
        sys::set_mask(0);
    }

    /// A container with a user namespace of its own may not make all of its mounts; a process beside it does.
    fn outfit(&mut self, plan: &Plan<'_>, fds: &Fds, pid: i32, (line, leave): (&outfit::Line, &dyn Fn())) -> Done {
        if !plan.has(flag::OWN_USERNS) {
            return Ok(());
        }
        let forked = sys::fork();
        if forked == Ok(0) {
            self.leave();
            leave();
            outfit::run(plan, fds, pid, line.outfitter_end());
        }
        // Also if there is no outfitter: an end that stayed open here would keep its descriptor for good.
        line.close();
        let helper = at(Step::Clone, forked)?;
        at(Step::Clone, self.ledger.add(WORKER, helper, 0, &[]))
    }

    /// A command in a running container. The answer comes when its guide ends: nothing that the container can delay is waited
    /// for here.
    fn exec(&mut self, req: u64, blob: &'static [u8], fds: &Fds) -> Done {
        let plan = Plan::decode(blob).ok_or(Fail::new(Step::Plan, sys::EBADMSG))?;
        let (pid, told) = self.guide(&plan, fds, &|| {})?;
        if let Err(errno) = self.ledger.add(JOINING, pid, req, &told.address().to_ne_bytes()) {
            // Unknown from here on: what it may have started dies with it, as nobody would ever tell of it.
            let _ = sys::kill(pid, SIGKILL);
            return Err(Fail::new(Step::Clone, errno));
        }
        Ok(())
    }

    /// Sends a guide into a running container, which starts the command as its own sibling: the guide's number, and where it
    /// tells that of the command. `leave` is called in it.
    pub(crate) fn guide(&mut self, plan: &Plan<'_>, fds: &Fds, leave: &dyn Fn()) -> Done<(i32, Shared)> {
        let mut args = CloneArgs {
            exit_signal: SIGCHLD,
            ..CloneArgs::default()
        };
        if plan.field(field::FD_CGROUP) != NO_FD {
            let cgroup = fds
                .get(plan.field(field::FD_CGROUP))
                .ok_or(Fail::new(Step::Clone, sys::EBADMSG))?;
            args.flags |= sys::CLONE_INTO_CGROUP;
            args.cgroup = cgroup as u64;
        }
        let told = at(Step::Clone, Shared::new())?;
        match sys::clone3(&args) {
            Ok(0) => {
                self.leave();
                leave();
                sys::close(self.slim);
                let context = Context {
                    plan: *plan,
                    fds,
                    slim: -1,
                    network: None,
                    outfit: None,
                };
                join::run(&context, &told)
            }
            Ok(pid) => Ok((pid, told)),
            Err(errno) => {
                told.unmap();
                Err(Fail::new(Step::Clone, errno))
            }
        }
    }

    /// The owner is gone: nothing of its may stay. Every process in this pid namespace is one of ours.
    #[inline(never)]
    #[unsafe(link_section = "lhchild")]
    fn clean_up(&mut self) {
        let kept = self.ledger.kept().next().is_some();
        match kept {
            true => drop(self.end_others()),
            false => drop(everyone::below_me(SIGKILL)),
        }
        self.each(b'c', |path| {
            remove::kill_cgroup(path);
            true
        });
        if self.below >= 0 {
            warden::end_all(self.below);
        }
        match kept {
            true => self.reap_others(),
            false => reap_all(),
        }
        for _ in 0..100 {
            if self.each(b'c', |path| remove::cgroup(path).is_ok()) {
                break;
            }
            sys::sleep_ms(5);
        }
        // Others' may be in those above: never more than this one call.
        self.each(b'p', |path| sys::unlinkat(sys::AT_FDCWD, path, sys::AT_REMOVEDIR).is_ok());
        self.each(b's', |path| remove::tree(path).is_ok());
        if kept {
            self.stay();
        }
    }

    /// Kills every child but those that outlive the owner; whether there was one. What a tool has left behind, and nobody ever
    /// asked for, stays with them.
    #[unsafe(link_section = "lhchild")]
    fn end_others(&self) -> bool {
        let mut others = self.ledger.entries().filter(|entry| entry.kind != KEPT && entry.pid > 0).peekable();
        let any = others.peek().is_some();
        for other in others {
            let _ = sys::kill(other.pid, SIGKILL);
        }
        any
    }

    #[unsafe(link_section = "lhchild")]
    fn reap_others(&mut self) {
        for _ in 0..PATIENCE_MS {
            self.reap();
            if !self.end_others() {
                return;
            }
            sys::sleep_ms(1);
        }
    }

    /// Waits for those that outlive the owner: they would end with this process. The owner's lock is free from now on.
    #[unsafe(link_section = "lhchild")]
    fn stay(&mut self) {
        for fd in [CONTROL, OWNER, LOCK] {
            let _ = sys::dup3(0, fd, sys::O_CLOEXEC);
        }
        while self.ledger.kept().next().is_some() {
            let mut fds = [PollFd {
                fd: self.children,
                events: 1,
                revents: 0,
            }];
            let _ = sys::poll(&mut fds, None);
            self.reap();
        }
    }

    /// Calls for each thing of a kind to clean up; whether all calls said yes.
    fn each(&self, kind: u8, mut act: impl FnMut(&[u8]) -> bool) -> bool {
        let mut all = true;
        let lists = self.ledger.entries().filter(|entry| entry.kind != JOINING && entry.kind != KEPT);
        for item in lists.flat_map(|entry| Strings(entry.list)) {
            if item.first() == Some(&kind) && !self.is_above_kept(item) {
                all &= act(item.get(1..).unwrap_or(b"\0"));
            }
        }
        all
    }
}

impl Zygote {
    /// Whether what outlives the owner is in it: the cgroup above those of all of its containers.
    #[unsafe(link_section = "lhchild")]
    fn is_above_kept(&self, item: &[u8]) -> bool {
        // Each ends with a NUL.
        let name = item.strip_suffix(b"\0").unwrap_or(item);
        let mut theirs = self.ledger.kept().flat_map(|entry| Strings(entry.list));
        theirs.any(|own| own.strip_prefix(name).is_some_and(|rest| rest.starts_with(b"/") || rest == b"\0"))
    }
}

/// The last children that nobody knew when they ended, with how they did: a tool leaves its own behind, and whoever ran it asks for
/// them when it has ended. One may be shorter than that.
#[derive(Default)]
struct Strangers {
    seen: [(i32, i32); 32],
    next: usize,
}

impl Strangers {
    fn note(&mut self, pid: i32, status: i32) {
        // An earlier process of that number is not meant any more.
        self.take(pid);
        if let Some(slot) = self.seen.get_mut(self.next % 32) {
            *slot = (pid, status);
        }
        self.next = self.next.wrapping_add(1);
    }

    fn take(&mut self, pid: i32) -> Option<i32> {
        let slot = self.seen.iter_mut().find(|slot| slot.0 == pid)?;
        let status = slot.1;
        *slot = (0, 0);
        Some(status)
    }
}

/// The zygote's own namespace of processes, while its next child is made in another: in one below, of a container that
/// runs. The child is the zygote's all the same.
struct Pids(i32);

impl Pids {
    fn join(other: i32) -> Done<Self> {
        let own = at(Step::Join, sys::pidfd_open(sys::getpid()))?;
        let joined = sys::setns(other, sys::CLONE_NEWPID);
        if joined.is_err() {
            sys::close(own);
        }
        at(Step::Join, joined).map(|_| Self(own))
    }

    fn back(self, in_child: bool) {
        if !in_child && sys::setns(self.0, sys::CLONE_NEWPID).is_err() {
            // Nothing could be started any more: the owner sees that this is the end.
            sys::hang_up(CONTROL);
        }
        sys::close(self.0);
    }
}

pub(crate) fn blob_of(header: &Header, inline: &'static [u8], fds: &Fds) -> Sys<&'static [u8]> {
    let len = header.len as usize;
    if header.flags & FLAG_MEMFD == 0 {
        return if inline.len() == len {
            Ok(inline)
        } else {
            Err(sys::EBADMSG)
        };
    }
    let file = fds.last().ok_or(sys::EBADMSG)?;
    if len == 0 || len > LARGEST || sys::stat_fd(file)?.size < len as u64 {
        return Err(sys::EBADMSG);
    }
    sys::map_file(file, len)
}

fn reap_all() {
    for _ in 0..PATIENCE_MS {
        match sys::wait(-1, true) {
            Ok((0, _)) => sys::sleep_ms(1),
            Ok(_) => {}
            Err(_) => return,
        }
    }
}
