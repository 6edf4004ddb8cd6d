//! The frames of a log file: `[u32 length][u8 kind][i64 time][payload]`, little endian; the length counts the payload
//! alone, the time is in nanoseconds since the epoch. Pure: no I/O.

use super::LogStream;

/// Bytes before the payload.
pub const HEADER: usize = 13;

/// The longest payload of a valid frame. The pump writes 16 KiB at most.
pub const MAX_PAYLOAD: usize = 64 << 10;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// A line or a piece of one.
    Data(LogStream),
    /// The streams have ended. More may follow if the container was started again.
    End,
}

impl FrameKind {
    fn to_byte(self) -> u8 {
        match self {
            Self::Data(LogStream::Stdout) => 1,
            Self::Data(LogStream::Stderr) => 2,
            Self::End => 255,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Data(LogStream::Stdout)),
            2 => Some(Self::Data(LogStream::Stderr)),
            255 => Some(Self::End),
            _ => None,
        }
    }
}

/// A frame, borrowed from the buffer it was decoded from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it holds.
    pub kind: FrameKind,
    /// When it was read from the container, in nanoseconds since the epoch.
    pub time_ns: i64,
    /// The raw bytes; none at the end.
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// Bytes in the file.
    pub fn encoded_len(&self) -> usize {
        HEADER + self.payload.len()
    }
}

/// What stands at the start of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A whole frame.
    Frame(Frame<'a>),
    /// The beginning of one: more bytes are needed, or the writer was killed here.
    Incomplete,
    /// No frame begins so.
    Invalid,
}

/// Appends a frame. What is longer than [`MAX_PAYLOAD`] is cut into several.
pub fn encode(frame: &Frame<'_>, out: &mut Vec<u8>) {
    let mut rest = frame.payload;
    loop {
        let (now, later) = rest.split_at(rest.len().min(MAX_PAYLOAD));
        out.extend_from_slice(&(now.len() as u32).to_le_bytes());
        out.push(frame.kind.to_byte());
        out.extend_from_slice(&frame.time_ns.to_le_bytes());
        out.extend_from_slice(now);
        rest = later;
        if rest.is_empty() {
            return;
        }
    }
}

/// Decodes the frame at the start of a buffer. Never panics, whatever the bytes.
pub fn decode(buffer: &[u8]) -> Decoded<'_> {
    let Some((header, rest)) = buffer.split_first_chunk::<HEADER>() else {
        return Decoded::Incomplete;
    };
    let [l0, l1, l2, l3, kind, t0, t1, t2, t3, t4, t5, t6, t7] = *header;
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    let Some(kind) = FrameKind::from_byte(kind) else {
        return Decoded::Invalid;
    };
    if length > MAX_PAYLOAD || (kind == FrameKind::End && length > 0) {
        return Decoded::Invalid;
    }
    match rest.get(..length) {
        None => Decoded::Incomplete,
        Some(payload) => Decoded::Frame(Frame {
            kind,
            time_ns: i64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]),
            payload,
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kinds() -> impl Strategy<Value = FrameKind> {
        prop_oneof![
            Just(FrameKind::Data(LogStream::Stdout)),
            Just(FrameKind::Data(LogStream::Stderr))
        ]
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(kind in kinds(), time_ns: i64, payload in proptest::collection::vec(any::<u8>(), 0..2000), tail: Vec<u8>) {
            let frame = Frame { kind, time_ns, payload: &payload };
            let mut bytes = Vec::new();
            encode(&frame, &mut bytes);
            prop_assert_eq!(bytes.len(), frame.encoded_len());
            for cut in [0, 1, HEADER - 1, bytes.len() - 1] {
                prop_assert_eq!(decode(&bytes[..cut.min(bytes.len() - 1)]), Decoded::Incomplete);
            }
            bytes.extend(tail);
            prop_assert_eq!(decode(&bytes), Decoded::Frame(frame));
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            if let Decoded::Frame(frame) = decode(&bytes) {
                prop_assert!(frame.encoded_len() <= bytes.len());
            }
        }
    }

    #[test]
    fn too_much_is_cut() {
        let payload = vec![7; MAX_PAYLOAD + 5];
        let mut bytes = Vec::new();
        encode(
            &Frame {
                kind: FrameKind::Data(LogStream::Stdout),
                time_ns: 1,
                payload: &payload,
            },
            &mut bytes,
        );
        let Decoded::Frame(first) = decode(&bytes) else {
            panic!("no frame")
        };
        let Decoded::Frame(second) = decode(&bytes[first.encoded_len()..]) else {
            panic!("no second frame")
        };
        assert_eq!((first.payload.len(), second.payload.len()), (MAX_PAYLOAD, 5));
    }

    #[test]
    fn an_absurd_length_is_not_waited_for() {
        assert_eq!(decode(&[0xff; 20]), Decoded::Invalid);
        assert_eq!(decode(&[1, 0, 0, 0, 255, 0, 0, 0, 0, 0, 0, 0, 0, 9]), Decoded::Invalid);
    }
}
