//! The files of the log, as `logs/local.rs` writes them: numbers only grow, the highest is written to, old ones are removed.
//! What cannot be written is counted, and never waited for.

use super::{PAGE, drop_fd};
use crate::entry::{self, END};
use crate::path::numbered;
use crate::sys::{self, Sys};
use crate::talk::{config, u64_at};

const ROOM: usize = 4 * PAGE;
const O_APPEND: usize = 0o2000;

pub(super) struct Log {
    pub(super) dir: i32,
    pub(super) file: i32,
    json: bool,
    kept: bool,
    full: u64,
    files: u64,
    number: u64,
    oldest: u64,
    /// The second name of the newest file, with its NUL.
    known_as: &'static [u8],
    /// Bytes of whole entries in the file.
    size: u64,
    /// Whether bytes of a failed write may stand behind them.
    torn: bool,
    room: &'static mut [u8],
    filled: usize,
    /// Entries in the room.
    waiting: u64,
    last_ns: i64,
    pub(super) lost: u64,
}

impl Log {
    #[inline(never)]
    #[unsafe(link_section = "lhshim")]
    pub(super) fn new([dir, file]: [i32; 2], told: &'static [u8]) -> Option<Self> {
        let word = |at: usize| u64_at(told, at).unwrap_or(0);
        let flags = word(config::FLAGS);
        Some(Self {
            dir,
            file,
            json: flags & config::JSON != 0,
            kept: flags & (config::JSON | config::FRAMES) != 0,
            full: word(config::LOG_FULL),
            files: word(config::LOG_FILES),
            number: word(config::LOG_NUMBER),
            oldest: word(config::LOG_OLDEST),
            known_as: told.get(config::COUNT * 8..)?,
            size: word(config::LOG_SIZE),
            torn: false,
            room: sys::map(ROOM).ok()?,
            filled: 0,
            waiting: 0,
            last_ns: 0,
            lost: 0,
        })
    }

    /// One entry, which is in the file after the next [`Self::flush`].
    #[unsafe(link_section = "lhshim")]
    pub(super) fn entry(&mut self, index: usize, bytes: &[u8]) {
        self.add(index as u8 + 1, bytes);
    }

    #[inline(never)]
    #[unsafe(link_section = "lhshim")]
    fn add(&mut self, kind: u8, bytes: &[u8]) {
        if !self.kept {
            return;
        }
        // Later than the one before, whatever the clock does.
        self.last_ns = sys::clock(0).max(self.last_ns.wrapping_add(1));
        let (json, time_ns) = (self.json, self.last_ns);
        let encode = |put: entry::Put<'_>| match json {
            true => entry::json(kind, time_ns, bytes, put),
            false => entry::frame(kind, time_ns, bytes, put),
        };
        let mut length = 0;
        encode(&mut |part| length += part.len());
        if self.filled + length > ROOM {
            self.flush();
        }
        let before = self.size + self.filled as u64;
        if before > 0 && before + length as u64 > self.full {
            self.flush();
            self.rotate();
        }
        self.waiting += 1;
        let mut written = Ok(());
        encode(&mut |mut part| {
            while !part.is_empty() && written.is_ok() {
                if self.filled == ROOM {
                    // Longer than the room: the beginning goes first.
                    written = self.write_room();
                }
                let (now, later) = part.split_at(part.len().min(ROOM - self.filled));
                if let Some(place) = self.room.get_mut(self.filled..self.filled + now.len()) {
                    place.copy_from_slice(now);
                }
                self.filled += now.len();
                part = later;
            }
        });
        if length > ROOM || written.is_err() {
            // It stands alone: whole, or not at all.
            let whole = written.and_then(|()| self.write_room());
            self.settle(whole, length as u64);
        }
    }

    /// Everything that waits goes into the file, with one write.
    #[unsafe(link_section = "lhshim")]
    pub(super) fn flush(&mut self) {
        let length = self.filled as u64;
        if length == 0 {
            return;
        }
        let whole = self.write_room();
        self.settle(whole, length);
    }

    #[unsafe(link_section = "lhshim")]
    fn settle(&mut self, whole: Sys<()>, length: u64) {
        match whole {
            Ok(()) => self.size += length,
            Err(_) => {
                self.torn = true;
                self.lost += self.waiting;
            }
        }
        self.filled = 0;
        self.waiting = 0;
    }

    #[inline(never)]
    #[unsafe(link_section = "lhshim")]
    fn write_room(&mut self) -> Sys<()> {
        if self.torn {
            sys::ftruncate(self.file, self.size)?;
            self.torn = false;
        }
        let mut rest = self.room.get(..self.filled).unwrap_or(&[]);
        while !rest.is_empty() {
            match sys::write(self.file, rest) {
                Ok(0) => return Err(sys::EINVAL),
                Ok(len) => rest = rest.get(len..).unwrap_or(&[]),
                Err(sys::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        self.filled = 0;
        Ok(())
    }

    /// The streams of a run have ended.
    #[unsafe(link_section = "lhshim")]
    pub(super) fn end(&mut self) {
        if self.json {
            self.flush();
            if let Ok(mark) = sys::openat(self.dir, b"json-closed\0", sys::O_CREAT | sys::O_WRONLY, 0o600) {
                sys::close(mark);
            }
            return;
        }
        self.add(END, &[]);
        self.flush();
    }

    /// A run begins.
    #[unsafe(link_section = "lhshim")]
    pub(super) fn begin(&mut self) {
        if self.json {
            let _ = sys::unlinkat(self.dir, b"json-closed\0", 0);
        }
    }

    /// Where the next file cannot be made, the present one goes on.
    #[inline(never)]
    #[unsafe(link_section = "lhshim")]
    fn rotate(&mut self) {
        let mut name = [0u8; 64];
        let prefix: &[u8] = if self.json { b"json." } else { b"log." };
        let Ok(path) = numbered(&mut name, prefix, self.number + 1, b"") else { return };
        let flags = sys::O_CREAT | sys::O_RDWR | O_APPEND;
        let Ok(file) = sys::openat(self.dir, path, flags, 0o600) else { return };
        if self.json {
            let _ = self.show(path);
        }
        drop_fd(&mut self.file);
        self.file = file;
        self.number += 1;
        self.size = 0;
        self.torn = false;
        while self.oldest + self.files <= self.number {
            for after in [b"" as &[u8], b".gz"] {
                if let Ok(path) = numbered(&mut name, prefix, self.oldest, after) {
                    let _ = sys::unlinkat(self.dir, path, 0);
                }
            }
            self.oldest += 1;
        }
    }

    /// Gives a file the second name.
    #[unsafe(link_section = "lhshim")]
    fn show(&self, path: &[u8]) -> Sys<()> {
        let _ = sys::unlinkat(self.dir, b"json-new\0", 0);
        sys::link(self.dir, path, b"json-new\0")?;
        sys::rename(self.dir, b"json-new\0", self.known_as)?;
        let _ = sys::unlinkat(self.dir, b"json-new\0", 0);
        Ok(())
    }
}
