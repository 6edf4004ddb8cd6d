//! Archives in bzip2: that they come back, and that nothing damaged does.

use std::io::Read;

use super::super::tar::read_error;
use super::Uncompressed;
use crate::error::{ErrorKind, Result};

// All packed with bzip2 1.0.8.

/// nothing
const EMPTY: &str = "425a683917724538509000000000";
/// aaaab
const ROW: &str = "425a683931415926535949e716e400000241004000300020002126419842b8bb9229c284824f38b720";
/// a million zeros
const ZEROS: &str = "425a683931415926535979d39e480007a8c040c00000020008200030cc09aa69952436a9490f17724538509079d39e48";
/// 0, 1, 2 and so on, 250,000 bytes in three blocks
const BLOCKS: &str = "425a6831314159265359496a230e00411740007000200030cc0529a6aa4207552103552103cc50564994d6525a88c3801045\
    d0001c0008000c33014a69aa9081d54840d54840f3141592653598d3a033a002093c0007000200030cc0529a6a8881c2440d\
    51103c5dc914e14240e91b247c";
/// noise(1000, 3)
const NOISE: &str = "425a683931415926535980f9c18200000240007c00400279dd948a6da19a01a7b55461a7e9546126521ac8ce4e0a5a2b5ab3\
    459c24ea6b44839ad242c66ae30d4ba82773d9cf28c295a2262ebb70aebad74d7597539034594c71aa7191a98d6915a1a68a\
    a6b449cdd36b3247489cacca2d68ab45a50b33515d3332e6654c95d646c44d548acc1ccb5ad9d974b6b8b3996acc93acc66a\
    558688ad444c6d06c86175aaa3463935648ceb4a875b5945b39976a491358c4da5a356d2a3444352b1895166150ae5462b8a\
    269966559165c51293989c5aa5485d30ceabb373235443104a352e618f5d9dc3024148273ac658e29a95a2a4d69a09659a9a\
    9d198b3512d576ba108c1232db3c2ee48a70a12101f38304";
/// rows()
const ROWS: &str = "425a683131415926535988083c230000ee7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\
    f84001fb037009300000000980003f54000130000000000460000000004c00000000000004d180000000000226a521b53234\
    034d0341a00683ffd54a01a3400c800068d00c831000d0c868d0320d1a3268f50d34d0f50d34d1b48d34d0f48d34c4f53d35\
    3d350f50d34d34f51934f50f534d3d1024fd4000000000000000000000000000000000000000000000000000000000000000\
    8a948ffffd5554269a64c09808d31308d31304c269a3434c261308c2604c010c8c09a06134c04c269800000004c04c0004c2\
    60218260469934c8d300dfe03f42000d00480170070021009802b30353a3f44494e53585d62676c71767b80858a8f94999ea\
    3a8adb2b7bcc1c69c5b3ec7dd4748cff2d4000003fc9908241122f77abf1e04f087883783c71e48f2d9a7bd03e69a0357af8\
    182dc42efb8111c6e4288d8f532124aa565d5cccdac5cc18d05132a566d2a2a80000002622241111bea4841111695b34e700\
    7aa3d69ec0e04f6a7b68485dec370622262a3147363ba0a7ab23d855db96ef2bf14d4e2c9e5fe863eda1f832a4a6fb34fd35\
    fe000000274c8241112749222241114636724d41f30e34e38e3cfa26a7a9212325d955da959697efabf0cccd4dceac5ab97b\
    0f4b1f65050d151b2f9d2d333fbb4a7a86b55fd0000004e498939a10482244e920d232492f29ac3f31ad39e35c7e735f3ec3\
    4f53575b5f63676b6f73777b7f83878b8f93979b9fa3a7abafb3b7bbbfc3c7cbcfd3d7dbdfe3e4000000000001df79112222\
    46f22d7149894c21084210842108421084210842108421084210800000000000000000000000000000000000000000000000\
    00000111088892491222122212223c02ee48a70a121101078460";
/// two streams
const TWO: &str = "425a6839314159265359cfbaa0b4000001910040000201a000219a68334d0cbc5dc914e142433eea82d0425a683131415926\
    5359cddc8d9a0000008180000084802000219819846177245385090cddc8d9a0";

fn packed(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

fn plain(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    Uncompressed::archive(bytes)?
        .read_to_end(&mut out)
        .map_err(read_error)?;
    Ok(out)
}

fn noise(length: usize, kinds: u64) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % kinds) as u8
    };
    (0..length).map(|_| byte()).collect()
}

fn rows() -> Vec<u8> {
    (0..300u32)
        .flat_map(|n| vec![(n % 5) as u8; (n % 600) as usize])
        .collect()
}

#[test]
fn f4_what_bzip2_packs_comes_back() {
    let blocks: Vec<u8> = (0..250_000u32).map(|n| (n % 3) as u8).collect();
    for (text, bytes) in [
        (EMPTY, Vec::new()),
        (ROW, b"aaaab".to_vec()),
        (ZEROS, vec![0; 1_000_000]),
        (BLOCKS, blocks),
        (NOISE, noise(1000, 3)),
        (ROWS, rows()),
        // Behind each other, as pbzip2 writes them.
        (TWO, b"one two".to_vec()),
    ] {
        assert!(plain(&packed(text)).unwrap() == bytes, "{} bytes", bytes.len());
    }
}

#[test]
fn f4_damaged_bzip2_is_refused() {
    let refused = |bytes: &[u8]| matches!(plain(bytes), Err(error) if error.kind() == &ErrorKind::UnsafeArchive);
    let good = packed(NOISE);
    // By its first four bytes it is known; with fewer it is something else.
    for cut in 4..good.len() {
        assert!(refused(&good[..cut]), "{cut}");
    }
    for more in [&b"more"[..], b"BZh9", &good[..good.len() - 1]] {
        assert!(refused(&[&good[..], more].concat()), "{more:?} behind it");
    }
    // Whatever bit is turned: an error, and never a crash or other bytes. Padding means nothing.
    for bit in 32..good.len() * 8 {
        let mut damaged = good.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(
            refused(&damaged) || plain(&damaged).is_ok_and(|other| other == noise(1000, 3)),
            "{bit}"
        );
    }
}
