//! A step that failed, and how it is reported.

use core::cell::UnsafeCell;

use crate::sys::{self, Sys};
use crate::wire::{RECORD_TEXT, Record, Step};

/// What failed, for the caller's error.
///
/// As small as it can be: what fits into a register is handed up by every step without being copied.
pub(crate) struct Fail {
    pub(crate) step: Step,
    /// Which of the plan's items.
    index: u16,
    errno: i16,
    aux: u8,
}

pub(crate) type Done<T = ()> = Result<T, Fail>;

/// The text of the one failure that a process has: then it reports it and ends. Beside the failure itself, which every step
/// hands up, it would be copied by every step.
struct Text(UnsafeCell<([u8; RECORD_TEXT], usize)>);

// SAFETY: the helper's processes have one thread each, and share no memory.
unsafe impl Sync for Text {}

static TEXT: Text = Text(UnsafeCell::new(([0; RECORD_TEXT], 0)));

impl Fail {
    pub(crate) fn new(step: Step, errno: i32) -> Self {
        Self {
            step,
            index: 0,
            errno: errno as i16,
            aux: 0,
        }
    }

    pub(crate) fn errno(&self) -> i32 {
        i32::from(self.errno)
    }

    pub(crate) fn index(mut self, index: usize) -> Self {
        self.index = index as u16;
        self
    }

    pub(crate) fn aux(mut self, aux: u32) -> Self {
        self.aux = aux as u8;
        self
    }

    /// Adds to the text, as much as fits.
    #[inline(never)]
    pub(crate) fn text(self, text: &[u8]) -> Self {
        // SAFETY: one thread, and no reference to it outlives this call or the one below.
        let (bytes, len) = unsafe { &mut *TEXT.0.get() };
        for byte in text {
            if let Some(slot) = bytes.get_mut(*len) {
                *slot = *byte;
                *len += 1;
            }
        }
        self
    }

    /// Writes the record to the status socket, or nowhere if its reader is gone.
    #[inline(always)]
    pub(crate) fn report(&self, status: i32) {
        let _ = self.send(status, None);
    }

    /// Writes the record to the status socket. Without an errno it is no failure.
    #[inline(never)]
    pub(crate) fn send(&self, status: i32, fd: Option<i32>) -> Sys {
        let record = Record {
            step: self.step as u32,
            index: u32::from(self.index),
            errno: self.errno(),
            aux: u32::from(self.aux),
        };
        // SAFETY: as above.
        let (bytes, len) = unsafe { &*TEXT.0.get() };
        let text = bytes.get(..*len).unwrap_or(&[]);
        crate::message::send(status, &record.encode(), text, fd)
    }
}

/// Hands a descriptor that a step has made to whoever started this process.
#[inline(never)]
#[unsafe(link_section = "lhchild")]
pub(crate) fn hand(status: i32, step: Step, fd: i32) -> Done {
    at(step, Fail::new(step, 0).send(status, Some(fd)))?;
    sys::close(fd);
    Ok(())
}

/// Names the step of a system call that failed.
pub(crate) fn at<T>(step: Step, result: Sys<T>) -> Done<T> {
    result.map_err(|errno| Fail::new(step, errno))
}

/// Names the step and the item.
pub(crate) fn at_index<T>(step: Step, index: usize, result: Sys<T>) -> Done<T> {
    result.map_err(|errno| Fail::new(step, errno).index(index))
}

/// Whether an errno says that something is not there.
pub(crate) fn missing(errno: i32) -> bool {
    errno == sys::ENOENT || errno == sys::ENOTDIR
}
