//! The `local` and `json-file` drivers: files with rotation by size, of frames or of Docker's lines of JSON.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;

use tokio::sync::watch;

use super::attributes::Attributes;
use super::files::{Format, remove_if_there};
use super::json::Lines;
use super::options::LocalOptions;
use super::{
    LogDriver, LogEntries, LogEntry, LogFileFormat, LogFiles, LogQuery, LogSink, LogTarget, PartialWrite, reader,
};
use crate::error::{Error, Result};
use crate::types::Outcome;

/// Wakes the readers of one log that live in this process.
pub(super) type Bell = Arc<watch::Sender<()>>;

/// Keeps logs in files in each container's directory, every byte as it was written. Cheap to clone; clones wake each other's
/// readers.
#[derive(Debug, Clone, Default)]
pub struct LocalDriver {
    format: Format,
    options: LocalOptions,
    bells: Arc<Mutex<HashMap<PathBuf, Weak<watch::Sender<()>>>>>,
}

impl LocalDriver {
    /// A driver whose logs rotate as told.
    pub fn new(options: LocalOptions) -> Self {
        Self {
            options,
            ..Self::default()
        }
    }

    /// The same driver (readers are woken across both) with other options for one container.
    #[must_use]
    pub fn with_options(&self, options: LocalOptions) -> Self {
        Self {
            options,
            ..self.clone()
        }
    }

    /// The options of one container, and what is said of it beside each line.
    fn options_of(&self, options: &BTreeMap<String, String>) -> Result<(LocalOptions, Attributes)> {
        let (attributes, rest) = match self.format {
            Format::Frames => (Attributes::default(), options.clone()),
            Format::Json => Attributes::split(options)?,
        };
        let rest = rest.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        Ok((self.options.with(rest)?, attributes))
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
        match self.format {
            Format::Frames => "local",
            Format::Json => "json-file",
        }
    }

    fn check(&self, options: &BTreeMap<String, String>) -> Result<()> {
        self.options_of(options).map(drop)
    }

    fn open(&self, target: &LogTarget) -> Result<Arc<dyn LogSink>> {
        let (options, attributes) = self.options_of(&target.options)?;
        let attributes = attributes.of(target)?;
        let writer = Writer::open(target.clone(), self.format, options, attributes)?;
        Ok(Arc::new(LocalSink {
            writer: Mutex::new(writer),
            bell: self.bell(&target.dir),
        }))
    }

    fn read(&self, target: &LogTarget, query: LogQuery) -> Result<LogEntries> {
        let bell = self.bell(&target.dir);
        Ok(reader::read(self.format, target.dir.clone(), query, bell))
    }

    fn files(&self, options: &BTreeMap<String, String>) -> Result<Option<LogFiles>> {
        let (options, attributes) = self.options_of(options)?;
        Ok(Some(LogFiles {
            format: Some(match self.format {
                Format::Frames => LogFileFormat::Frames,
                Format::Json => LogFileFormat::Json,
            }),
            max_size_bytes: options.max_size.get(),
            max_files: options.max_files,
            compress: options.compress,
            attributes: !attributes.is_none(),
        }))
    }

    fn path(&self, target: &LogTarget) -> Option<PathBuf> {
        self.format.known_path(target)
    }

    fn remove(&self, target: &LogTarget) -> Result<Outcome> {
        let files = self.format.files(&target.dir)?;
        for number in files.keys() {
            self.format.remove(&target.dir, *number)?;
        }
        if let Some(known) = self.format.known_path(target) {
            remove_if_there(&known)?;
        }
        self.format.note_end(&target.dir, false)?;
        Ok(if files.is_empty() {
            Outcome::Already
        } else {
            Outcome::Done
        })
    }
}

/// Keeps logs as Docker's `json-file` driver does, for programs that read its files: `ID-json.log` in the container's
/// directory is the newest one, and older ones are `json.N`. What is no UTF-8 is not kept as it is; [`LocalDriver`] keeps it.
/// Unlike Docker's, it rotates by default. Cheap to clone.
#[derive(Debug, Clone)]
pub struct JsonFileDriver(LocalDriver);

impl Default for JsonFileDriver {
    fn default() -> Self {
        Self::new(LocalOptions::default())
    }
}

impl JsonFileDriver {
    /// A driver whose logs rotate as told.
    pub fn new(options: LocalOptions) -> Self {
        Self(LocalDriver {
            format: Format::Json,
            ..LocalDriver::new(options)
        })
    }
}

impl LogDriver for JsonFileDriver {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn check(&self, options: &BTreeMap<String, String>) -> Result<()> {
        self.0.check(options)
    }

    fn open(&self, target: &LogTarget) -> Result<Arc<dyn LogSink>> {
        self.0.open(target)
    }

    fn read(&self, target: &LogTarget, query: LogQuery) -> Result<LogEntries> {
        self.0.read(target, query)
    }

    fn files(&self, options: &BTreeMap<String, String>) -> Result<Option<LogFiles>> {
        self.0.files(options)
    }

    fn path(&self, target: &LogTarget) -> Option<PathBuf> {
        self.0.path(target)
    }

    fn remove(&self, target: &LogTarget) -> Result<Outcome> {
        self.0.remove(target)
    }
}

#[derive(Debug)]
struct LocalSink {
    writer: Mutex<Writer>,
    bell: Bell,
}

impl LogSink for LocalSink {
    fn write(&self, entries: &[LogEntry]) -> Result<()> {
        self.write_some(entries).map_err(|partial| partial.error)
    }

    fn write_some(&self, entries: &[LogEntry]) -> Result<(), PartialWrite> {
        let written = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write(entries);
        self.bell.send_replace(());
        written
    }

    fn close(&self) -> Result<()> {
        let closed = self.writer.lock().unwrap_or_else(PoisonError::into_inner).close();
        self.bell.send_replace(());
        closed
    }
}

/// Writes as much as there is room for: how many bytes that were, and why no more.
fn write_as_far(file: &mut File, bytes: &[u8]) -> (usize, Option<io::Error>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return (written, Some(io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Some(error)),
        }
    }
    (written, None)
}

#[derive(Debug)]
struct Writer {
    target: LogTarget,
    format: Format,
    options: LocalOptions,
    /// Makes lines, where there is JSON.
    lines: Lines,
    number: u64,
    file: File,
    /// Bytes of whole entries in the file.
    size: u64,
    /// Whether bytes of a failed write may stand behind them.
    torn: bool,
    /// The thread that packs the file before this one.
    packing: Option<JoinHandle<()>>,
}

impl Writer {
    fn open(target: LogTarget, format: Format, options: LocalOptions, attributes: Vec<u8>) -> Result<Self> {
        let number = Format::newest(&format.files(&target.dir)?);
        format.note_end(&target.dir, false)?;
        let file = format.create(&target.dir, number)?;
        format.show(&target, number)?;
        let mut writer = Self {
            target,
            format,
            options,
            lines: Lines::new(attributes),
            number,
            file,
            size: 0,
            torn: false,
            packing: None,
        };
        let step = |error| Error::os("look through the log", error);
        writer.size = format.whole(&writer.file).map_err(step)?;
        // A file that was cut is written to the disk when it is closed (ext4's auto_da_alloc): only where there is something
        // to cut.
        if writer.file.metadata().map_err(step)?.len() > writer.size {
            writer.truncate()?;
        }
        Ok(writer)
    }

    fn write(&mut self, entries: &[LogEntry]) -> Result<(), PartialWrite> {
        // What one would be copied to again and again while it grows, for nothing.
        let bytes: usize = entries.iter().map(|entry| entry.bytes.len()).sum();
        let mut batch = Vec::with_capacity(bytes + entries.len() * self.format.overhead());
        let mut first = 0;
        for (index, entry) in entries.iter().enumerate() {
            let before = batch.len();
            self.format.encode(entry, &mut self.lines, &mut batch);
            let would_be = self.size.saturating_add(batch.len() as u64);
            if would_be > self.options.max_size.get() && self.size + before as u64 > 0 {
                let next = batch.split_off(before);
                self.append(&entries[first..index], &batch)
                    .map_err(|partial| partial.behind(first))?;
                (batch, first) = (next, index);
                self.rotate().map_err(|error| PartialWrite { kept: first, error })?;
            }
        }
        self.append(&entries[first..], &batch)
            .map_err(|partial| partial.behind(first))
    }

    fn close(&mut self) -> Result<()> {
        let end = self.format.end();
        if self.size > 0 && self.size.saturating_add(end.len() as u64) > self.options.max_size.get() && !end.is_empty()
        {
            self.rotate()?;
        }
        self.append(&[], &end).map_err(|partial| partial.error)?;
        self.until_packed();
        self.format.note_end(&self.target.dir, true)
    }

    /// Writes entries as these bytes.
    fn append(&mut self, entries: &[LogEntry], bytes: &[u8]) -> Result<(), PartialWrite> {
        if self.torn {
            self.truncate().map_err(|error| PartialWrite { kept: 0, error })?;
        }
        let (written, failed) = write_as_far(&mut self.file, bytes);
        let Some(error) = failed else {
            self.size += bytes.len() as u64;
            return Ok(());
        };
        let (kept, whole) = self.whole_entries(entries, written);
        self.size += whole as u64;
        self.torn = written > whole;
        let error = Error::os("write the log", error);
        Err(PartialWrite { kept, error })
    }

    /// How many entries are whole in the first bytes of what was made of them, and how many bytes those are.
    fn whole_entries(&mut self, entries: &[LogEntry], written: usize) -> (usize, usize) {
        let (mut whole, mut one) = (0, Vec::new());
        for (index, entry) in entries.iter().enumerate() {
            one.clear();
            self.format.encode(entry, &mut self.lines, &mut one);
            if whole + one.len() > written {
                return (index, whole);
            }
            whole += one.len();
        }
        (entries.len(), whole)
    }

    /// Cuts off what a killed or failed write left behind the last whole entry.
    fn truncate(&mut self) -> Result<()> {
        self.file
            .set_len(self.size)
            .map_err(|error| Error::os("cut the log's torn end", error))?;
        self.torn = false;
        Ok(())
    }

    fn rotate(&mut self) -> Result<()> {
        self.until_packed();
        self.file = self.format.create(&self.target.dir, self.number + 1)?;
        let full = self.number;
        self.number += 1;
        self.size = 0;
        self.torn = false;
        self.format.show(&self.target, self.number)?;
        let keep_from = (self.number + 1).saturating_sub(u64::from(self.options.max_files));
        for number in self
            .format
            .files(&self.target.dir)?
            .range(..keep_from)
            .map(|(number, _)| *number)
        {
            self.format.remove(&self.target.dir, number)?;
        }
        if self.options.compress {
            self.pack(full);
        }
        Ok(())
    }

    /// Packs a full file on a thread of its own: what is written in the meantime need not wait.
    fn pack(&mut self, number: u64) {
        let (format, dir) = (self.format, self.target.dir.clone());
        let work = move || {
            if let Err(error) = format.pack(&dir, number) {
                tracing::warn!(%error, dir = %dir.display(), "a log could not be packed; it stays as it is");
            }
        };
        // Without a thread the file stays as it is.
        let thread = std::thread::Builder::new().name("longshore-pack".into()).spawn(work);
        self.packing = thread.ok();
    }

    fn until_packed(&mut self) {
        if let Some(packing) = self.packing.take() {
            let _ = packing.join();
        }
    }
}
