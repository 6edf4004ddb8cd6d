//! A network's bridge, or what it has in the place of one: its addresses, and what a new link must know of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::{FIRST_INSIDE, Member, mac_of, parse_mac};
use crate::error::{Error, ObjectKind, Result};
use crate::networks::ipam::Addresses;
use crate::networks::own::Driven;
use crate::networks::parent::{OnParent, written};
use crate::networks::route::Mac;
use crate::types::{ContainerId, Endpoint, EndpointSpec, NetworkId};

/// A network with its bridge.
pub(super) struct Bridge {
    pub(super) name: String,
    pub(super) index: u32,
    pub(super) ipv4: Option<Addresses>,
    pub(super) ipv6: Option<Addresses>,
    pub(super) gateway: Option<Ipv4Addr>,
    pub(super) gateway_v6: Option<Ipv6Addr>,
    pub(super) internal: bool,
    pub(super) between_containers: bool,
    pub(super) mtu: Option<u32>,
    /// Whether containers find each other by name: not in the default network, as in Docker.
    pub(super) names: bool,
    /// What its containers' links are on, and that link's hardware address; they are on the bridge without.
    pub(super) parent: Option<(OnParent, Mac)>,
    /// Who makes its containers' links, where that is not the engine.
    pub(super) driven: Option<Arc<Driven>>,
}

/// What of a bridge a new link must know.
#[derive(Clone)]
pub(super) struct BridgeLink {
    pub(super) index: u32,
    pub(super) inside: u32,
    pub(super) mac: Mac,
    pub(super) mtu: Option<u32>,
    pub(super) between_containers: bool,
    pub(super) internal: bool,
    pub(super) parent: Option<OnParent>,
}

impl Bridge {
    /// The driver behind the network.
    pub(super) fn driver(&self) -> &str {
        match (&self.driven, &self.parent) {
            (Some(driven), _) => driven.driver(),
            (None, Some((on, _))) => on.kind.driver(),
            (None, None) => "bridge",
        }
    }

    /// Whether there is a bridge: then all that the engine's rules do holds for it.
    pub(super) fn has_a_bridge(&self) -> bool {
        self.parent.is_none() && self.driven.is_none()
    }

    /// A container's hardware address: the one asked for, or one of its own.
    ///
    /// # Errors
    /// `InvalidArgument` for one that cannot be.
    pub(super) fn mac(&self, spec: &EndpointSpec, ipv4: Option<Ipv4Addr>, number: u32) -> Result<Mac> {
        let parents = self.parent.as_ref().filter(|(on, _)| on.kind.has_the_parents_mac());
        match (&spec.mac, parents) {
            (None, Some((_, mac))) => Ok(*mac),
            (None, None) => Ok(mac_of(ipv4, number)),
            (Some(text), None) => parse_mac(text),
            (Some(_), Some(_)) => {
                let message = format!(
                    "a container of the network {} has the hardware address of its parent, and no other",
                    self.name
                );
                Err(Error::invalid(message).with_object(ObjectKind::Option, "mac"))
            }
        }
    }

    pub(super) fn take_addresses(&mut self, spec: &EndpointSpec) -> Result<(Option<Ipv4Addr>, Option<Ipv6Addr>)> {
        if self.driven.as_ref().is_some_and(|driven| driven.addresses_itself()) {
            return Ok((None, None));
        }
        let needs = |what: &str| {
            Error::invalid(format!(
                "user specified IP address is supported only for networks with such a subnet: {} has no {what}",
                self.name
            ))
            .with_object(ObjectKind::Option, "ip")
        };
        if spec.ipv4.is_some() && self.ipv4.is_none() {
            return Err(needs("IPv4"));
        }
        if spec.ipv6.is_some() && self.ipv6.is_none() {
            return Err(needs("IPv6"));
        }
        let ipv4 = self
            .ipv4
            .as_mut()
            .map(|all| all.take(spec.ipv4.map(IpAddr::V4)))
            .transpose()?;
        let ipv6 = match self
            .ipv6
            .as_mut()
            .map(|all| all.take(spec.ipv6.map(IpAddr::V6)))
            .transpose()
        {
            Ok(address) => address,
            Err(error) => {
                if let (Some(all), Some(address)) = (&mut self.ipv4, ipv4) {
                    all.give_back(address);
                }
                return Err(error);
            }
        };
        let v4 = ipv4.and_then(|address| match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        });
        let v6 = ipv6.and_then(|address| match address {
            IpAddr::V6(address) => Some(address),
            IpAddr::V4(_) => None,
        });
        Ok((v4, v6))
    }

    pub(super) fn give_back(&mut self, ipv4: Option<Ipv4Addr>, ipv6: Option<Ipv6Addr>) {
        if let (Some(all), Some(address)) = (&mut self.ipv4, ipv4) {
            all.give_back(address.into());
        }
        if let (Some(all), Some(address)) = (&mut self.ipv6, ipv6) {
            all.give_back(address.into());
        }
    }

    pub(super) fn let_go(&mut self, endpoint: &Endpoint) {
        self.give_back(
            endpoint.ipv4.map(|(address, _)| address),
            endpoint.ipv6.map(|(address, _)| address),
        );
    }

    pub(super) fn endpoint(
        &self,
        network: &NetworkId,
        container: &ContainerId,
        member: &Member,
        spec: &EndpointSpec,
        (inside, mac, ipv4, ipv6): (u32, Mac, Option<Ipv4Addr>, Option<Ipv6Addr>),
    ) -> Endpoint {
        let prefix = |addresses: &Option<Addresses>| addresses.as_ref().map_or(0, |all| all.subnet().prefix());
        let mut names = vec![member.name.clone(), container.short().to_owned()];
        names.extend(spec.aliases.iter().cloned());
        Endpoint {
            network: self.name.clone(),
            network_id: network.to_string(),
            id: ContainerId::random().to_string(),
            interface: format!("eth{}", inside - FIRST_INSIDE),
            mac: written(mac),
            ipv4: ipv4.map(|address| (address, prefix(&self.ipv4))),
            ipv6: ipv6.map(|address| (address, prefix(&self.ipv6))),
            gateway: self.gateway,
            gateway_v6: self.gateway_v6,
            names,
            aliases: spec.aliases.clone(),
        }
    }

    pub(super) fn link(&self, inside: u32, mac: Mac) -> BridgeLink {
        BridgeLink {
            index: self.index,
            inside,
            mac,
            mtu: self.mtu,
            between_containers: self.between_containers,
            internal: self.internal,
            parent: self.parent.as_ref().map(|(on, _)| on.clone()),
        }
    }
}
