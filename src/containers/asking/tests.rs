//! Messages by themselves; what engines say to each other is tested with two processes, in `tests/it/askers.rs`.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::wire::{Kind, MOST, Message, decode, header, parts, question};

fn encoded(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(kind, payload.len()).unwrap().to_vec();
    bytes.extend(payload);
    bytes
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(payload in proptest::collection::vec(any::<u8>(), 0..2000), rest: Vec<u8>, cut: usize) {
        let whole = encoded(Kind::Stdin, &payload);
        let cut = cut % whole.len();
        let mut begun = BytesMut::from(&whole[..cut]);
        prop_assert_eq!(decode(&mut begun).unwrap(), None);
        prop_assert_eq!(&begun[..], &whole[..cut], "nothing of a part is taken");
        let mut all = BytesMut::from(&whole[..]);
        all.extend_from_slice(&rest);
        let message = Message { kind: Kind::Stdin, payload: Bytes::from(payload) };
        prop_assert_eq!(decode(&mut all).unwrap(), Some(message));
        prop_assert_eq!(&all[..], &rest[..]);
    }

    #[test]
    fn garbage_never_panics(bytes: Vec<u8>) {
        let mut buffer = BytesMut::from(&bytes[..]);
        while let Ok(Some(message)) = decode(&mut buffer) {
            prop_assert!(message.payload.len() <= bytes.len());
        }
    }
}

#[test]
fn what_is_too_long_or_unknown_is_not_waited_for() {
    assert!(header(Kind::Stdin, MOST + 1).is_err());
    let mut long = BytesMut::from(&[0xff, 0xff, 0xff, 0xff, Kind::Stdin as u8][..]);
    assert!(decode(&mut long).is_err());
    let mut unknown = BytesMut::from(&[0, 0, 0, 0, 250][..]);
    assert!(decode(&mut unknown).is_err());
}

#[test]
fn a_question_in_parts() {
    let asked = question("rename", "abc", "a\nb");
    assert_eq!(parts(&asked), Some(("rename", "abc", "a\nb")));
    assert_eq!(parts(&question("start", "abc", "")), Some(("start", "abc", "")));
    for bad in ["", "start", "start\nabc"] {
        assert_eq!(parts(bad), None, "{bad:?}");
    }
}
