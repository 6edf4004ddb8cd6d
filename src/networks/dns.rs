//! DNS messages as far as a resolver needs them that answers for a few names and passes everything else on. Pure. Whatever
//! is in a packet, reading it ends: no jump is followed, and no length trusted. Source: RFC 1035, RFC 3596.

use std::net::IpAddr;

pub(crate) const A: u16 = 1;
pub(crate) const PTR: u16 = 12;
pub(crate) const AAAA: u16 = 28;
const IN: u16 = 1;
const ANY: u16 = 255;

const HEADER: usize = 12;
/// Longest name, with its lengths.
const LONGEST: usize = 255;
/// Largest answer over UDP without EDNS.
pub(crate) const UDP: usize = 512;
/// Docker's time to live of names of containers.
const TTL: u32 = 600;

/// How a question ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    NoError = 0,
    FormatError = 1,
    ServerFailure = 2,
    NoSuchName = 3,
    NotImplemented = 4,
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) id: u16,
    /// Lower case, without the dot at the end.
    pub(crate) name: String,
    pub(crate) kind: u16,
    class: u16,
    recursion: bool,
    /// The question's own bytes, to be repeated in the answer.
    text: Vec<u8>,
}

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Question(Question),
    /// No question that could be answered: the answer that says so.
    Refuse(Vec<u8>),
    /// Nothing to answer to.
    Ignore,
}

/// Reads a packet of a client's.
pub(crate) fn read(packet: &[u8]) -> Read {
    let Some(head) = packet.first_chunk::<HEADER>() else {
        return Read::Ignore;
    };
    // An answer: never answered, or two servers would talk to each other for ever.
    if head[2] & 0x80 != 0 {
        return Read::Ignore;
    }
    let id = u16::from_be_bytes([head[0], head[1]]);
    let recursion = head[2] & 1 != 0;
    let refuse = |code| Read::Refuse(bare(id, recursion, code));
    if head[2] >> 3 & 0xf != 0 {
        return refuse(Code::NotImplemented);
    }
    if [head[4], head[5]] != [0, 1] {
        return refuse(Code::FormatError);
    }
    match question(packet, id, recursion) {
        Some(question) => Read::Question(question),
        None => refuse(Code::FormatError),
    }
}

fn question(packet: &[u8], id: u16, recursion: bool) -> Option<Question> {
    let (name, at) = name(packet, HEADER)?;
    let rest = packet.get(at..at + 4)?;
    Some(Question {
        id,
        name,
        kind: u16::from_be_bytes([rest[0], rest[1]]),
        class: u16::from_be_bytes([rest[2], rest[3]]),
        recursion,
        text: packet.get(HEADER..at + 4)?.to_vec(),
    })
}

/// A name that is spelt out, and where it ends. A question has no use for a jump.
fn name(packet: &[u8], mut at: usize) -> Option<(String, usize)> {
    let start = at;
    let mut name = String::new();
    loop {
        let len = usize::from(*packet.get(at)?);
        at += 1;
        if len == 0 {
            return Some((name, at));
        }
        if len > 63 || at + len - start > LONGEST {
            return None;
        }
        let label = packet.get(at..at + len)?;
        at += len;
        if !name.is_empty() {
            name.push('.');
        }
        for byte in label {
            // What is not plain text is no name of ours; it is kept apart from every name that is.
            name.push(char::from(byte.to_ascii_lowercase()));
        }
    }
}

fn head(id: u16, recursion: bool, code: Code, answers: u16, cut: bool, questions: u16) -> Vec<u8> {
    let flags = 0x8000 | 0x0080 | u16::from(recursion) << 8 | u16::from(cut) << 9 | code as u16;
    [id, flags, questions, answers, 0, 0]
        .iter()
        .flat_map(|word| word.to_be_bytes())
        .collect()
}

fn bare(id: u16, recursion: bool, code: Code) -> Vec<u8> {
    head(id, recursion, code, 0, false, 0)
}

impl Question {
    /// Whether it asks for something on the internet, as opposed to other classes that nobody has.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self.class, IN | ANY)
    }

    /// The address that a question for its name is about.
    pub(crate) fn reverse(&self) -> Option<IpAddr> {
        if self.kind != PTR {
            return None;
        }
        if let Some(labels) = self.name.strip_suffix(".in-addr.arpa") {
            let parts = labels
                .split('.')
                .rev()
                .map(str::parse)
                .collect::<Result<Vec<u8>, _>>()
                .ok()?;
            return <[u8; 4]>::try_from(parts).ok().map(IpAddr::from);
        }
        let labels = self.name.strip_suffix(".ip6.arpa")?;
        let digit = |label: &str| label.parse::<char>().ok()?.to_digit(16);
        let digits = labels.split('.').rev().map(digit).collect::<Option<Vec<u32>>>()?;
        let pairs: Vec<u8> = digits
            .chunks_exact(2)
            .map(|pair| (pair[0] << 4 | pair[1]) as u8)
            .collect();
        (digits.len() == 32).then(|| <[u8; 16]>::try_from(pairs).ok().map(IpAddr::from))?
    }

    /// An answer with addresses: those of the kind that was asked for. More than fit are left out, and the client is told.
    pub(crate) fn addresses(&self, all: &[IpAddr], most: usize) -> Vec<u8> {
        let records = all.iter().filter_map(|address| match (address, self.kind) {
            (IpAddr::V4(address), A) => Some(address.octets().to_vec()),
            (IpAddr::V6(address), AAAA) => Some(address.octets().to_vec()),
            _ => None,
        });
        self.records(records.collect(), most)
    }

    /// An answer with a name.
    pub(crate) fn named(&self, name: &str) -> Vec<u8> {
        let mut data = Vec::new();
        for label in name.split('.').filter(|label| (1..=63).contains(&label.len())) {
            data.push(label.len() as u8);
            data.extend_from_slice(label.as_bytes());
        }
        data.push(0);
        self.records(vec![data], UDP)
    }

    fn records(&self, all: Vec<Vec<u8>>, most: usize) -> Vec<u8> {
        // A jump to the question's name, which is the first thing behind the head.
        const NAME: [u8; 2] = [0xc0, HEADER as u8];
        let mut body = Vec::new();
        let mut count: u16 = 0;
        let mut cut = false;
        for data in all {
            if HEADER + self.text.len() + body.len() + 12 + data.len() > most {
                cut = true;
                break;
            }
            body.extend_from_slice(&NAME);
            body.extend_from_slice(&self.kind.to_be_bytes());
            body.extend_from_slice(&IN.to_be_bytes());
            body.extend_from_slice(&TTL.to_be_bytes());
            body.extend_from_slice(&(data.len() as u16).to_be_bytes());
            body.extend_from_slice(&data);
            count += 1;
        }
        let mut answer = head(self.id, self.recursion, Code::NoError, count, cut, 1);
        answer.extend_from_slice(&self.text);
        answer.extend_from_slice(&body);
        answer
    }

    /// An answer without records.
    pub(crate) fn with_code(&self, code: Code) -> Vec<u8> {
        let mut answer = head(self.id, self.recursion, code, 0, false, 1);
        answer.extend_from_slice(&self.text);
        answer
    }

    /// Whether a packet from elsewhere answers this very question.
    pub(crate) fn is_answered_by(&self, id: u16, packet: &[u8]) -> bool {
        let text = packet.get(HEADER..HEADER + self.text.len());
        // Servers keep the letters' case, or do not.
        let same = text.is_some_and(|text| text.eq_ignore_ascii_case(&self.text));
        packet.len() >= HEADER && packet[..2] == id.to_be_bytes() && packet[2] & 0x80 != 0 && same
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(name: &str, kind: u16) -> Vec<u8> {
        let mut packet = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.').filter(|label| !label.is_empty()) {
            packet.push(label.len() as u8);
            packet.extend_from_slice(label.as_bytes());
        }
        packet.push(0);
        packet.extend_from_slice(&kind.to_be_bytes());
        packet.extend_from_slice(&IN.to_be_bytes());
        packet
    }

    fn asked(name: &str, kind: u16) -> Question {
        match read(&packet(name, kind)) {
            Read::Question(question) => question,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn i3_a_question_is_read_and_answered() {
        let question = asked("Web.Example", A);
        assert_eq!(question.name, "web.example");
        let answer = question.addresses(&["10.0.0.2".parse().unwrap(), "fd00::1".parse().unwrap()], UDP);
        assert_eq!(answer[..4], [0x12, 0x34, 0x81, 0x80]);
        assert_eq!(answer[6..8], [0, 1]);
        assert!(answer.ends_with(&[0, 4, 10, 0, 0, 2]));
        assert!(question.is_answered_by(0x1234, &answer) && !question.is_answered_by(1, &answer));
        let none = asked("web", AAAA).addresses(&["10.0.0.2".parse().unwrap()], UDP);
        assert_eq!((none[3] & 0xf, &none[6..8]), (0, &[0, 0][..]));
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_told() {
        let many: Vec<IpAddr> = (0..100).map(|last| IpAddr::from([10, 0, 0, last])).collect();
        let answer = asked("web", A).addresses(&many, UDP);
        assert!(answer.len() <= UDP && answer[2] & 2 != 0);
        assert_eq!(asked("web", A).addresses(&many, 65535)[2] & 2, 0);
    }

    #[test]
    fn addresses_are_read_from_reverse_names() {
        assert_eq!(
            asked("2.0.1.10.in-addr.arpa", PTR).reverse().unwrap().to_string(),
            "10.1.0.2"
        );
        let v6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
        assert_eq!(asked(v6, PTR).reverse().unwrap().to_string(), "fd00::1");
        for none in [
            "1.2.3.in-addr.arpa",
            "1.2.3.4.5.in-addr.arpa",
            "300.1.1.1.in-addr.arpa",
            "x.ip6.arpa",
        ] {
            assert_eq!(asked(none, PTR).reverse(), None, "{none}");
        }
        assert!(
            asked("2.0.1.10.in-addr.arpa", PTR)
                .named("web.net")
                .windows(8)
                .any(|part| part == b"\x03web\x03net")
        );
    }

    #[test]
    fn i3_malformed_packets_are_refused_or_ignored() {
        let good = packet("web", A);
        for end in 0..HEADER {
            assert_eq!(read(&good[..end]), Read::Ignore);
        }
        for end in HEADER..good.len() {
            assert!(matches!(read(&good[..end]), Read::Refuse(_)), "{end}");
        }
        let mut answer = good.clone();
        answer[2] |= 0x80;
        assert_eq!(read(&answer), Read::Ignore);
        let mut jump = good.clone();
        jump[HEADER] = 0xc0;
        jump[HEADER + 1] = HEADER as u8;
        assert!(matches!(read(&jump), Read::Refuse(_)));
        let mut endless = vec![0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        endless.extend(std::iter::repeat_n([&[63u8][..], &[b'a'; 63]].concat(), 10).flatten());
        assert!(matches!(read(&endless), Read::Refuse(_)));
    }

    proptest::proptest! {
        #[test]
        fn nothing_takes_the_server_down(packet: Vec<u8>) {
            if let Read::Question(question) = read(&packet) {
                let _ = (question.reverse(), question.named("a.b"), question.with_code(Code::ServerFailure));
                proptest::prop_assert!(question.addresses(&[[1, 2, 3, 4].into()], UDP).len() <= UDP.max(packet.len() + 32));
            }
        }
    }
}
