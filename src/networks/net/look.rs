//! What is where in the engine's network: who is on it, by what name, and where a packet may go.

use std::net::{IpAddr, Ipv4Addr};

use super::{Net, lock};
use crate::networks::Subnet;
use crate::networks::room::Seat;
use crate::sys::order;
use crate::types::{ContainerId, Endpoint, NetworkId};

/// Where a packet of a container's goes that leaves its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Destination {
    /// To no container of another network, and not to the host's loopback.
    Nowhere,
    /// To the host: the gateway stands for it.
    Host,
    /// To a port of the host's loopback that was opened for this container.
    HostLoopback,
    Elsewhere,
}

impl Net {
    /// Containers on a network, with their names.
    pub(crate) fn members(&self, network: &NetworkId) -> Vec<(ContainerId, String, Endpoint)> {
        let places = lock(&self.places);
        let mut found: Vec<_> = places
            .members
            .iter()
            .filter_map(|(id, member)| {
                let place = member.places.iter().find(|place| place.network == *network)?;
                Some((id.clone(), member.name.clone(), place.endpoint.clone()))
            })
            .collect();
        order::sort_by(&mut found, |a, b| a.0.cmp(&b.0));
        found
    }

    /// How many addresses of each subnet are in use.
    pub(crate) fn in_use(&self, network: &NetworkId) -> Vec<(Subnet, usize)> {
        let places = lock(&self.places);
        let bridge = places.bridges.get(network);
        let addresses = bridge
            .into_iter()
            .flat_map(|bridge| bridge.ipv4.iter().chain(&bridge.ipv6));
        addresses
            .map(|addresses| (addresses.subnet(), addresses.in_use()))
            .collect()
    }

    /// The names in a container's networks: an answer to a question for one. `None`: nobody there has it.
    pub(crate) fn look_up(&self, container: &ContainerId, name: &str) -> Option<Vec<IpAddr>> {
        let places = lock(&self.places);
        let asking = places.members.get(container)?;
        let mut found = Vec::new();
        let mut known = false;
        for own in &asking.places {
            let Some(bridge) = places.bridges.get(&own.network).filter(|bridge| bridge.names) else {
                continue;
            };
            let bare = name
                .strip_suffix(&format!(".{}", bridge.name.to_ascii_lowercase()))
                .unwrap_or(name);
            let meant = own.meant(bare);
            for (id, member) in &places.members {
                for place in member.places.iter().filter(|place| place.network == own.network) {
                    if meant.iter().any(|name| place.is_called(id, name)) {
                        known = true;
                        found.extend(place.endpoint.ipv4.map(|(address, _)| IpAddr::V4(address)));
                        found.extend(place.endpoint.ipv6.map(|(address, _)| IpAddr::V6(address)));
                    }
                }
            }
        }
        order::sort(&mut found);
        found.dedup();
        known.then_some(found)
    }

    /// Whose address it is, in the networks of a container.
    pub(crate) fn name_of(&self, container: &ContainerId, address: IpAddr) -> Option<String> {
        let places = lock(&self.places);
        let asking = places.members.get(container)?;
        let networks = asking.places.iter().filter_map(|own| {
            let bridge = places.bridges.get(&own.network).filter(|bridge| bridge.names)?;
            Some((&own.network, &bridge.name))
        });
        for (network, name) in networks {
            for member in places.members.values() {
                let here = member.places.iter().filter(|place| place.network == *network);
                if here.into_iter().any(|place| has_address(&place.endpoint, address)) {
                    return Some(format!("{}.{name}", member.name));
                }
            }
        }
        None
    }

    /// Whether a container has a way out of its networks.
    pub(crate) fn leads_out(&self, container: &ContainerId) -> bool {
        let places = lock(&self.places);
        let member = places.members.get(container);
        let own = member.into_iter().flat_map(|member| &member.places);
        own.filter_map(|place| places.bridges.get(&place.network))
            .any(|bridge| !bridge.internal)
    }

    /// The driver behind a network that is in use here.
    pub(crate) fn driver_of(&self, network: &str) -> Option<String> {
        let places = lock(&self.places);
        let mut all = places.bridges.iter();
        all.find(|(id, _)| id.as_str() == network)
            .map(|(_, bridge)| bridge.driver().to_owned())
    }

    /// The address at which a container's published ports are: that on its first bridge.
    pub(crate) fn address_of(&self, container: &ContainerId) -> Option<Ipv4Addr> {
        let places = lock(&self.places);
        let member = places.members.get(container)?;
        let on_bridges = member.places.iter().filter(|place| place.alone.is_none());
        let mut own = on_bridges.filter_map(|place| place.endpoint.ipv4);
        own.next().map(|(address, _)| address)
    }

    /// A place for what a container has this process do for it, if there is one.
    pub(crate) fn room_for(&self, container: &ContainerId) -> Option<Seat> {
        // One without an address of IPv4 shares with its like.
        let who = self.address_of(container).unwrap_or(Ipv4Addr::UNSPECIFIED);
        self.room.take(who.into())
    }

    /// What an address means that a container sends to.
    pub(crate) fn destination(&self, from: IpAddr, to: IpAddr, port: u16) -> Destination {
        let places = lock(&self.places);
        // What has no bridge is out there, its gateway too.
        let bridges = || places.bridges.values().filter(|bridge| bridge.has_a_bridge());
        if bridges().any(|bridge| Some(to) == bridge.gateway.map(IpAddr::V4)) {
            let mut members = places.members.values();
            let asking = members.find(|member| member.places.iter().any(|place| has_address(&place.endpoint, from)));
            return match asking {
                Some(member)
                    if !member
                        .places
                        .iter()
                        .any(|place| place.alone.is_none() && place.endpoint.gateway.map(IpAddr::V4) == Some(to)) =>
                {
                    Destination::Nowhere
                }
                Some(member) if member.host_ports.contains(&port) => Destination::HostLoopback,
                Some(_) => Destination::Host,
                None => Destination::Nowhere,
            };
        }
        let ours = bridges().flat_map(|bridge| bridge.ipv4.iter().chain(&bridge.ipv6));
        if ours.into_iter().any(|addresses| addresses.subnet().contains(to)) {
            return Destination::Nowhere;
        }
        match is_elsewhere(to) {
            true => Destination::Elsewhere,
            false => Destination::Nowhere,
        }
    }
}

/// Whether an address can be another host's: none of this host's loopback, of no single host, of a link of the host's, nor one of IPv4 in another
/// dress, which may be any of these (RFC 4291, section 2.5.5.2).
fn is_elsewhere(to: IpAddr) -> bool {
    let of_none = match to {
        IpAddr::V4(to) => to.is_broadcast(),
        IpAddr::V6(to) => to.is_unicast_link_local() || to.to_ipv4().is_some(),
    };
    !(of_none || to.is_loopback() || to.is_unspecified() || to.is_multicast())
}

fn has_address(endpoint: &Endpoint, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => endpoint.ipv4.is_some_and(|(own, _)| own == address),
        IpAddr::V6(address) => endpoint.ipv6.is_some_and(|(own, _)| own == address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i9_what_ipv6_may_not_lead_to() {
        for no in [
            "127.0.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "::1",
            "::",
            "ff02::1",
            "fe80::1",
            "::ffff:127.0.0.1",
            "::ffff:192.0.2.1",
            "::127.0.0.1",
        ] {
            assert!(!is_elsewhere(no.parse().unwrap()), "{no}");
        }
        for yes in ["192.0.2.1", "10.0.0.1", "169.254.169.254", "2001:db8::1", "fd00::1"] {
            assert!(is_elsewhere(yes.parse().unwrap()), "{yes}");
        }
    }
}
