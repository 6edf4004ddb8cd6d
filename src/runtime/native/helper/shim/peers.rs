//! Who is connected: watchers, readers of the output, and clients of sessions.

use super::{CONNECTIONS, Shim, Stage, close_all, now};
use crate::message::{self, Fds};
use crate::record::phase;
use crate::sys::{self, Sys};
use crate::talk::{HEAD, Head, REQUEST, Restart, VERSION, config, greeting, op};
use crate::wire;
use crate::zygote::{CONTROL, LOCK, OWNER};

/// How long a client may be silent at first.
const SILENT_MS: i64 = 1000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It has not said yet.
    New,
    Watcher,
    Reader,
}

/// One connection.
#[derive(Clone, Copy)]
pub(super) struct Conn {
    pub(super) fd: i32,
    kind: Kind,
    /// A watcher that has not been told of the last change, or a reader that lacks the chunk that is held.
    behind: bool,
    since: i64,
}

impl Conn {
    pub(super) const NONE: Self = Self {
        fd: -1,
        kind: Kind::New,
        behind: false,
        since: 0,
    };

    #[unsafe(link_section = "lhshim")]
    pub(super) fn wants_room(&self) -> bool {
        self.behind
    }

    /// When it is to be let go.
    #[unsafe(link_section = "lhshim")]
    pub(super) fn until(&self) -> i64 {
        match self.kind {
            Kind::New if self.fd >= 0 => self.since + SILENT_MS,
            _ => i64::MAX,
        }
    }

    #[unsafe(link_section = "lhshim")]
    fn close(&mut self) {
        sys::close(self.fd);
        *self = Self::NONE;
    }

    /// Sends a message; whoever is gone is let go. False if there is no room for it now.
    #[unsafe(link_section = "lhshim")]
    fn send(&mut self, head: Head, body: &[u8], fd: Option<i32>) -> bool {
        match message::send(self.fd, &head.encode(), body, fd) {
            Ok(_) => true,
            Err(sys::EAGAIN) => false,
            Err(_) => {
                self.close();
                true
            }
        }
    }

    /// A reader that lacks a chunk takes it, or is let go if it is too late. False if it lacks it still.
    #[unsafe(link_section = "lhshim")]
    pub(super) fn take_chunk(&mut self, index: usize, chunk: &[u8], late: bool) -> bool {
        if self.kind != Kind::Reader || !self.behind {
            return true;
        }
        let head = Head {
            op: op::CHUNK,
            req: 0,
            arg: index as u32 + 1,
        };
        // Before, as it may be let go.
        self.behind = false;
        if self.send(head, chunk, None) {
            return true;
        }
        self.behind = true;
        if late {
            self.close();
        }
        late
    }

    #[unsafe(link_section = "lhshim")]
    fn tell(&mut self, state: &[u8]) {
        if self.kind != Kind::Watcher {
            return;
        }
        let head = Head {
            op: op::STATE,
            req: 0,
            arg: 0,
        };
        self.behind = false;
        if !self.send(head, state, None) {
            self.behind = true;
        }
    }
}

impl Shim {
    /// Takes a connection, if it is of the same user.
    #[inline(never)]
    #[unsafe(link_section = "lhshim")]
    pub(super) fn accept(&mut self) {
        let Ok(fd) = sys::accept(self.listener) else {
            // For want of a descriptor or of memory: it stays to be taken.
            return sys::sleep_ms(1);
        };
        let own = sys::peer(fd).is_ok_and(|(_, user)| user == sys::getuid());
        let free = self.conns.iter().position(|conn| conn.fd < 0);
        let Some((index, conn)) = free.filter(|_| own).and_then(|index| Some((index, self.conns.get_mut(index)?))) else {
            return sys::close(fd);
        };
        *conn = Conn {
            fd,
            since: now(),
            ..Conn::NONE
        };
        // What it has said already: a reader who came before the container must miss nothing of it.
        if super::readable(fd, 0) {
            self.hear(index, fd);
        }
    }

    /// Lets those go who do not say what they want.
    #[unsafe(link_section = "lhshim")]
    pub(super) fn hasten(&mut self, now: i64) {
        for conn in &mut self.conns {
            if now >= conn.until() {
                conn.close();
            }
        }
    }

    /// One message of a client, or room for one to it.
    #[inline(never)]
    #[unsafe(link_section = "lhshim")]
    pub(super) fn hear(&mut self, index: usize, fd: i32) {
        let Some(conn) = self.conns.get_mut(index).filter(|conn| conn.fd == fd && fd >= 0) else { return };
        if conn.behind && conn.kind == Kind::Watcher {
            conn.tell(&self.record.encode());
        }
        let mut fds = Fds::none();
        let mut bytes = [0u8; REQUEST];
        let heard = message::receive(fd, &mut bytes, &mut fds);
        // Nobody has anything to give.
        fds.close();
        let request = match heard {
            Err(sys::EAGAIN) => return,
            // No message is empty but the end.
            Ok(len) => bytes.get(..len),
            Err(_) => None,
        };
        let understood = request.and_then(|bytes| Some((Head::decode(bytes)?, bytes.get(HEAD..)?)));
        let taken = understood.is_some_and(|(head, body)| self.take(index, head, body));
        if let Some(conn) = self.conns.get_mut(index).filter(|conn| conn.fd >= 0 && !taken) {
            conn.close();
        }
    }

    /// False for what no client of ours says.
    #[unsafe(link_section = "lhshim")]
    fn take(&mut self, index: usize, head: Head, body: &[u8]) -> bool {
        let hello = self.greeting();
        let Some(conn) = self.conns.get_mut(index) else { return false };
        match conn.kind {
            Kind::Reader => return false,
            Kind::Watcher => return self.answer(index, head, body),
            Kind::New => {}
        }
        let greeting = Head {
            op: op::GREETING,
            req: head.req,
            arg: 0,
        };
        if !conn.send(greeting, &hello, None) {
            return false;
        }
        match head.op {
            op::WATCH => {
                conn.kind = Kind::Watcher;
                // It is told as soon as there is room, that is at once.
                conn.behind = true;
            }
            op::OUTPUT => conn.kind = Kind::Reader,
            op::SESSION => self.session(index),
            _ => return false,
        }
        true
    }

    #[unsafe(link_section = "lhshim")]
    fn greeting(&self) -> [u8; greeting::COUNT * 8] {
        let mut out = [0u8; greeting::COUNT * 8];
        let first = [u64::from(VERSION), u64::from(wire::VERSION), self.word(config::FLAGS)];
        let inside = (0..config::INSIDE_COUNT).map(|at| self.word(config::INSIDE + at));
        for (slot, word) in out.chunks_exact_mut(8).zip(first.into_iter().chain(inside)) {
            slot.copy_from_slice(&word.to_ne_bytes());
        }
        out
    }

    /// Carries out a watcher's request. False if the answer finds no room: it does not listen.
    #[inline(never)]
    #[unsafe(link_section = "lhshim")]
    fn answer(&mut self, index: usize, head: Head, body: &[u8]) -> bool {
        let done = match head.op {
            op::PROCESS if self.is_live() => Ok(Some((self.process, false))),
            op::PROCESS => Err(sys::ESRCH),
            op::INPUT => self.give_input(),
            op::CLOSE_INPUT => {
                self.close_input();
                Ok(None)
            }
            op::HALT => {
                self.halt();
                Ok(None)
            }
            op::RESTART => Restart::decode(body).ok_or(sys::EBADMSG).map(|restart| {
                self.restart = restart;
                None
            }),
            _ => Err(sys::ENOSYS),
        };
        let (errno, fd) = match done {
            Ok(fd) => (0, fd),
            Err(errno) => (errno, None),
        };
        let answer = Head {
            op: op::ANSWER,
            req: head.req,
            arg: errno as u32,
        };
        let sent = self.conns.get_mut(index).is_some_and(|conn| conn.send(answer, &[], fd.map(|(fd, _)| fd)));
        if let Some((fd, true)) = fd {
            sys::close(fd);
        }
        sent
    }

    /// A descriptor to write to, and whether it is the client's alone.
    #[unsafe(link_section = "lhshim")]
    fn give_input(&self) -> Sys<Option<(i32, bool)>> {
        if self.is(config::TERMINAL) || self.borrowed && self.is(config::INPUT) {
            return match self.input {
                -1 => Err(sys::ESRCH),
                master => Ok(Some((master, false))),
            };
        }
        if !self.is(config::INPUT) {
            return Ok(None);
        }
        // Nobody reads it, or nobody will: ENXIO.
        sys::open(self.dir, b"in\0", sys::O_WRONLY | sys::O_NONBLOCK).map(|fd| Some((fd, true)))
    }

    #[unsafe(link_section = "lhshim")]
    fn close_input(&mut self) {
        if !self.is(config::TERMINAL) && self.input >= 0 {
            super::drop_fd(&mut self.input);
            // Whoever else can write to it closes it, too.
            self.record.stdin_closed = true;
            self.note();
        }
    }

    /// Whoever reads the output lacks the chunk that was read just now.
    #[unsafe(link_section = "lhshim")]
    pub(super) fn begin_chunk(&mut self) {
        for conn in &mut self.conns {
            conn.behind |= conn.kind == Kind::Reader;
        }
    }

    /// Tells all watchers what has changed.
    #[inline(never)]
    #[unsafe(link_section = "lhshim")]
    pub(super) fn tell(&mut self) {
        let state = self.record.encode();
        for conn in &mut self.conns {
            conn.tell(&state);
        }
    }

    /// Whether a watcher had no room for the last that there was to tell.
    #[unsafe(link_section = "lhshim")]
    pub(super) fn is_untold(&self) -> bool {
        self.conns.iter().any(|conn| conn.behind && conn.kind == Kind::Watcher)
    }

    /// Forks a process that serves this client as a zygote does: what it starts is its own. It ends with the client, and kills
    /// nobody.
    #[inline(never)]
    #[unsafe(link_section = "lhshim")]
    fn session(&mut self, index: usize) {
        let Some(conn) = self.conns.get_mut(index) else { return };
        let socket = conn.fd;
        let forked = sys::fork();
        if forked != Ok(0) {
            // Where there is none, its client sees an end.
            return conn.close();
        }
        let placed = self.place(socket);
        close_all(&self.private(), &self.conns);
        self.fds.close();
        if placed.is_ok() {
            let _ = self.zygote.session();
        }
        sys::exit(0)
    }

    /// Puts the client's socket and process where a zygote has them. The lock stays with the shim.
    #[unsafe(link_section = "lhshim")]
    fn place(&self, socket: i32) -> Sys<()> {
        let cloexec = sys::O_CLOEXEC;
        sys::dup3(socket, LOCK, cloexec)?;
        sys::dup3(socket, CONTROL, cloexec)?;
        sys::set_flags(CONTROL, 0);
        // A client in another pid namespace is seen to go by its socket alone.
        match sys::peer(socket).and_then(|(pid, _)| sys::pidfd_open(pid)) {
            Ok(process) => {
                sys::dup3(process, OWNER, cloexec)?;
                sys::close(process);
            }
            Err(_) => {
                sys::dup3(socket, OWNER, cloexec)?;
            }
        }
        Ok(())
    }

    /// The next end is the last; a pause is the end.
    #[unsafe(link_section = "lhshim")]
    fn halt(&mut self) {
        self.halted = true;
        if self.stage == Stage::Pausing {
            self.record.phase = phase::ENDED;
            self.write_end();
        } else if self.stage == Stage::Writing {
            self.record.phase = phase::ENDED;
        }
    }
}

const _: () = assert!(CONNECTIONS < 64);
