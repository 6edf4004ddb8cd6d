//! The framing of a stream that carries both outputs: a byte for the stream, three zeros, the length as four bytes of big
//! endian, and the bytes. Source: the Engine API's description, `ContainerAttach`, "Stream format".

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::logs::LogStream;

/// Length of a frame's head.
const HEAD: usize = 8;

/// A frame. What is longer than four bytes can say, which nothing here is, would be cut into several.
pub(super) fn frame(stream: LogStream, bytes: &Bytes) -> Bytes {
    let number = match stream {
        LogStream::Stdout => 1,
        LogStream::Stderr => 2,
    };
    let mut out = BytesMut::with_capacity(HEAD + bytes.len());
    for piece in bytes.chunks(u32::MAX as usize) {
        out.put_slice(&[number, 0, 0, 0]);
        out.put_u32(u32::try_from(piece.len()).unwrap_or(u32::MAX));
        out.put_slice(piece);
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn b6_a_frame_as_docker_s() {
        assert_eq!(
            &frame(LogStream::Stderr, &Bytes::from_static(b"ab"))[..],
            b"\x02\0\0\0\0\0\0\x02ab"
        );
        assert!(frame(LogStream::Stdout, &Bytes::new()).is_empty());
    }

    proptest! {
        #[test]
        fn frames_come_apart_again(payload in proptest::collection::vec(any::<u8>(), 1..5000)) {
            let framed = frame(LogStream::Stdout, &Bytes::from(payload.clone()));
            let length = u32::from_be_bytes(framed[4..8].try_into().unwrap()) as usize;
            prop_assert_eq!(framed[0], 1);
            prop_assert_eq!(length, payload.len());
            prop_assert_eq!(&framed[8..], &payload[..]);
        }
    }
}
