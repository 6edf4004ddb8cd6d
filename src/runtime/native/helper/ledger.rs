//! What the zygote must know of its children and clean up if the owner dies: records in one growing region of memory, about
//! as long as the paths in them. Nothing is allocated per container but these bytes.

use crate::sys::{self, Sys};
use crate::wire::{put_words, u32_at};

/// Room for records: address space only, until it is touched.
const ROOM: usize = 64 * 1024 * 1024;
/// Bytes before a record's list: length, kind, pid, unused, request (two words).
const HEAD: usize = 24;

/// Kinds of records.
pub(crate) const CONTAINER: u32 = 1;
pub(crate) const SCRATCH: u32 = 2;
pub(crate) const WORKER: u32 = 3;
/// On its way into a container; the list is the address of a shared word where its sibling, the command, is told.
pub(crate) const JOINING: u32 = 4;
/// A command in a running container.
pub(crate) const EXEC: u32 = 5;
/// A container that outlives the owner; the request is the descriptor to which its end is told.
pub(crate) const KEPT: u32 = 6;

/// One record.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) kind: u32,
    pub(crate) req: u64,
    /// A list of strings, as in [`crate::wire::Section::Cleanup`].
    pub(crate) list: &'a [u8],
    /// While it lives.
    pub(crate) pid: i32,
    at: usize,
    len: usize,
}

/// All records, in the order in which they came.
pub(crate) struct Ledger {
    room: &'static mut [u8],
    used: usize,
}

impl Ledger {
    pub(crate) fn new() -> Sys<Self> {
        Ok(Self {
            room: sys::map(ROOM)?,
            used: 0,
        })
    }

    pub(crate) fn add(&mut self, kind: u32, pid: i32, req: u64, list: &[u8]) -> Sys<()> {
        let len = (HEAD + list.len() + 3) & !3;
        let part = self.room.get_mut(self.used..self.used + len).ok_or(sys::ENOMEM)?;
        let words = [
            len as u32,
            kind,
            pid as u32,
            list.len() as u32,
            req as u32,
            (req >> 32) as u32,
        ];
        put_words(part, &words);
        for (slot, byte) in part.iter_mut().skip(HEAD).zip(list) {
            *slot = *byte;
        }
        self.used += len;
        Ok(())
    }

    fn entry(&self, at: usize) -> Option<Entry<'_>> {
        let used = self.room.get(..self.used)?;
        let len = u32_at(used, at)? as usize;
        let list_len = u32_at(used, at + 12)? as usize;
        Some(Entry {
            kind: u32_at(used, at + 4)?,
            pid: u32_at(used, at + 8)? as i32,
            req: u64::from(u32_at(used, at + 16)?) | u64::from(u32_at(used, at + 20)?) << 32,
            list: used.get(at + HEAD..at + HEAD + list_len)?,
            at,
            len,
        })
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let mut at = 0;
        core::iter::from_fn(move || {
            let entry = self.entry(at)?;
            at += entry.len;
            Some(entry)
        })
    }

    /// Notes that a child has ended, and says whose it was. The record of a container stays; any other goes.
    pub(crate) fn ended(&mut self, pid: i32) -> Option<(u32, u64)> {
        let entry = self.entries().find(|entry| entry.pid == pid)?;
        let (kind, req, at, len) = (entry.kind, entry.req, entry.at, entry.len);
        if kind != CONTAINER {
            self.cut(at, len);
        } else {
            self.room.get_mut(at + 8..at + 12)?.fill(0);
        }
        Some((kind, req))
    }

    /// A process on its way into a container, for which `is_it` says yes to its pid and the address of its word: the
    /// request and the address.
    pub(crate) fn joining(&self, is_it: impl Fn(i32, usize) -> bool) -> Option<(u64, usize)> {
        self.entries().filter(|entry| entry.kind == JOINING).find_map(|entry| {
            let address = usize::from_ne_bytes(*entry.list.first_chunk()?);
            is_it(entry.pid, address).then_some((entry.req, address))
        })
    }

    /// Whether a child is one of those that are known.
    pub(crate) fn knows(&self, pid: i32) -> bool {
        self.entries().any(|entry| entry.pid == pid)
    }

    /// The first processes of containers, while they live.
    pub(crate) fn processes(&self) -> impl Iterator<Item = i32> {
        let live = self.entries().filter(|entry| entry.kind == CONTAINER && entry.pid > 0);
        live.map(|entry| entry.pid)
    }

    /// The process that a request started, while it lives.
    pub(crate) fn process(&self, req: u64) -> Option<i32> {
        let started = |entry: &Entry<'_>| matches!(entry.kind, CONTAINER | EXEC) && entry.req == req && entry.pid > 0;
        self.entries().find(started).map(|entry| entry.pid)
    }

    /// Whether a request started a container that lives.
    pub(crate) fn has_container(&self, req: u64) -> bool {
        self.entries().any(|entry| entry.kind == CONTAINER && entry.req == req && entry.pid > 0)
    }

    /// Lets the container of a request, which lives, outlive the owner.
    pub(crate) fn keep(&mut self, req: u64, line: i32) {
        let found = self.entries().find(|entry| entry.kind == CONTAINER && entry.req == req);
        let Some(at) = found.map(|entry| entry.at) else { return };
        for (place, word) in [(4, KEPT), (16, line as u32), (20, 0)] {
            if let Some(slot) = self.room.get_mut(at + place..at + place + 4) {
                put_words(slot, &[word]);
            }
        }
    }

    /// What outlives the owner.
    pub(crate) fn kept(&self) -> impl Iterator<Item = Entry<'_>> {
        self.entries().filter(|entry| entry.kind == KEPT)
    }

    /// Drops the record of a request.
    pub(crate) fn forget(&mut self, kind: u32, req: u64) {
        let found = self
            .entries()
            .find(|entry| entry.kind == kind && entry.req == req)
            .map(|entry| (entry.at, entry.len));
        if let Some((at, len)) = found {
            self.cut(at, len);
        }
    }

    fn cut(&mut self, at: usize, len: usize) {
        self.room.copy_within(at + len..self.used, at);
        self.used -= len;
    }
}
