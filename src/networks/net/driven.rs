//! Containers' links that a driver of the embedder's makes: what it is asked, and what the engine sets of them afterwards.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::bridge::{Bridge, BridgeLink};
use super::parent::links;
use super::{Member, Net, Place, Wanted, inside_messages, lock, metric, needs_a_bridge, parse_mac, pools_of};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::networks::LinkAddress;
use crate::networks::driver::{EndpointContext, Joined, NetworkSandbox};
use crate::networks::ipam::Addresses;
use crate::networks::own::Driven;
use crate::networks::parent::written;
use crate::networks::route::{self, Found};
use crate::networks::spec::NetworkRecord;
use crate::sys::netlink::{Message, Socket};
use crate::types::{ContainerId, Endpoint, EndpointSpec, NetworkId, PublishedPort};

/// A driver, and what it is asked of a place.
pub(super) type Asked = (Arc<Driven>, Arc<EndpointContext>);

/// What the driver of a network is asked of a new place; `None` where the engine makes the link.
///
/// # Errors
/// `InvalidArgument` for a hardware address.
pub(super) fn asked(
    bridge: &Bridge,
    container: &ContainerId,
    member: &Member,
    spec: &EndpointSpec,
    (endpoint, ports): (&Endpoint, &[PublishedPort]),
) -> Result<Option<Asked>> {
    let Some(driven) = &bridge.driven else { return Ok(None) };
    let itself = driven.addresses_itself();
    let ipv4 = endpoint.ipv4.map(|(address, prefix)| (IpAddr::V4(address), prefix));
    let ipv6 = endpoint.ipv6.map(|(address, prefix)| (IpAddr::V6(address), prefix));
    let addresses = [ipv4, ipv6].into_iter().flatten();
    let requested = [spec.ipv4.map(IpAddr::V4), spec.ipv6.map(IpAddr::V6)];
    let way_out = !itself && !bridge.internal;
    let context = EndpointContext {
        id: endpoint.id.clone(),
        container: container.clone(),
        container_name: member.name.clone(),
        interface: endpoint.interface.clone(),
        addresses: addresses
            .map(|(address, prefix_len)| LinkAddress { address, prefix_len })
            .collect(),
        requested: requested.into_iter().flatten().collect(),
        gateway: endpoint.gateway.filter(|_| way_out),
        gateway_v6: endpoint.gateway_v6.filter(|_| way_out && endpoint.ipv6.is_some()),
        mac: spec.mac.as_deref().map(parse_mac).transpose()?,
        options: spec.options.clone(),
        ports: ports.to_vec(),
    };
    Ok(Some((Arc::clone(driven), Arc::new(context))))
}

impl Net {
    /// Notes a network of a driver's: it is there, as the driver says. What is noted already stays.
    #[cold]
    pub(crate) fn note_driven(&self, record: &NetworkRecord, driven: &Arc<Driven>, names: bool) {
        let spec = &record.spec;
        let pools = match driven.addresses_itself() {
            true => [None, None],
            false => pools_of(spec),
        };
        let [ipv4, ipv6] = pools.map(|pool| pool.and_then(Addresses::of));
        let (gateway, gateway_v6) = match driven.addresses_itself() {
            true => (None, None),
            false => super::gateways(spec),
        };
        let network = Bridge {
            name: spec.name.clone(),
            index: 0,
            ipv4,
            ipv6,
            gateway,
            gateway_v6,
            internal: spec.internal,
            between_containers: spec.between_containers,
            mtu: spec.mtu_bytes,
            names,
            parent: None,
            driven: Some(Arc::clone(driven)),
        };
        lock(&self.places).bridges.entry(record.id.clone()).or_insert(network);
    }

    /// The network whose driver publishes a container's ports: the first that can, of one that is on no bridge. `None`, where the engine
    /// does, or there are none.
    ///
    /// # Errors
    /// `Unsupported` for a container that wants ports, of its own or of the host's, and is on networks that have none of that.
    pub(super) fn publisher(&self, wanted: &Wanted) -> Result<Option<NetworkId>> {
        let bridged = super::bridges_of(wanted).next().is_some();
        if bridged || (wanted.ports.is_empty() && wanted.host_ports.is_empty()) {
            return Ok(None);
        }
        let driven = |network: &NetworkId| lock(&self.places).bridges.get(network)?.driven.clone();
        let mut networks = wanted.endpoints.iter().map(|(record, _)| &record.id);
        let found = networks.find(|network| driven(network).is_some_and(|driven| driven.publishes()));
        match found.filter(|_| wanted.host_ports.is_empty()) {
            Some(network) => Ok(Some(network.clone())),
            None => needs_a_bridge(wanted).map(|()| None),
        }
    }

    fn sandbox(&self, namespace: &Arc<OwnedFd>) -> NetworkSandbox {
        NetworkSandbox {
            house: Arc::clone(&self.house),
            namespace: Arc::clone(namespace),
        }
    }

    /// Has the driver make a container's link, and sets the rest of it. What it is then. Blocks.
    #[cold]
    pub(super) fn link_by_driver(
        &self,
        (driven, context): &Asked,
        container: &ContainerId,
        place: &Place,
        network: &BridgeLink,
        namespace: &Arc<OwnedFd>,
        spec: &EndpointSpec,
    ) -> Result<Endpoint> {
        let joined = driven.join(context, &self.sandbox(namespace))?;
        let mut inside = self.inside(namespace)?;
        let link = find(&mut inside, context, driven)?;
        self.note_number(container, &place.network, link.index);
        if !driven.addresses_itself() {
            let messages = finishing(&link, context, place, network, spec);
            inside
                .send(&messages, None)
                .map_err(super::os("set a container's link up"))?;
        }
        let link = find(&mut inside, context, driven)?;
        let mut endpoint = place.endpoint.clone();
        endpoint.mac = written(link.mac);
        if driven.addresses_itself() {
            take_in(&mut endpoint, &joined);
        }
        let mut places = lock(&self.places);
        let member = places.members.get_mut(container);
        let mut own = member.into_iter().flat_map(|member| &mut member.places);
        if let Some(place) = own.find(|one| one.endpoint.id == endpoint.id) {
            place.endpoint = endpoint.clone();
        }
        Ok(endpoint)
    }

    /// Has the driver take a container's link back; what it leaves of it goes, too. Blocks.
    #[cold]
    pub(super) fn unlink_by_driver(&self, (driven, context): &Asked, namespace: &Arc<OwnedFd>) {
        if let Err(error) = driven.leave(Arc::clone(context), Some(self.sandbox(namespace))) {
            tracing::warn!(
                container = %context.container,
                error = error.report(),
                "a driver could not take a container's link back; reconcile asks it again"
            );
        }
        let left = self.inside(namespace).and_then(|mut inside| links(&mut inside));
        if let Ok(left) = left
            && let Some(link) = route::find_link(&left, &context.interface)
        {
            self.unlink_alone(namespace, link.index);
        }
    }

    /// Takes all containers out of everything that have a place by a driver: the engine ends. Blocks.
    #[cold]
    pub(crate) fn release_driven(&self) {
        let concerned: Vec<ContainerId> = {
            let places = lock(&self.places);
            let members = places.members.iter();
            let driven = members.filter(|(_, member)| member.places.iter().any(|place| place.driven.is_some()));
            driven.map(|(id, _)| id.clone()).collect()
        };
        for container in concerned {
            self.release(&container);
        }
    }

    /// What drivers find wrong with links that they made.
    #[cold]
    pub(super) fn audit_driven(&self) -> Vec<(String, &'static str)> {
        let asked: Vec<_> = {
            let places = lock(&self.places);
            let members = places.members.values();
            let all = members.flat_map(|member| {
                // One that is being made has no number yet.
                let made = |place: &&Place| place.alone.as_ref().is_some_and(|(_, index)| *index != 0);
                let places = member.places.iter().filter(made);
                places.filter_map(|place| Some((place.driven.clone()?, Arc::clone(&member.namespace))))
            });
            all.collect()
        };
        let mut wrong = Vec::new();
        let mut silent = BTreeSet::new();
        for ((driven, context), namespace) in asked {
            // One that does not answer is waited for once.
            if silent.contains(driven.driver()) {
                continue;
            }
            if let Err(error) = driven.check(Arc::clone(&context), self.sandbox(&namespace)) {
                if error.kind() == &ErrorKind::Timeout {
                    silent.insert(driven.driver().to_owned());
                }
                tracing::warn!(container = %context.container, error = error.report(), "a driver finds a container's link wrong");
                let told = format!("{} in {}", context.container_name, driven.network.name);
                wrong.push((told, "its network driver says that its link is not as it made it"));
            }
        }
        wrong
    }
}

/// The link that the driver says it made.
fn find(inside: &mut Socket, context: &EndpointContext, driven: &Driven) -> Result<Found> {
    route::find_link(&links(inside)?, &context.interface).ok_or_else(|| {
        let message = format!(
            "the network driver {:?} made no link called {} in the container's network, though it said so",
            driven.driver(),
            context.interface
        );
        Error::new(ErrorKind::Unavailable, message).with_object(ObjectKind::Network, driven.network.name.clone())
    })
}

/// Addresses and routes of a link, and what was asked for of it and is not so yet.
fn finishing(
    link: &Found,
    context: &EndpointContext,
    place: &Place,
    network: &BridgeLink,
    spec: &EndpointSpec,
) -> Vec<Message> {
    let there = BridgeLink {
        inside: link.index,
        ..network.clone()
    };
    let mac = context.mac.filter(|mac| *mac != link.mac);
    let mtu = network.mtu.filter(|mtu| *mtu != link.mtu);
    let mut messages = Vec::new();
    if mac.is_some() || mtu.is_some() {
        messages.push(route::change(link.index, mac, mtu));
    }
    messages.extend(inside_messages(&place.endpoint, &there, spec));
    if let Some(gateway) = context.gateway_v6 {
        let metric = metric(spec.gateway_priority, link.index);
        messages.push(route::default_route_at_link(gateway, link.index, metric));
    }
    messages
}

/// What the driver says of addresses.
fn take_in(endpoint: &mut Endpoint, joined: &Joined) {
    let mut all = joined.addresses.iter();
    endpoint.ipv4 = all.find_map(|one| match one.address {
        IpAddr::V4(address) => Some((address, one.prefix_len)),
        IpAddr::V6(_) => None,
    });
    let mut all = joined.addresses.iter();
    endpoint.ipv6 = all.find_map(|one| match one.address {
        IpAddr::V6(address) => Some((address, one.prefix_len)),
        IpAddr::V4(_) => None,
    });
    (endpoint.gateway, endpoint.gateway_v6) = (joined.gateway, joined.gateway_v6);
}
