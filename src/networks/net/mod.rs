//! The network of one engine: bridges in a network namespace of its own, and containers' links to them.
//!
//! Nothing of it is in the host's network: no link, no address, no rule. So it needs no right on the host, as root and as
//! an ordinary user; subnets of engines cannot clash; and the kernel takes it away, all of it, when the process that holds
//! the namespace ends, which it does when its engine's process dies, however that dies.

mod audit;
mod bridge;
mod driven;
mod faults;
mod look;
mod parent;

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::socket::{Backlog, SockaddrIn, SockaddrIn6, SockaddrStorage, bind, listen, setsockopt, sockopt};
use tokio::task::AbortHandle;

use self::bridge::{Bridge, BridgeLink};
pub(crate) use self::look::Destination;
pub(crate) use self::parent::check;
use super::driver::EndpointContext;
use super::ipam::Addresses;
use super::own::Driven;
use super::publish::{self, Listening};
use super::resolver;
use super::room::Room;
use super::route::{self, End, Mac};
use super::spec::{AddressPool, NetworkRecord, NetworkSpec};
use super::{nft, proxy};
use crate::driver::Spawner;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::runtime::native::NativeRuntime;
use crate::runtime::native::house::House;
use crate::sys::netlink::{Message, Refused, Socket};
use crate::sys::order;
use crate::types::{ContainerId, Endpoint, EndpointLink, EndpointSpec, NetworkId, PortBinding, PublishedPort, Shaping};

/// Where a container's resolver is, as in Docker.
pub(crate) const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// Numbers of links of ours begin here; loopback is 1.
const FIRST_INDEX: u32 = 10;

/// The numbers of a container's links begin here.
const FIRST_INSIDE: u32 = 2;

/// What a container wants of networks.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) container: ContainerId,
    /// Its name.
    pub(crate) name: String,
    /// Networks in the order of its interfaces.
    pub(crate) endpoints: Vec<(NetworkRecord, EndpointSpec)>,
    pub(crate) ports: Vec<PortBinding>,
    /// Resolvers to ask for what is not in its networks; the host's without.
    pub(crate) dns: Vec<IpAddr>,
    /// Ports of the host's loopback that it reaches at its gateway.
    pub(crate) host_ports: BTreeSet<u16>,
}

/// What it got.
#[derive(Debug, Clone)]
pub(crate) struct Attachment {
    pub(crate) namespace: Arc<OwnedFd>,
    pub(crate) endpoints: Vec<Endpoint>,
    /// Where the host answers: the gateway of a bridge, and of no other network.
    pub(crate) host_gateway: Option<IpAddr>,
    pub(crate) ports: Vec<PublishedPort>,
}

/// The realised network.
pub(crate) struct Net {
    pub(super) house: Arc<House>,
    kernel: Mutex<Kernel>,
    places: Mutex<Places>,
    /// Held while a bridge is made.
    making: Mutex<()>,
    pub(super) spawner: Spawner,
    proxies: nft::Proxies,
    /// Those of IPv6, from the first network on that has it and leads out.
    proxies_v6: Mutex<Option<nft::Proxies>>,
    room: Arc<Room>,
    tasks: Mutex<Vec<AbortHandle>>,
}

struct Kernel {
    route: Socket,
    nft: Socket,
}

#[derive(Default)]
struct Places {
    next_index: u32,
    bridges: HashMap<NetworkId, Bridge>,
    members: HashMap<ContainerId, Member>,
    /// Containers that do not reach each other, whether they run or not.
    apart: BTreeSet<(ContainerId, ContainerId)>,
}

/// A container that runs.
struct Member {
    name: String,
    namespace: Arc<OwnedFd>,
    places: Vec<Place>,
    next_inside: u32,
    tasks: Vec<AbortHandle>,
    host_ports: BTreeSet<u16>,
    /// Ports of the host's that another publishes: held, so that nobody else takes them.
    reserved: Vec<Listening>,
}

/// Its place in one network.
#[derive(Clone)]
struct Place {
    network: NetworkId,
    /// Our end of the pair.
    link: u32,
    /// The other end.
    inside: u32,
    endpoint: Endpoint,
    /// Of a link that has no other end of the engine's: the namespace that it is in, and its number there; 0 before it is made.
    alone: Option<(Arc<OwnedFd>, u32)>,
    /// Whoever made the link, where that is not the engine, and what was asked of him.
    driven: Option<(Arc<Driven>, Arc<EndpointContext>)>,
    /// Names that others have here for this container alone.
    links: Vec<EndpointLink>,
    /// What is done to its packets.
    shaping: Shaping,
    /// Its link and its rules are there; they are made after the place is taken.
    made: bool,
}

impl Place {
    /// Whom the container means by a name.
    fn meant<'a>(&'a self, name: &'a str) -> Vec<&'a str> {
        let links = self.links.iter().filter(|link| link.alias.eq_ignore_ascii_case(name));
        let linked: Vec<&str> = links.map(|link| link.container.as_str()).collect();
        if linked.is_empty() { vec![name] } else { linked }
    }

    fn is_called(&self, container: &ContainerId, name: &str) -> bool {
        let mut names = self.endpoint.names.iter();
        names.any(|one| one.eq_ignore_ascii_case(name)) || container.as_str() == name
    }
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Net").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn device(link: u32) -> String {
    format!("v{link}")
}

fn os(step: &'static str) -> impl Fn(Refused) -> Error {
    move |refused| Error::os(step, refused.error)
}

impl Drop for Net {
    fn drop(&mut self) {
        for task in lock(&self.tasks).drain(..) {
            task.abort();
        }
        for member in lock(&self.places).members.values() {
            for task in &member.tasks {
                task.abort();
            }
        }
    }
}

impl Net {
    /// Makes the namespace with its rules. Blocks.
    pub(crate) fn new(runtime: &NativeRuntime, spawner: &Spawner) -> Result<Arc<Self>> {
        let house = Arc::new(House::new(runtime)?);
        let netlink = |protocol| {
            let fd = house.socket(None, libc::AF_NETLINK, libc::SOCK_RAW, protocol)?;
            Socket::new(fd).map_err(|error| Error::os("set a netlink socket up", error))
        };
        let mut kernel = Kernel {
            route: netlink(libc::NETLINK_ROUTE)?,
            nft: netlink(libc::NETLINK_NETFILTER)?,
        };
        quiet(&house)?;
        let mut rules = Vec::new();
        rules.extend(route::marked_are_local(false));
        kernel
            .route
            .send(&rules, None)
            .map_err(os("lead answers back to the engine"))?;
        kernel.nft.send(&nft::home(), Some(nft::around())).map_err(no_rules)?;
        let tcp = transparent(&house, libc::AF_INET, libc::SOCK_STREAM)?;
        let udp = transparent(&house, libc::AF_INET, libc::SOCK_DGRAM)?;
        let proxies = [port_of(&tcp)?, port_of(&udp)?];
        let net = Arc::new(Self {
            house,
            kernel: Mutex::new(kernel),
            places: Mutex::new(Places {
                next_index: FIRST_INDEX,
                ..Places::default()
            }),
            making: Mutex::default(),
            spawner: spawner.clone(),
            proxies,
            proxies_v6: Mutex::default(),
            room: Room::of_this_process(),
            tasks: Mutex::default(),
        });
        net.proxy(tcp, udp);
        Ok(net)
    }

    /// The way out by IPv6: made for the first network that has one. Blocks.
    #[cold]
    fn proxies_v6(self: &Arc<Self>) -> Result<nft::Proxies> {
        let mut known = lock(&self.proxies_v6);
        if let Some(proxies) = *known {
            return Ok(proxies);
        }
        let tcp = transparent(&self.house, libc::AF_INET6, libc::SOCK_STREAM)?;
        let udp = transparent(&self.house, libc::AF_INET6, libc::SOCK_DGRAM)?;
        let proxies = [port_of(&tcp)?, port_of(&udp)?];
        lock(&self.kernel)
            .route
            .send(&route::marked_are_local(true), None)
            .map_err(os("lead answers over IPv6 back to the engine"))?;
        self.proxy(tcp, udp);
        *known = Some(proxies);
        Ok(proxies)
    }

    /// Passes on what comes in at sockets of the ways out.
    fn proxy(self: &Arc<Self>, tcp: OwnedFd, udp: OwnedFd) {
        let net = || Arc::downgrade(self);
        let room = || Arc::clone(&self.room);
        let tasks = [
            self.spawner.background(proxy::tcp(net(), room(), tcp)),
            self.spawner.background(proxy::udp(net(), room(), udp)),
        ];
        lock(&self.tasks).extend(tasks);
    }

    /// Whether the process that holds the namespace still answers.
    pub(crate) fn is_alive(&self) -> bool {
        self.house.socket(None, libc::AF_UNIX, libc::SOCK_STREAM, 0).is_ok()
    }

    pub(crate) fn has(&self, network: &NetworkId) -> bool {
        lock(&self.places).bridges.contains_key(network)
    }

    /// Makes a network's bridge, unless it is there. `first` is called before anything is made. Blocks.
    pub(crate) fn bridge(
        self: &Arc<Self>,
        record: &NetworkRecord,
        names: bool,
        first: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let _making = lock(&self.making);
        if self.has(&record.id) {
            return Ok(());
        }
        first()?;
        if let Some(on) = super::parent::read(&record.spec)? {
            return self.on_parent(record, on, names);
        }
        let index = {
            let mut places = lock(&self.places);
            let index = places.next_index;
            places.next_index += 1;
            index
        };
        let spec = &record.spec;
        let [ipv4, ipv6] = pools_of(spec);
        let mut mac: Mac = [0x02, 0x42, 0, 0, 0, 0];
        mac[2..].copy_from_slice(&index.to_be_bytes());
        let mut messages = vec![route::new_bridge(index, &format!("b{index}"), mac, spec.mtu_bytes)];
        for pool in [ipv4, ipv6].into_iter().flatten() {
            if let (Some(address), Some(subnet)) = (pool.gateway, pool.subnet) {
                messages.push(route::address(index, address, subnet.prefix()));
            }
        }
        let (gateway, gateway_v6) = gateways(spec);
        let out_v6 = gateway_v6.filter(|_| !spec.internal);
        let proxies_v6 = out_v6.map(|_| self.proxies_v6()).transpose()?;
        {
            let mut kernel = lock(&self.kernel);
            let made = kernel.route.send(&messages, None).map_err(os("make a bridge"));
            let ruled = made.and_then(|()| match spec.internal {
                true => Ok(()),
                false => {
                    let rules = nft::way_out(index, self.proxies, proxies_v6);
                    kernel.nft.send(&rules, Some(nft::around())).map_err(no_rules)
                }
            });
            if let Err(error) = ruled {
                let _ = kernel.route.send(&[route::delete(index)], None);
                return Err(error.with_object(ObjectKind::Network, spec.name.clone()));
            }
        }
        let bridge = Bridge {
            name: spec.name.clone(),
            index,
            ipv4: ipv4.and_then(Addresses::of),
            ipv6: ipv6.and_then(Addresses::of),
            gateway,
            gateway_v6,
            internal: spec.internal,
            between_containers: spec.between_containers,
            mtu: spec.mtu_bytes,
            names,
            parent: None,
            driven: None,
        };
        lock(&self.places).bridges.insert(record.id.clone(), bridge);
        Ok(())
    }

    /// Takes a network's bridge away, if nobody is on it. Blocks.
    ///
    /// # Errors
    /// `Conflict` with containers on it.
    pub(crate) fn remove_bridge(&self, network: &NetworkId) -> Result<()> {
        let _making = lock(&self.making);
        let bridge = {
            let mut places = lock(&self.places);
            let on = places.members.iter().filter(|(_, member)| member.on(network));
            let mut on: Vec<String> = on
                .map(|(id, member)| format!("name:{:?} id:{:?}", member.name, id.short()))
                .collect();
            if !on.is_empty() {
                order::sort(&mut on);
                let name = places.bridges.get(network).map_or("", |bridge| bridge.name.as_str());
                // Docker's words.
                let message = format!("network {name} has active endpoints ({})", on.join(", "));
                return Err(Error::new(ErrorKind::Conflict, message).with_object(ObjectKind::Network, network.as_str()));
            }
            places.bridges.remove(network)
        };
        let Some(bridge) = bridge else { return Ok(()) };
        if bridge.driven.is_some() {
            return Ok(());
        }
        if let Some((on, _)) = &bridge.parent {
            self.leave_parent(on, network);
            return Ok(());
        }
        let mut kernel = lock(&self.kernel);
        if !bridge.internal {
            let gone = kernel.nft.send(&[nft::no_way_out(bridge.index)], Some(nft::around()));
            tell(gone, "a network's rules could not be removed");
        }
        tell(
            kernel.route.send(&[route::delete(bridge.index)], None),
            "a bridge could not be removed",
        );
        Ok(())
    }

    /// Gives a container a network namespace with links to its networks, their bridges being there. What fails leaves
    /// nothing. Blocks.
    pub(crate) fn attach(self: &Arc<Self>, wanted: &Wanted, host_ip: Option<IpAddr>) -> Result<Attachment> {
        let publisher = self.publisher(wanted)?;
        // The address at which they are is that on the first bridge, too.
        let of_network = bridges_of(wanted).next().and_then(|record| record.spec.host_binding());
        let listening = publish::listen(&wanted.ports, of_network.or(host_ip))?;
        let namespace = Arc::new(self.house.make()?);
        let member = Member {
            name: wanted.name.clone(),
            namespace: Arc::clone(&namespace),
            places: Vec::new(),
            next_inside: FIRST_INSIDE,
            tasks: Vec::new(),
            host_ports: wanted.host_ports.clone(),
            reserved: Vec::new(),
        };
        {
            let mut places = lock(&self.places);
            if places.members.contains_key(&wanted.container) {
                return Err(
                    Error::new(ErrorKind::Conflict, "the container is in its networks already")
                        .with_object(ObjectKind::Container, wanted.container.as_str()),
                );
            }
            places.members.insert(wanted.container.clone(), member);
        }
        let attached = self.attach_all(wanted, listening, publisher.as_ref(), &namespace);
        if attached.is_err() {
            self.release(&wanted.container);
        }
        attached
    }

    fn attach_all(
        self: &Arc<Self>,
        wanted: &Wanted,
        listening: Vec<Listening>,
        publisher: Option<&NetworkId>,
        namespace: &Arc<OwnedFd>,
    ) -> Result<Attachment> {
        let mut endpoints = Vec::new();
        let ports: Vec<PublishedPort> = listening.iter().map(Listening::published).collect();
        for (record, spec) in &wanted.endpoints {
            let ports = match publisher == Some(&record.id) {
                true => ports.as_slice(),
                false => &[],
            };
            endpoints.push(self.connect_with(&wanted.container, &record.id, spec, ports)?);
        }
        let mut tasks = Vec::new();
        if !wanted.endpoints.is_empty() {
            tasks.extend(self.resolve(wanted, namespace)?);
        }
        let (ours, reserved) = match publisher {
            None => (listening, Vec::new()),
            Some(_) => (Vec::new(), listening),
        };
        for one in ours {
            tasks.push(
                self.spawner
                    .background(publish::forward(Arc::downgrade(self), wanted.container.clone(), one)),
            );
        }
        if let Some(member) = lock(&self.places).members.get_mut(&wanted.container) {
            (member.tasks, member.reserved) = (tasks, reserved);
        }
        let host_gateway = bridges_of(wanted).find_map(|record| gateways(&record.spec).0);
        Ok(Attachment {
            namespace: Arc::clone(namespace),
            endpoints,
            host_gateway: host_gateway.map(IpAddr::V4),
            ports,
        })
    }

    /// Starts the resolver in a container's namespace.
    fn resolve(self: &Arc<Self>, wanted: &Wanted, namespace: &Arc<OwnedFd>) -> Result<[AbortHandle; 2]> {
        let bound = |kind| -> Result<OwnedFd> {
            let fd = self
                .house
                .socket(Some(namespace.as_fd()), libc::AF_INET, kind | libc::SOCK_NONBLOCK, 0)?;
            let address = SockaddrIn::from(SocketAddrV4::new(RESOLVER, 0));
            let step = |errno: nix::errno::Errno| Error::os("open the resolver's socket", errno);
            bind(fd.as_raw_fd(), &address).map_err(step)?;
            if kind == libc::SOCK_STREAM {
                listen(&fd, Backlog::new(64).unwrap_or(Backlog::MAXCONN)).map_err(step)?;
            }
            Ok(fd)
        };
        let (udp, tcp) = (bound(libc::SOCK_DGRAM)?, bound(libc::SOCK_STREAM)?);
        let rules = nft::resolver(RESOLVER.octets(), port_of(&udp)?, port_of(&tcp)?);
        let fd = self.house.socket(
            Some(namespace.as_fd()),
            libc::AF_NETLINK,
            libc::SOCK_RAW,
            libc::NETLINK_NETFILTER,
        )?;
        let mut nft = Socket::new(fd).map_err(|error| Error::os("set a netlink socket up", error))?;
        nft.send(&rules, Some(nft::around())).map_err(no_rules)?;
        let server = Arc::new(resolver::Server::new(
            Arc::downgrade(self),
            wanted.container.clone(),
            wanted.dns.clone(),
        ));
        Ok([
            self.spawner.background(resolver::udp(Arc::clone(&server), udp)),
            self.spawner.background(resolver::tcp(server, tcp)),
        ])
    }

    /// Connects a container that has a namespace here to a network whose bridge is there. What fails leaves nothing. Blocks.
    pub(crate) fn connect(
        &self,
        container: &ContainerId,
        network: &NetworkId,
        spec: &EndpointSpec,
    ) -> Result<Endpoint> {
        self.connect_with(container, network, spec, &[])
    }

    /// The same, with ports that the network's driver publishes.
    fn connect_with(
        &self,
        container: &ContainerId,
        network: &NetworkId,
        spec: &EndpointSpec,
        ports: &[PublishedPort],
    ) -> Result<Endpoint> {
        let (place, bridge, namespace) = self.take_place(container, network, spec, ports)?;
        let made = || {
            self.rule_apart_for(container)?;
            let endpoint = match (&bridge.parent, &place.driven) {
                (_, Some(driven)) => self.link_by_driver(driven, container, &place, &bridge, &namespace, spec)?,
                (Some(on), None) => {
                    self.link_on_parent(on, container, &place, &bridge, &namespace, spec)?;
                    place.endpoint.clone()
                }
                (None, None) => {
                    self.link(&place, &bridge, &namespace, spec)?;
                    self.note_made(container, network);
                    place.endpoint.clone()
                }
            };
            match spec.shaping.is_none() {
                true => Ok(endpoint),
                false => self.shape(container, network, spec.shaping).map(|()| endpoint),
            }
        };
        match made() {
            Ok(endpoint) => Ok(endpoint),
            Err(error) => {
                self.give_place_back(container, network);
                Err(error)
            }
        }
    }

    fn note_made(&self, container: &ContainerId, network: &NetworkId) {
        let mut places = lock(&self.places);
        let member = places.members.get_mut(container);
        let mut own = member.into_iter().flat_map(|member| &mut member.places);
        if let Some(place) = own.find(|place| place.network == *network) {
            place.made = true;
        }
    }

    /// Addresses and numbers of a new place. From here on it is the container's.
    fn take_place(
        &self,
        container: &ContainerId,
        network: &NetworkId,
        spec: &EndpointSpec,
        ports: &[PublishedPort],
    ) -> Result<(Place, BridgeLink, Arc<OwnedFd>)> {
        let mut places = lock(&self.places);
        let Places {
            next_index,
            bridges,
            members,
            ..
        } = &mut *places;
        let gone = |kind: ObjectKind, id: &str| Error::not_found(kind, id);
        let member = members
            .get_mut(container)
            .ok_or_else(|| gone(ObjectKind::Container, container.as_str()))?;
        let bridge = bridges
            .get_mut(network)
            .ok_or_else(|| gone(ObjectKind::Network, network.as_str()))?;
        if member.on(network) {
            // Docker's words.
            let message = format!(
                "endpoint with name {} already exists in network {}",
                member.name, bridge.name
            );
            return Err(Error::new(ErrorKind::Conflict, message).with_object(ObjectKind::Container, container.as_str()));
        }
        let (ipv4, ipv6) = bridge.take_addresses(spec)?;
        let mac = bridge.mac(spec, ipv4, *next_index);
        let mac = match mac {
            Ok(mac) => mac,
            Err(error) => {
                bridge.give_back(ipv4, ipv6);
                return Err(error);
            }
        };
        let link = *next_index;
        *next_index += 1;
        let inside = member.next_inside;
        member.next_inside += 1;
        let endpoint = bridge.endpoint(network, container, member, spec, (inside, mac, ipv4, ipv6));
        let driven = driven::asked(bridge, container, member, spec, (&endpoint, ports))?;
        let place = Place {
            network: network.clone(),
            link,
            inside,
            endpoint,
            alone: (!bridge.has_a_bridge()).then(|| (Arc::clone(&member.namespace), 0)),
            driven,
            links: spec.links.clone(),
            shaping: Shaping::default(),
            made: false,
        };
        member.places.push(place.clone());
        Ok((place, bridge.link(inside, mac), Arc::clone(&member.namespace)))
    }

    fn link(&self, place: &Place, bridge: &BridgeLink, namespace: &OwnedFd, spec: &EndpointSpec) -> Result<()> {
        let name = device(place.link);
        let mut ours: Mac = [0x02, 0x43, 0, 0, 0, 0];
        ours[2..].copy_from_slice(&place.link.to_be_bytes());
        let ours = End {
            index: place.link,
            name: &name,
            mac: ours,
        };
        let theirs = End {
            index: bridge.inside,
            name: &place.endpoint.interface,
            mac: bridge.mac,
        };
        let endpoint = &place.endpoint;
        let (ipv4, ipv6) = (
            endpoint.ipv4.map(|(address, _)| address),
            endpoint.ipv6.map(|(address, _)| address),
        );
        {
            let mut kernel = lock(&self.kernel);
            let mut messages = vec![route::new_pair(
                &ours,
                bridge.index,
                &theirs,
                namespace.as_raw_fd(),
                bridge.mtu,
            )];
            if !bridge.between_containers {
                messages.push(route::isolate(place.link));
            }
            kernel
                .route
                .send(&messages, None)
                .map_err(os("make a container's link"))?;
            let rules = nft::only_own(&name, bridge.mac, ipv4.map(IpAddr::V4), ipv6.map(IpAddr::V6));
            kernel.nft.send(&rules, Some(nft::around())).map_err(no_rules)?;
        }
        let fd = self.house.socket(
            Some(namespace.as_fd()),
            libc::AF_NETLINK,
            libc::SOCK_RAW,
            libc::NETLINK_ROUTE,
        )?;
        let mut inside = Socket::new(fd).map_err(|error| Error::os("set a netlink socket up", error))?;
        let mut messages = inside_messages(endpoint, bridge, spec);
        let gateway_v6 = endpoint
            .gateway_v6
            .filter(|_| endpoint.ipv6.is_some() && !bridge.internal);
        // Where the host has no way out by IPv6 there is none: a program is told so at once, and goes by IPv4.
        if let Some(gateway) = gateway_v6.filter(|_| proxy::leads_out_by_ipv6()) {
            let metric = metric(spec.gateway_priority, bridge.inside);
            messages.push(route::default_route_at_link(gateway, bridge.inside, metric));
        }
        inside.send(&messages, None).map_err(os("set a container's link up"))
    }

    /// Takes a container out of a network. Blocks.
    ///
    /// # Errors
    /// `NotFound` where it is not in it.
    pub(crate) fn disconnect(&self, container: &ContainerId, network: &NetworkId) -> Result<()> {
        if !lock(&self.places)
            .members
            .get(container)
            .is_some_and(|member| member.on(network))
        {
            let message = format!(
                "container {} is not connected to the network {}",
                container.short(),
                network.short()
            );
            return Err(Error::new(ErrorKind::NotFound, message).with_object(ObjectKind::Container, container.as_str()));
        }
        self.give_place_back(container, network);
        Ok(())
    }

    fn give_place_back(&self, container: &ContainerId, network: &NetworkId) {
        let place = {
            let mut places = lock(&self.places);
            let Places { bridges, members, .. } = &mut *places;
            let Some(member) = members.get_mut(container) else {
                return;
            };
            let Some(at) = member.places.iter().position(|place| place.network == *network) else {
                return;
            };
            let place = member.places.remove(at);
            if let Some(bridge) = bridges.get_mut(network) {
                bridge.let_go(&place.endpoint);
            }
            place
        };
        self.unlink(&[place]);
    }

    /// Takes a container out of everything: its ports are free when this returns. Blocks.
    pub(crate) fn release(&self, container: &ContainerId) -> Vec<Endpoint> {
        let Some(member) = lock(&self.places).members.remove(container) else {
            return Vec::new();
        };
        for task in &member.tasks {
            task.abort();
        }
        self.unlink(&member.places);
        {
            let mut places = lock(&self.places);
            for place in &member.places {
                if let Some(bridge) = places.bridges.get_mut(&place.network) {
                    bridge.let_go(&place.endpoint);
                }
            }
        }
        // The driver drops their sockets at its next turn.
        let until = Instant::now() + Duration::from_secs(2);
        while !member.tasks.iter().all(AbortHandle::is_finished) && Instant::now() < until {
            std::thread::sleep(Duration::from_micros(200));
        }
        // Those that a driver published: it has let go of them.
        drop(member.reserved);
        member.places.into_iter().map(|place| place.endpoint).collect()
    }

    fn unlink(&self, places: &[Place]) {
        for place in places {
            match (&place.driven, &place.alone) {
                (Some(driven), Some((namespace, _))) => self.unlink_by_driver(driven, namespace),
                (None, Some((namespace, index))) => self.unlink_alone(namespace, *index),
                (_, None) => {}
            }
        }
        let mut kernel = lock(&self.kernel);
        for place in places.iter().filter(|place| place.alone.is_none()) {
            // Links and rules may be gone: somebody removed them by hand, or the set-up did not come so far.
            let _ = kernel
                .nft
                .send(&[nft::forget_only_own(&device(place.link))], Some(nft::around()));
            match kernel.route.send(&[route::delete(place.link)], None) {
                Err(refused) if refused.error.raw_os_error() != Some(libc::ENODEV) => {
                    tell(Err(refused), "a container's link could not be removed");
                }
                _ => {}
            }
        }
    }

    /// From now on others find a container by this name.
    pub(crate) fn rename(&self, container: &ContainerId, name: &str) {
        let mut places = lock(&self.places);
        let Some(member) = places.members.get_mut(container) else {
            return;
        };
        let old = std::mem::replace(&mut member.name, name.to_owned());
        for place in &mut member.places {
            place.endpoint.rename(&old, name);
        }
    }
}

impl Member {
    fn on(&self, network: &NetworkId) -> bool {
        self.places.iter().any(|place| place.network == *network)
    }
}

/// Networks of a container's that have a bridge.
fn bridges_of(wanted: &Wanted) -> impl Iterator<Item = &NetworkRecord> {
    let records = wanted.endpoints.iter().map(|(record, _)| record);
    records.filter(|record| record.spec.driver == "bridge")
}

/// Ports are published, and the host is reached, by way of a bridge.
///
/// # Errors
/// `Unsupported` for a container that wants it and is on other networks alone.
fn needs_a_bridge(wanted: &Wanted) -> Result<()> {
    if wanted.endpoints.is_empty() || bridges_of(wanted).next().is_some() {
        return Ok(());
    }
    let (what, option) = match (wanted.ports.is_empty(), wanted.host_ports.is_empty()) {
        (true, true) => return Ok(()),
        (false, _) => ("a published port", "ports"),
        (true, false) => ("a port of the host's", "host_ports"),
    };
    let needs =
        "a bridge network beside; on a network of another driver the container's own address answers, at every port";
    Err(
        Error::unsupported(format!("{what} of a container without a bridge network"), needs)
            .with_object(ObjectKind::Option, option),
    )
}

/// The pools that a network uses: the first of IPv4, and of IPv6.
fn pools_of(spec: &NetworkSpec) -> [Option<&AddressPool>; 2] {
    [false, true].map(|ipv6| {
        let mut pools = spec.pools.iter();
        pools.find(|pool| pool.subnet.is_some_and(|subnet| subnet.is_ipv6() == ipv6))
    })
}

/// Their gateways.
fn gateways(spec: &NetworkSpec) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    let [ipv4, ipv6] = pools_of(spec).map(|pool| pool.and_then(|pool| pool.gateway));
    let v4 = ipv4.and_then(|address| match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    let v6 = ipv6.and_then(|address| match address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    });
    (v4, v6)
}

/// What is set up in the container: addresses, the link, and the way out, if there is one.
fn inside_messages(endpoint: &Endpoint, bridge: &BridgeLink, spec: &EndpointSpec) -> Vec<Message> {
    let mut messages = Vec::new();
    if let Some((address, prefix)) = endpoint.ipv4 {
        messages.push(route::address(bridge.inside, address.into(), prefix));
    }
    if let Some((address, prefix)) = endpoint.ipv6 {
        messages.push(route::address(bridge.inside, address.into(), prefix));
    }
    messages.push(route::up(bridge.inside));
    if let Some(gateway) = endpoint.gateway.filter(|_| !bridge.internal) {
        messages.push(route::default_route(
            gateway.into(),
            bridge.inside,
            metric(spec.gateway_priority, bridge.inside),
        ));
    }
    messages
}

/// The higher the priority, the smaller the metric; of equal ones the first interface is taken.
fn metric(priority: i32, inside: u32) -> u32 {
    const MIDDLE: i32 = 1 << 24;
    let priority = priority.clamp(-(1 << 15), 1 << 15);
    (MIDDLE - priority * 256).unsigned_abs() + inside.min(255)
}

/// Docker's way: of the address.
fn mac_of(ipv4: Option<Ipv4Addr>, index: u32) -> Mac {
    let mut mac: Mac = [0x02, 0x42, 0, 0, 0, 0];
    mac[2..].copy_from_slice(&ipv4.map_or(index.to_be_bytes(), |address| address.octets()));
    mac
}

/// Six bytes in hexadecimal. One of a group cannot be a container's.
pub(crate) fn parse_mac(text: &str) -> Result<Mac> {
    let invalid = || Error::invalid(format!("invalid MAC address {text:?}")).with_object(ObjectKind::Option, "mac");
    let parts: Vec<u8> = text
        .split([':', '-'])
        .map(|part| match part.len() {
            2 => u8::from_str_radix(part, 16).map_err(|_| invalid()),
            _ => Err(invalid()),
        })
        .collect::<Result<_>>()?;
    let mac = Mac::try_from(parts).map_err(|_| invalid())?;
    if mac[0] & 1 != 0 || mac == [0; 6] {
        return Err(invalid());
    }
    Ok(mac)
}

fn no_rules(refused: Refused) -> Error {
    match refused.error.raw_os_error() {
        Some(libc::EPROTONOSUPPORT | libc::EOPNOTSUPP | libc::ENOENT | libc::EAFNOSUPPORT) => {
            let needs = "nf_tables in the kernel with inet, netdev, nat, socket and tproxy: as root, modprobe nf_tables \
                         nft_tproxy nft_socket nft_nat";
            Error::unsupported("bridge networks", needs).with_source(refused.error)
        }
        _ => Error::os(
            format!("load the network's rules (message {})", refused.index),
            refused.error,
        ),
    }
}

fn tell(result: Result<(), Refused>, what: &'static str) {
    if let Err(refused) = result {
        tracing::warn!(error = %refused.error, "{what}");
    }
}

/// Parameters that a new namespace copies from the host, or has otherwise than it must be here.
fn quiet(house: &House) -> Result<()> {
    let must = [
        // Nothing is passed on between networks.
        ("ipv4/ip_forward", "0"),
        // The sender of an answer may be anybody.
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        ("ipv4/conf/all/send_redirects", "0"),
        ("ipv4/conf/default/send_redirects", "0"),
    ];
    for (name, value) in must {
        house.sysctl(None, name, value)?;
    }
    // What goes from one container of a network to another is not for these rules. Without the module it never is.
    for name in [
        "bridge/bridge-nf-call-iptables",
        "bridge/bridge-nf-call-ip6tables",
        "bridge/bridge-nf-call-arptables",
    ] {
        match house.sysctl(None, name, "0") {
            Err(error) if error.errno() == Some(libc::ENOENT) => {}
            set => set?,
        }
    }
    Ok(())
}

/// A socket of the engine's network that takes what is meant for others.
fn transparent(house: &House, family: i32, kind: i32) -> Result<OwnedFd> {
    let fd = house.socket(None, family, kind | libc::SOCK_NONBLOCK, 0)?;
    let step = |errno: nix::errno::Errno| Error::os("open the way out of the engine's network", errno);
    // One switch for both families.
    setsockopt(&fd, sockopt::IpTransparent, &true).map_err(step)?;
    let loopback: IpAddr = if family == libc::AF_INET6 {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true).map_err(step)?;
        Ipv6Addr::LOCALHOST.into()
    } else {
        Ipv4Addr::LOCALHOST.into()
    };
    if kind == libc::SOCK_DGRAM {
        match loopback {
            IpAddr::V4(_) => setsockopt(&fd, sockopt::Ipv4OrigDstAddr, &true).map_err(step)?,
            IpAddr::V6(_) => setsockopt(&fd, sockopt::Ipv6OrigDstAddr, &true).map_err(step)?,
        }
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(loopback, 0))).map_err(step)?;
    if kind == libc::SOCK_STREAM {
        listen(&fd, Backlog::new(1024).unwrap_or(Backlog::MAXCONN)).map_err(step)?;
    }
    Ok(fd)
}

fn port_of(fd: &OwnedFd) -> Result<u16> {
    let address: SockaddrStorage =
        nix::sys::socket::getsockname(fd.as_raw_fd()).map_err(|errno| Error::os("look at a socket's port", errno))?;
    let ipv4 = address.as_sockaddr_in().map(SockaddrIn::port);
    let port = ipv4.or_else(|| address.as_sockaddr_in6().map(SockaddrIn6::port));
    port.ok_or_else(|| Error::internal("a socket of an address has no port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses() {
        assert_eq!(parse_mac("02:42:AC:11:00:02").unwrap(), [2, 0x42, 0xac, 0x11, 0, 2]);
        for bad in [
            "",
            "02:42",
            "02:42:ac:11:00:0g",
            "01:00:00:00:00:01",
            "00:00:00:00:00:00",
            "2:42:ac:11:0:2",
            "02:42:ac:11:00:02:03",
        ] {
            assert!(parse_mac(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_way_out_is_by_priority_then_by_order() {
        assert!(metric(1, 3) < metric(0, 2));
        assert!(metric(0, 2) < metric(0, 3));
        assert!(metric(i32::MIN, 2) > metric(0, 200) && metric(i32::MAX, 2) < metric(1, 2));
    }
}
