//! `EXPOSE`: ports and their ranges.

use std::fmt;
use std::net::IpAddr;

use crate::types::Protocol;

/// Ports that containers listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last; the first where there is one.
    pub last: u16,
    /// Their protocol.
    pub protocol: Protocol,
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return write!(f, "{}/{}", self.first, self.protocol);
        }
        write!(f, "{}-{}/{}", self.first, self.last, self.protocol)
    }
}

/// A word of `EXPOSE`, and what is odd about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exposed {
    pub(crate) range: PortRange,
    /// The protocol is not in small letters.
    pub(crate) shouting: bool,
    /// An address or a port of the host is given, which is for `run`; it is not used.
    pub(crate) published: bool,
}

/// `PORT`, `PORT/PROTOCOL`, `FIRST-LAST`, and what was once taken before it: `[ADDRESS:][HOST PORT:]`.
pub(crate) fn exposed(text: &str) -> Result<Exposed, String> {
    let bad = |why: &str| format!("{text:?} is no port: {why}");
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (Some(host), port),
        None => (None, text),
    };
    let (numbers, protocol) = port.split_once('/').unwrap_or((port, ""));
    let small = protocol.to_ascii_lowercase();
    let parsed = if small.is_empty() {
        Ok(Protocol::Tcp)
    } else {
        small.parse()
    };
    let (first, last) = range(numbers).ok_or_else(|| bad("a number from 0 to 65535, or two of them, 8000-8010"))?;
    if let Some(host) = host {
        published(host, usize::from(last - first))
            .ok_or_else(|| bad("what is before the ':' is no address or port"))?;
    }
    Ok(Exposed {
        range: PortRange {
            first,
            last,
            protocol: parsed.map_err(|_| bad("the protocol is tcp, udp or sctp"))?,
        },
        shouting: small != protocol,
        published: host.is_some_and(|host| !host.is_empty()),
    })
}

fn range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| text.parse::<u16>().ok().filter(|_| !text.starts_with('+'));
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    (first <= last).then_some((first, last))
}

fn published(host: &str, count: usize) -> Option<()> {
    let (address, port) = host.rsplit_once(':').unwrap_or(("", host));
    let bare = address
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(address);
    if !bare.is_empty() && bare.parse::<IpAddr>().is_err() {
        return None;
    }
    if port.is_empty() {
        return Some(());
    }
    let (first, last) = range(port)?;
    (count == 0 || usize::from(last - first) == count).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f6_ports_and_ranges() {
        for (text, shown) in [
            ("80", "80/tcp"),
            ("53/udp", "53/udp"),
            ("80/TCP", "80/tcp"),
            ("8000-8010/sctp", "8000-8010/sctp"),
            ("0", "0/tcp"),
            ("80/", "80/tcp"),
            ("8080:80", "80/tcp"),
            ("127.0.0.1::80", "80/tcp"),
            ("[::1]:8080:80", "80/tcp"),
            ("8000-8010:80", "80/tcp"),
        ] {
            assert_eq!(exposed(text).unwrap().range.to_string(), shown, "{text}");
        }
        assert!(exposed("80/TCP").unwrap().shouting);
        assert!(exposed("8080:80").unwrap().published);
        for bad in [
            "",
            "a",
            "65536",
            "-1",
            "+1",
            "9-8",
            "80/x",
            "x:80",
            "1.2.3:1:80",
            "1-2:1-3",
            "80:",
            "80/tcp/udp",
        ] {
            assert!(exposed(bad).is_err(), "{bad}");
        }
    }
}
