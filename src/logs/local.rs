//! The `local` driver: framed files with rotation by size.
//!
//! Files are `log.1`, `log.2`, …; the highest number is written to. Rotation makes the next number and removes the lowest:
//! nothing is ever renamed, so a reader knows from its file's number what comes next, in whichever process it runs.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::watch;

use super::frame::{Decoded, Frame, FrameKind, HEADER, decode, encode};
use super::{LogDriver, LogEntries, LogEntry, LogQuery, LogSink, LogTarget, reader};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::events::now_ns;
use crate::types::{Bytes, Outcome};

/// When files are rotated, and how many are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalOptions {
    /// Size of a file at which the next one begins. Docker's `max-size`.
    pub max_size: Bytes,
    /// How many files are kept, at least one. Docker's `max-file`.
    pub max_files: u32,
}

impl Default for LocalOptions {
    /// Three files of 10 MiB.
    fn default() -> Self {
        Self {
            max_size: Bytes::mib(10),
            max_files: 3,
        }
    }
}

impl LocalOptions {
    /// Takes Docker's options `max-size` (`10m`) and `max-file` (`3`).
    ///
    /// # Errors
    /// `InvalidArgument` for another key, or a value that can never work.
    pub fn parse<'a>(options: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let mut parsed = Self::default();
        for (key, value) in options {
            let bad =
                || Error::invalid(format!("invalid log option {key}={value}")).with_object(ObjectKind::Option, key);
            match key {
                "max-size" => {
                    parsed.max_size = value
                        .parse()
                        .ok()
                        .filter(|size: &Bytes| size.get() > 0)
                        .ok_or_else(bad)?
                }
                "max-file" => parsed.max_files = value.parse().ok().filter(|count| *count > 0).ok_or_else(bad)?,
                _ => return Err(bad()),
            }
        }
        Ok(parsed)
    }
}

/// Wakes the readers of one log that live in this process.
pub(super) type Bell = Arc<watch::Sender<()>>;

/// Keeps logs in files in each container's directory. Cheap to clone; clones wake each other's readers.
#[derive(Debug, Clone, Default)]
pub struct LocalDriver {
    options: LocalOptions,
    bells: Arc<Mutex<HashMap<PathBuf, Weak<watch::Sender<()>>>>>,
}

impl LocalDriver {
    /// A driver whose logs rotate as told.
    pub fn new(options: LocalOptions) -> Self {
        Self {
            options,
            bells: Arc::default(),
        }
    }

    /// The same driver (readers are woken across both) with other options for one container.
    #[must_use]
    pub fn with_options(&self, options: LocalOptions) -> Self {
        Self {
            options,
            bells: self.bells.clone(),
        }
    }

    fn bell(&self, dir: &Path) -> Bell {
        let mut bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bell) = bells.get(dir).and_then(Weak::upgrade) {
            return bell;
        }
        bells.retain(|_, bell| bell.strong_count() > 0);
        let bell = Arc::new(watch::Sender::new(()));
        bells.insert(dir.to_owned(), Arc::downgrade(&bell));
        bell
    }
}

impl LogDriver for LocalDriver {
    fn name(&self) -> &str {
        "local"
    }

    fn open(&self, target: &LogTarget) -> Result<Arc<dyn LogSink>> {
        let writer = Writer::open(&target.dir, self.options)?;
        Ok(Arc::new(LocalSink {
            writer: Mutex::new(writer),
            bell: self.bell(&target.dir),
        }))
    }

    fn read(&self, target: &LogTarget, query: LogQuery) -> Result<LogEntries> {
        Ok(reader::read(target.dir.clone(), query, self.bell(&target.dir)))
    }

    fn remove(&self, target: &LogTarget) -> Result<Outcome> {
        let files = files(&target.dir)?;
        for path in files.values() {
            remove_if_there(path)?;
        }
        Ok(if files.is_empty() {
            Outcome::Already
        } else {
            Outcome::Done
        })
    }
}

#[derive(Debug)]
struct LocalSink {
    writer: Mutex<Writer>,
    bell: Bell,
}

impl LogSink for LocalSink {
    fn write(&self, entries: &[LogEntry]) -> Result<()> {
        let frames = entries.iter().map(|entry| Frame {
            kind: FrameKind::Data(entry.stream),
            time_ns: entry.time_ns,
            payload: &entry.bytes,
        });
        let written = self.writer.lock().unwrap_or_else(PoisonError::into_inner).write(frames);
        self.bell.send_replace(());
        written
    }

    fn close(&self) -> Result<()> {
        let end = Frame {
            kind: FrameKind::End,
            time_ns: now_ns(),
            payload: &[],
        };
        let written = self.writer.lock().unwrap_or_else(PoisonError::into_inner).write([end]);
        self.bell.send_replace(());
        written
    }
}

#[derive(Debug)]
struct Writer {
    dir: PathBuf,
    options: LocalOptions,
    number: u64,
    file: File,
    /// Bytes of whole frames in the file.
    size: u64,
    /// Whether bytes of a failed write may stand behind them.
    torn: bool,
}

impl Writer {
    fn open(dir: &Path, options: LocalOptions) -> Result<Self> {
        let number = files(dir)?.last_key_value().map_or(1, |(number, _)| *number);
        let file = open_file(dir, number)?;
        let mut writer = Self {
            dir: dir.to_owned(),
            options,
            number,
            file,
            size: 0,
            torn: false,
        };
        let step = |error| Error::os("look through the log", error);
        writer.size = whole_frames(&writer.file).map_err(step)?;
        // A file that was cut is written to the disk when it is closed (ext4's auto_da_alloc): only where there is something
        // to cut.
        if writer.file.metadata().map_err(step)?.len() > writer.size {
            writer.truncate()?;
        }
        Ok(writer)
    }

    fn write<'a>(&mut self, frames: impl IntoIterator<Item = Frame<'a>>) -> Result<()> {
        let mut batch = Vec::new();
        for frame in frames {
            let would_be = self.size + (batch.len() + frame.encoded_len()) as u64;
            if would_be > self.options.max_size.get() && self.size + batch.len() as u64 > 0 {
                self.append(&batch)?;
                batch.clear();
                self.rotate()?;
            }
            encode(&frame, &mut batch);
        }
        self.append(&batch)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if self.torn {
            self.truncate()?;
        }
        if let Err(error) = self.file.write_all(bytes) {
            self.torn = true;
            return Err(Error::os("write the log", error));
        }
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Cuts off what a killed or failed write left behind the last whole frame.
    fn truncate(&mut self) -> Result<()> {
        self.file
            .set_len(self.size)
            .map_err(|error| Error::os("cut the log's torn end", error))?;
        self.torn = false;
        Ok(())
    }

    fn rotate(&mut self) -> Result<()> {
        self.file = open_file(&self.dir, self.number + 1)?;
        self.number += 1;
        self.size = 0;
        self.torn = false;
        let keep_from = (self.number + 1).saturating_sub(u64::from(self.options.max_files));
        for (_, path) in files(&self.dir)?.range(..keep_from) {
            remove_if_there(path)?;
        }
        Ok(())
    }
}

fn open_file(dir: &Path, number: u64) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o600);
    options
        .open(path_of(dir, number))
        .map_err(|error| Error::os("open the log", error))
}

/// How many bytes of a file are whole frames.
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

pub(super) fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("log.{number}"))
}

/// The files of a log by number.
pub(super) fn files(dir: &Path) -> Result<BTreeMap<u64, PathBuf>> {
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
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix("log."))
            .and_then(|number| number.parse().ok());
        if let Some(number) = number {
            files.insert(number, entry.path());
        }
    }
    Ok(files)
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::os("remove an old log", error)),
        _ => Ok(()),
    }
}

pub(super) fn corrupt(dir: &Path, number: u64, at: u64) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("the log {} makes no sense at byte {at}", path_of(dir, number).display()),
    )
}
