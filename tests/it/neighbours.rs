//! Containers that send in the name of others on their bridge: frames of the test's own making, which no well-behaved tool would send.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use longshore::networks::NetworkSpec;
use longshore::{Container, ExecSpec, NetworkMode};

use crate::frame::{Check, Stop, fail, skip};
use crate::support::patience::until;
use crate::support::world::{FORCE, World, text};
use crate::tests;

tests! { "neighbours":
    kernel_async [
        i2_nobody_speaks_for_a_neighbour_over_ipv6,
        i2_nobody_speaks_for_a_router,
        i2_no_tag_of_a_vlan_hides_who_speaks,
    ]
}

type Mac = [u8; 6];

/// Nobody's.
const ELSEWHERE: Mac = [0x02, 0, 0, 0, 0, 0x99];
const EVERYBODY: Mac = [0xff; 6];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The number of Ethernet's for ARP, IPv6, a VLAN, and a provider's VLAN.
const ARP: u16 = 0x0806;
const IP6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const PROVIDERS_VLAN: u16 = 0x88a8;

/// A container with all its addresses.
struct Neighbour {
    container: Container,
    mac: Mac,
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
    link_local: Ipv6Addr,
}

/// Three of them on a bridge: who steals, from whom, and who is to be deceived.
struct Street {
    world: World,
    name: &'static str,
    thief: Neighbour,
    victim: Neighbour,
    listener: Neighbour,
}

fn frame(to: Mac, from: Mac, kinds: &[u16], packet: &[u8]) -> Vec<u8> {
    let mut frame = [to, from].concat();
    let (kind, tags) = kinds.split_last().expect("a kind");
    for tag in tags {
        // Number 0: a tag that says nothing but a priority.
        frame.extend_from_slice(&[tag.to_be_bytes(), [0; 2]].concat());
    }
    frame.extend_from_slice(&kind.to_be_bytes());
    frame.extend_from_slice(packet);
    frame
}

/// A message of ICMPv6 in a packet that nobody has passed on: neighbours believe no other (RFC 4861, section 6.1).
fn icmp6(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let mut packet = packet(from, to, 58, message);
    let mut checked = [&from.octets()[..], &to.octets()].concat();
    checked.extend_from_slice(&(message.len() as u32).to_be_bytes());
    checked.extend_from_slice(&58u32.to_be_bytes());
    checked.extend_from_slice(message);
    let sum: u32 = checked
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = !((folded & 0xffff) + (folded >> 16)) as u16;
    packet[42..44].copy_from_slice(&folded.to_be_bytes());
    packet
}

fn packet(from: Ipv6Addr, to: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    packet.extend_from_slice(&[next, 255]);
    packet.extend_from_slice(&from.octets());
    packet.extend_from_slice(&to.octets());
    packet.extend_from_slice(payload);
    packet
}

/// The same behind options that mean nothing: a filter that looks at one place alone sees no ICMP.
fn behind_options(packet: &[u8]) -> Vec<u8> {
    let mut hidden = packet.to_vec();
    let length = u16::from_be_bytes([packet[4], packet[5]]) + 8;
    hidden[4..6].copy_from_slice(&length.to_be_bytes());
    hidden[6] = 0;
    // Next header, length, and six bytes of padding.
    hidden.splice(40..40, [58, 0, 1, 4, 0, 0, 0, 0]);
    hidden
}

/// "This address is at that hardware address", whatever was known before. Source: RFC 4861, section 4.4.
fn advertisement(target: Ipv6Addr, mac: Mac) -> Vec<u8> {
    const OVERRIDE: u8 = 0x20;
    let head = [136, 0, 0, 0, OVERRIDE, 0, 0, 0];
    [&head[..], &target.octets(), &[2, 1], &mac].concat()
}

/// "Where is this address? I am at that hardware address." Source: RFC 4861, section 4.3.
fn solicitation(target: Ipv6Addr, mac: Mac) -> Vec<u8> {
    [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), &[1, 1], &mac].concat()
}

/// "I lead elsewhere." Source: RFC 4861, section 4.2.
fn router(mac: Mac) -> Vec<u8> {
    let head = [134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    [&head[..], &[1, 1], &mac].concat()
}

/// "This address is at that hardware address." Source: RFC 826; RFC 5227, section 3.
fn announcement(address: Ipv4Addr, mac: Mac) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, 1];
    [&head[..], &mac, &address.octets(), &[0; 6], &address.octets()].concat()
}

async fn sh(container: &Container, script: &str) -> Result<String, Stop> {
    let output = container.exec(ExecSpec::new(["sh", "-c", script])).output().await?;
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => fail(format!("{script}: {output:?}")),
    }
}

impl Neighbour {
    async fn on(world: &World, network: &str) -> Result<Self, Stop> {
        // Busybox sends no frames: the host's perl does, which every Debian has.
        let spec = world.spec().command(["sleep", "1000"]);
        let spec = ["/usr", "/lib", "/lib64"]
            .into_iter()
            .filter(|dir| Path::new(dir).exists())
            .fold(spec, |spec, dir| spec.bind_read_only(dir, dir));
        let container = world
            .started(spec.network(NetworkMode::Named(network.to_owned())))
            .await?;
        let place = container.inspect().await?.endpoints.remove(0);
        let bytes = place.mac.split(':').map(|byte| u8::from_str_radix(byte, 16));
        let mac = bytes.collect::<Result<Vec<u8>, _>>().expect("a hardware address");
        let mut link_local = None;
        until("the link has an address by itself", async || {
            link_local = own_link_local(&sh(&container, "cat /proc/net/if_inet6").await?);
            Ok(link_local.is_some())
        })
        .await?;
        Ok(Self {
            mac: mac.try_into().expect("six bytes"),
            ipv4: place.ipv4.expect("an address").0,
            ipv6: place.ipv6.expect("an address of IPv6").0,
            link_local: link_local.expect("it has one"),
            container,
        })
    }

    /// Sends frames, one after the other, out of its link.
    async fn send(&self, frames: &[Vec<u8>]) -> Check {
        const SEND: &str = "my $index = shift; socket(my $out, 17, 3, 0) or die \"socket: $!\"; \
                            my $to = pack('S n l S C C a8', 17, 0, $index, 0, 0, 6, ''); \
                            for my $frame (@ARGV) { defined send($out, pack('H*', $frame), 0, $to) or die \"send: $!\" }";
        let index = sh(&self.container, "cat /sys/class/net/eth0/ifindex").await?;
        let mut words = vec!["/usr/bin/perl".to_owned(), "-e".to_owned(), SEND.to_owned(), index];
        let hexadecimal = |frame: &Vec<u8>| frame.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        words.extend(frames.iter().map(hexadecimal));
        let output = self.container.exec(ExecSpec::new(words)).output().await?;
        match output.status.success() {
            true => Ok(()),
            false => fail(format!("frames could not be sent: {output:?}")),
        }
    }

    /// The hardware address at which it believes another to be.
    async fn believes(&self, address: impl Into<IpAddr>) -> Result<Option<Mac>, Stop> {
        let address = address.into().to_string();
        let known = sh(&self.container, "busybox ip neigh").await?;
        let mut lines = known.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let Some(line) = lines.find(|words| words.first() == Some(&address.as_str())) else {
            return Ok(None);
        };
        let mac = line.iter().skip_while(|word| **word != "lladdr").nth(1);
        let bytes = mac.map(|mac| mac.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect());
        let bytes: Option<Vec<u8>> = bytes.transpose().expect("a hardware address");
        Ok(bytes.map(|bytes| bytes.try_into().expect("six bytes")))
    }
}

/// The address that a link has by itself, in `/proc/net/if_inet6`, once nobody else has it.
fn own_link_local(text: &str) -> Option<Ipv6Addr> {
    const TENTATIVE: u8 = 0x40;
    text.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [address, _, _, scope, flags, "eth0"] = words[..] else {
            return None;
        };
        let address = Ipv6Addr::from(u128::from_str_radix(address, 16).ok()?);
        let settled = u8::from_str_radix(flags, 16).ok()? & TENTATIVE == 0;
        (scope == "20" && settled).then_some(address)
    })
}

impl Street {
    async fn new(name: &'static str) -> Result<Self, Stop> {
        if !Path::new("/usr/bin/perl").exists() {
            return skip("perl is not installed");
        }
        if !Path::new("/proc/net/if_inet6").exists() {
            return skip("the kernel has no IPv6");
        }
        let world = World::new().await?;
        world
            .engine
            .networks()
            .create(NetworkSpec::bridge(name).ipv6(true))
            .await?;
        let thief = Neighbour::on(&world, name).await?;
        let victim = Neighbour::on(&world, name).await?;
        let listener = Neighbour::on(&world, name).await?;
        // Who tells of himself unasked changes only what is known of him.
        for known in [&thief, &victim] {
            let (ipv4, ipv6, link_local) = (known.ipv4, known.ipv6, known.link_local);
            let asked = format!(
                "busybox ping -c 1 -W 5 {ipv4} && busybox ping6 -c 1 -W 5 {ipv6} && busybox ping6 -I eth0 -c 1 -W 5 {link_local}"
            );
            sh(&listener.container, &asked).await?;
        }
        let street = Self {
            world,
            name,
            thief,
            victim,
            listener,
        };
        street.nobody_is_deceived().await?;
        Ok(street)
    }

    /// A frame of the thief's to the listener.
    fn told(&self, packet: &[u8]) -> Vec<u8> {
        frame(self.listener.mac, self.thief.mac, &[IP6], packet)
    }

    /// What the thief may say of himself: the listener believes it, and has then seen all that was sent before.
    async fn heard_to_the_end(&self) -> Check {
        let own = advertisement(self.thief.ipv6, ELSEWHERE);
        let own = self.told(&icmp6(self.thief.ipv6, self.listener.ipv6, &own));
        until("the listener believes what a neighbour says of himself", async || {
            self.thief.send(std::slice::from_ref(&own)).await?;
            Ok(self.listener.believes(self.thief.ipv6).await? == Some(ELSEWHERE))
        })
        .await
    }

    async fn nobody_is_deceived(&self) -> Check {
        let (listener, victim) = (&self.listener, &self.victim);
        assert_eq!(listener.believes(victim.ipv4).await?, Some(victim.mac));
        for address in [victim.ipv6, victim.link_local] {
            assert_eq!(listener.believes(address).await?, Some(victim.mac), "{address}");
        }
        Ok(())
    }

    async fn end(self) -> Check {
        for one in [self.thief, self.victim, self.listener] {
            one.container.remove(FORCE).await?;
        }
        self.world.engine.networks().remove(self.name).await?;
        Ok(())
    }
}

async fn i2_nobody_speaks_for_a_neighbour_over_ipv6() -> Check {
    let street = Street::new("spoken-for").await?;
    let (thief, victim, listener) = (&street.thief, &street.victim, &street.listener);
    let mut frames = Vec::new();
    for target in [victim.ipv6, victim.link_local] {
        let stolen = advertisement(target, thief.mac);
        for from in [thief.ipv6, thief.link_local, target] {
            let packet = icmp6(from, listener.ipv6, &stolen);
            frames.extend([street.told(&packet), street.told(&behind_options(&packet))]);
        }
        // Whoever is asked remembers who asked.
        let asking = solicitation(listener.ipv6, thief.mac);
        frames.push(street.told(&icmp6(target, listener.ipv6, &asking)));
    }
    thief.send(&frames).await?;
    street.heard_to_the_end().await?;
    street.nobody_is_deceived().await?;
    street.end().await
}

async fn i2_nobody_speaks_for_a_router() -> Check {
    let street = Street::new("ways-out").await?;
    let thief = &street.thief;
    let led = icmp6(thief.link_local, ALL_NODES, &router(thief.mac));
    let everybody = [0x33, 0x33, 0, 0, 0, 1];
    let frames = [led.clone(), behind_options(&led)].map(|packet| frame(everybody, thief.mac, &[IP6], &packet));
    thief.send(&frames).await?;
    street.heard_to_the_end().await?;
    let ways = sh(&street.listener.container, "busybox ip -6 route").await?;
    assert!(!ways.contains(&thief.link_local.to_string()), "{ways}");
    street.end().await
}

async fn i2_no_tag_of_a_vlan_hides_who_speaks() -> Check {
    let street = Street::new("tagged").await?;
    let (thief, victim, listener) = (&street.thief, &street.victim, &street.listener);
    let over_ipv4 = announcement(victim.ipv4, thief.mac);
    let over_ipv6 = icmp6(thief.ipv6, listener.ipv6, &advertisement(victim.ipv6, thief.mac));
    let mut frames = Vec::new();
    for tags in [
        &[][..],
        &[VLAN],
        &[VLAN, VLAN],
        &[PROVIDERS_VLAN, VLAN],
        &[VLAN, PROVIDERS_VLAN],
        &[VLAN; 3],
    ] {
        for (kind, packet) in [(ARP, &over_ipv4), (IP6, &over_ipv6)] {
            let to = if kind == ARP { EVERYBODY } else { listener.mac };
            frames.push(frame(to, thief.mac, &[tags, &[kind]].concat(), packet));
        }
    }
    thief.send(&frames).await?;
    street.heard_to_the_end().await?;
    street.nobody_is_deceived().await?;
    street.end().await
}
