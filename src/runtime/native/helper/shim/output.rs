//! What the container prints: read as it comes, cut into lines for the log, and sent on to whoever is connected for it.

use super::{Shim, Stage, drop_fd, now};
use crate::sys;
use crate::talk::{CHUNK, config};

/// How long the beginning of a line waits for its end before it is logged as it is (a prompt, say): as `logs/pump.rs`.
const LINGER_MS: i64 = 200;
/// How long a client may take nothing.
const SLOW_MS: i64 = 1000;

/// One of the container's streams.
pub(super) struct Stream {
    /// A FIFO's read end, or the terminal's master.
    pub(super) fd: i32,
    pub(super) open: bool,
    /// Room for one line: the longest that is not cut.
    buffer: &'static mut [u8],
    /// Bytes at the beginning of it: a line whose end has not come.
    begun: usize,
    /// When those are logged as they are; never, where there are none.
    pub(super) late: i64,
}

/// A chunk that not every client has taken yet. Nothing is read meanwhile.
pub(super) struct Held {
    index: usize,
    from: usize,
    to: usize,
    /// Bytes of the buffer that are logged.
    logged: usize,
    pub(super) until: i64,
}

impl Stream {
    /// A terminal comes with the container's first process.
    #[unsafe(link_section = "lhshim")]
    pub(super) fn open(dir: i32, name: &[u8], terminal: bool) -> Option<Self> {
        let fd = match terminal {
            true => -1,
            false => sys::open(dir, name, sys::O_NONBLOCK).ok()?,
        };
        Some(Self {
            fd,
            open: false,
            buffer: sys::map(CHUNK).ok()?,
            begun: 0,
            late: i64::MAX,
        })
    }
}

impl Shim {
    /// The descriptor, where there is room for what comes.
    #[unsafe(link_section = "lhshim")]
    pub(super) fn wanted_stream(&self, index: usize) -> i32 {
        let stream = self.streams.get(index).filter(|stream| stream.open && self.held.is_none());
        stream.map_or(-1, |stream| stream.fd)
    }

    #[unsafe(link_section = "lhshim")]
    pub(super) fn is_open(&self) -> bool {
        self.streams.iter().any(|stream| stream.open)
    }

    /// Takes what is there, up to the rest of a longest line.
    #[inline(never)]
    #[unsafe(link_section = "lhshim")]
    pub(super) fn read_stream(&mut self, index: usize) {
        // The other stream's chunk may have been held up since the poll.
        if self.held.is_some() {
            return;
        }
        let Some(stream) = self.streams.get_mut(index).filter(|stream| stream.open) else { return };
        let from = stream.begun;
        let got = sys::read(stream.fd, stream.buffer.get_mut(from..).unwrap_or(&mut []));
        let to = match got {
            Ok(len @ 1..) => from + len,
            Err(sys::EAGAIN | sys::EINTR) => return,
            // The last process that had it open is gone; a terminal says EIO then.
            _ => {
                stream.open = false;
                return self.flush(index);
            }
        };
        let logged = self.log_lines(index, from, to);
        self.log.flush();
        self.held = Some(Held {
            index,
            from,
            to,
            logged,
            until: now() + SLOW_MS,
        });
        self.begin_chunk();
        self.offer(0);
    }

    /// Logs every line that is complete now, and a piece where a line fills the buffer. Says how many bytes that were.
    #[unsafe(link_section = "lhshim")]
    fn log_lines(&mut self, index: usize, from: usize, to: usize) -> usize {
        let Some(stream) = self.streams.get_mut(index) else { return 0 };
        let (mut start, mut seen) = (0, from);
        while let Some(at) = stream.buffer.get(seen..to).and_then(|new| new.iter().position(|byte| *byte == b'\n')) {
            seen += at + 1;
            self.log.entry(index, stream.buffer.get(start..seen).unwrap_or(&[]));
            start = seen;
        }
        if start == 0 && to == stream.buffer.len() {
            self.log.entry(index, stream.buffer);
            start = to;
        }
        stream.late = if start < to { now() + LINGER_MS } else { i64::MAX };
        start
    }

    /// Sends a chunk that is held to whoever lacks it; lets those go who have let it wait for too long.
    #[unsafe(link_section = "lhshim")]
    pub(super) fn offer(&mut self, now: i64) {
        let Some(held) = &self.held else { return };
        let Some(stream) = self.streams.get_mut(held.index) else { return };
        let chunk = stream.buffer.get(held.from..held.to).unwrap_or(&[]);
        let mut waiting = false;
        for conn in &mut self.conns {
            waiting |= !conn.take_chunk(held.index, chunk, now >= held.until);
        }
        if waiting {
            return;
        }
        stream.buffer.copy_within(held.logged..held.to, 0);
        stream.begun = held.to - held.logged;
        self.held = None;
    }

    /// Logs beginnings of lines that have waited for long enough.
    #[unsafe(link_section = "lhshim")]
    pub(super) fn flush_late(&mut self, now: i64) {
        for index in 0..2 {
            if self.streams.get(index).is_some_and(|stream| now >= stream.late) {
                self.flush(index);
            }
        }
    }

    /// Logs the beginning of a line as it is.
    #[unsafe(link_section = "lhshim")]
    pub(super) fn flush(&mut self, index: usize) {
        let Some(stream) = self.streams.get_mut(index) else { return };
        stream.late = i64::MAX;
        let begun = core::mem::replace(&mut stream.begun, 0);
        if begun > 0 {
            self.log.entry(index, stream.buffer.get(..begun).unwrap_or(&[]));
            self.log.flush();
        }
    }

    /// The streams of a run that begins.
    #[unsafe(link_section = "lhshim")]
    pub(super) fn open_streams(&mut self) {
        for stream in &mut self.streams {
            stream.open = stream.fd >= 0;
        }
    }

    /// The terminal of a run that begins: what it prints is read, and it is written to.
    #[unsafe(link_section = "lhshim")]
    pub(super) fn take_terminal(&mut self, master: i32) {
        drop_fd(&mut self.input);
        let Ok(copy) = sys::duplicate(master) else { return };
        self.input = copy;
        let [first, _] = &mut self.streams;
        drop_fd(&mut first.fd);
        first.fd = master;
        first.open = true;
    }

    /// Nothing of a run is left.
    #[unsafe(link_section = "lhshim")]
    pub(super) fn close_streams(&mut self) {
        for index in 0..2 {
            self.flush(index);
        }
        for stream in &mut self.streams {
            stream.open = false;
        }
        if self.is(config::TERMINAL) {
            drop_fd(&mut self.streams[0].fd);
        }
        drop_fd(&mut self.input);
    }

    /// Whether the first process may be doing something.
    #[unsafe(link_section = "lhshim")]
    pub(super) fn is_live(&self) -> bool {
        matches!(self.stage, Stage::Setting | Stage::Running) && (self.child != 0 || self.taken.is_some())
    }
}
