//! A step that failed, and how it is reported.

use crate::sys::{self, Sys};
use crate::wire::{RECORD_TEXT, Record, Step};

/// What failed, for the caller's error.
pub(crate) struct Fail {
    pub(crate) step: Step,
    /// Which of the plan's items.
    pub(crate) index: u32,
    pub(crate) errno: i32,
    pub(crate) aux: u32,
    text: [u8; RECORD_TEXT],
    len: usize,
}

pub(crate) type Done<T = ()> = Result<T, Fail>;

impl Fail {
    pub(crate) fn new(step: Step, errno: i32) -> Self {
        Self {
            step,
            index: 0,
            errno,
            aux: 0,
            text: [0; RECORD_TEXT],
            len: 0,
        }
    }

    pub(crate) fn index(mut self, index: usize) -> Self {
        self.index = index as u32;
        self
    }

    pub(crate) fn aux(mut self, aux: u32) -> Self {
        self.aux = aux;
        self
    }

    /// Adds to the text, as much as fits.
    pub(crate) fn text(mut self, text: &[u8]) -> Self {
        for byte in text {
            if let Some(slot) = self.text.get_mut(self.len) {
                *slot = *byte;
                self.len += 1;
            }
        }
        self
    }

    /// Writes the record to the status socket, or nowhere if its reader is gone.
    pub(crate) fn report(&self, status: i32) {
        let record = Record {
            step: self.step as u32,
            index: self.index,
            errno: self.errno,
            aux: self.aux,
        };
        let text = self.text.get(..self.len).unwrap_or(&[]);
        let _ = crate::message::send(status, &record.encode(), text, None);
    }
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
