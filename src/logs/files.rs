//! The files of a log: their names, what is in them, and the old ones packed.
//!
//! Files are numbered, and the highest number is written to. Rotation makes the next number and removes the lowest: nothing is
//! ever renamed, so a reader knows from its file's number what comes next, in whichever process it runs. `log.3.gz` is
//! `log.3`, packed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read as _, Seek as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::{GzDecoder, GzEncoder};

use super::frame::{Decoded, Frame, FrameKind, HEADER, decode, encode};
use super::json::{self, Line};
use super::usual::LineReader;
use super::{LogEntry, LogTarget};
use crate::error::{Error, ErrorKind, Result};
use crate::events::now_ns;

/// What is in the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Format {
    /// Frames, with one for the end.
    #[default]
    Frames,
    /// Docker's lines of JSON. Their end is a file of its own.
    Json,
}

/// An entry at the start of a buffer.
pub(super) enum Piece<'a> {
    Whole {
        /// Bytes in the file.
        len: usize,
        kind: FrameKind,
        time_ns: i64,
        payload: Cow<'a, [u8]>,
    },
    Incomplete,
    Invalid,
}

impl Format {
    fn prefix(self) -> &'static str {
        match self {
            Self::Frames => "log.",
            Self::Json => "json.",
        }
    }

    pub(super) fn encode(self, entry: &LogEntry, lines: &mut json::Lines, out: &mut Vec<u8>) {
        match self {
            Self::Frames => encode(
                &Frame {
                    kind: FrameKind::Data(entry.stream),
                    time_ns: entry.time_ns,
                    payload: &entry.bytes,
                },
                out,
            ),
            Self::Json => lines.encode(entry, out),
        }
    }

    /// About how many bytes more than its own an entry takes.
    pub(super) fn overhead(self) -> usize {
        match self {
            Self::Frames => HEADER,
            Self::Json => 80,
        }
    }

    /// What says within the file that the streams have ended.
    pub(super) fn end(self) -> Vec<u8> {
        let mut out = Vec::new();
        if self == Self::Frames {
            let end = Frame {
                kind: FrameKind::End,
                time_ns: now_ns(),
                payload: &[],
            };
            encode(&end, &mut out);
        }
        out
    }

    /// Reads what is at the start of a buffer; `lines` is for what follows in the same file.
    pub(super) fn decode<'a>(self, buffer: &'a [u8], lines: &'a mut LineReader) -> Piece<'a> {
        match self {
            Self::Frames => match decode(buffer) {
                Decoded::Frame(frame) => Piece::Whole {
                    len: frame.encoded_len(),
                    kind: frame.kind,
                    time_ns: frame.time_ns,
                    payload: Cow::Borrowed(frame.payload),
                },
                Decoded::Incomplete => Piece::Incomplete,
                Decoded::Invalid => Piece::Invalid,
            },
            Self::Json => match lines.decode(buffer) {
                Line::Whole {
                    len,
                    stream,
                    time_ns,
                    text,
                } => Piece::Whole {
                    len,
                    kind: FrameKind::Data(stream),
                    time_ns,
                    payload: text,
                },
                Line::Incomplete => Piece::Incomplete,
                Line::Invalid => Piece::Invalid,
            },
        }
    }

    /// What stands beside the text of an entry.
    pub(super) fn details(self, entry: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Frames => {}
            Self::Json => json::details(entry, out),
        }
    }

    /// How many bytes of a file are whole entries.
    pub(super) fn whole(self, file: &File) -> io::Result<u64> {
        match self {
            Self::Frames => whole_frames(file),
            Self::Json => whole_lines(file),
        }
    }

    pub(super) fn path(self, dir: &Path, number: u64) -> PathBuf {
        dir.join(format!("{}{number}", self.prefix()))
    }

    fn packed(self, dir: &Path, number: u64) -> PathBuf {
        dir.join(format!("{}{number}.gz", self.prefix()))
    }

    /// Where an end is noted that the files have no place for.
    fn end_mark(self, dir: &Path) -> Option<PathBuf> {
        (self == Self::Json).then(|| dir.join("json-closed"))
    }

    /// Whether the end is noted.
    pub(super) fn is_ended(self, dir: &Path) -> bool {
        self.end_mark(dir).is_some_and(|mark| mark.exists())
    }

    pub(super) fn note_end(self, dir: &Path, ended: bool) -> Result<()> {
        let Some(mark) = self.end_mark(dir) else {
            return Ok(());
        };
        match ended {
            true => match File::create(mark) {
                // The container has been removed, and its log with it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                made => made.map(drop).map_err(|error| Error::os("note a log's end", error)),
            },
            false => remove_if_there(&mark),
        }
    }

    /// Where Docker has the newest file, for programs that read it there: a second name of it.
    pub(super) fn known_path(self, target: &LogTarget) -> Option<PathBuf> {
        (self == Self::Json).then(|| target.dir.join(format!("{}-json.log", target.id.as_str())))
    }

    /// Gives the newest file its second name.
    pub(super) fn show(self, target: &LogTarget, number: u64) -> Result<()> {
        let Some(known) = self.known_path(target) else {
            return Ok(());
        };
        self.show_as(&target.dir, &known, number)
    }

    pub(super) fn show_as(self, dir: &Path, known: &Path, number: u64) -> Result<()> {
        let step = |error| Error::os("name the newest file of a log", error);
        let fresh = dir.join("json-new");
        remove_if_there(&fresh)?;
        fs::hard_link(self.path(dir, number), &fresh).map_err(step)?;
        fs::rename(&fresh, known).map_err(step)?;
        // A rename between two names of one file does nothing, and leaves both.
        remove_if_there(&fresh)
    }

    /// The number of the file that is written to; a packed one is written to no more.
    pub(super) fn newest(files: &BTreeMap<u64, PathBuf>) -> u64 {
        let newest = files
            .last_key_value()
            .map(|(number, path)| number + u64::from(path.extension().is_some_and(|extension| extension == "gz")));
        newest.unwrap_or(1)
    }

    pub(super) fn create(self, dir: &Path, number: u64) -> Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        options
            .open(self.path(dir, number))
            .map_err(|error| Error::os("open the log", error))
    }

    /// Opens a file to read it, unpacked if need be.
    pub(super) fn open_if_there(self, dir: &Path, number: u64) -> Result<Option<File>> {
        match File::open(self.path(dir, number)) {
            Ok(file) => return Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::os("open the log", error)),
        }
        // In this order: one that is packed in between is found.
        match File::open(self.packed(dir, number)) {
            Ok(file) => unpack(&file, dir).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::os("open the log", error)),
        }
    }

    /// The files of a log by number.
    pub(super) fn files(self, dir: &Path) -> Result<BTreeMap<u64, PathBuf>> {
        let step = |error| Error::os("list the log's files", error);
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => return Err(step(error)),
        };
        let mut files = BTreeMap::new();
        for entry in entries {
            let entry = entry.map_err(step)?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| {
                let number = name.strip_prefix(self.prefix())?;
                number.strip_suffix(".gz").unwrap_or(number).parse().ok()
            });
            if let Some(number) = number {
                files.insert(number, entry.path());
            }
        }
        Ok(files)
    }

    /// Removes a file, packed or not.
    pub(super) fn remove(self, dir: &Path, number: u64) -> Result<()> {
        remove_if_there(&self.path(dir, number))?;
        remove_if_there(&self.packed(dir, number))
    }

    /// Packs a file that is not written to any more. Readers that have it open go on with it.
    pub(super) fn pack(self, dir: &Path, number: u64) -> io::Result<()> {
        let (plain, packed) = (self.path(dir, number), self.packed(dir, number));
        let fresh = dir.join(format!("{}packing", self.prefix()));
        let mut options = OpenOptions::new();
        let mut out = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        io::copy(&mut GzEncoder::new(File::open(&plain)?, Compression::fast()), &mut out)?;
        fs::rename(&fresh, packed)?;
        fs::remove_file(plain)
    }
}

/// A file's content in one without a name: readers jump about in it. As much disk as the file had before, and no memory.
fn unpack(packed: &File, dir: &Path) -> Result<File> {
    let step = |error| Error::os("unpack the log", error);
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE);
    let mut plain = options.open(dir).map_err(step)?;
    io::copy(&mut GzDecoder::new(packed), &mut plain).map_err(step)?;
    Ok(plain)
}

fn whole_frames(file: &File) -> io::Result<u64> {
    let size = file.metadata()?.len();
    let mut reader = BufReader::with_capacity(64 << 10, file);
    let mut whole = 0;
    let mut header = [0; HEADER];
    while whole + HEADER as u64 <= size {
        reader.read_exact(&mut header)?;
        let [l0, l1, l2, l3, ..] = header;
        let length = u64::from(u32::from_le_bytes([l0, l1, l2, l3]));
        // Decoding the header alone tells garbage from a frame whose payload follows.
        let sane = !matches!(decode(&header), Decoded::Invalid);
        if !sane || whole + HEADER as u64 + length > size {
            break;
        }
        reader.seek_relative(i64::try_from(length).unwrap_or(i64::MAX))?;
        whole += HEADER as u64 + length;
    }
    (&*file).seek(io::SeekFrom::End(0))?;
    Ok(whole)
}

/// Up to the last end of a line, looked for from the end of the file.
fn whole_lines(file: &File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut block = vec![0; 64 << 10];
    while end > 0 {
        let length = end.min(block.len() as u64);
        let part = &mut block[..length as usize];
        file.read_exact_at(part, end - length)?;
        if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
            return Ok(end - length + at as u64 + 1);
        }
        end -= length;
    }
    Ok(0)
}

pub(super) fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::os("remove an old log", error)),
        _ => Ok(()),
    }
}

pub(super) fn corrupt(format: Format, dir: &Path, number: u64, at: u64) -> Error {
    let path = format.path(dir, number);
    Error::new(
        ErrorKind::Corrupt,
        format!("the log {} makes no sense at byte {at}", path.display()),
    )
}
