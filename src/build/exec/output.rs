//! What a command writes: on to whoever watches the build, and the end of it for its error.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::error::Result;
use crate::logs::{LogEntry, LogSink, LogStream};
use crate::progress::{BuildEvent, Progress, ProgressEvent};

/// How much of the end is kept.
const TAIL_LINES: usize = 50;
const TAIL_BYTES: usize = 16 << 10;

/// Takes a command's output.
#[derive(Debug)]
pub(super) struct Output {
    step: u32,
    progress: Progress,
    tail: Mutex<Tail>,
}

#[derive(Debug, Default)]
struct Tail {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Output {
    pub(super) fn new(step: u32, progress: Progress) -> Self {
        Self {
            step,
            progress,
            tail: Mutex::default(),
        }
    }

    /// The last lines, without what a terminal would act on.
    pub(super) fn tail(&self) -> String {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = tail.lines.iter().flatten().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let kept = text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t'));
        kept.collect::<String>().trim_end().to_owned()
    }
}

impl LogSink for Output {
    fn write(&self, entries: &[LogEntry]) -> Result<()> {
        for entry in entries {
            self.progress.report(ProgressEvent::Build(BuildEvent::Output {
                step: self.step,
                stderr: entry.stream == LogStream::Stderr,
                bytes: entry.bytes.clone(),
            }));
            self.tail
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(&entry.bytes);
        }
        Ok(())
    }

    fn close(&self) -> Result<()> {
        Ok(())
    }
}

impl Tail {
    fn push(&mut self, line: &[u8]) {
        let start = line.len().saturating_sub(TAIL_BYTES);
        let line = line.get(start..).unwrap_or_default().to_vec();
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.lines.len() > TAIL_LINES || self.bytes > TAIL_BYTES {
            let Some(first) = self.lines.pop_front() else { break };
            self.bytes -= first.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn f2_the_tail_is_the_end_and_is_bounded() {
        let output = Output::new(1, Progress::default());
        let entry = |text: String| LogEntry {
            stream: LogStream::Stdout,
            time_ns: 0,
            bytes: Bytes::from(text),
        };
        output.write(&[entry("\u{1b}[31mfirst\u{7}\n".to_owned())]).unwrap();
        assert_eq!(output.tail(), "[31mfirst");
        for n in 0..200 {
            output.write(&[entry(format!("line {n}\n"))]).unwrap();
        }
        let tail = output.tail();
        assert!(tail.starts_with("line 150\n") && tail.ends_with("line 199"), "{tail}");
        output.write(&[entry("x".repeat(1 << 20))]).unwrap();
        assert_eq!(output.tail().len(), TAIL_BYTES);
    }
}
