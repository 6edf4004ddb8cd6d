//! bzip2, decompressed: archives that a Dockerfile adds may be of it. Memory is bounded by the format: a block is at most
//! 900,000 bytes, and takes four times as many.
//!
//! There is no specification but the program: bzip2 1.0.8, `decompress.c`, and "BZIP2: Format Specification" by Joe Tsai.

use std::io::{self, BufRead, Read};

const BLOCK: u64 = 0x3141_5926_5359;
const END: u64 = 0x1772_4538_5090;
const UNIT: usize = 100_000;
const LONGEST: usize = 20;
/// So many symbols are coded with one table.
const GROUP: usize = 50;
const MAX_SELECTORS: usize = 18_002;

/// Reads what one stream, or several behind each other, decompress to.
pub(super) struct Bzip2<R> {
    bits: Bits<R>,
    /// What the stream says of its blocks, once it has begun.
    level: Option<usize>,
    checksum: u32,
    block: Block,
    ended: bool,
}

/// A block on its way out.
#[derive(Default)]
struct Block {
    /// The sorted bytes in the low eight bits, and behind them where the next one is.
    links: Vec<u32>,
    at: u32,
    left: usize,
    /// How often the last byte came in a row, and how often it is still to come.
    last: Option<u8>,
    run: u8,
    repeat: u8,
    checksum: u32,
    expected: u32,
}

/// Bits, the highest of a byte first.
struct Bits<R> {
    source: R,
    held: u64,
    count: u32,
}

/// A code: how many bits each symbol has.
struct Code {
    /// The largest code of each length, and what to take from it for an index.
    limits: [i64; LONGEST + 2],
    offsets: [i64; LONGEST + 2],
    symbols: Vec<u16>,
    shortest: usize,
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("damaged bzip2: {what}"))
}

impl<R: BufRead> Bits<R> {
    /// At most 32 bits.
    fn take(&mut self, count: u32) -> io::Result<u32> {
        while self.count < count {
            let mut byte = [0];
            self.source.read_exact(&mut byte)?;
            self.held = self.held << 8 | u64::from(byte[0]);
            self.count += 8;
        }
        self.count -= count;
        let value = self.held >> self.count & ((1u64 << count) - 1);
        Ok(value as u32)
    }

    fn flag(&mut self) -> io::Result<bool> {
        Ok(self.take(1)? == 1)
    }

    fn magic(&mut self) -> io::Result<u64> {
        Ok(u64::from(self.take(24)?) << 24 | u64::from(self.take(24)?))
    }

    /// A stream ends with a whole byte.
    fn align(&mut self) {
        self.count -= self.count % 8;
    }

    /// Whether there is no byte more.
    fn is_empty(&mut self) -> io::Result<bool> {
        Ok(self.count == 0 && self.source.fill_buf()?.is_empty())
    }
}

impl Code {
    fn new(lengths: &[u8]) -> Self {
        let longest = lengths.iter().map(|length| usize::from(*length)).max().unwrap_or(1);
        let shortest = lengths.iter().map(|length| usize::from(*length)).min().unwrap_or(1);
        let mut symbols = Vec::with_capacity(lengths.len());
        let (mut limits, mut offsets) = ([-1; LONGEST + 2], [0; LONGEST + 2]);
        let mut code = 0i64;
        for length in shortest..=longest {
            offsets[length] = code - symbols.len() as i64;
            let of_length = lengths
                .iter()
                .enumerate()
                .filter(|(_, has)| usize::from(**has) == length);
            for (symbol, _) in of_length {
                symbols.push(symbol as u16);
                code += 1;
            }
            limits[length] = code - 1;
            code <<= 1;
        }
        Self {
            limits,
            offsets,
            symbols,
            shortest,
        }
    }

    fn symbol<R: BufRead>(&self, bits: &mut Bits<R>) -> io::Result<u16> {
        let mut length = self.shortest;
        let mut code = i64::from(bits.take(length as u32)?);
        while code > self.limits[length] {
            length += 1;
            if length > LONGEST {
                return Err(bad("a code that stands for nothing"));
            }
            code = code << 1 | i64::from(bits.take(1)?);
        }
        let index = usize::try_from(code - self.offsets[length]).ok();
        let symbol = index.and_then(|index| self.symbols.get(index));
        symbol.copied().ok_or_else(|| bad("a code that stands for nothing"))
    }
}

impl<R: BufRead> Bzip2<R> {
    pub(super) fn new(source: R) -> Self {
        let bits = Bits {
            source,
            held: 0,
            count: 0,
        };
        Self {
            bits,
            level: None,
            checksum: 0,
            block: Block::default(),
            ended: false,
        }
    }

    pub(super) fn into_inner(self) -> R {
        self.bits.source
    }

    /// Makes the next block ready; false at the end.
    fn advance(&mut self) -> io::Result<bool> {
        loop {
            let level = match self.level {
                Some(level) => level,
                None => self.begin()?,
            };
            match self.bits.magic()? {
                BLOCK => {
                    self.block = read_block(&mut self.bits, level * UNIT)?;
                    return Ok(true);
                }
                END => {
                    if self.bits.take(32)? != self.checksum {
                        return Err(bad("a wrong checksum"));
                    }
                    self.bits.align();
                    self.level = None;
                    if self.bits.is_empty()? {
                        return Ok(false);
                    }
                }
                _ => return Err(bad("neither a block nor an end")),
            }
        }
    }

    fn begin(&mut self) -> io::Result<usize> {
        let magic = self.bits.take(24)?.to_be_bytes();
        let level = self.bits.take(8)?;
        let level = (u32::from(b'1')..=u32::from(b'9'))
            .contains(&level)
            .then(|| (level - u32::from(b'0')) as usize);
        match (&magic[1..], level) {
            (b"BZh", Some(level)) => {
                self.level = Some(level);
                self.checksum = 0;
                Ok(level)
            }
            _ => Err(bad("no beginning of a stream")),
        }
    }
}

impl<R: BufRead> Read for Bzip2<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        while !self.ended {
            let length = self.block.read(out);
            if length > 0 {
                return Ok(length);
            }
            if self.level.is_some() {
                if !self.block.checksum != self.block.expected {
                    return Err(bad("a wrong checksum"));
                }
                self.checksum = self.checksum.rotate_left(1) ^ self.block.expected;
            }
            self.ended = !self.advance()?;
        }
        Ok(0)
    }
}

impl Block {
    fn read(&mut self, out: &mut [u8]) -> usize {
        let mut length = 0;
        while length < out.len() {
            let byte = match self.next() {
                Some(byte) => byte,
                None => break,
            };
            self.checksum = self.checksum << 8 ^ TABLE[(self.checksum >> 24) as usize ^ usize::from(byte)];
            out[length] = byte;
            length += 1;
        }
        length
    }

    /// A byte. Four of one kind are followed by how often it comes again.
    fn next(&mut self) -> Option<u8> {
        if self.repeat > 0 {
            self.repeat -= 1;
            return self.last;
        }
        let byte = self.sorted()?;
        if self.last == Some(byte) {
            self.run += 1;
        } else {
            self.run = 1;
        }
        self.last = Some(byte);
        if self.run == 4 {
            self.run = 0;
            self.repeat = self.sorted().unwrap_or(0);
        }
        Some(byte)
    }

    fn sorted(&mut self) -> Option<u8> {
        self.left = self.left.checked_sub(1)?;
        let link = *self.links.get(self.at as usize)?;
        self.at = link >> 8;
        Some(link as u8)
    }
}

fn read_block<R: BufRead>(bits: &mut Bits<R>, most: usize) -> io::Result<Block> {
    let expected = bits.take(32)?;
    if bits.flag()? {
        return Err(bad("a block in an order that no program writes since 1998"));
    }
    let first = bits.take(24)? as usize;
    let used = read_used(bits)?;
    let codes = usize::try_from(bits.take(3)?).unwrap_or(0);
    if !(2..=6).contains(&codes) {
        return Err(bad("too many codes"));
    }
    let selectors = read_selectors(bits, codes)?;
    let mut tables = Vec::with_capacity(codes);
    for _ in 0..codes {
        tables.push(read_code(bits, used.len() + 2)?);
    }
    let (mut links, counts) = read_symbols(bits, &used, &selectors, &tables, most)?;
    let left = links.len();
    if first >= left {
        return Err(bad("a block that begins behind its end"));
    }
    // Where the bytes of each value begin in the sorted column.
    let (mut starts, mut sum) = ([0u32; 256], 0u32);
    for (start, count) in starts.iter_mut().zip(counts) {
        *start = sum;
        sum += count;
    }
    for at in 0..left {
        let value = (links[at] & 0xff) as usize;
        let to = starts[value] as usize;
        starts[value] += 1;
        links[to] |= (at as u32) << 8;
    }
    let at = links[first] >> 8;
    Ok(Block {
        links,
        at,
        left,
        last: None,
        run: 0,
        repeat: 0,
        checksum: !0,
        expected,
    })
}

/// The values that the block has.
fn read_used<R: BufRead>(bits: &mut Bits<R>) -> io::Result<Vec<u8>> {
    let parts = bits.take(16)?;
    let mut used = Vec::with_capacity(256);
    for part in (0..16u32).filter(|part| parts >> (15 - part) & 1 == 1) {
        let values = bits.take(16)?;
        let has = (0..16u32).filter(|value| values >> (15 - value) & 1 == 1);
        used.extend(has.map(|value| (part * 16 + value) as u8));
    }
    if used.is_empty() {
        return Err(bad("a block of nothing"));
    }
    Ok(used)
}

fn read_selectors<R: BufRead>(bits: &mut Bits<R>, codes: usize) -> io::Result<Vec<u8>> {
    let count = bits.take(15)? as usize;
    if count == 0 {
        return Err(bad("no choice of codes"));
    }
    let mut order: Vec<u8> = (0..codes as u8).collect();
    let mut selectors = Vec::with_capacity(count.min(MAX_SELECTORS));
    for number in 0..count {
        let mut at = 0;
        while bits.flag()? {
            at += 1;
            if at >= codes {
                return Err(bad("a code that is not there"));
            }
        }
        let code = order.remove(at);
        order.insert(0, code);
        // More than there can be symbols for are passed over, as bzip2 does.
        if number < MAX_SELECTORS {
            selectors.push(code);
        }
    }
    Ok(selectors)
}

fn read_code<R: BufRead>(bits: &mut Bits<R>, symbols: usize) -> io::Result<Code> {
    let mut length = bits.take(5)?;
    let mut lengths = Vec::with_capacity(symbols);
    for _ in 0..symbols {
        loop {
            if !(1..=LONGEST as u32).contains(&length) {
                return Err(bad("a code of no length"));
            }
            if !bits.flag()? {
                break;
            }
            length = if bits.flag()? { length - 1 } else { length + 1 };
        }
        lengths.push(length as u8);
    }
    Ok(Code::new(&lengths))
}

/// The bytes of a block before they are put back in order, and how many there are of each value.
fn read_symbols<R: BufRead>(
    bits: &mut Bits<R>,
    used: &[u8],
    selectors: &[u8],
    tables: &[Code],
    most: usize,
) -> io::Result<(Vec<u32>, [u32; 256])> {
    let (mut out, mut counts) = (Vec::new(), [0u32; 256]);
    let mut front = used.to_vec();
    let end = used.len() as u16 + 1;
    let (mut run, mut weight) = (0usize, 1usize);
    for selector in selectors {
        let table = tables
            .get(usize::from(*selector))
            .ok_or_else(|| bad("a code that is not there"))?;
        for _ in 0..GROUP {
            let symbol = table.symbol(bits)?;
            if symbol < 2 {
                // How often the first value comes, in a numeral of ones and twos.
                run = run.saturating_add(weight << symbol);
                weight = weight.saturating_mul(2);
                if run > most {
                    return Err(bad("a block that is too long"));
                }
                continue;
            }
            if run > 0 {
                repeat(&mut out, &mut counts, front[0], run, most)?;
                (run, weight) = (0, 1);
            }
            if symbol == end {
                return Ok((out, counts));
            }
            let at = usize::from(symbol) - 1;
            let value = *front.get(at).ok_or_else(|| bad("a value that is not there"))?;
            front.copy_within(0..at, 1);
            front[0] = value;
            repeat(&mut out, &mut counts, value, 1, most)?;
        }
    }
    Err(bad("a block without an end"))
}

fn repeat(out: &mut Vec<u32>, counts: &mut [u32; 256], value: u8, times: usize, most: usize) -> io::Result<()> {
    if out.len() + times > most {
        return Err(bad("a block that is too long"));
    }
    out.resize(out.len() + times, u32::from(value));
    counts[usize::from(value)] += times as u32;
    Ok(())
}

/// The remainders of CRC-32 with the highest bit first.
static TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let mut value = (at as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            value = value << 1 ^ if value >> 31 == 1 { 0x04c1_1db7 } else { 0 };
            bit += 1;
        }
        table[at] = value;
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    // All packed with bzip2 1.0.8.

    /// nothing
    const EMPTY: &str = "425a683917724538509000000000";
    /// aaaab
    const ROW: &str = "425a683931415926535949e716e400000241004000300020002126419842b8bb9229c284824f38b720";
    /// a million zeros
    const ZEROS: &str =
        "425a683931415926535979d39e480007a8c040c00000020008200030cc09aa69952436a9490f17724538509079d39e48";
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

    fn plain(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Bzip2::new(bytes).read_to_end(&mut out)?;
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
        let good = packed(NOISE);
        for cut in 0..good.len() {
            assert!(plain(&good[..cut]).is_err(), "{cut}");
        }
        assert!(plain(&[&good[..], b"more"].concat()).is_err());
        // Whatever bit is turned: an error, and never a crash or other bytes. Level and padding mean nothing here.
        for bit in 0..good.len() * 8 {
            let mut damaged = good.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            if let Ok(other) = plain(&damaged) {
                assert!(other == noise(1000, 3), "{bit}");
            }
        }
    }
}
