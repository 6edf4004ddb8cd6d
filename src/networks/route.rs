//! Links, addresses and routes as messages of rtnetlink(7). Pure: what is to be sent, in what order.
//!
//! They are written here, and not by the crate `rtnetlink`: its sockets are made in the namespace of the thread and watched
//! by a task, while these are made by another process in a namespace of theirs and take a whole container's set-up at once.

use std::net::{IpAddr, Ipv6Addr};

use super::subnet::{Subnet, bytes};
use crate::sys::netlink::{CREATE, Message, NEW};

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const SETLINK: u16 = 19;
const NEWADDR: u16 = 20;
const NEWROUTE: u16 = 24;
const GETROUTE: u16 = 26;
const NEWRULE: u16 = 32;

const IFF_UP: u32 = 1;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;
const BRPORT_ISOLATED: u16 = 33;

const AF_BRIDGE: u8 = 7;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// The table that leads marked packets to this host itself, and its mark.
pub(super) const MARK: u32 = 0x6c73;
const TABLE: u8 = 100;

/// A hardware address.
pub(super) type Mac = [u8; 6];

fn link(family: u8, index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0u8; 16];
    header[0] = family;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv6() { AF_INET6 } else { AF_INET }
}

/// A bridge that is up, with a number of ours.
pub(super) fn new_bridge(index: u32, name: &str, mac: Mac, mtu: Option<u32>) -> Message {
    let message = Message::new(NEWLINK, NEW)
        .raw(&link(0, index, IFF_UP, IFF_UP))
        .text(IFLA_IFNAME, name)
        .attr(IFLA_ADDRESS, &mac);
    let message = with_mtu(message, mtu);
    message.nest(IFLA_LINKINFO, |info| info.text(INFO_KIND, "bridge"))
}

fn with_mtu(message: Message, mtu: Option<u32>) -> Message {
    match mtu {
        Some(mtu) => message.u32(IFLA_MTU, mtu),
        None => message,
    }
}

/// One end of a pair, and where it is.
pub(super) struct End<'a> {
    pub(super) index: u32,
    pub(super) name: &'a str,
    pub(super) mac: Mac,
}

/// A pair of links: one end a port of the bridge, the other in the namespace of a descriptor.
pub(super) fn new_pair(ours: &End<'_>, bridge: u32, theirs: &End<'_>, namespace: i32, mtu: Option<u32>) -> Message {
    let message = Message::new(NEWLINK, NEW)
        .raw(&link(0, ours.index, IFF_UP, IFF_UP))
        .text(IFLA_IFNAME, ours.name)
        .attr(IFLA_ADDRESS, &ours.mac)
        .u32(IFLA_MASTER, bridge);
    with_mtu(message, mtu).nest(IFLA_LINKINFO, |info| {
        info.text(INFO_KIND, "veth").nest(INFO_DATA, |data| {
            data.nest(VETH_PEER, |peer| {
                let peer = peer
                    .raw(&link(0, theirs.index, 0, 0))
                    .text(IFLA_IFNAME, theirs.name)
                    .attr(IFLA_ADDRESS, &theirs.mac)
                    .u32(IFLA_NET_NS_FD, namespace.unsigned_abs());
                with_mtu(peer, mtu)
            })
        })
    })
}

/// A link on another.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct NewLink<'a> {
    /// Its number; 0 for the kernel's choice.
    pub(super) index: u32,
    pub(super) name: &'a str,
    /// Its hardware address; the kernel's choice without.
    pub(super) mac: Option<Mac>,
    pub(super) mtu: Option<u32>,
    /// The number of the other, in the namespace of the socket.
    pub(super) parent: u32,
    /// Where it is to be; in the namespace of the socket without.
    pub(super) namespace: Option<i32>,
    pub(super) up: bool,
}

/// Makes a link of a kind. What is not said is left out.
pub(super) fn new_link(new: &NewLink<'_>, kind: &str, data: impl FnOnce(Message) -> Message) -> Message {
    let flags = if new.up { IFF_UP } else { 0 };
    let mut message = Message::new(NEWLINK, NEW).raw(&link(0, new.index, flags, flags));
    if !new.name.is_empty() {
        message = message.text(IFLA_IFNAME, new.name);
    }
    if let Some(mac) = new.mac {
        message = message.attr(IFLA_ADDRESS, &mac);
    }
    if new.parent != 0 {
        message = message.u32(IFLA_LINK, new.parent);
    }
    if let Some(namespace) = new.namespace {
        message = message.u32(IFLA_NET_NS_FD, namespace.unsigned_abs());
    }
    with_mtu(message, new.mtu).nest(IFLA_LINKINFO, |info| info.text(INFO_KIND, kind).nest(INFO_DATA, data))
}

/// A pair of links in the namespace of the socket, both up: what goes out of one comes in at the other, and ends there.
pub(super) fn new_stub(near: &End<'_>, far: &End<'_>, mtu: Option<u32>) -> Message {
    let message = Message::new(NEWLINK, NEW)
        .raw(&link(0, near.index, IFF_UP, IFF_UP))
        .text(IFLA_IFNAME, near.name)
        .attr(IFLA_ADDRESS, &near.mac);
    with_mtu(message, mtu).nest(IFLA_LINKINFO, |info| {
        info.text(INFO_KIND, "veth").nest(INFO_DATA, |data| {
            data.nest(VETH_PEER, |peer| {
                let peer = peer
                    .raw(&link(0, far.index, 0, 0))
                    .text(IFLA_IFNAME, far.name)
                    .attr(IFLA_ADDRESS, &far.mac);
                with_mtu(peer, mtu)
            })
        })
    })
}

/// A port that reaches the bridge alone, and no other such port.
pub(super) fn isolate(index: u32) -> Message {
    Message::new(SETLINK, 0)
        .raw(&link(AF_BRIDGE, index, 0, 0))
        .nest(IFLA_PROTINFO, |port| port.attr(BRPORT_ISOLATED, &[1]))
}

pub(super) fn up(index: u32) -> Message {
    Message::new(NEWLINK, 0).raw(&link(0, index, IFF_UP, IFF_UP))
}

/// Another hardware address, another MTU for a link that is there.
pub(super) fn change(index: u32, mac: Option<Mac>, mtu: Option<u32>) -> Message {
    let mut message = Message::new(NEWLINK, 0).raw(&link(0, index, 0, 0));
    if let Some(mac) = mac {
        message = message.attr(IFLA_ADDRESS, &mac);
    }
    with_mtu(message, mtu)
}

/// Another name for a link that is not up.
pub(super) fn rename(index: u32, name: &str) -> Message {
    Message::new(NEWLINK, 0)
        .raw(&link(0, index, 0, 0))
        .text(IFLA_IFNAME, name)
}

pub(super) fn delete(index: u32) -> Message {
    Message::new(DELLINK, 0).raw(&link(0, index, 0, 0))
}

pub(super) fn all_links() -> Message {
    Message::new(GETLINK, 0).raw(&link(0, 0, 0, 0))
}

/// Number and name in an answer to [`all_links`].
pub(super) fn read_link(body: &[u8]) -> Option<(u32, String)> {
    let index = u32::from_ne_bytes(*body.get(4..8)?.first_chunk()?);
    let (_, name) = crate::sys::netlink::attributes(body.get(16..)?)
        .into_iter()
        .find(|(kind, _)| *kind == IFLA_IFNAME)?;
    let name = name.split(|byte| *byte == 0).next()?;
    Some((index, String::from_utf8_lossy(name).into_owned()))
}

/// A link that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) index: u32,
    /// All zeros where it has none, or one of another length than an Ethernet's.
    pub(super) mac: Mac,
    /// The largest packet, in bytes.
    pub(super) mtu: u32,
}

/// The link with a name, in the answers to [`all_links`].
pub(super) fn find_link(answers: &[Vec<u8>], name: &str) -> Option<Found> {
    let body = answers
        .iter()
        .find(|body| read_link(body).is_some_and(|(_, own)| own == name))?;
    let (index, _) = read_link(body)?;
    let attributes = crate::sys::netlink::attributes(body.get(16..)?);
    let of = |wanted: u16| attributes.iter().find(|(kind, _)| *kind == wanted).map(|found| found.1);
    Some(Found {
        index,
        mac: of(IFLA_ADDRESS)
            .and_then(|bytes| bytes.try_into().ok())
            .unwrap_or_default(),
        mtu: of(IFLA_MTU)
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, u32::from_ne_bytes),
    })
}

/// An address of a link. One of IPv6 is in use at once: nobody else has it (RFC 4862, duplicate address detection).
pub(super) fn address(index: u32, address: IpAddr, prefix: u8) -> Message {
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    const IFA_BROADCAST: u16 = 4;
    const NODAD: u8 = 2;
    let flags = if address.is_ipv6() { NODAD } else { 0 };
    let mut header = vec![family(address), prefix, flags, 0];
    header.extend_from_slice(&index.to_ne_bytes());
    let message = Message::new(NEWADDR, NEW)
        .raw(&header)
        .attr(IFA_LOCAL, &bytes(address))
        .attr(IFA_ADDRESS, &bytes(address));
    match Subnet::new(address, prefix) {
        Some(subnet) if !address.is_ipv6() && prefix < 31 => message.attr(IFA_BROADCAST, &bytes(subnet.last())),
        _ => message,
    }
}

fn route(family: u8, table: u8, scope: u8, kind: u8) -> Message {
    const STATIC: u8 = 4;
    Message::new(NEWROUTE, CREATE).raw(&[family, 0, 0, 0, table, STATIC, scope, kind, 0, 0, 0, 0])
}

/// The way to everywhere else. Of several, that with the smallest number is taken.
pub(super) fn default_route(gateway: IpAddr, index: u32, metric: u32) -> Message {
    const MAIN: u8 = 254;
    const UNIVERSE: u8 = 0;
    const UNICAST: u8 = 1;
    const RTA_OIF: u16 = 4;
    const RTA_GATEWAY: u16 = 5;
    const RTA_PRIORITY: u16 = 6;
    route(family(gateway), MAIN, UNIVERSE, UNICAST)
        .u32(RTA_OIF, index)
        .attr(RTA_GATEWAY, &bytes(gateway))
        .u32(RTA_PRIORITY, metric)
}

/// The same by a gateway that is at the link, though no route says so yet: of IPv6 there is none before the kernel has seen the link's
/// carrier, which is a moment after the link is up.
pub(super) fn default_route_at_link(gateway: Ipv6Addr, index: u32, metric: u32) -> Message {
    const MAIN: u8 = 254;
    const STATIC: u8 = 4;
    const UNIVERSE: u8 = 0;
    const UNICAST: u8 = 1;
    const ONLINK: u32 = 4;
    const RTA_OIF: u16 = 4;
    const RTA_GATEWAY: u16 = 5;
    const RTA_PRIORITY: u16 = 6;
    let mut header = [AF_INET6, 0, 0, 0, MAIN, STATIC, UNIVERSE, UNICAST, 0, 0, 0, 0];
    header[8..].copy_from_slice(&ONLINK.to_ne_bytes());
    Message::new(NEWROUTE, CREATE)
        .raw(&header)
        .u32(RTA_OIF, index)
        .attr(RTA_GATEWAY, &gateway.octets())
        .u32(RTA_PRIORITY, metric)
}

/// The same where all are reached by the link itself, and there is no gateway.
pub(super) fn default_link(ipv6: bool, index: u32, metric: u32) -> Message {
    const MAIN: u8 = 254;
    const LINK: u8 = 253;
    const UNICAST: u8 = 1;
    const RTA_OIF: u16 = 4;
    const RTA_PRIORITY: u16 = 6;
    route(if ipv6 { AF_INET6 } else { AF_INET }, MAIN, LINK, UNICAST)
        .u32(RTA_OIF, index)
        .u32(RTA_PRIORITY, metric)
}

/// Packets with the mark are for this host itself, whatever their address. Source: the kernel's
/// `Documentation/networking/tproxy.rst`.
pub(super) fn marked_are_local(ipv6: bool) -> [Message; 2] {
    const LOOPBACK: u32 = 1;
    const RTA_OIF: u16 = 4;
    const HOST: u8 = 254;
    const LOCAL: u8 = 2;
    const TO_TABLE: u8 = 1;
    const FRA_PRIORITY: u16 = 6;
    const FRA_FWMARK: u16 = 10;
    let family = if ipv6 { AF_INET6 } else { AF_INET };
    let rule = Message::new(NEWRULE, NEW)
        .raw(&[family, 0, 0, 0, TABLE, 0, 0, TO_TABLE, 0, 0, 0, 0])
        .u32(FRA_PRIORITY, 100)
        .u32(FRA_FWMARK, MARK);
    [rule, route(family, TABLE, HOST, LOCAL).u32(RTA_OIF, LOOPBACK)]
}

pub(super) fn all_routes() -> Message {
    Message::new(GETROUTE, 0).raw(&[AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
}

/// Where an answer to [`all_routes`] leads; `None` for what is not a way to others.
pub(super) fn read_route(body: &[u8]) -> Option<Subnet> {
    const RTA_DST: u16 = 1;
    const UNICAST: u8 = 1;
    let (prefix, kind) = (*body.get(1)?, *body.get(7)?);
    if kind != UNICAST {
        return None;
    }
    let found = crate::sys::netlink::attributes(body.get(12..)?);
    let destination = found.into_iter().find(|(kind, _)| *kind == RTA_DST)?.1;
    let address: [u8; 4] = *destination.first_chunk()?;
    Subnet::new(address.into(), prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_by_name() {
        let answer = |index: u32, name: &str, mac: &[u8]| {
            let mut body = link(0, index, 0, 0).to_vec();
            for (kind, value) in [
                (IFLA_IFNAME, [name.as_bytes(), b"\0"].concat()),
                (IFLA_ADDRESS, mac.to_vec()),
                (IFLA_MTU, 1400u32.to_ne_bytes().to_vec()),
            ] {
                body.extend_from_slice(&(value.len() as u16 + 4).to_ne_bytes());
                body.extend_from_slice(&kind.to_ne_bytes());
                body.extend_from_slice(&value);
                body.resize(body.len().next_multiple_of(4), 0);
            }
            body
        };
        let mac = [2, 0x42, 1, 2, 3, 4];
        let answers = [answer(7, "eth0", &mac), answer(8, "tun0", &[]), vec![0; 3]];
        let eth0 = Found {
            index: 7,
            mac,
            mtu: 1400,
        };
        assert_eq!(find_link(&answers, "eth0"), Some(eth0));
        assert_eq!(
            find_link(&answers, "tun0").map(|found| (found.index, found.mac)),
            Some((8, [0; 6]))
        );
        assert_eq!(find_link(&answers, "eth"), None);
    }
}
