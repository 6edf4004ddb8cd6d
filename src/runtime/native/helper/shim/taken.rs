//! A container that another has started: a shim that was killed, or a zygote, whose owner it is to outlive. Its first process is
//! nobody's child here: its descriptor says that it has ended, and the kernel how, as soon as whoever is its parent now has reaped
//! it; a zygote says so itself.

use super::life::oom_kills;
use super::{Shim, Stage, drop_fd, now};
use crate::health::Health;
use crate::message::{self, Fds};
use crate::record::{self, FILE, phase};
use crate::sys::{self, Sys};
use crate::talk::config;
use crate::wire::{KEPT, field};

/// How long its parent may take to reap it, and how often is asked. After that nobody can say how it ended.
const REAPED_MS: i64 = 5000;
const ASKED_MS: i64 = 20;

/// What is known of the end of a process that others reap.
#[derive(Clone, Copy)]
pub(super) struct Taken {
    /// It has ended: when is asked next, and when for the last time.
    ended: Option<(i64, i64)>,
    /// Whether it was setting itself up still when its shim was killed: it may have come to its program, or ended before that with a
    /// status that is not the program's.
    begun: bool,
}

impl Taken {
    #[unsafe(link_section = "lhshim")]
    pub(super) fn until(self) -> i64 {
        self.ended.map_or(i64::MAX, |(next, _)| next)
    }
}

impl Shim {
    /// Goes on where the shim before it was killed.
    #[inline(never)]
    #[unsafe(link_section = "lhshim")]
    pub(super) fn take_over(&mut self) -> Sys<()> {
        let position = self.plan.field(field::FD_TARGET);
        self.process = self.fds.get(position).ok_or(sys::EBADMSG)?;
        self.fds.set(position, -1);
        self.close_ends();
        let mut bytes = [0u8; FILE];
        let len = sys::pread(self.file, &mut bytes, 0)?;
        let before = record::newest(bytes.get(..len).unwrap_or(&[])).ok_or(sys::EBADMSG)?;
        if before.boot != self.record.boot || before.phase == phase::ENDED {
            return Err(sys::ESRCH);
        }
        self.record.change = before.change;
        let (shim_pid, told_health) = (self.record.shim_pid, before.health);
        self.record = record::State {
            shim_pid,
            failure: None,
            // Whether this one probes is in what it was told.
            health: (self.check.plan >= 0).then(|| told_health.unwrap_or(Health::NEW)),
            ..before
        };
        self.log.lost = before.lost_entries;
        if self.is(config::GIVEN) {
            return self.take_given(position + 1);
        }
        self.open_input();
        let begun = before.phase != phase::RUNNING;
        if begun {
            // That of the run before is in the record still.
            self.record.started_ns = sys::clock(0);
        }
        self.go_on(begun);
        Ok(())
    }

    /// Takes what has no name. Nothing of it is touched yet.
    #[unsafe(link_section = "lhshim")]
    fn take_given(&mut self, first: u32) -> Sys<()> {
        self.line = self.given(first)?;
        if self.is(config::TERMINAL) {
            let master = self.given(first + 1)?;
            self.take_terminal(master);
            self.streams[0].open = false;
            return Ok(());
        }
        self.borrowed = true;
        for index in 0..2 {
            let fd = self.given(first + 1 + index)?;
            if let Some(stream) = self.streams.get_mut(index as usize) {
                drop_fd(&mut stream.fd);
                stream.fd = fd;
            }
        }
        if self.is(config::INPUT) && !self.record.stdin_closed {
            self.input = self.given(first + 3)?;
        }
        Ok(())
    }

    #[unsafe(link_section = "lhshim")]
    fn given(&mut self, position: u32) -> Sys<i32> {
        let fd = self.fds.get(position).ok_or(sys::EBADMSG)?;
        self.fds.set(position, -1);
        Ok(fd)
    }

    /// The streams of the next run are those that have names.
    #[unsafe(link_section = "lhshim")]
    pub(super) fn own_streams(&mut self) -> Sys<()> {
        if !core::mem::take(&mut self.borrowed) {
            return Ok(());
        }
        for (stream, name) in self.streams.iter_mut().zip([b"out\0", b"err\0"]) {
            drop_fd(&mut stream.fd);
            stream.fd = sys::open(self.dir, name, sys::O_NONBLOCK)?;
        }
        Ok(())
    }

    /// The container is this shim's to look after.
    #[unsafe(link_section = "lhshim")]
    fn go_on(&mut self, begun: bool) {
        self.record.phase = phase::RUNNING;
        self.taken = Some(Taken { ended: None, begun });
        self.ready = true;
        self.stage = Stage::Running;
        let ran = sys::clock(0).saturating_sub(self.record.started_ns).max(0) / 1_000_000;
        self.began = now().saturating_sub(ran);
        // What was counted in former runs is not known: of the first, all is its own.
        self.oom_seen = if self.record.ends == 0 { 0 } else { oom_kills(self.oom).unwrap_or(0) };
        self.log.begin();
        self.open_streams();
        self.plan_check();
        self.note();
    }

    /// What the zygote says.
    #[inline(never)]
    #[unsafe(link_section = "lhshim")]
    pub(super) fn hear_line(&mut self) {
        let mut fds = Fds::none();
        let mut word = [0u8; 4];
        let heard = message::receive(self.line, &mut word, &mut fds);
        fds.close();
        let told = if heard == Ok(word.len()) { Some(u32::from_ne_bytes(word)) } else { None };
        match (told, self.stage) {
            (Some(KEPT), Stage::Setting) => self.go_on(false),
            // It ends with its owner, or has.
            (_, Stage::Setting) => sys::exit(1),
            (told, _) => {
                drop_fd(&mut self.line);
                if let Some(status) = told {
                    self.take_end(Some(status as i32));
                }
            }
        }
    }

    /// Keeps its stdin open for whoever writes to it next.
    #[unsafe(link_section = "lhshim")]
    fn open_input(&mut self) {
        if self.is(config::INPUT) && !self.is(config::TERMINAL) && !self.record.stdin_closed {
            self.input = sys::open(self.dir, b"in\0", sys::O_WRONLY | sys::O_NONBLOCK).unwrap_or(-1);
        }
    }

    /// The descriptor that tells of its end, until it has.
    #[unsafe(link_section = "lhshim")]
    pub(super) fn watched_process(&self) -> i32 {
        match self.taken {
            Some(Taken { ended: None, .. }) => self.process,
            _ => -1,
        }
    }

    /// It has ended.
    #[unsafe(link_section = "lhshim")]
    pub(super) fn see_end(&mut self) {
        if let Some(Taken { ended: ended @ None, .. }) = &mut self.taken {
            *ended = Some((0, now() + REAPED_MS));
        }
    }

    /// Asks how, until that is known, or cannot be.
    #[inline(never)]
    #[unsafe(link_section = "lhshim")]
    pub(super) fn ask_for_end(&mut self, now: i64) {
        let Some(Taken { ended: Some((next, last)), begun }) = self.taken else { return };
        if now < next {
            return;
        }
        // Where there is a zygote, it is the one to tell.
        let status = if self.line >= 0 { Ok(None) } else { sys::pidfd_status(self.process) };
        if status == Ok(None) && now < last {
            self.taken = Some(Taken {
                ended: Some((now + ASKED_MS, last)),
                begun,
            });
            return;
        }
        self.take_end(status.unwrap_or(None));
    }

    /// The run that another has begun is over.
    #[unsafe(link_section = "lhshim")]
    fn take_end(&mut self, status: Option<i32>) {
        let Some(Taken { begun, .. }) = self.taken.take() else { return };
        self.end_checks();
        drop_fd(&mut self.status);
        // What is told later is not about a later run.
        drop_fd(&mut self.line);
        self.wait = status.filter(|_| !begun);
        self.drain();
    }
}
