//! Logs over the API: entries out of frames, each with its time in front.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::pieces::Frames;
use crate::error::Result;
use crate::images::ByteStream;
use crate::logs::{LogEntries, LogEntry, LogStream};

/// What is longer comes as several entries, as it was kept. Docker's, and ours.
const MAX_ENTRY: usize = 16 << 10;
/// Longer than any time.
const MAX_STAMP: usize = 40;

/// Entries as they come. `shown`: the time stays in front of lines.
pub(super) fn entries(bytes: ByteStream, tty: bool, shown: bool) -> LogEntries {
    let state = (bytes, Reader::new(tty, shown), VecDeque::new());
    Box::pin(stream::try_unfold(
        state,
        |(mut bytes, mut reader, mut ready)| async move {
            loop {
                if let Some(entry) = ready.pop_front() {
                    return Ok(Some((entry, (bytes, reader, ready))));
                }
                match bytes.next().await {
                    Some(more) => reader.take(more?, &mut ready)?,
                    None => {
                        reader.end(&mut ready);
                        if ready.is_empty() {
                            return Ok(None);
                        }
                    }
                }
            }
        },
    ))
}

/// Makes entries of bytes. A line is told when its end is there, or as much as an entry holds.
struct Reader {
    frames: Frames,
    shown: bool,
    /// Of each stream.
    lines: [Line; 2],
}

#[derive(Default)]
struct Line {
    bytes: BytesMut,
    /// Whether what comes continues a line whose time is known.
    open: bool,
    time_ns: i64,
}

impl Reader {
    fn new(tty: bool, shown: bool) -> Self {
        Self {
            frames: Frames::new(tty),
            shown,
            lines: Default::default(),
        }
    }

    fn take(&mut self, bytes: Bytes, out: &mut VecDeque<LogEntry>) -> Result<()> {
        for piece in self.frames.take(bytes)? {
            let stream = piece.chunk.stream;
            let shown = self.shown;
            let line = self.line(stream);
            line.bytes.extend_from_slice(&piece.chunk.bytes);
            while let Some(entry) = line.cut(stream, shown) {
                out.push_back(entry);
            }
            // A frame is an entry, be it the rest of a line or one without an end; Docker stamps each.
            if piece.last {
                self.flush(stream, out);
            }
        }
        Ok(())
    }

    fn line(&mut self, stream: LogStream) -> &mut Line {
        let [stdout, stderr] = &mut self.lines;
        match stream {
            LogStream::Stdout => stdout,
            LogStream::Stderr => stderr,
        }
    }

    /// What has no end of a line.
    fn flush(&mut self, stream: LogStream, out: &mut VecDeque<LogEntry>) {
        let shown = self.shown;
        let line = self.line(stream);
        if !line.bytes.is_empty() {
            let bytes = line.bytes.split().freeze();
            out.push_back(line.entry(stream, bytes, shown));
        }
    }

    fn end(&mut self, out: &mut VecDeque<LogEntry>) {
        self.flush(LogStream::Stdout, out);
        self.flush(LogStream::Stderr, out);
    }
}

impl Line {
    /// The next whole entry.
    fn cut(&mut self, stream: LogStream, shown: bool) -> Option<LogEntry> {
        let end = self.bytes.iter().position(|byte| *byte == b'\n');
        let most = MAX_ENTRY + if self.open { 0 } else { MAX_STAMP };
        let length = match end {
            Some(end) => end + 1,
            None if self.bytes.len() > most => most,
            None => return None,
        };
        let bytes = self.bytes.split_to(length).freeze();
        Some(self.entry(stream, bytes, shown))
    }

    fn entry(&mut self, stream: LogStream, bytes: Bytes, shown: bool) -> LogEntry {
        let stamped = stamp(&bytes);
        let rest = match stamped {
            Some((time_ns, length)) => {
                self.time_ns = time_ns;
                // A line's first entry alone shows its time.
                if shown && !self.open {
                    bytes
                } else {
                    bytes.slice(length..)
                }
            }
            None => bytes,
        };
        self.open = rest.last() != Some(&b'\n');
        LogEntry {
            stream,
            time_ns: self.time_ns,
            bytes: rest,
        }
    }
}

/// The time that a line begins with, and its length with the space.
fn stamp(bytes: &[u8]) -> Option<(i64, usize)> {
    let length = bytes.iter().take(MAX_STAMP).position(|byte| *byte == b' ')?;
    let text = std::str::from_utf8(bytes.get(..length)?).ok()?;
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    Some((i64::try_from(at.unix_timestamp_nanos()).ok()?, length + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(stream: u8, text: &str) -> Vec<u8> {
        let mut frame = vec![stream, 0, 0, 0];
        frame.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(text.as_bytes());
        frame
    }

    fn read(bytes: &[u8], step: usize, tty: bool, shown: bool) -> Vec<(LogStream, i64, String)> {
        let mut reader = Reader::new(tty, shown);
        let mut out = VecDeque::new();
        for part in bytes.chunks(step) {
            reader.take(Bytes::copy_from_slice(part), &mut out).unwrap();
        }
        reader.end(&mut out);
        let entries = out.into_iter();
        entries
            .map(|entry| {
                (
                    entry.stream,
                    entry.time_ns,
                    String::from_utf8(entry.bytes.to_vec()).unwrap(),
                )
            })
            .collect()
    }

    #[test]
    fn entries_have_their_time_however_the_bytes_are_cut() {
        let mut bytes = frame(1, "1970-01-01T00:00:01.000000002Z hello\n");
        bytes.extend(frame(1, "1970-01-01T00:00:02Z no end"));
        bytes.extend(frame(2, "1970-01-01T00:00:03Z err 1\n"));
        let expected = [
            (LogStream::Stdout, 1_000_000_002, "hello\n".to_owned()),
            (LogStream::Stdout, 2_000_000_000, "no end".to_owned()),
            (LogStream::Stderr, 3_000_000_000, "err 1\n".to_owned()),
        ];
        for step in 1..=bytes.len() {
            let all = read(&bytes, step, false, false);
            assert_eq!(all, expected, "in pieces of {step}");
        }
        let shown = read(&bytes, 1000, false, true);
        assert_eq!(shown[0].2, "1970-01-01T00:00:01.000000002Z hello\n");
    }

    #[test]
    fn a_terminal_s_lines_and_a_line_in_two_frames() {
        let raw = b"1970-01-01T00:00:01Z a\r\n1970-01-01T00:00:02Z b\r\n";
        let lines = read(raw, 7, true, false);
        assert_eq!(lines[0], (LogStream::Stdout, 1_000_000_000, "a\r\n".to_owned()));
        assert_eq!(lines[1], (LogStream::Stdout, 2_000_000_000, "b\r\n".to_owned()));
        // Docker stamps the rest of a line too; ours does not.
        for rest in ["1970-01-01T00:00:01Z end\n", "end\n"] {
            let mut bytes = frame(1, "1970-01-01T00:00:01Z begin ");
            bytes.extend(frame(1, rest));
            let text: String = read(&bytes, 1000, false, true)
                .into_iter()
                .map(|entry| entry.2)
                .collect();
            assert_eq!(text, "1970-01-01T00:00:01Z begin end\n");
        }
    }
}
