//! Rules of nf_tables as messages of nfnetlink. Pure: what is to be sent, in one batch. Nothing is executed: neither `nft`
//! nor `iptables`. Source: the kernel's `include/uapi/linux/netfilter/nf_tables.h`.
//!
//! All tables are in network namespaces of the engine's own; the host's rules are neither read nor changed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::route::{MARK, Mac};
use super::subnet::bytes;
use crate::sys::netlink::{APPEND, CREATE, Message};

/// The name of our table, in every family.
pub(super) const TABLE: &str = "longshore";

const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEWTABLE: u16 = SUBSYSTEM;
const NEWCHAIN: u16 = SUBSYSTEM | 3;
const DELCHAIN: u16 = SUBSYSTEM | 5;
const NEWRULE: u16 = SUBSYSTEM | 6;
const GETRULE: u16 = SUBSYSTEM | 7;
const DELRULE: u16 = SUBSYSTEM | 8;

const INET: u8 = 1;
const IPV4: u8 = 2;
const IPV6: u8 = 10;
const NETDEV: u8 = 5;
const BRIDGE: u8 = 7;

/// The chain of containers that are kept apart.
const APART: &str = "apart";

const PREROUTING: u32 = 0;
const INGRESS: u32 = 0;
const INPUT: u32 = 1;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;

const DROP: u32 = 0;
const ACCEPT: u32 = 1;

/// Registers: 0 is the verdict, 1 and 2 hold 16 bytes each.
const VERDICT: u32 = 0;
const FIRST: u32 = 1;
const SECOND: u32 = 2;

const META_PROTOCOL: u32 = 1;
const META_MARK: u32 = 3;
const META_IIF: u32 = 4;
const META_OIF: u32 = 5;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;

const LINK_HEADER: u32 = 0;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

const TCP: u8 = 6;
const UDP: u8 = 17;

fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

/// What surrounds a batch: it is carried out whole or not at all.
pub(super) fn around() -> [Message; 2] {
    [BATCH_BEGIN, BATCH_END].map(|kind| Message::new(kind, 0).raw(&header(0, SUBSYSTEM >> 8)))
}

fn table(family: u8) -> Message {
    Message::new(NEWTABLE, CREATE).raw(&header(family, 0)).text(1, TABLE)
}

struct Hook<'a> {
    kind: &'a str,
    number: u32,
    priority: i32,
    device: Option<&'a str>,
    policy: u32,
}

fn chain(family: u8, name: &str, hook: &Hook<'_>) -> Message {
    Message::new(NEWCHAIN, CREATE)
        .raw(&header(family, 0))
        .text(1, TABLE)
        .text(3, name)
        .nest(4, |nest| {
            let nest = nest.be32(1, hook.number).be32(2, hook.priority.cast_unsigned());
            match hook.device {
                Some(device) => nest.text(3, device),
                None => nest,
            }
        })
        .be32(5, hook.policy)
        .text(7, hook.kind)
}

/// A rule in the making: its expressions.
struct Rule(Vec<Box<dyn Fn(Message) -> Message>>);

impl Rule {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn add(mut self, name: &'static str, data: impl Fn(Message) -> Message + 'static) -> Self {
        self.0.push(Box::new(move |list| {
            list.nest(1, |element| element.text(1, name).nest(2, &data))
        }));
        self
    }

    fn meta(self, key: u32) -> Self {
        self.add("meta", move |data| data.be32(2, key).be32(1, FIRST))
    }

    fn compare(self, equal: bool, value: &[u8]) -> Self {
        let value = value.to_vec();
        self.add("cmp", move |data| {
            data.be32(1, FIRST)
                .be32(2, u32::from(!equal))
                .nest(3, |nest| nest.attr(1, &value))
        })
    }

    fn is(self, value: &[u8]) -> Self {
        self.compare(true, value)
    }

    fn differs(self, value: &[u8]) -> Self {
        self.compare(false, value)
    }

    fn payload(self, base: u32, offset: u32, len: u32) -> Self {
        self.add("payload", move |data| {
            data.be32(1, FIRST).be32(2, base).be32(3, offset).be32(4, len)
        })
    }

    fn load(self, register: u32, value: &[u8]) -> Self {
        let value = value.to_vec();
        self.add("immediate", move |data| {
            data.be32(1, register).nest(2, |nest| nest.attr(1, &value))
        })
    }

    fn coming_from(self, index: u32) -> Self {
        self.meta(META_IIF).is(&index.to_ne_bytes())
    }

    fn going_to(self, index: u32) -> Self {
        self.meta(META_OIF).is(&index.to_ne_bytes())
    }

    fn protocol(self, protocol: u8) -> Self {
        self.meta(META_L4PROTO).is(&[protocol])
    }

    fn set_mark(self) -> Self {
        self.load(FIRST, &MARK.to_ne_bytes())
            .add("meta", |data| data.be32(2, META_MARK).be32(3, FIRST))
    }

    /// Matches what belongs to a socket of this host with the address of another.
    fn of_transparent_socket(self) -> Self {
        self.add("socket", |data| data.be32(1, 0).be32(2, FIRST)).is(&[1])
    }

    /// Hands a packet of a family to a socket of this host's loopback, with its addresses as they are.
    fn proxied(self, family: u8, port: u16) -> Self {
        let loopback: IpAddr = match family {
            IPV6 => Ipv6Addr::LOCALHOST.into(),
            _ => Ipv4Addr::LOCALHOST.into(),
        };
        self.load(FIRST, &bytes(loopback))
            .load(SECOND, &port.to_be_bytes())
            .add("tproxy", move |data| {
                data.be32(1, u32::from(family)).be32(2, FIRST).be32(3, SECOND)
            })
    }

    fn translated(self, address: [u8; 4], port: u16) -> Self {
        self.load(FIRST, &address)
            .load(SECOND, &port.to_be_bytes())
            .add("nat", |data| {
                const DESTINATION: u32 = 1;
                data.be32(1, DESTINATION)
                    .be32(2, u32::from(IPV4))
                    .be32(3, FIRST)
                    .be32(5, SECOND)
            })
    }

    fn verdict(self, code: u32) -> Self {
        self.add("immediate", move |data| {
            data.be32(1, VERDICT)
                .nest(2, |nest| nest.nest(2, |nest| nest.be32(1, code)))
        })
    }

    fn into(self, family: u8, chain: &str) -> Message {
        Message::new(NEWRULE, APPEND)
            .raw(&header(family, 0))
            .text(1, TABLE)
            .text(2, chain)
            .nest(4, |list| self.0.iter().fold(list, |list, expression| expression(list)))
    }
}

/// Rules of the engine's network: nothing is passed on between networks, and answers to connections that are made in the
/// name of others come back here.
pub(super) fn home() -> Vec<Message> {
    let hook = |number, priority, policy| Hook {
        kind: "filter",
        number,
        priority,
        device: None,
        policy,
    };
    let mut messages = vec![
        table(INET),
        table(NETDEV),
        chain(INET, "prerouting", &hook(PREROUTING, -150, ACCEPT)),
        chain(INET, "forward", &hook(FORWARD, 0, DROP)),
        chain(INET, "input", &hook(INPUT, 0, ACCEPT)),
    ];
    for protocol in [TCP, UDP] {
        let back = Rule::new()
            .protocol(protocol)
            .of_transparent_socket()
            .set_mark()
            .verdict(ACCEPT);
        messages.push(back.into(INET, "prerouting"));
    }
    messages
}

/// The ports of the proxies: of TCP, and of UDP.
pub(super) type Proxies = [u16; 2];

/// What leaves a network: TCP and UDP go to the proxies, by IPv6 where there are such; everything else that is not for the bridge itself
/// goes nowhere.
pub(super) fn way_out(bridge: u32, ipv4: Proxies, ipv6: Option<Proxies>) -> Vec<Message> {
    let name = out_chain(bridge);
    let hook = Hook {
        kind: "filter",
        number: PREROUTING,
        priority: -140,
        device: None,
        policy: ACCEPT,
    };
    let mut messages = vec![chain(INET, &name, &hook)];
    let families = std::iter::once((IPV4, ipv4)).chain(ipv6.map(|ports| (IPV6, ports)));
    for (family, [tcp, udp]) in families {
        for (protocol, port) in [(TCP, tcp), (UDP, udp)] {
            let rule = Rule::new()
                .coming_from(bridge)
                .meta(META_NFPROTO)
                .is(&[family])
                .protocol(protocol)
                .meta(META_MARK)
                .differs(&MARK.to_ne_bytes())
                .proxied(family, port)
                .set_mark()
                .verdict(ACCEPT);
            messages.push(rule.into(INET, &name));
        }
    }
    messages
}

pub(super) fn no_way_out(bridge: u32) -> Message {
    delete_chain(INET, &out_chain(bridge))
}

fn out_chain(bridge: u32) -> String {
    format!("out-{bridge}")
}

fn delete_chain(family: u8, name: &str) -> Message {
    Message::new(DELCHAIN, 0)
        .raw(&header(family, 0))
        .text(1, TABLE)
        .text(3, name)
}

/// What may come from a container: nothing in the name of another, neither of its hardware address nor of its others.
pub(super) fn only_own(device: &str, mac: Mac, ipv4: Option<IpAddr>, ipv6: Option<IpAddr>) -> Vec<Message> {
    const ARP: [u8; 2] = [0x08, 0x06];
    const IP: [u8; 2] = [0x08, 0x00];
    const VLAN: [u8; 2] = [0x81, 0x00];
    const PROVIDERS_VLAN: [u8; 2] = [0x88, 0xa8];
    let hook = Hook {
        kind: "filter",
        number: INGRESS,
        priority: 0,
        device: Some(device),
        policy: ACCEPT,
    };
    // None of an address that it has not: then what is unspecified alone may come.
    let own = |rule: Rule, address: Option<IpAddr>| match address {
        Some(address) => rule.differs(&bytes(address)),
        None => rule,
    };
    let drop = |rule: Rule| rule.verdict(DROP).into(NETDEV, device);
    let enough = |rule: Rule| rule.verdict(ACCEPT).into(NETDEV, device);
    let mut messages = vec![
        chain(NETDEV, device, &hook),
        drop(Rule::new().payload(LINK_HEADER, 6, 6).differs(&mac)),
        drop(own(of(IP).payload(NETWORK_HEADER, 12, 4).differs(&[0; 4]), ipv4)),
        // Most packets need no more rules.
        enough(of(IP)),
        // The sender's addresses of an ARP packet (RFC 826). An unspecified one asks whether an address is in use (RFC 5227).
        drop(of(ARP).payload(NETWORK_HEADER, 8, 6).differs(&mac)),
        drop(own(of(ARP).payload(NETWORK_HEADER, 14, 4).differs(&[0; 4]), ipv4)),
        enough(of(ARP)),
        // One tag of a VLAN has been taken off by now. Whoever receives a second one of number 0 takes that off, too, and what is behind
        // it for a packet of this network: no rule here has looked at that.
        drop(of(VLAN)),
        drop(of(PROVIDERS_VLAN)),
    ];
    messages.extend(only_own_ipv6(device, link_local(mac), ipv6));
    messages
}

/// Packets with a protocol of the link's.
fn of(protocol: [u8; 2]) -> Rule {
    Rule::new().meta(META_PROTOCOL).is(&protocol)
}

/// The same of IPv6: besides its address it has one that is made of the hardware address, with which it asks for its neighbours. What
/// speaks for a neighbour here are advertisements (RFC 4861, section 4.4), and what speaks for a router, which no container is, those of
/// routers and redirections (sections 4.2 and 4.5): whoever sent one would have all that his neighbours send elsewhere.
fn only_own_ipv6(device: &str, link_local: Ipv6Addr, ipv6: Option<IpAddr>) -> Vec<Message> {
    const IP6: [u8; 2] = [0x86, 0xdd];
    const ICMP6: u8 = 58;
    const ROUTER_ADVERTISEMENT: u8 = 134;
    const SOLICITATION: u8 = 135;
    const ADVERTISEMENT: u8 = 136;
    const REDIRECTION: u8 = 137;
    let anothers = |rule: Rule| {
        let rule = rule.differs(&link_local.octets());
        match ipv6 {
            Some(address) => rule.differs(&bytes(address)),
            None => rule,
        }
    };
    let sender = || of(IP6).payload(NETWORK_HEADER, 8, 16);
    let kind = |rule: Rule, kind: u8| rule.protocol(ICMP6).payload(TRANSPORT_HEADER, 0, 1).is(&[kind]);
    // Whose address is told, or asked for.
    let target = |rule: Rule| rule.payload(TRANSPORT_HEADER, 8, 16);
    // An unspecified sender asks whether an address is in use that it wants (RFC 4862, section 5.4): whoever has it would give it up.
    let wanting = kind(sender().is(&[0; 16]), SOLICITATION);
    [
        anothers(sender().differs(&[0; 16])),
        kind(of(IP6), ROUTER_ADVERTISEMENT),
        kind(of(IP6), REDIRECTION),
        anothers(target(kind(of(IP6), ADVERTISEMENT))),
        anothers(target(wanting)),
    ]
    .into_iter()
    .map(|rule| rule.verdict(DROP).into(NETDEV, device))
    .collect()
}

/// The address that the kernel gives a link by its hardware address. Source: RFC 4291, appendix A.
fn link_local(mac: Mac) -> Ipv6Addr {
    let [first, second, third, fourth, fifth, last] = mac;
    let prefix = [0xfe, 0x80, 0, 0, 0, 0, 0, 0];
    let own = [first ^ 2, second, third, 0xff, 0xfe, fourth, fifth, last];
    Ipv6Addr::from_bits(u128::from(u64::from_be_bytes(prefix)) << 64 | u128::from(u64::from_be_bytes(own)))
}

pub(super) fn forget_only_own(device: &str) -> Message {
    delete_chain(NETDEV, device)
}

/// Nothing goes from one of these links to the other, and what was said before of others is forgotten.
pub(super) fn apart(links: &[(u32, u32)]) -> Vec<Message> {
    let hook = Hook {
        kind: "filter",
        number: FORWARD,
        priority: 0,
        device: None,
        policy: ACCEPT,
    };
    let none = Message::new(DELRULE, 0)
        .raw(&header(BRIDGE, 0))
        .text(1, TABLE)
        .text(2, APART);
    let mut messages = vec![table(BRIDGE), chain(BRIDGE, APART, &hook), none];
    for (from, to) in links {
        let rule = Rule::new().coming_from(*from).going_to(*to).verdict(DROP);
        messages.push(rule.into(BRIDGE, APART));
    }
    messages
}

/// In a container: whoever asks the resolver at its usual port finds it at another, so that the container may have a
/// resolver of its own.
pub(super) fn resolver(address: [u8; 4], udp: u16, tcp: u16) -> Vec<Message> {
    const NAT: &str = "nat";
    const DNS: u16 = 53;
    let hook = Hook {
        kind: NAT,
        number: OUTPUT,
        priority: -100,
        device: None,
        policy: ACCEPT,
    };
    let mut messages = vec![table(IPV4), chain(IPV4, "resolver", &hook)];
    for (protocol, port) in [(UDP, udp), (TCP, tcp)] {
        let rule = Rule::new()
            .payload(NETWORK_HEADER, 16, 4)
            .is(&address)
            .protocol(protocol)
            .payload(TRANSPORT_HEADER, 2, 2)
            .is(&DNS.to_be_bytes())
            .translated(address, port);
        messages.push(rule.into(IPV4, "resolver"));
    }
    messages
}

/// Asks for the rules of a chain of the engine's network.
pub(super) fn rules_of(family: u8, chain: &str) -> Message {
    Message::new(GETRULE, 0)
        .raw(&header(family, 0))
        .text(1, TABLE)
        .text(2, chain)
}

/// The chains that must be there, for [`rules_of`]: those of the engine, and of each network and link.
pub(super) fn chains<'a>(
    ways_out: impl Iterator<Item = u32> + 'a,
    links: impl Iterator<Item = String> + 'a,
    apart: bool,
) -> impl Iterator<Item = (u8, String)> + 'a {
    std::iter::once((INET, "prerouting".to_owned()))
        .chain(ways_out.map(|bridge| (INET, out_chain(bridge))))
        .chain(links.map(|device| (NETDEV, device)))
        .chain(apart.then(|| (BRIDGE, APART.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i2_the_address_that_a_link_has_by_itself() {
        assert_eq!(
            link_local([0x02, 0x42, 0xac, 0x11, 0, 2]).to_string(),
            "fe80::42:acff:fe11:2"
        );
        assert_eq!(link_local([0, 1, 2, 3, 4, 5]).to_string(), "fe80::201:2ff:fe03:405");
    }
}
