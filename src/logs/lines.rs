//! Cutting raw chunks into lines. Pure: no I/O.

use std::io::BufRead as _;

use bytes::{Bytes, BytesMut};

/// The longest piece of a line, in bytes: Docker's limit too.
pub const MAX_LINE: usize = 16 << 10;

/// Cuts a stream into lines of at most [`MAX_LINE`] bytes, newline included. The pieces put together are the stream.
#[derive(Debug, Default)]
pub struct Splitter {
    /// The beginning of a line whose end has not come.
    begun: BytesMut,
}

impl Splitter {
    /// Takes a chunk and hands out every line, or piece, that is complete with it. A line within one chunk is not copied.
    pub fn push(&mut self, mut chunk: Bytes, mut line: impl FnMut(Bytes)) {
        while !chunk.is_empty() {
            let room = MAX_LINE - self.begun.len();
            let window = &chunk[..chunk.len().min(room)];
            let end = line_end(window);
            let Some(end) = end.or((window.len() == room).then_some(room)) else {
                self.begun.extend_from_slice(&chunk);
                return;
            };
            let piece = chunk.split_to(end);
            if self.begun.is_empty() {
                line(piece);
            } else {
                self.begun.extend_from_slice(&piece);
                line(self.begun.split().freeze());
            }
        }
    }

    /// The beginning of a line whose end has not come.
    pub fn begun(&self) -> &[u8] {
        &self.begun
    }

    /// What was begun, at the end of the stream or when it shall not wait longer.
    pub fn flush(&mut self) -> Option<Bytes> {
        if self.begun.is_empty() {
            return None;
        }
        Some(self.begun.split().freeze())
    }
}

/// How long the first line is, with its end, if that is there. The standard library looks for it by many bytes at a time, and
/// lets others do so only here.
fn line_end(mut bytes: &[u8]) -> Option<usize> {
    let before = bytes;
    let length = bytes.skip_until(b'\n').ok()?;
    let ends = length.checked_sub(1).and_then(|last| before.get(last)) == Some(&b'\n');
    ends.then_some(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(chunks: &[Vec<u8>]) -> Vec<Bytes> {
        let mut splitter = Splitter::default();
        let mut lines = Vec::new();
        for chunk in chunks {
            splitter.push(Bytes::from(chunk.clone()), |line| lines.push(line));
        }
        lines.extend(splitter.flush());
        lines
    }

    proptest! {
        #[test]
        fn pieces_are_the_stream(chunks in proptest::collection::vec(proptest::collection::vec(prop_oneof![3 => Just(b'x'), 1 => Just(b'\n')], 0..50), 0..20)) {
            let lines = split(&chunks);
            prop_assert_eq!(lines.concat(), chunks.concat());
            for line in &lines {
                prop_assert!(!line[..line.len() - 1].contains(&b'\n'));
            }
        }
    }

    #[test]
    fn long_lines_are_cut() {
        let long = vec![b'a'; MAX_LINE * 2 + 10];
        let sizes: Vec<usize> = split(&[long[..100].to_vec(), long[100..].to_vec()])
            .iter()
            .map(Bytes::len)
            .collect();
        assert_eq!(sizes, [MAX_LINE, MAX_LINE, 10]);
    }

    #[test]
    fn a_line_that_fills_the_limit_is_one_piece() {
        let mut line = vec![b'a'; MAX_LINE - 1];
        line.push(b'\n');
        assert_eq!(split(&[line.clone()]), [Bytes::from(line)]);
    }
}
