//! The shim: the parent of one container that outlives its program. It holds the container's streams and writes its log, tells
//! whoever is connected how it goes, probes its health, writes down how it ended, and starts it again.
//!
//! It lives in the host's pid namespace: what a zygote does at its end to everything that it sees must never be done here.
//! One thread, one loop; nothing that a client or the disk can delay stops it for longer than a second.

mod hunt;
mod life;
mod log;
mod moving;
mod output;
mod peers;
mod probe;
mod taken;

use self::log::Log;
pub(crate) use self::moving::move_in;
use self::output::{Held, Stream};
use self::peers::Conn;
use self::probe::Check;
use self::taken::Taken;
use crate::message::{self, Fds};
use crate::record::State;
use crate::sys::{self, PollFd};
use crate::talk::{Restart, config, u64_at};
use crate::wire::{FLAG_MEMFD, HEADER, Header, Plan, Step, field, op};
use crate::zygote::{self, CONTROL, OWNER, SIGCHLD, Zygote};

/// Most connections at once.
const CONNECTIONS: usize = 32;
const PAGE: usize = 4096;
const POLLIN: i16 = 1;
const POLLOUT: i16 = 4;

/// Where the present run is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its first process sets itself up.
    Setting,
    Running,
    /// It has ended; what is in its streams is being read.
    Draining,
    /// Its end is being written down.
    Writing,
    /// The next begins soon.
    Pausing,
    Over,
}

struct Shim {
    zygote: Zygote,
    /// What it was told: words, and the log's second name.
    told: &'static [u8],
    dir: i32,
    listener: i32,
    file: i32,
    oom: i32,
    oom_seen: u64,
    restart: Restart,
    plan: Plan<'static>,
    /// Where the plan's file is mapped, and how many bytes of it.
    plan_place: (usize, usize),
    fds: Fds,
    stage: Stage,
    /// When the stage is over, in milliseconds.
    until: i64,
    /// The first process while it is not reaped.
    child: i32,
    process: i32,
    /// Of a run that another has begun.
    taken: Option<Taken>,
    /// Where the zygote tells of it whose child it is.
    line: i32,
    /// Its streams have no names: those that have are for the next run.
    borrowed: bool,
    status: i32,
    /// Where the first start is reported to.
    relay: i32,
    ready: bool,
    kept: bool,
    halted: bool,
    began: i64,
    pause: u64,
    /// The wait status of the run that has ended.
    wait: Option<i32>,
    /// The write end of its stdin, or its terminal.
    input: i32,
    streams: [Stream; 2],
    held: Option<Held>,
    log: Log,
    check: Check,
    record: State,
    conns: [Conn; CONNECTIONS],
}

/// Milliseconds of a clock that never jumps.
#[unsafe(link_section = "lhshim")]
fn now() -> i64 {
    sys::clock(1) / 1_000_000
}

/// The shim's main program.
#[inline(never)]
#[unsafe(link_section = "lhshim")]
pub(crate) fn run(zygote: Zygote) -> ! {
    const PR_SET_CHILD_SUBREAPER: usize = 36;
    const SIGXFSZ: u64 = 25;
    // A file as large as the starter's limits allow is an error of the write, and no end of this.
    sys::set_mask(1 << (SIGCHLD - 1) | 1 << (SIGXFSZ - 1));
    // Commands whose client has gone are reaped here, whatever the host's init does.
    let _ = sys::prctl(PR_SET_CHILD_SUBREAPER, 1, 0);
    let Some(mut shim) = Shim::prepare(zygote) else { sys::exit(1) };
    if shim.first_run().is_none() {
        shim.abandon();
    }
    shim.serve()
}

impl Shim {
    /// Takes in what it is told first.
    #[inline(never)]
    #[unsafe(link_section = "lhshim")]
    fn prepare(zygote: Zygote) -> Option<Self> {
        let mut fds = Fds::none();
        let len = message::receive(CONTROL, zygote.buffer, &mut fds).ok()?;
        let header = Header::decode(zygote.buffer.get(..len)?).filter(|header| header.op == op::SHIM)?;
        let body = zygote.buffer.get(HEADER..len)?;
        let told = sys::map(PAGE).ok()?;
        told.get_mut(..body.len())?.copy_from_slice(body);
        let told: &'static [u8] = told.get(..body.len())?;
        let word = |at: usize| u64_at(told, at).unwrap_or(0);
        // One that is missing fails where it is needed.
        let fd = |position: u32| fds.get(position).unwrap_or(-1);
        let dir = fd(config::FD_DIR);
        let terminal = word(config::FLAGS) & config::TERMINAL != 0;
        let streams = [Stream::open(dir, b"out\0", terminal)?, Stream::open(dir, b"err\0", terminal)?];
        let log = Log::new([fd(config::FD_LOG_DIR), fd(config::FD_LOG)], told)?;
        let check = Check::new(fd(config::FD_PROBE), fd(config::FD_RESULTS))?;
        let shim = Self {
            zygote,
            told,
            dir,
            listener: fd(config::FD_LISTENER),
            file: fd(config::FD_STATE),
            oom: fd(config::FD_OOM),
            oom_seen: 0,
            restart: Restart::decode(told.get(config::RESTART * 8..)?)?,
            plan: Plan::empty(),
            plan_place: (0, 0),
            fds: Fds::none(),
            stage: Stage::Setting,
            until: 0,
            child: 0,
            process: -1,
            taken: None,
            line: -1,
            borrowed: false,
            status: -1,
            relay: -1,
            ready: false,
            kept: false,
            halted: false,
            began: 0,
            pause: 0,
            wait: None,
            input: -1,
            streams,
            held: None,
            log,
            check,
            record: State {
                boot: [word(config::BOOT), word(config::BOOT + 1)],
                change: word(config::CHANGE),
                shim_pid: sys::getpid() as u32,
                ..State::default()
            },
            conns: [Conn::NONE; CONNECTIONS],
        };
        zygote::reply(op::DONE, header.req, 0, &[]);
        Some(shim)
    }

    /// Takes in the plan, and starts the container for the first time, or takes it over.
    #[inline(never)]
    #[unsafe(link_section = "lhshim")]
    fn first_run(&mut self) -> Option<()> {
        let len = message::receive(CONTROL, self.zygote.buffer, &mut self.fds).ok()?;
        let header = Header::decode(self.zygote.buffer.get(..len)?)?;
        let started = self.take_plan(&header).and_then(|()| {
            if self.is(config::TAKEN) {
                return self.take_over().map_err(|errno| (Step::Join as u32, errno));
            }
            self.relay = self.fds.get(self.plan.field(field::FD_STATUS)).ok_or((Step::Plan as u32, sys::EBADMSG))?;
            self.start()
        });
        match started {
            Ok(()) => {
                zygote::reply(op::DONE, header.req, 0, &[]);
                // It outlives whoever has asked for this already.
                if self.is(config::TAKEN) {
                    self.let_starter_go();
                }
            }
            Err((step, errno)) => {
                zygote::reply(op::FAILED, header.req, errno, &step.to_ne_bytes());
                return None;
            }
        }
        Some(())
    }

    /// The plan's file stays mapped, for the next runs.
    #[unsafe(link_section = "lhshim")]
    fn take_plan(&mut self, header: &Header) -> Result<(), (u32, i32)> {
        let bad = (Step::Plan as u32, sys::EBADMSG);
        if header.op != op::START || header.flags & FLAG_MEMFD == 0 {
            return Err(bad);
        }
        let blob = zygote::blob_of(header, &[], &self.fds).map_err(|errno| (Step::Plan as u32, errno))?;
        self.plan = Plan::decode(blob).ok_or(bad)?;
        self.plan_place = (blob.as_ptr() as usize, blob.len());
        Ok(())
    }

    /// The plan is of use again with the next run or probe, and the deep end of the stack as well: until then none of their
    /// pages are here.
    #[inline(never)]
    #[unsafe(link_section = "lhshim")]
    fn forget(&self) {
        const PAGE: usize = 4096;
        /// As deep as anything goes here, and less than the kernel gives a stack at first.
        const DEEP: usize = 16 * PAGE;
        let (place, len) = self.plan_place;
        sys::drop_text(place, len);
        // The page that this function is on stays, and one below for what it calls. Deeper is nobody.
        let top = (&raw const place as usize & !(PAGE - 1)) - PAGE;
        sys::drop_text(top - DEEP, DEEP);
    }

    #[unsafe(link_section = "lhshim")]
    fn word(&self, at: usize) -> u64 {
        u64_at(self.told, at).unwrap_or(0)
    }

    #[unsafe(link_section = "lhshim")]
    fn is(&self, flag: u64) -> bool {
        self.word(config::FLAGS) & flag != 0
    }

    #[unsafe(link_section = "lhshim")]
    fn serve(&mut self) -> ! {
        const FIXED: usize = 11;
        loop {
            let mut fds = [PollFd {
                fd: -1,
                events: POLLIN,
                revents: 0,
            }; FIXED + CONNECTIONS];
            let starter = if self.kept { [-1; 2] } else { [CONTROL, OWNER] };
            let [out, err] = [0, 1].map(|index| self.wanted_stream(index));
            let [told, printed] = self.check.polled();
            let fixed = [
                starter[0],
                starter[1],
                self.zygote.children,
                self.listener,
                self.status,
                out,
                err,
                told,
                printed,
                self.watched_process(),
                self.line,
            ];
            for (slot, fd) in fds.iter_mut().zip(fixed) {
                slot.fd = fd;
            }
            for (slot, conn) in fds.iter_mut().skip(FIXED).zip(&self.conns) {
                slot.fd = conn.fd;
                slot.events |= if conn.wants_room() { POLLOUT } else { 0 };
            }
            if sys::poll(&mut fds, self.patience()).is_err() {
                continue;
            }
            let is = |index: usize| fds.get(index).is_some_and(|slot| slot.revents != 0);
            if is(3) {
                self.accept();
            }
            for index in 0..CONNECTIONS {
                if let Some(slot) = fds.get(FIXED + index).filter(|slot| slot.revents != 0) {
                    self.hear(index, slot.fd);
                }
            }
            if is(4) {
                self.read_status();
            }
            for index in 0..2 {
                if is(5 + index) {
                    self.read_stream(index);
                }
            }
            if is(7) {
                self.read_probe_status();
            }
            if is(8) {
                self.read_probe_output();
            }
            if is(10) {
                self.hear_line();
            }
            if is(9) {
                self.see_end();
            }
            if is(2) {
                self.reap();
            }
            if is(0) {
                self.hear_starter();
            }
            if is(1) && !self.kept {
                self.abandon();
            }
            self.tick();
        }
    }

    /// How long there is nothing to do unless something happens.
    #[unsafe(link_section = "lhshim")]
    fn patience(&self) -> Option<u64> {
        let mut first = self.check.until().min(self.taken.map_or(i64::MAX, |taken| taken.until()));
        if matches!(self.stage, Stage::Draining | Stage::Writing | Stage::Pausing)
            || self.stage == Stage::Over && self.kept
        {
            first = first.min(self.until);
        }
        match &self.held {
            Some(held) => first = first.min(held.until),
            None => {
                for stream in &self.streams {
                    first = first.min(stream.late);
                }
            }
        }
        for conn in &self.conns {
            first = first.min(conn.until());
        }
        (first != i64::MAX).then(|| (first - now()).max(0) as u64)
    }

    /// What is to be done at a time.
    #[unsafe(link_section = "lhshim")]
    fn tick(&mut self) {
        let now = now();
        self.offer(now);
        self.hasten(now);
        if self.held.is_none() {
            self.flush_late(now);
        }
        self.tick_checks(now);
        self.ask_for_end(now);
        match self.stage {
            Stage::Draining if self.held.is_none() && (!self.is_open() || now >= self.until) => self.finish(),
            Stage::Writing if now >= self.until => self.write_end(),
            Stage::Pausing if now >= self.until => self.start_again(),
            _ => {}
        }
        // Its starter has to find it, however short it was.
        if self.stage == Stage::Over && self.kept && (!self.is_untold() || now >= self.until) {
            self.leave();
        }
    }

    /// What the starter says: that the container is kept, or nothing any more.
    #[inline(never)]
    #[unsafe(link_section = "lhshim")]
    fn hear_starter(&mut self) {
        let mut fds = Fds::none();
        let heard = message::receive(CONTROL, self.zygote.buffer, &mut fds);
        fds.close();
        let header = heard.ok().and_then(|len| Header::decode(self.zygote.buffer.get(..len)?));
        if header.is_none_or(|header| header.op != op::KEPT) || self.record.started_ns == 0 {
            self.abandon();
        }
        self.let_starter_go();
    }

    /// The container outlives its starter from now on.
    #[unsafe(link_section = "lhshim")]
    fn let_starter_go(&mut self) {
        self.kept = true;
        // Their numbers stay taken: children close them.
        for fd in [CONTROL, OWNER] {
            let _ = sys::dup3(0, fd, sys::O_CLOEXEC);
        }
    }

    /// A signal to the first process of the run, if it is there.
    #[unsafe(link_section = "lhshim")]
    fn send(&self, signal: i32) {
        if self.child > 0 {
            let _ = sys::kill(self.child, signal);
        } else if self.taken.is_some() {
            // Others reap it, so that its number may be another's.
            let _ = sys::kill_at(self.process, signal);
        }
    }

    /// Closes, in a child, what is the shim's alone.
    #[unsafe(link_section = "lhshim")]
    fn private(&self) -> [i32; 18] {
        let [told, printed] = self.check.polled();
        [
            self.dir,
            self.listener,
            self.file,
            self.oom,
            self.process,
            self.line,
            self.status,
            self.relay,
            self.input,
            self.streams[0].fd,
            self.streams[1].fd,
            self.log.dir,
            self.log.file,
            self.check.plan,
            self.check.results,
            told,
            printed,
            self.check.mark(),
        ]
    }
}

#[unsafe(link_section = "lhshim")]
fn close_all(fds: &[i32], conns: &[Conn]) {
    for fd in fds.iter().copied().chain(conns.iter().map(|conn| conn.fd)) {
        if fd >= 0 {
            sys::close(fd);
        }
    }
}

/// Closes a descriptor, and forgets it.
#[unsafe(link_section = "lhshim")]
fn drop_fd(fd: &mut i32) {
    let old = core::mem::replace(fd, -1);
    if old >= 0 {
        sys::close(old);
    }
}

/// Whether a descriptor can be read within so many milliseconds.
#[unsafe(link_section = "lhshim")]
fn readable(fd: i32, milliseconds: u64) -> bool {
    let mut wanted = [PollFd {
        fd,
        events: POLLIN,
        revents: 0,
    }];
    sys::poll(&mut wanted, Some(milliseconds)) == Ok(1)
}
