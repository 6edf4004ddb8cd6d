//! What a command writes: on to whoever watches the build, and the end of it for its error. Secrets are covered in both.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::redact::Redactor;
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
    state: Mutex<State>,
}

/// Taken in one go, so that what is told comes in order.
#[derive(Debug, Default)]
struct State {
    tail: Tail,
    stdout: Redactor,
    stderr: Redactor,
}

#[derive(Debug, Default)]
struct Tail {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Output {
    /// What has one of the `needles` in it is told without.
    pub(super) fn new(step: u32, progress: Progress, needles: Vec<Vec<u8>>) -> Self {
        Self {
            step,
            progress,
            state: Mutex::new(State {
                tail: Tail::default(),
                stdout: Redactor::new(needles.clone()),
                stderr: Redactor::new(needles),
            }),
        }
    }

    /// The command has ended: what was held back is told.
    pub(super) fn end(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for stderr in [false, true] {
            let rest = state.redactor(stderr).rest();
            self.tell(&mut state, stderr, rest);
        }
    }

    /// The last lines, without what a terminal would act on.
    pub(super) fn tail(&self) -> String {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = state.tail.lines.iter().flatten().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let kept = text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t'));
        kept.collect::<String>().trim_end().to_owned()
    }

    fn tell(&self, state: &mut State, stderr: bool, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        state.tail.push(&bytes);
        self.progress.report(ProgressEvent::Build(BuildEvent::Output {
            step: self.step,
            stderr,
            bytes: bytes.into(),
        }));
    }
}

impl State {
    fn redactor(&mut self, stderr: bool) -> &mut Redactor {
        match stderr {
            true => &mut self.stderr,
            false => &mut self.stdout,
        }
    }
}

impl LogSink for Output {
    fn write(&self, entries: &[LogEntry]) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in entries {
            let stderr = entry.stream == LogStream::Stderr;
            let bytes = state.redactor(stderr).take(&entry.bytes);
            self.tell(&mut state, stderr, bytes);
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
        let output = Output::new(1, Progress::default(), Vec::new());
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
