//! A container that another shim has started, and that goes on since that was killed. Its first process is nobody's child here:
//! its descriptor says that it has ended, and the kernel how, as soon as whoever is its parent now has reaped it.

use super::life::oom_kills;
use super::{Shim, Stage, drop_fd, now};
use crate::health::Health;
use crate::record::{self, FILE, phase};
use crate::sys::{self, Sys};
use crate::talk::config;
use crate::wire::field;

/// How long its parent may take to reap it, and how often is asked. After that nobody can say how it ended.
const REAPED_MS: i64 = 5000;
const ASKED_MS: i64 = 20;

/// What is known of the end of a process that others reap.
#[derive(Clone, Copy)]
pub(super) struct Taken {
    /// It has ended: when is asked next, and when for the last time.
    ended: Option<(i64, i64)>,
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
            phase: phase::RUNNING,
            failure: None,
            // Whether this one probes is in what it was told.
            health: (self.check.plan >= 0).then(|| told_health.unwrap_or(Health::NEW)),
            ..before
        };
        self.log.lost = before.lost_entries;
        self.taken = Some(Taken { ended: None });
        self.ready = true;
        self.stage = Stage::Running;
        let ran = sys::clock(0).saturating_sub(before.started_ns).max(0) / 1_000_000;
        self.began = now().saturating_sub(ran);
        // What was counted in former runs is not known: of the first, all is its own.
        self.oom_seen = if before.ends == 0 { 0 } else { oom_kills(self.oom).unwrap_or(0) };
        self.log.begin();
        self.open_streams();
        self.open_input();
        self.plan_check();
        self.note();
        Ok(())
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
            Some(Taken { ended: None }) => self.process,
            _ => -1,
        }
    }

    /// It has ended.
    #[unsafe(link_section = "lhshim")]
    pub(super) fn see_end(&mut self) {
        if let Some(Taken { ended: ended @ None }) = &mut self.taken {
            *ended = Some((0, now() + REAPED_MS));
        }
    }

    /// Asks how, until that is known, or cannot be.
    #[inline(never)]
    #[unsafe(link_section = "lhshim")]
    pub(super) fn ask_for_end(&mut self, now: i64) {
        let Some(Taken { ended: Some((next, last)) }) = self.taken else { return };
        if now < next {
            return;
        }
        let status = sys::pidfd_status(self.process);
        if status == Ok(None) && now < last {
            self.taken = Some(Taken {
                ended: Some((now + ASKED_MS, last)),
            });
            return;
        }
        self.taken = None;
        self.end_checks();
        drop_fd(&mut self.status);
        self.wait = status.unwrap_or(None);
        self.drain();
    }
}
