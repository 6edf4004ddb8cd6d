//! Places in a file.

use std::cell::Cell;
use std::fmt;

/// A place in a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Bytes before it, a byte order mark included.
    pub offset: usize,
    /// Its line; the first is 1.
    pub line: usize,
    /// Its column in characters; the first is 1.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A stretch of a file, from the first character to the one behind the last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// The first character.
    pub start: Position,
    /// The place behind the last character.
    pub end: Position,
}

impl Span {
    /// From the beginning of the one to the end of the other.
    pub(crate) fn to(self, other: Self) -> Self {
        Self {
            start: self.start,
            end: other.end,
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.start.fmt(f)
    }
}

/// A file and where its lines begin.
pub(crate) struct Source<'a> {
    bytes: &'a [u8],
    starts: Vec<usize>,
    /// The place told last: places are mostly asked for in their order, and counting goes on from there.
    last: Cell<Position>,
}

/// One line: where it begins, where its text ends, and where its line break does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line<'a> {
    pub(crate) start: usize,
    pub(crate) text: &'a [u8],
    pub(crate) end: usize,
}

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

impl<'a> Source<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        let first = if bytes.starts_with(BYTE_ORDER_MARK) {
            BYTE_ORDER_MARK.len()
        } else {
            0
        };
        let breaks = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let starts = std::iter::once(first).chain(breaks.map(|(at, _)| at + 1)).collect();
        Self {
            bytes,
            starts,
            last: Cell::default(),
        }
    }

    /// The line with this index, without its line break; `\r` before it belongs to it.
    pub(crate) fn line(&self, index: usize) -> Option<Line<'a>> {
        let start = *self.starts.get(index)?;
        let end = self.starts.get(index + 1).copied().unwrap_or(self.bytes.len());
        let raw = self.bytes.get(start..end).filter(|raw| !raw.is_empty())?;
        let kept = raw.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n'));
        Some(Line {
            start,
            text: &raw[..kept.map_or(0, |at| at + 1)],
            end,
        })
    }

    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub(crate) fn position(&self, offset: usize) -> Position {
        let index = self.starts.partition_point(|start| *start <= offset).saturating_sub(1);
        let start = self.starts.get(index).copied().unwrap_or_default();
        let last = self.last.get();
        let (from, column) = if last.line == index + 1 && last.offset <= offset {
            (last.offset, last.column)
        } else {
            (start, 1)
        };
        let between = self.bytes.get(from..offset.min(self.bytes.len())).unwrap_or_default();
        let found = Position {
            offset,
            line: index + 1,
            column: column + characters(between),
        };
        self.last.set(found);
        found
    }

    pub(crate) fn span(&self, start: usize, end: usize) -> Span {
        let start = self.position(start);
        Span {
            start,
            end: self.position(end),
        }
    }
}

/// Characters of UTF-8; bytes that continue one do not count.
fn characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0xC0 != 0x80).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_characters_and_leave_the_mark_out() {
        let source = Source::new("\u{FEFF}añb\r\nc\n\nd".as_bytes());
        let line = source.line(0).unwrap();
        assert_eq!((line.start, line.text, line.end), (3, "añb".as_bytes(), 9));
        assert_eq!(source.position(6).to_string(), "1:3");
        assert_eq!(source.position(4).to_string(), "1:2", "back in the same line");
        assert_eq!(source.position(9).to_string(), "2:1");
        assert_eq!(source.line(2).unwrap().text, b"");
        assert_eq!(source.line(3).unwrap().text, b"d");
        assert!(source.line(4).is_none());
        assert_eq!(source.position(99).line, 4, "beyond the end is the end");
        assert!(Source::new(b"").line(0).is_none());
    }
}
