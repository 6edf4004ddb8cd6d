//! Runs: how one begins, how it ends, what is written down, and what follows.

use super::{PAGE, Shim, Stage, close_all, drop_fd, now, readable};
use crate::message::{self, Fds};
use crate::path::numbered;
use crate::record::phase;
use crate::sys::{self, AT_FDCWD, Sys};
use crate::talk::config;
use crate::wire::{NO_FD, RECORD, RECORD_TEXT, Record, Section, Step, Strings, aux, field};
use crate::zygote::{CONTROL, LOCK, SIGKILL};
use crate::{backoff, remove};

/// How long the streams of a run that has ended are read while somebody has them open.
const DRAIN_MS: i64 = 2000;
/// How long the disk is left alone after it has failed to take the end of a run, and how long watchers may take to hear of it.
const AGAIN_MS: i64 = 1000;
/// How long a cgroup is waited for whose processes are on their way out.
const PATIENCE: u32 = 400;

impl Shim {
    /// Begins a run. What fails is the step and its errno, and nothing is left of it.
    #[inline(never)]
    #[unsafe(link_section = "lhshim")]
    pub(super) fn start(&mut self) -> Result<(), (u32, i32)> {
        let os = |step: Step| move |errno: i32| (step as u32, errno);
        let [status, theirs] = sys::socket_pair().map_err(os(Step::Clone))?;
        self.fds.set(self.plan.field(field::FD_STATUS), theirs);
        let ends = self.own_streams().and_then(|()| self.container_ends());
        let made = ends.map_err(os(Step::Stdio)).and_then(|()| {
            let private = self.private();
            let Self {
                zygote,
                plan,
                fds,
                conns,
                ..
            } = self;
            let leave = || {
                close_all(&private, conns);
                sys::close(status);
            };
            zygote
                .clone_container(plan, fds, &leave)
                .map_err(|fail| (fail.step as u32, fail.errno()))
        });
        self.close_ends();
        let (child, process) = match made {
            Ok(made) => made,
            Err(failure) => {
                sys::close(status);
                drop_fd(&mut self.input);
                return Err(failure);
            }
        };
        drop_fd(&mut self.process);
        (self.child, self.process, self.status) = (child, process, status);
        self.ready = false;
        self.stage = Stage::Setting;
        self.log.begin();
        self.open_streams();
        self.record.stdin_closed = false;
        self.begin_checks();
        self.record.pid = child as u32;
        self.record.start_ticks = start_ticks(child).unwrap_or(0);
        self.record.phase = match self.record.restarts {
            0 => phase::STARTING,
            _ => phase::RESTARTING,
        };
        self.note();
        self.forget();
        Ok(())
    }

    /// The container's ends of its streams, and of what it tells of its start, are its own.
    #[unsafe(link_section = "lhshim")]
    pub(super) fn close_ends(&mut self) {
        for position in [field::FD_STATUS, field::FD_STDIN, field::FD_STDOUT, field::FD_STDERR] {
            if let Some(fd) = self.fds.get(self.plan.field(position)) {
                sys::close(fd);
                self.fds.set(self.plan.field(position), -1);
            }
        }
    }

    /// The container's ends of its streams: opened for reading and writing, so that a shim that is killed neither takes the
    /// container with it (`SIGPIPE`) nor loses what is in the pipes.
    #[unsafe(link_section = "lhshim")]
    fn container_ends(&mut self) -> Sys<()> {
        for (name, position) in [(b"out\0", field::FD_STDOUT), (b"err\0", field::FD_STDERR)] {
            if self.plan.field(position) != NO_FD {
                let end = sys::open(self.dir, name, sys::O_RDWR)?;
                self.fds.set(self.plan.field(position), end);
            }
        }
        if self.plan.field(field::FD_STDIN) == NO_FD {
            return Ok(());
        }
        drop_fd(&mut self.input);
        // While both ends are open, neither is waited for.
        let both = sys::open(self.dir, b"in\0", sys::O_RDWR)?;
        let theirs = sys::open(self.dir, b"in\0", 0);
        let ours = sys::open(self.dir, b"in\0", sys::O_WRONLY);
        sys::close(both);
        self.fds.set(self.plan.field(field::FD_STDIN), theirs.unwrap_or(-1));
        self.input = ours.unwrap_or(-1);
        theirs.and(ours).map(drop)
    }

    /// One record of the process that sets itself up, or the end of them.
    #[inline(never)]
    #[unsafe(link_section = "lhshim")]
    pub(super) fn read_status(&mut self) {
        if self.status < 0 {
            return;
        }
        let mut fds = Fds::none();
        let mut bytes = [0u8; RECORD + RECORD_TEXT];
        let got = message::receive(self.status, &mut bytes, &mut fds);
        if got == Err(sys::EAGAIN) {
            return;
        }
        let Ok(len @ 1..) = got else {
            drop_fd(&mut self.status);
            return self.executed();
        };
        let bytes = bytes.get(..len).unwrap_or(&[]);
        let fd = fds.get(0);
        if self.relay >= 0 {
            // Whoever started it and has gone needs not be told.
            let _ = message::send(self.relay, bytes, &[], fd);
        }
        let Some(record) = Record::decode(bytes) else { return fds.close() };
        match fd {
            Some(master) if record.step == Step::Terminal as u32 => self.take_terminal(master),
            _ => fds.close(),
        }
        if record.step == Step::Ready as u32 {
            self.ready = true;
        } else if record.errno != 0 || (record.aux != 0 && record.aux != aux::CLAMPED) {
            self.record.failure = Some((record.step, record.errno));
        }
    }

    /// The program runs, or never will; then the process's end says the rest.
    #[unsafe(link_section = "lhshim")]
    fn executed(&mut self) {
        // After READY the exec itself may have failed.
        self.ready &= self.record.failure.is_none();
        if self.ready {
            self.stage = Stage::Running;
            self.began = now();
            self.record.started_ns = sys::clock(0);
            self.record.phase = phase::RUNNING;
            self.record.failure = None;
            self.plan_check();
            self.note();
        }
        // The starter's end of the records, too.
        drop_fd(&mut self.relay);
    }

    /// Reaps whatever has ended: the container, sessions, and commands whose session has gone.
    #[inline(never)]
    #[unsafe(link_section = "lhshim")]
    pub(super) fn reap(&mut self) {
        let mut sink = [0u8; 128];
        while sys::read(self.zygote.children, &mut sink).is_ok() {}
        while let Ok((pid, status)) = sys::wait(-1, true) {
            if pid == 0 {
                return;
            }
            if pid == self.child {
                self.ended(status);
            } else if !self.reaped_of_probe(pid, status) {
                let _ = self.zygote.ledger.ended(pid);
            }
        }
    }

    /// The first process of the run has ended.
    #[unsafe(link_section = "lhshim")]
    fn ended(&mut self, status: i32) {
        self.child = 0;
        self.end_checks();
        // What it has told is there; whoever else holds the other end has a second to close it.
        while self.status >= 0 && readable(self.status, 1000) {
            self.read_status();
        }
        drop_fd(&mut self.status);
        drop_fd(&mut self.relay);
        if !self.ready && self.record.restarts == 0 {
            self.abandon();
        }
        self.wait = Some(status);
        if !self.ready {
            let failure = self.record.failure.unwrap_or((Step::Clone as u32, sys::EPROTO));
            return self.failed(failure);
        }
        self.drain();
    }

    /// A run that did not come to its program counts as one that failed: with the status that Docker has for it.
    #[unsafe(link_section = "lhshim")]
    fn failed(&mut self, (step, errno): (u32, i32)) {
        let code = match errno {
            sys::ENOENT => 127,
            sys::EACCES | sys::ENOTDIR => 126,
            _ => 128,
        };
        self.record.failure = Some((step, errno));
        self.wait = Some(code << 8);
        self.began = now();
        self.drain();
    }

    #[unsafe(link_section = "lhshim")]
    pub(super) fn drain(&mut self) {
        self.record.finished_ns = sys::clock(0);
        self.record.oom_killed = self.count_oom();
        self.stage = Stage::Draining;
        self.until = now() + DRAIN_MS;
    }

    /// Whether the kernel has killed a process of it for memory in this run.
    #[unsafe(link_section = "lhshim")]
    fn count_oom(&mut self) -> Option<bool> {
        let kills = oom_kills(self.oom)?;
        let before = core::mem::replace(&mut self.oom_seen, kills);
        Some(kills > before)
    }

    /// Everything that it has printed is in the log.
    #[unsafe(link_section = "lhshim")]
    pub(super) fn finish(&mut self) {
        self.close_streams();
        self.log.end();
        let status = self.wait.take();
        let failed = status.is_none_or(|status| status != 0);
        // One that is unhealthy is started again whatever its policy says, unless somebody ends it by hand.
        self.check.again &= !self.halted;
        let again = self.check.again || !self.halted && self.restart.wants(failed, self.record.restarts);
        self.record.exit = status;
        self.record.ends += 1;
        self.record.phase = if again { phase::RESTARTING } else { phase::ENDED };
        self.record.change += 1;
        self.record.lost_entries = self.log.lost;
        self.write_end_now();
    }

    /// Writes down the end of a run, or of a pause; until the disk takes it.
    #[unsafe(link_section = "lhshim")]
    pub(super) fn write_end(&mut self) {
        self.record.change += 1;
        self.write_end_now();
    }

    #[unsafe(link_section = "lhshim")]
    fn write_end_now(&mut self) {
        if self.write().and_then(|()| sys::fdatasync(self.file).map(drop)).is_err() {
            self.stage = Stage::Writing;
            self.until = now() + AGAIN_MS;
            return;
        }
        self.tell();
        if self.record.phase == phase::ENDED {
            self.stage = Stage::Over;
            self.until = now() + AGAIN_MS;
            return;
        }
        let ran = (now() - self.began).max(0) as u64;
        let restart = &self.restart;
        self.pause = backoff::pause(self.pause, ran, restart.first_ms, restart.longest_ms, restart.steady_ms);
        self.stage = Stage::Pausing;
        if core::mem::take(&mut self.check.again) {
            self.pause = 0;
        }
        self.until = now().saturating_add(self.pause.min(i64::MAX as u64) as i64);
    }

    #[inline(never)]
    #[unsafe(link_section = "lhshim")]
    pub(super) fn start_again(&mut self) {
        self.record.restarts += 1;
        self.record.failure = None;
        if let Err(failure) = self.start() {
            self.failed(failure);
        }
    }

    /// Writes down a change that is not an end: nobody waits for the disk.
    #[unsafe(link_section = "lhshim")]
    pub(super) fn note(&mut self) {
        self.record.change += 1;
        self.record.lost_entries = self.log.lost;
        let _ = self.write();
        self.tell();
    }

    #[unsafe(link_section = "lhshim")]
    fn write(&self) -> Sys<()> {
        let state = self.record.encode();
        match sys::pwrite(self.file, &state, self.record.place())? {
            len if len == state.len() => Ok(()),
            _ => Err(sys::EAGAIN),
        }
    }

    /// The container has ended for good.
    #[inline(never)]
    #[unsafe(link_section = "lhshim")]
    pub(super) fn leave(&mut self) -> ! {
        self.sweep();
        self.unlink();
        // First of all: who sees the connection end may start it again.
        sys::close(LOCK);
        sys::exit(0)
    }

    /// A start that is nobody's: nothing stays of it. A container that was to be taken over goes on without this.
    #[inline(never)]
    #[unsafe(link_section = "lhshim")]
    pub(super) fn abandon(&mut self) -> ! {
        if self.is(config::TAKEN) {
            sys::exit(1)
        }
        if self.child > 0 {
            let _ = sys::kill(self.child, SIGKILL);
            let _ = sys::wait(self.child, false);
        }
        self.sweep();
        let _ = sys::unlinkat(self.dir, b"state\0", 0);
        self.unlink();
        sys::close(LOCK);
        sys::hang_up(CONTROL);
        sys::exit(0)
    }

    /// Kills what is left in the container's cgroups, and removes them; then, where nothing else is beneath them, those above.
    #[unsafe(link_section = "lhshim")]
    fn sweep(&mut self) {
        let list = self.plan.section(Section::Cleanup);
        let cgroups = || Strings(list).filter_map(|item| item.strip_prefix(b"c"));
        for path in cgroups() {
            remove::kill_cgroup(path);
        }
        for _ in 0..PATIENCE {
            while matches!(sys::wait(-1, true), Ok((1.., _))) {}
            let mut left = false;
            for path in cgroups() {
                left |= remove::cgroup(path).is_err();
            }
            if !left {
                break;
            }
            sys::sleep_ms(5);
        }
        // Other containers' may be there, and come and go: never more than this one call.
        for path in Strings(list).filter_map(|item| item.strip_prefix(b"p")) {
            let _ = sys::unlinkat(AT_FDCWD, path, sys::AT_REMOVEDIR);
        }
    }

    #[unsafe(link_section = "lhshim")]
    fn unlink(&self) {
        for name in [b"ctl\0" as &[u8], b"out\0", b"err\0", b"in\0"] {
            let _ = sys::unlinkat(self.dir, name, 0);
        }
    }
}

/// When a process was made, in the kernel's ticks since boot: field 22 of `proc_pid_stat(5)`.
#[inline(never)]
#[unsafe(link_section = "lhshim")]
fn start_ticks(pid: i32) -> Option<u64> {
    let mut name = [0u8; 64];
    let path = numbered(&mut name, b"/proc/", pid as u64, b"/stat").ok()?;
    let mut text = [0u8; 512];
    let file = sys::open(AT_FDCWD, path, 0).ok()?;
    let len = sys::read(file, &mut text).unwrap_or(0);
    sys::close(file);
    // The name may hold anything, also a parenthesis; a space and field 3 follow it.
    let mut rest = text.get(..len)?;
    let name = rest.iter().rposition(|byte| *byte == b')')?;
    rest = rest.get(name..)?;
    for _ in 3..=22 {
        let space = rest.iter().position(|byte| *byte == b' ')?;
        rest = rest.get(space + 1..)?;
    }
    Some(decimal(rest))
}

/// The counter of either version's file: `oom_kill` and a number on a line.
#[inline(never)]
#[unsafe(link_section = "lhshim")]
pub(super) fn oom_kills(file: i32) -> Option<u64> {
    const NAME: &[u8] = b"oom_kill ";
    let mut text = [0u8; 512];
    let len = sys::pread(file, &mut text, 0).ok()?;
    let mut rest = text.get(..len)?;
    while !rest.starts_with(NAME) {
        rest = rest.get(1..)?;
    }
    Some(decimal(rest.get(NAME.len()..)?))
}

/// The number that a text begins with.
#[inline(never)]
#[unsafe(link_section = "lhshim")]
fn decimal(text: &[u8]) -> u64 {
    let digits = text.iter().map(|byte| byte.wrapping_sub(b'0')).take_while(|digit| *digit < 10);
    digits.fold(0, |number, digit| number * 10 + u64::from(digit))
}

const _: () = assert!(config::COUNT * 8 < PAGE);
