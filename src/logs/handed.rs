//! A log whose writer is another process: made ready here, handed over as a descriptor and some numbers.

use std::fs::File;
use std::path::Path;

use super::files::Format;
use crate::error::{Error, Result};

/// What the writer must know of a log.
#[derive(Debug)]
pub(crate) struct Handed {
    /// Open to append to; a torn end has been cut off.
    pub(crate) file: File,
    /// Its number.
    pub(crate) number: u64,
    /// Its bytes.
    pub(crate) size: u64,
    /// The lowest number that there is a file of.
    pub(crate) oldest: u64,
}

/// Opens the newest file of a log, and cuts off what is no whole entry: frames, or with a second name for it lines of JSON.
///
/// # Errors
/// `Os` where files cannot be made or read.
pub(crate) fn hand_over(dir: &Path, json_known_as: Option<&str>) -> Result<Handed> {
    let format = match json_known_as {
        None => Format::Frames,
        Some(_) => Format::Json,
    };
    let files = format.files(dir)?;
    let number = Format::newest(&files);
    let oldest = files.first_key_value().map_or(number, |(number, _)| *number);
    format.note_end(dir, false)?;
    let file = format.create(dir, number)?;
    if let Some(known_as) = json_known_as {
        format.show_as(dir, &dir.join(known_as), number)?;
    }
    let step = |error| Error::os("look through the log", error);
    let size = format.whole(&file).map_err(step)?;
    if file.metadata().map_err(step)?.len() > size {
        file.set_len(size)
            .map_err(|error| Error::os("cut the log's torn end", error))?;
    }
    Ok(Handed {
        file,
        number,
        size,
        oldest,
    })
}
