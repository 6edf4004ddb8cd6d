//! Health checks: what is run in the container from time to time, what came of it, and what is done about an unhealthy one. The
//! shim always does this, whether engines are there or not: there is nothing to hand over when one goes.

use super::{Shim, Stage, close_all, drop_fd, hunt, now};
use crate::everyone;
use crate::health::{HEAD, Health, OUTPUT, Probe, SLOT, outcome, status};
use crate::message::{self, Fds};
use crate::sys::{self, AT_FDCWD, Shared, Sys};
use crate::talk::config;
use crate::wire::{Plan, RECORD, RECORD_TEXT, Record, Section, Step, Strings, field, probe};
use crate::zygote::SIGKILL;

/// How often is read what a probe that has ended has left in its pipe, which has room for sixteen times what is kept.
const ROUNDS: u32 = 16;
/// How soon is looked again for what a probe has left, at first and at last.
const SOON_MS: i64 = 5;
const LATE_MS: i64 = 1000;

/// What is known of a check, and the probe that runs.
pub(super) struct Check {
    /// The file with the plan of a probe; -1 where nothing is to be probed.
    pub(super) plan: i32,
    /// Where results are written to.
    pub(super) results: i32,
    /// Room for one result.
    room: &'static mut [u8],
    /// When the next probe begins.
    next: i64,
    running: Option<Running>,
    /// When a container that was told to stop is killed.
    patience: i64,
    /// The end that it was told to come to is followed by a start.
    pub(super) again: bool,
}

/// A probe on its way.
struct Running {
    /// What leads it into the container, until that is reaped; then 0.
    guide: i32,
    /// Where the guide tells the number of the command.
    told: Option<Shared>,
    /// The command, while it is not reaped.
    command: i32,
    status: i32,
    output: i32,
    /// The namespace by which all that it has started is known; -1 before it has one.
    mark: i32,
    /// The wait status of the command.
    ended: Option<i32>,
    failure: Option<(u32, i32)>,
    /// Bytes of output that are kept.
    filled: usize,
    start_ns: i64,
    until: i64,
    /// It is being killed: how long after a look for its processes comes the next.
    hunted: Option<i64>,
    overran: bool,
    /// The run that it was for is over: nobody wants to know.
    void: bool,
}

impl Check {
    #[inline(never)]
    #[unsafe(link_section = "lhshim")]
    pub(super) fn new(plan: i32, results: i32) -> Option<Self> {
        // Address space, until there is a probe.
        let room = if plan < 0 { &mut [] } else { sys::map(SLOT).ok()? };
        Some(Self {
            plan,
            results,
            room,
            next: i64::MAX,
            running: None,
            patience: i64::MAX,
            again: false,
        })
    }

    /// The descriptors that are polled: that of the records, and that of what is printed.
    #[unsafe(link_section = "lhshim")]
    pub(super) fn polled(&self) -> [i32; 2] {
        self.running.as_ref().map_or([-1; 2], |running| [running.status, running.output])
    }

    /// What a probe is known by.
    #[unsafe(link_section = "lhshim")]
    pub(super) fn mark(&self) -> i32 {
        self.running.as_ref().map_or(-1, |running| running.mark)
    }

    /// When there is something to do.
    #[unsafe(link_section = "lhshim")]
    pub(super) fn until(&self) -> i64 {
        let due = self.running.as_ref().map_or(self.next, |running| running.until);
        due.min(self.patience)
    }
}

impl Running {
    /// Kills it, and whatever it has started and is there still.
    #[inline(never)]
    #[unsafe(link_section = "lhshim")]
    fn kill(&mut self) {
        self.until = i64::MAX;
        let pause = self.hunted.map_or(SOON_MS, |last| (last * 2).min(LATE_MS));
        self.hunted = Some(pause);
        if self.guide > 0 {
            let _ = sys::kill(self.guide, SIGKILL);
        }
        if self.command > 0 {
            let _ = everyone::led_by(self.command, SIGKILL);
            let _ = sys::kill(self.command, SIGKILL);
        }
        // What has left the process group was handed to the container's first process, or will be.
        if self.mark >= 0 && hunt::kill_all_in(self.mark) {
            self.until = now().saturating_add(pause);
        } else {
            drop_fd(&mut self.mark);
        }
    }

    /// One that is killed is over when nothing is left of it.
    #[unsafe(link_section = "lhshim")]
    fn is_over(&self) -> bool {
        self.guide == 0 && self.command == 0 && !(self.hunted.is_some() && self.mark >= 0)
    }
}

impl Shim {
    /// A run begins: nothing is known of its health.
    #[unsafe(link_section = "lhshim")]
    pub(super) fn begin_checks(&mut self) {
        if self.check.plan < 0 {
            return;
        }
        self.record.health = Some(Health::NEW);
        self.check.next = i64::MAX;
    }

    /// The program of a run runs, or a probe has ended: when the next begins.
    #[inline(never)]
    #[unsafe(link_section = "lhshim")]
    pub(super) fn plan_check(&mut self) {
        let Some(health) = self.record.health.filter(|_| self.check.plan >= 0) else { return };
        let begins = health.status == status::STARTING && !self.counts(sys::clock(0));
        let pause = self.word(if begins { config::START_INTERVAL } else { config::INTERVAL });
        self.check.next = now().saturating_add(pause.min(i64::MAX as u64) as i64);
    }

    /// Whether a failure at this time is none of the start period.
    #[unsafe(link_section = "lhshim")]
    fn counts(&self, time_ns: i64) -> bool {
        let since = time_ns.saturating_sub(self.record.started_ns).max(0) as u64 / 1_000_000;
        since >= self.word(config::START_PERIOD)
    }

    /// What is to be done at a time.
    #[unsafe(link_section = "lhshim")]
    pub(super) fn tick_checks(&mut self, now: i64) {
        if now >= self.check.patience {
            self.check.patience = i64::MAX;
            self.send(SIGKILL);
        }
        match &mut self.check.running {
            Some(running) if now >= running.until => {
                running.overran |= running.hunted.is_none();
                self.kill_probe();
            }
            Some(_) => {}
            None if now >= self.check.next => {
                if self.stage != Stage::Running {
                    self.check.next = i64::MAX;
                } else if self.is_frozen() {
                    // A probe would only wait.
                    self.plan_check();
                } else {
                    self.probe();
                }
            }
            None => {}
        }
    }

    /// Kills the probe that runs, once more if that has left something.
    #[unsafe(link_section = "lhshim")]
    fn kill_probe(&mut self) {
        // Its guide may have told what it is known by a moment ago.
        self.read_told();
        if let Some(running) = &mut self.check.running {
            running.kill();
        }
        self.end_probe();
    }

    /// Begins a probe.
    #[inline(never)]
    #[unsafe(link_section = "lhshim")]
    fn probe(&mut self) {
        self.check.next = i64::MAX;
        let limit = self.word(config::TIMEOUT).min(i64::MAX as u64) as i64;
        let mut running = Running {
            guide: 0,
            told: None,
            command: 0,
            status: -1,
            output: -1,
            mark: -1,
            ended: None,
            failure: None,
            filled: 0,
            start_ns: sys::clock(0),
            until: now().saturating_add(limit),
            hunted: None,
            overran: false,
            void: false,
        };
        if let Err(failure) = self.lead_in(&mut running) {
            running.failure = Some(failure);
        }
        self.check.running = Some(running);
        self.end_probe();
    }

    /// Makes what a probe needs, and sends its guide.
    #[inline(never)]
    #[unsafe(link_section = "lhshim")]
    fn lead_in(&mut self, running: &mut Running) -> Result<(), (u32, i32)> {
        let os = |step: Step| move |errno: i32| (step as u32, errno);
        let [status, their_status] = sys::socket_pair().map_err(os(Step::Stdio))?;
        running.status = status;
        let pipes = sys::pipe().and_then(|output| {
            let input = sys::pipe().inspect_err(|_| close_all(&output, &[]))?;
            Ok((output, input))
        });
        let pipes = pipes.inspect_err(|_| sys::close(their_status));
        let ([output, printed], [input, nobody]) = pipes.map_err(os(Step::Stdio))?;
        running.output = output;
        sys::set_flags(output, sys::O_NONBLOCK);
        // Nobody writes to its stdin.
        sys::close(nobody);
        let sent = self.send_guide(running, [their_status, input, printed]);
        for fd in [their_status, input, printed] {
            sys::close(fd);
        }
        let (guide, told) = sent?;
        running.guide = guide;
        running.told = Some(told);
        Ok(())
    }

    #[unsafe(link_section = "lhshim")]
    fn send_guide(&mut self, running: &Running, theirs: [i32; 3]) -> Result<(i32, Shared), (u32, i32)> {
        let os = |errno: i32| (Step::Plan as u32, errno);
        let size = sys::stat_fd(self.check.plan).map_err(os)?.size as usize;
        // Only for the guide, which has a copy: none of its pages stay here.
        let blob = sys::map_file(self.check.plan, size).map_err(os)?;
        let fds = self.fds_of_probe(theirs);
        let (process, private, ours) = (self.process, self.private(), [running.status, running.output]);
        let Self { zygote, conns, .. } = self;
        let leave = || {
            // By the first process it finds the container.
            for fd in private.iter().chain(&ours).filter(|fd| **fd != process) {
                close_all(&[*fd], &[]);
            }
            close_all(&[], conns);
        };
        let sent = match Plan::decode(blob) {
            Some(plan) => zygote.guide(&plan, &fds, &leave).map_err(|fail| (fail.step as u32, fail.errno())),
            None => Err(os(sys::EBADMSG)),
        };
        sys::unmap(blob);
        sent
    }

    /// Descriptors where the plan of a probe has them: its own, and those of the container.
    #[unsafe(link_section = "lhshim")]
    fn fds_of_probe(&self, [status, input, output]: [i32; 3]) -> Fds {
        let mut fds = Fds::none();
        let own = [
            (probe::FD_STATUS, status),
            (probe::FD_STDIN, input),
            (probe::FD_OUTPUT, output),
            (probe::FD_TARGET, self.process),
        ];
        for (position, fd) in own {
            fds.set(position, fd);
        }
        let of_container = |position: u32| self.fds.get(position).unwrap_or(-1);
        fds.set(probe::FD_CGROUP, of_container(self.plan.field(field::FD_CGROUP)));
        for index in 0..self.plan.field(field::V1_COUNT) {
            let position = self.plan.field(field::FD_V1_FIRST) + index;
            fds.set(probe::FD_V1_FIRST + index, of_container(position));
        }
        fds
    }

    /// One record of a probe that is led in, or the end of them.
    #[inline(never)]
    #[unsafe(link_section = "lhshim")]
    pub(super) fn read_probe_status(&mut self) {
        let Some(running) = self.check.running.as_mut().filter(|running| running.status >= 0) else { return };
        let mut fds = Fds::none();
        let mut bytes = [0u8; RECORD + RECORD_TEXT];
        let got = message::receive(running.status, &mut bytes, &mut fds);
        match fds.get(0).filter(|_| running.mark < 0) {
            Some(mark) => running.mark = mark,
            None => fds.close(),
        }
        if got == Err(sys::EAGAIN) {
            return;
        }
        let Ok(len @ 1..) = got else { return drop_fd(&mut running.status) };
        let bytes = bytes.get(..len).unwrap_or(&[]);
        let Some(record) = Record::decode(bytes).filter(|record| record.errno != 0) else { return };
        running.failure = Some((record.step, record.errno));
        // What it was about takes the place of what it printed, which is nothing.
        running.filled = 0;
        for (slot, byte) in self.check.room.iter_mut().skip(HEAD).zip(bytes.iter().skip(RECORD)) {
            if *byte == 0 {
                break;
            }
            *slot = *byte;
            running.filled += 1;
        }
    }

    /// What a probe prints: its beginning is kept, and nothing is left to wait.
    #[inline(never)]
    #[unsafe(link_section = "lhshim")]
    pub(super) fn read_probe_output(&mut self) {
        let Some(running) = self.check.running.as_mut().filter(|running| running.output >= 0) else { return };
        let mut sink = [0u8; 512];
        let room = self.check.room.get_mut(HEAD + running.filled..).unwrap_or(&mut []);
        let full = room.is_empty();
        match sys::read(running.output, if full { &mut sink } else { room }) {
            Ok(len @ 1..) if !full => running.filled += len,
            Ok(1..) | Err(sys::EAGAIN | sys::EINTR) => {}
            _ => drop_fd(&mut running.output),
        }
    }

    /// Whether a child that has ended was a probe's.
    #[inline(never)]
    #[unsafe(link_section = "lhshim")]
    pub(super) fn reaped_of_probe(&mut self, pid: i32, wait: i32) -> bool {
        let Some(running) = &mut self.check.running else { return false };
        let known = |running: &Running| running.told.as_ref().map_or(0, Shared::get);
        if pid == running.guide {
            let command = known(running);
            running.guide = 0;
            if let Some(told) = running.told.take() {
                told.unmap();
            }
            if running.ended.is_none() && command > 0 {
                running.command = command;
            }
            if running.hunted.is_some() {
                self.kill_probe();
                return true;
            }
        } else if pid == running.command || running.guide > 0 && known(running) == pid {
            running.command = 0;
            running.ended = Some(wait);
        } else {
            return false;
        }
        self.end_probe();
        true
    }

    /// The run is over: so is its probe, whatever it would say.
    #[unsafe(link_section = "lhshim")]
    pub(super) fn end_checks(&mut self) {
        self.check.next = i64::MAX;
        self.check.patience = i64::MAX;
        if let Some(running) = &mut self.check.running {
            running.void = true;
            self.kill_probe();
        }
    }

    /// Takes in all that a probe's guide has told.
    #[unsafe(link_section = "lhshim")]
    fn read_told(&mut self) {
        for _ in 0..ROUNDS {
            let [told, _] = self.check.polled();
            if told < 0 || !super::readable(told, 0) {
                return;
            }
            self.read_probe_status();
        }
    }

    /// Takes the result of a probe whose processes are gone.
    #[inline(never)]
    #[unsafe(link_section = "lhshim")]
    fn end_probe(&mut self) {
        if self.check.running.as_ref().is_none_or(|running| !running.is_over()) {
            return;
        }
        // What they have told and printed is there; what they have left behind may print for ever.
        self.read_told();
        for _ in 0..ROUNDS {
            let [_, printed] = self.check.polled();
            if printed >= 0 && super::readable(printed, 0) {
                self.read_probe_output();
            }
        }
        let Some(mut running) = self.check.running.take() else { return };
        drop_fd(&mut running.status);
        drop_fd(&mut running.output);
        drop_fd(&mut running.mark);
        if !running.void && self.stage == Stage::Running {
            self.take_result(&running);
        }
        self.forget();
    }

    /// Writes a result down.
    #[unsafe(link_section = "lhshim")]
    fn take_result(&mut self, running: &Running) {
        let Some(mut health) = self.record.health else { return };
        let (outcome, value, step) = match (running.overran, running.failure, running.ended) {
            (true, ..) => (outcome::OVERRAN, 0, 0),
            (_, Some((step, errno)), _) => (outcome::FAILED, errno, step),
            (_, None, Some(wait)) => (outcome::ENDED, wait, 0),
            // Its guide ended without a word: it was killed.
            (_, None, None) => (outcome::FAILED, sys::ECHILD, Step::Join as u32),
        };
        let well = outcome == outcome::ENDED && value == 0;
        let end_ns = sys::clock(0);
        let retries = self.word(config::RETRIES).min(u64::from(u32::MAX)) as u32;
        let changed = health.take(well, self.counts(running.start_ns), retries, end_ns);
        let result = Probe {
            number: health.probes,
            start_ns: running.start_ns,
            end_ns,
            outcome,
            value,
            step,
            len: running.filled.min(OUTPUT) as u32,
            run_ns: self.record.started_ns,
        };
        result.encode(self.check.room);
        let written = self.check.room.get(..HEAD + result.len as usize).unwrap_or(&[]);
        // Before the state, which tells that it is there. A disk that does not take it has its place already.
        let _ = sys::pwrite(self.check.results, written, result.place());
        self.record.health = Some(health);
        self.note();
        self.plan_check();
        if changed && health.status == status::UNHEALTHY {
            self.act();
        }
    }

    /// What was asked for where a container becomes unhealthy.
    #[unsafe(link_section = "lhshim")]
    fn act(&mut self) {
        let signal = match self.word(config::ON_UNHEALTHY) {
            config::KILL => SIGKILL,
            action @ (config::STOP | config::AGAIN) => {
                self.halted |= action == config::STOP;
                self.check.again = action == config::AGAIN;
                let patience = self.word(config::STOP_MS).min(i64::MAX as u64) as i64;
                self.check.patience = now().saturating_add(patience);
                self.word(config::STOP_SIGNAL) as i32
            }
            _ => return,
        };
        self.check.next = i64::MAX;
        self.send(signal);
    }

    /// Whether the container is paused: one of its cgroups is frozen.
    #[unsafe(link_section = "lhshim")]
    fn is_frozen(&self) -> bool {
        let list = self.plan.section(Section::Cleanup);
        Strings(list).filter_map(|item| item.strip_prefix(b"c")).any(frozen)
    }
}

#[inline(never)]
#[unsafe(link_section = "lhshim")]
fn frozen(cgroup: &[u8]) -> bool {
    let Ok(dir) = sys::open(AT_FDCWD, cgroup, sys::O_PATH | sys::O_DIRECTORY | sys::O_NOFOLLOW) else { return false };
    // THAWED is the third word of version 1.
    let says = |name: &[u8], word: u8| first_byte(dir, name) == Ok(word);
    let frozen = says(b"cgroup.freeze\0", b'1') || says(b"freezer.state\0", b'F');
    sys::close(dir);
    frozen
}

#[unsafe(link_section = "lhshim")]
fn first_byte(dir: i32, name: &[u8]) -> Sys<u8> {
    let file = sys::open(dir, name, 0)?;
    let mut first = [0u8];
    let read = sys::read(file, &mut first);
    sys::close(file);
    read.map(|_| first[0])
}
