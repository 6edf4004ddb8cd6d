//! What containers print: the [`LogDriver`] seam, the `local`, `json-file` and `none` drivers, the reader, and the pump that feeds them.
//!
//! ```text
//! container --pipe--> pump --raw chunks--> Tee: attached clients, output() collectors
//!                       \---lines--------> LogSink (blocking, on a thread that may block) --> files --> reader
//! ```

#[cfg(feature = "engine")]
mod attributes;
#[cfg(feature = "engine")]
mod drivers;
#[cfg(feature = "engine")]
mod files;
mod frame;
#[cfg(feature = "engine")]
mod handed;
#[cfg(feature = "engine")]
mod json;
mod lines;
#[cfg(feature = "engine")]
mod local;
#[cfg(feature = "engine")]
mod none;
#[cfg(feature = "engine")]
mod options;
#[cfg(feature = "engine")]
mod pump;
#[cfg(feature = "engine")]
mod reader;
#[cfg_attr(not(feature = "engine"), allow(dead_code, reason = "for the engine in this process"))]
mod tee;
#[cfg(all(test, feature = "engine"))]
mod tests;
#[cfg(feature = "engine")]
mod usual;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ObjectKind, Result};
use crate::types::{ContainerId, Outcome};

#[cfg(feature = "engine")]
pub use self::drivers::LogDrivers;
pub use self::frame::{Decoded, Frame, FrameKind, HEADER, MAX_PAYLOAD, decode, encode};
#[cfg(feature = "engine")]
pub(crate) use self::handed::{Handed, hand_over};
#[cfg(all(test, feature = "engine"))]
pub(crate) use self::json::encode as encode_json;
pub use self::lines::{MAX_LINE, Splitter};
#[cfg(feature = "engine")]
pub use self::local::{JsonFileDriver, LocalDriver};
#[cfg(feature = "engine")]
pub use self::none::NoneDriver;
#[cfg(feature = "engine")]
pub use self::options::{LocalOptions, split_options};
#[cfg(feature = "engine")]
pub(crate) use self::pump::pump_until;
#[cfg(feature = "engine")]
pub use self::pump::{Overflow, PumpOptions, PumpReport, finish, pump_all, relay};
pub use self::tee::{Chunk, Cut, Tee, TeeItem, TeeReader};

/// Which of a container's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line, or a piece of one: what does not end with a newline was cut at 16 KiB, or is the last of its stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Where it was printed.
    pub stream: LogStream,
    /// When it was read, in nanoseconds since the epoch. Between a start of the container and its end every entry has a time
    /// later than the one before, some nanoseconds if need be: who has read up to an entry goes on with
    /// [`LogQuery::since_ns`] one greater.
    pub time_ns: i64,
    /// The raw bytes, with the newline.
    pub bytes: Bytes,
}

impl LogEntry {
    /// Whether the line goes on in the next entry of the same stream.
    pub fn is_partial(&self) -> bool {
        self.bytes.last() != Some(&b'\n')
    }
}

/// Whose log, and where it may keep files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogTarget {
    /// The container.
    pub id: ContainerId,
    /// The container's directory; it exists.
    pub dir: PathBuf,
    /// The container's options of its log, in the driver's words. They have passed [`LogDriver::check`].
    pub options: BTreeMap<String, String>,
    /// What the container is, for a driver that says so beside its lines.
    pub subject: LogSubject,
}

/// What a driver may say of a container beside its lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogSubject {
    /// Its name.
    pub name: String,
    /// Its image, as it was named at create.
    pub image: String,
    /// Its image's id.
    pub image_id: String,
    /// What it runs: program and arguments.
    pub command: Vec<String>,
    /// Its labels, with those of its image.
    pub labels: BTreeMap<String, String>,
    /// Its environment, as `NAME=value`.
    pub env: Vec<String>,
}

/// What to read of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogQuery {
    /// Standard output too.
    pub stdout: bool,
    /// Standard error too.
    pub stderr: bool,
    /// Nothing older, in nanoseconds since the epoch.
    pub since_ns: Option<i64>,
    /// Nothing younger, in nanoseconds since the epoch. With `follow`, the stream ends at the first younger entry.
    pub until_ns: Option<i64>,
    /// Only so many lines of those that pass the rest of the query, counted from the end.
    pub tail: Option<usize>,
    /// Go on with what is written from now on, until the container's log is closed.
    pub follow: bool,
    /// Put the time (RFC 3339 with nine digits of a second) and a space before each line.
    pub timestamps: bool,
    /// Put what the log says beside each line (labels, variables, a tag) before it, behind the time: `name=value`, escaped as in
    /// the query of an URL, with commas between them, and a space, which is there alone where nothing stands beside a line.
    pub details: bool,
}

impl Default for LogQuery {
    /// Everything there is of both streams.
    fn default() -> Self {
        Self {
            stdout: true,
            stderr: true,
            since_ns: None,
            until_ns: None,
            tail: None,
            follow: false,
            timestamps: false,
            details: false,
        }
    }
}

/// Entries as they are read. An `Err` of kind `Unavailable` says that rotation was faster than the reader and what is
/// missing; the stream goes on after it. Any other ends it.
pub type LogEntries = Pin<Box<dyn Stream<Item = Result<LogEntry>> + Send + 'static>>;

/// Where a container's lines go. Methods block: the pump calls them on a thread that may, so a slow sink never holds the
/// engine's thread.
pub trait LogSink: Debug + Send + Sync + 'static {
    /// Writes entries in order. On an error the entries count as lost, and the next call is made nevertheless.
    ///
    /// # Errors
    /// `NoSpace`, `Os`, or what the destination says.
    fn write(&self, entries: &[LogEntry]) -> Result<()>;

    /// As [`LogSink::write`], for a sink that knows how many entries are there of a write that failed. They do not count as lost.
    ///
    /// # Errors
    /// As [`LogSink::write`]; unless a sink says otherwise, none of them is there.
    fn write_some(&self, entries: &[LogEntry]) -> Result<(), PartialWrite> {
        self.write(entries).map_err(|error| PartialWrite { kept: 0, error })
    }

    /// The container's streams have ended: followers come to their end. Whoever sweeps after a killed writer opens the log
    /// and closes it, so that nobody follows it for ever.
    ///
    /// # Errors
    /// As [`LogSink::write`].
    fn close(&self) -> Result<()>;
}

/// A write to a log that failed.
#[derive(Debug)]
pub struct PartialWrite {
    /// How many entries are there nevertheless: the first ones.
    pub kept: usize,
    /// Why the others are not.
    pub error: Error,
}

#[cfg(feature = "engine")]
impl PartialWrite {
    /// The same, behind so many more.
    fn behind(self, more: usize) -> Self {
        Self {
            kept: self.kept + more,
            ..self
        }
    }
}

/// A log that a program without its driver can write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogFiles {
    /// What is in its files; `None`: nothing is kept.
    pub format: Option<LogFileFormat>,
    /// A file that has as many bytes is full, and the next one begins.
    pub max_size_bytes: u64,
    /// How many files there are at most.
    pub max_files: u32,
    /// Whether full files are packed.
    pub compress: bool,
    /// Whether something is said of the container beside each line, which no other program can.
    pub attributes: bool,
}

/// What is in the files of a [`LogFiles`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFileFormat {
    /// Frames ([`Frame`]), in files `log.N`.
    Frames,
    /// Docker's lines of JSON, in files `json.N`; the newest is `ID-json.log` too.
    Json,
}

/// Keeps logs of containers, or sends them somewhere. Methods block, but for [`LogDriver::read`].
pub trait LogDriver: Debug + Send + Sync + 'static {
    /// The driver's name.
    fn name(&self) -> &str;

    /// Refuses options of a container that the driver does not have, or cannot work with. Called when the container is created;
    /// a driver without this has no options.
    ///
    /// # Errors
    /// `InvalidArgument`.
    fn check(&self, options: &BTreeMap<String, String>) -> Result<()> {
        let Some(key) = options.keys().next() else {
            return Ok(());
        };
        let message = format!("the log driver {:?} has no option {key:?}", self.name());
        Err(Error::invalid(message).with_object(ObjectKind::Option, key.clone()))
    }

    /// Opens a container's log for writing; what was written before stays.
    ///
    /// # Errors
    /// `NoSpace`, `Os`, or what the destination says.
    fn open(&self, target: &LogTarget) -> Result<Arc<dyn LogSink>>;

    /// Reads a container's log. Returns at once; the stream does the work, on threads that may block, and needs a tokio
    /// runtime around it.
    ///
    /// # Errors
    /// `Unsupported` by drivers that cannot read back.
    fn read(&self, _target: &LogTarget, _query: LogQuery) -> Result<LogEntries> {
        let needs = format!(
            "a log driver that can read back what it wrote ({:?} cannot)",
            self.name()
        );
        Err(Error::unsupported("reading logs", needs))
    }

    /// What another program must know to write the same log: the shim of a container that outlives its engine. `None`: only this
    /// driver can write it.
    ///
    /// # Errors
    /// As [`LogDriver::check`].
    fn files(&self, _options: &BTreeMap<String, String>) -> Result<Option<LogFiles>> {
        Ok(None)
    }

    /// The file that programs other than this engine may read, where there is one. Docker's `LogPath`.
    fn path(&self, _target: &LogTarget) -> Option<PathBuf> {
        None
    }

    /// Removes what the driver keeps of a container.
    ///
    /// # Errors
    /// `Os`.
    fn remove(&self, _target: &LogTarget) -> Result<Outcome> {
        Ok(Outcome::Already)
    }
}
