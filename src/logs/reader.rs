//! Reading a log back, and following it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use time::OffsetDateTime;
use tokio::sync::watch;

use super::files::{Format, Piece, corrupt};
use super::frame::{FrameKind, HEADER, MAX_PAYLOAD};
use super::local::Bell;
use super::usual::LineReader;
use super::{LogEntries, LogEntry, LogQuery, LogStream};
use crate::error::{Error, ErrorKind, Result};

/// How often a follower looks for what another process wrote.
const POLL: Duration = Duration::from_millis(100);

/// Bytes read at once: room for the longest frame, and the longest line of JSON.
const BLOCK: usize = 4 * (HEADER + MAX_PAYLOAD);

/// Reads the log in a directory.
pub(super) fn read(format: Format, dir: PathBuf, query: LogQuery, bell: Bell) -> LogEntries {
    let rings = bell.subscribe();
    let session = Session {
        reader: Some(Reader::new(format, dir, query)),
        rings,
        _bell: bell,
        over: false,
    };
    // Many at a time, and one by one from these: a step of the session takes longer than to read a line.
    let batches = stream::unfold(session, |mut session| async move {
        session.next().await.map(|items| (stream::iter(items), session))
    });
    Box::pin(batches.flatten())
}

struct Session {
    /// Away while a blocking thread works with it.
    reader: Option<Reader>,
    rings: watch::Receiver<()>,
    /// Keeps the bell in the driver's table, so that a sink opened later rings the same one.
    _bell: Bell,
    over: bool,
}

impl Session {
    /// What comes next, at least one; `None` at the end.
    async fn next(&mut self) -> Option<Vec<Result<LogEntry>>> {
        while !self.over {
            self.rings.mark_unchanged();
            let (mut items, progress) = self.fill().await;
            match progress {
                Ok(Progress::Waiting) if items.is_empty() => {
                    let _ = tokio::time::timeout(POLL, self.rings.changed()).await;
                }
                Ok(Progress::More | Progress::Waiting) => {}
                Ok(Progress::Over) => self.over = true,
                Err(error) => {
                    self.over = true;
                    items.push(Err(error));
                }
            }
            if !items.is_empty() {
                return Some(items);
            }
        }
        None
    }

    async fn fill(&mut self) -> (Vec<Result<LogEntry>>, Result<Progress>) {
        let Some(mut reader) = self.reader.take() else {
            // The future that had it was dropped on the way.
            let error = Error::internal("a log reader was used again after it was cancelled");
            return (Vec::new(), Err(error));
        };
        let work = tokio::task::spawn_blocking(move || {
            let mut items = Vec::new();
            let progress = reader.fill(&mut items);
            (reader, items, progress)
        });
        match work.await {
            Ok((reader, items, progress)) => {
                self.reader = Some(reader);
                (items, progress)
            }
            Err(error) => {
                let error = Error::internal(format!("reading a log did not end: {error}"));
                (Vec::new(), Err(error))
            }
        }
    }
}

enum Progress {
    /// There may be more right now.
    More,
    /// Everything is read; more may come.
    Waiting,
    /// Nothing more will come.
    Over,
}

struct Reader {
    format: Format,
    dir: PathBuf,
    query: LogQuery,
    begun: bool,
    current: Option<Current>,
    /// The last frame was an end.
    ended: bool,
    /// Whether the last entry of each stream left its line open: then the next one gets no time in front.
    open_lines: [bool; 2],
    buffer: Vec<u8>,
    lines: LineReader,
}

struct Current {
    number: u64,
    file: File,
    offset: u64,
}

impl Reader {
    fn new(format: Format, dir: PathBuf, query: LogQuery) -> Self {
        Self {
            format,
            dir,
            query,
            begun: false,
            current: None,
            ended: false,
            open_lines: [false; 2],
            buffer: vec![0; BLOCK],
            lines: LineReader::default(),
        }
    }

    /// Reads the next block. Blocking.
    fn fill(&mut self, items: &mut Vec<Result<LogEntry>>) -> Result<Progress> {
        if !self.begun {
            self.begin()?;
        }
        if self.current.is_none() && !self.open_next(0, items)? {
            return Ok(if self.query.follow {
                Progress::Waiting
            } else {
                Progress::Over
            });
        }
        let number = self.current.as_ref().map_or(0, |current| current.number);
        // Asked before the last look at this file: its writer was done with it when it made the next.
        let noted_end = self.format.is_ended(&self.dir);
        let files = self.format.files(&self.dir)?;
        let next_is_there = files.range(number + 1..).next().is_some();
        let (read, past_until) = self.read_block(items)?;
        if past_until {
            return Ok(Progress::Over);
        }
        if read > 0 {
            return Ok(Progress::More);
        }
        if next_is_there && self.open_next(number, items)? {
            return Ok(Progress::More);
        }
        // Without a next one, the file is gone because the whole log was removed.
        let removed = !next_is_there && !files.contains_key(&number);
        Ok(if self.query.follow && !self.ended && !noted_end && !removed {
            Progress::Waiting
        } else {
            Progress::Over
        })
    }

    fn begin(&mut self) -> Result<()> {
        self.begun = true;
        if let Some(lines) = self.query.tail {
            self.current = self.seek_tail(lines)?;
        }
        Ok(())
    }

    /// Opens the oldest file after a number. Rotation may remove it between the look and the opening: then the next one.
    fn open_next(&mut self, after: u64, items: &mut Vec<Result<LogEntry>>) -> Result<bool> {
        loop {
            let Some(number) = self
                .format
                .files(&self.dir)?
                .range(after + 1..)
                .next()
                .map(|(number, _)| *number)
            else {
                return Ok(false);
            };
            let Some(file) = self.format.open_if_there(&self.dir, number)? else {
                continue;
            };
            let missed = if after == 0 { 0 } else { number - after - 1 };
            if missed > 0 {
                let message = format!("{missed} files of the log were rotated away before they were read");
                items.push(Err(Error::new(ErrorKind::Unavailable, message)));
            }
            self.current = Some(Current {
                number,
                file,
                offset: 0,
            });
            return Ok(true);
        }
    }

    /// Reads frames of the current file: how many bytes of whole ones, and whether the query's end was passed.
    fn read_block(&mut self, items: &mut Vec<Result<LogEntry>>) -> Result<(usize, bool)> {
        let Some(current) = &self.current else {
            return Ok((0, false));
        };
        let (number, offset) = (current.number, current.offset);
        let mut block = std::mem::take(&mut self.buffer);
        let available = read_full(&current.file, &mut block, offset);
        let mut lines = std::mem::take(&mut self.lines);
        let taken =
            available.and_then(|available| self.take_frames(&block[..available], &mut lines, number, offset, items));
        (self.buffer, self.lines) = (block, lines);
        let (used, past_until) = taken?;
        if let Some(current) = &mut self.current {
            current.offset += used as u64;
        }
        Ok((used, past_until))
    }

    fn take_frames(
        &mut self,
        block: &[u8],
        lines: &mut LineReader,
        number: u64,
        offset: u64,
        items: &mut Vec<Result<LogEntry>>,
    ) -> Result<(usize, bool)> {
        let mut used = 0;
        loop {
            let (len, kind, time_ns, payload) = match self.format.decode(&block[used..], lines) {
                Piece::Whole {
                    len,
                    kind,
                    time_ns,
                    payload,
                } => (len, kind, time_ns, payload),
                Piece::Incomplete => return Ok((used, false)),
                Piece::Invalid => return Err(corrupt(self.format, &self.dir, number, offset + used as u64)),
            };
            let line = &block[used..used + len];
            used += len;
            self.ended = kind == FrameKind::End;
            let FrameKind::Data(stream) = kind else {
                continue;
            };
            if self.query.follow && self.query.until_ns.is_some_and(|until| time_ns > until) {
                return Ok((used, true));
            }
            if passes(&self.query, time_ns, stream) {
                items.push(Ok(self.entry(time_ns, line, &payload, stream)));
            }
        }
    }

    fn entry(&mut self, time_ns: i64, line: &[u8], payload: &[u8], stream: LogStream) -> LogEntry {
        let open = &mut self.open_lines[index(stream)];
        let continues = *open;
        *open = payload.last() != Some(&b'\n');
        let bytes = match (self.query.timestamps || self.query.details) && !continues {
            true => self.introduced(time_ns, line, payload),
            false => Bytes::copy_from_slice(payload),
        };
        LogEntry { stream, time_ns, bytes }
    }

    /// A line with what is asked for before it.
    fn introduced(&self, time_ns: i64, line: &[u8], payload: &[u8]) -> Bytes {
        let mut text = Vec::new();
        if self.query.timestamps {
            stamp(time_ns, &mut text);
        }
        if self.query.details {
            self.format.details(line, &mut text);
            text.push(b' ');
        }
        text.extend_from_slice(payload);
        text.into()
    }

    /// Where the last lines begin: looks through files from the newest back, until it has seen enough lines.
    fn seek_tail(&mut self, lines: usize) -> Result<Option<Current>> {
        let mut missing = lines;
        let mut found = None;
        for number in self.format.files(&self.dir)?.into_keys().rev() {
            let Some(file) = self.format.open_if_there(&self.dir, number)? else {
                break;
            };
            let (starts, end, ended) = self.line_starts(&file, missing)?;
            if found.is_none() {
                // With a tail of 0 the last frame is never read again.
                self.ended = ended;
            }
            missing -= starts.len();
            let offset = if missing > 0 {
                0
            } else {
                starts.front().copied().unwrap_or(end)
            };
            found = Some(Current { number, file, offset });
            if missing == 0 {
                break;
            }
        }
        Ok(found)
    }

    /// Offsets of the last lines of a file, at most so many, where its whole frames end, and whether the last is an end.
    fn line_starts(&mut self, file: &File, most: usize) -> Result<(VecDeque<u64>, u64, bool)> {
        let mut starts = VecDeque::new();
        let mut open = [false; 2];
        let (mut offset, mut ended) = (0, false);
        loop {
            let available = read_full(file, &mut self.buffer, offset)?;
            let mut used = 0;
            while let Piece::Whole {
                len,
                kind,
                time_ns,
                payload,
            } = self.format.decode(&self.buffer[used..available], &mut self.lines)
            {
                if let FrameKind::Data(stream) = kind
                    && passes(&self.query, time_ns, stream)
                {
                    let continues = std::mem::replace(&mut open[index(stream)], payload.last() != Some(&b'\n'));
                    if !continues {
                        starts.push_back(offset + used as u64);
                    }
                    if starts.len() > most {
                        starts.pop_front();
                    }
                }
                ended = kind == FrameKind::End;
                used += len;
            }
            if used == 0 {
                return Ok((starts, offset, ended));
            }
            offset += used as u64;
        }
    }
}

fn index(stream: LogStream) -> usize {
    match stream {
        LogStream::Stdout => 0,
        LogStream::Stderr => 1,
    }
}

fn passes(query: &LogQuery, time_ns: i64, stream: LogStream) -> bool {
    let wanted = match stream {
        LogStream::Stdout => query.stdout,
        LogStream::Stderr => query.stderr,
    };
    wanted && query.since_ns.is_none_or(|since| time_ns >= since) && query.until_ns.is_none_or(|until| time_ns <= until)
}

/// Reads as much as fits, from an offset; less only at the end of the file.
fn read_full(file: &File, buffer: &mut [u8], offset: u64) -> Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::os("read the log", error)),
        }
    }
    Ok(read)
}

/// A line with its time in front: RFC 3339 with nine digits, as Docker prints it.
fn stamp(time_ns: i64, text: &mut Vec<u8>) {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(time_ns)).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    let (hour, minute, second, nanosecond) = at.to_hms_nano();
    let _ = write!(
        text,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanosecond:09}Z "
    );
}
