//! Containers' links on a parent. The link of a container is made in its own network, so that it goes with it; what the parent
//! needs besides (a VLAN that the host has not, a link that leads nowhere) is in the engine's. So nothing of it is ever in the
//! host's network, and whatever dies, the kernel clears up.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bridge::{Bridge, BridgeLink};
use super::{Net, Place, inside_messages, lock, pools_of};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::networks::host;
use crate::networks::ipam::Addresses;
use crate::networks::parent::{self, Kind, OnParent, Parent};
use crate::networks::route::{self, End, Found, Mac, NewLink};
use crate::networks::spec::NetworkRecord;
use crate::sys::netlink::{Message, Refused, Socket};
use crate::types::{ContainerId, EndpointSpec, NetworkId};

/// Numbers of VLANs in the engine's network begin here: before Linux 6.14 one in use in the host's could not be had.
const FIRST_VLAN: u32 = 1 << 30;

/// How long what is taken is tried again, and how often: what a dead engine had, the kernel takes away a moment after it.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(20);

/// A parent as it was found.
struct Seat {
    link: Found,
    /// Whether it is in the engine's own network.
    ours: bool,
}

/// Asks the kernel whether containers can have their links on a parent of the host's, and whether that is there. Blocks.
///
/// # Errors
/// `Unsupported` without `CAP_NET_ADMIN`, or where the kernel lacks the driver; `InvalidArgument` for a parent that is not there.
#[cold]
pub(crate) fn check(on: &OnParent) -> Result<()> {
    let Parent::Host(name) = &on.parent else { return Ok(()) };
    let mut socket = host_socket()?;
    if let Err(refused) = socket.send(&[parent::question(on.kind)], None)
        && refused.error.raw_os_error() != Some(libc::EINVAL)
    {
        return Err(refusal(on, refused));
    }
    let found = links(&mut socket)?;
    let there = |name: &str| route::find_link(&found, name).is_some();
    match parent::vlan(name) {
        _ if there(name) => Ok(()),
        Some((link, _)) if there(link) => Ok(()),
        _ => Err(no_parent(name)),
    }
}

impl Net {
    /// Notes a network whose containers have their links on a parent, which is found or made. Blocks.
    ///
    /// # Errors
    /// `Conflict` with another network on the same parent that it does not go together with.
    #[cold]
    pub(super) fn on_parent(&self, record: &NetworkRecord, on: OnParent, names: bool) -> Result<()> {
        let spec = &record.spec;
        self.goes_with_others(&on, &record.id)?;
        let seat = self.seat(&on, &record.id)?;
        if let Some(mtu) = spec.mtu_bytes.filter(|mtu| *mtu > seat.link.mtu) {
            let message = format!(
                "invalid MTU {mtu}: the parent of network {} takes packets of at most {} bytes",
                spec.name, seat.link.mtu
            );
            return Err(Error::invalid(message).with_object(ObjectKind::Option, "com.docker.network.driver.mtu"));
        }
        let [ipv4, ipv6] = pools_of(spec);
        let (gateway, gateway_v6) = super::gateways(spec);
        let network = Bridge {
            name: spec.name.clone(),
            index: 0,
            ipv4: ipv4.and_then(Addresses::of),
            ipv6: ipv6.and_then(Addresses::of),
            gateway,
            gateway_v6,
            internal: spec.internal,
            between_containers: true,
            mtu: spec.mtu_bytes,
            names,
            parent: Some((on, seat.link.mac)),
            driven: None,
        };
        lock(&self.places).bridges.insert(record.id.clone(), network);
        Ok(())
    }

    fn goes_with_others(&self, on: &OnParent, network: &NetworkId) -> Result<()> {
        let Parent::Host(name) = &on.parent else { return Ok(()) };
        let places = lock(&self.places);
        let mut others = places.bridges.iter().filter(|(id, _)| *id != network);
        let other = others.find_map(|(_, other)| {
            let (theirs, _) = other.parent.as_ref()?;
            (theirs.parent == on.parent && !theirs.kind.goes_with(on.kind)).then_some(&other.name)
        });
        let Some(other) = other else { return Ok(()) };
        // Docker's words.
        let message = format!(
            "{} network {other} is already using parent interface {name}, with a driver or a mode that this one does not go with",
            on.kind.driver()
        );
        Err(Error::new(ErrorKind::Conflict, message).with_object(ObjectKind::Option, "parent"))
    }

    /// The parent, found or made. Blocks.
    fn seat(&self, on: &OnParent, network: &NetworkId) -> Result<Seat> {
        let name = match &on.parent {
            Parent::Nowhere => return self.stub(network),
            Parent::Host(name) => name,
        };
        let mut socket = host_socket()?;
        let found = links(&mut socket)?;
        if let Some(link) = route::find_link(&found, name) {
            return Ok(Seat { link, ours: false });
        }
        let below = parent::vlan(name).and_then(|(link, id)| Some((route::find_link(&found, link)?, id)));
        let Some((below, id)) = below else {
            return Err(no_parent(name));
        };
        patiently(|| self.vlan(on, name, below, id, &mut socket))
    }

    /// A VLAN of a link of the host's, in the engine's network: all networks on it share it.
    fn vlan(&self, on: &OnParent, name: &str, below: Found, id: u16, socket: &mut Socket) -> Result<Seat> {
        let mut kernel = lock(&self.kernel);
        if let Some(link) = route::find_link(&links(&mut kernel.route)?, name) {
            return Ok(Seat { link, ours: true });
        }
        let new = NewLink {
            index: FIRST_VLAN + self.number(),
            name,
            parent: below.index,
            namespace: Some(self.house.home().as_raw_fd()),
            up: true,
            ..NewLink::default()
        };
        socket
            .send(&[parent::new_vlan(id, &new)], None)
            .map_err(|refused| no_vlan(on, name, id, refused))?;
        match route::find_link(&links(&mut kernel.route)?, name) {
            Some(link) => Ok(Seat { link, ours: true }),
            None => Err(no_parent(name)),
        }
    }

    /// A link of a network's own that leads nowhere: one of a pair, whose other end nobody has.
    fn stub(&self, network: &NetworkId) -> Result<Seat> {
        let names = stub_names(network);
        let mut kernel = lock(&self.kernel);
        if let Some(link) = route::find_link(&links(&mut kernel.route)?, &names[0]) {
            return Ok(Seat { link, ours: true });
        }
        let end = |name| {
            let index = self.number();
            let mut mac: Mac = [0x02, 0x44, 0, 0, 0, 0];
            mac[2..].copy_from_slice(&index.to_be_bytes());
            End { index, name, mac }
        };
        let (near, far) = (end(&names[0]), end(&names[1]));
        let messages = [route::new_stub(&near, &far, None), route::up(far.index)];
        kernel
            .route
            .send(&messages, None)
            .map_err(super::os("make a link that leads nowhere"))?;
        match route::find_link(&links(&mut kernel.route)?, &names[0]) {
            Some(link) => Ok(Seat { link, ours: true }),
            None => Err(no_parent(&names[0])),
        }
    }

    /// A number that no other link of the engine's network has.
    fn number(&self) -> u32 {
        let mut places = lock(&self.places);
        places.next_index += 1;
        places.next_index - 1
    }

    /// Makes a container's link on a parent, in its own network. Blocks.
    #[cold]
    pub(super) fn link_on_parent(
        &self,
        on: &OnParent,
        container: &ContainerId,
        place: &Place,
        network: &BridgeLink,
        namespace: &OwnedFd,
        spec: &EndpointSpec,
    ) -> Result<()> {
        let seat = self.seat(on, &place.network)?;
        // Before Linux 6.14 neither its name nor its number may be in use in the parent's network. It gets its own where it is.
        let passing = format!("lh{}", place.endpoint.id.get(..12).unwrap_or_default());
        let new = NewLink {
            index: 0,
            name: &passing,
            mac: (!on.kind.has_the_parents_mac()).then_some(network.mac),
            mtu: network.mtu,
            parent: seat.link.index,
            namespace: Some(namespace.as_raw_fd()),
            up: false,
        };
        let message = [parent::new_link(on.kind, &new)];
        patiently(|| {
            let made = match seat.ours {
                true => lock(&self.kernel).route.send(&message, None),
                false => host_socket()?.send(&message, None),
            };
            made.map_err(|refused| refusal(on, refused))
        })?;
        let mut inside = self.inside(namespace)?;
        let link = route::find_link(&links(&mut inside)?, &passing).ok_or_else(|| no_parent(&passing))?;
        self.note_number(container, &place.network, link.index);
        let there = BridgeLink {
            inside: link.index,
            ..network.clone()
        };
        let mut messages = vec![route::rename(link.index, &place.endpoint.interface)];
        messages.extend(inside_messages(&place.endpoint, &there, spec));
        messages.extend(ways_out(on.kind, place, &there, spec));
        inside.send(&messages, None).map_err(|refused| not_up(on, refused))
    }

    /// What number the kernel gave a container's link.
    pub(super) fn note_number(&self, container: &ContainerId, network: &NetworkId, index: u32) {
        let mut places = lock(&self.places);
        let member = places.members.get_mut(container);
        let mut own = member.into_iter().flat_map(|member| &mut member.places);
        if let Some(place) = own.find(|place| place.network == *network) {
            place.alone = place.alone.take().map(|(namespace, _)| (namespace, index));
        }
    }

    pub(super) fn inside(&self, namespace: &OwnedFd) -> Result<Socket> {
        let namespace = Some(namespace.as_fd());
        let fd = self
            .house
            .socket(namespace, libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
        Socket::new(fd).map_err(|error| Error::os("set a netlink socket up", error))
    }

    /// Removes a container's link that has no other end. It would go with the container's network, but later, and its address with it.
    #[cold]
    pub(super) fn unlink_alone(&self, namespace: &Arc<OwnedFd>, index: u32) {
        // None was made.
        if index == 0 {
            return;
        }
        let removed = self.inside(namespace).and_then(|mut inside| {
            match inside.send(&[route::delete(index)], None) {
                // Somebody removed it by hand, or its parent.
                Err(refused) if refused.error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
                result => result.map_err(super::os("remove a container's link")),
            }
        });
        if let Err(error) = removed {
            tracing::warn!(error = error.report(), "a container's link could not be removed");
        }
    }

    /// Removes what the engine's network has for a parent that no other network is on.
    #[cold]
    pub(super) fn leave_parent(&self, on: &OnParent, network: &NetworkId) {
        let name = match &on.parent {
            Parent::Nowhere => stub_names(network)[0].clone(),
            Parent::Host(name) => {
                let places = lock(&self.places);
                let mut others = places.bridges.values().filter_map(|other| other.parent.as_ref());
                if others.any(|(other, _)| other.parent == on.parent) {
                    return;
                }
                name.clone()
            }
        };
        let mut kernel = lock(&self.kernel);
        let removed = links(&mut kernel.route).and_then(|found| match route::find_link(&found, &name) {
            Some(link) => kernel
                .route
                .send(&[route::delete(link.index)], None)
                .map_err(super::os("remove a network's parent")),
            None => Ok(()),
        });
        if let Err(error) = removed {
            tracing::warn!(error = error.report(), "a network's parent could not be removed");
        }
    }

    /// What is missing of networks on parents: somebody removed it by hand.
    #[cold]
    pub(super) fn audit_parents(&self) -> Result<Vec<(String, &'static str)>> {
        let (networks, links_there) = {
            let places = lock(&self.places);
            let networks: Vec<_> = places
                .bridges
                .iter()
                .filter_map(|(id, network)| Some((id.clone(), network.name.clone(), network.parent.clone()?.0)))
                .collect();
            let members = places.members.values();
            let alone: Vec<_> = members
                .flat_map(|member| member.places.iter().map(move |place| (&member.name, place)))
                .filter_map(|(name, place)| {
                    let told = format!("{name} in {}", place.endpoint.network);
                    Some((place.alone.clone()?, told))
                })
                .collect();
            (networks, alone)
        };
        let mut missing = Vec::new();
        if networks.is_empty() && links_there.is_empty() {
            return Ok(missing);
        }
        let mut known = links(&mut host_socket()?)?;
        known.extend(links(&mut lock(&self.kernel).route)?);
        for (id, name, on) in networks {
            let link = match on.parent {
                Parent::Nowhere => stub_names(&id)[0].clone(),
                Parent::Host(link) => link,
            };
            if route::find_link(&known, &link).is_none() {
                missing.push((name, "its parent is gone: somebody removed it"));
            }
        }
        for ((namespace, index), told) in links_there {
            let found = links(&mut self.inside(&namespace)?)?;
            let mut numbers = found.iter().filter_map(|body| route::read_link(body));
            if !numbers.any(|(one, _)| one == index) {
                missing.push((told, "its link is gone: somebody removed it"));
            }
        }
        Ok(missing)
    }
}

/// Names of the pair of a network that leads nowhere. Like a VLAN's, neither is one that a bridge or a container's link has.
fn stub_names(network: &NetworkId) -> [String; 2] {
    let short = network.as_str().get(..12).unwrap_or_default();
    [format!("n{short}"), format!("o{short}")]
}

/// The ways out that a bridge has not: by IPv6, and without a gateway.
fn ways_out(kind: Kind, place: &Place, network: &BridgeLink, spec: &EndpointSpec) -> Vec<Message> {
    if network.internal {
        return Vec::new();
    }
    let (index, endpoint) = (network.inside, &place.endpoint);
    let metric = super::metric(spec.gateway_priority, index);
    if kind.is_routed() {
        let families = [endpoint.ipv4.map(|_| false), endpoint.ipv6.map(|_| true)];
        return families
            .into_iter()
            .flatten()
            .map(|ipv6| route::default_link(ipv6, index, metric))
            .collect();
    }
    let gateway = endpoint.gateway_v6.filter(|_| endpoint.ipv6.is_some());
    gateway
        .map(|gateway| route::default_route(gateway.into(), index, metric))
        .into_iter()
        .collect()
}

/// Tries again what is a conflict, for a while.
fn patiently<T>(mut work: impl FnMut() -> Result<T>) -> Result<T> {
    let until = Instant::now() + PATIENCE;
    loop {
        match work() {
            Err(error) if error.is_conflict() && Instant::now() < until => std::thread::sleep(PAUSE),
            done => return done,
        }
    }
}

fn host_socket() -> Result<Socket> {
    host::route_socket().map_err(|error| Error::os("open a netlink socket", error))
}

pub(super) fn links(socket: &mut Socket) -> Result<Vec<Vec<u8>>> {
    socket
        .dump(&route::all_links())
        .map_err(|error| Error::os("list links", error))
}

fn no_parent(name: &str) -> Error {
    // Docker's words.
    let message = format!("-o parent interface was not found on the host: {name}");
    Error::invalid(message).with_object(ObjectKind::Option, "parent")
}

fn parent_name(on: &OnParent) -> &str {
    match &on.parent {
        Parent::Nowhere => "of the engine's own",
        Parent::Host(name) => name,
    }
}

/// Why there is no link on a parent.
fn refusal(on: &OnParent, refused: Refused) -> Error {
    let (driver, name) = (on.kind.driver(), parent_name(on));
    let what = || format!("a network of the driver {driver}");
    match refused.error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            let needs = "CAP_NET_ADMIN in the host's network, which root has; for an ordinary user, a bridge network, or one without a parent";
            Error::unsupported(what(), needs).with_source(refused.error)
        }
        Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT) => {
            let needs = format!("{driver} in the kernel: as root, modprobe {driver}");
            Error::unsupported(what(), needs).with_source(refused.error)
        }
        Some(libc::EBUSY) => taken(format!(
            "the parent {name} is a port of a bridge or a bond, or has links of another driver"
        )),
        Some(libc::EINVAL) => taken(format!(
            "the parent {name} takes no link of {driver}: in the mode passthru it has a single one, and there is no other beside it; \
             the host's loopback, and links that are no Ethernet, take none"
        )),
        Some(libc::ENODEV) => no_parent(name),
        _ => Error::os(format!("make a link of {driver} on {name}"), refused.error),
    }
}

fn taken(message: String) -> Error {
    Error::new(ErrorKind::Conflict, message).with_object(ObjectKind::Option, "parent")
}

fn no_vlan(on: &OnParent, name: &str, id: u16, refused: Refused) -> Error {
    match refused.error.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT) => {
            let needs = "8021q in the kernel (as root, modprobe 8021q), or a parent that is there";
            Error::unsupported(format!("the parent {name}, a VLAN"), needs).with_source(refused.error)
        }
        Some(libc::EEXIST) => taken(format!(
            "the VLAN {id} that {name} stands for is another engine's, or is there under another name: a link of the host's can be the \
             parent of all (ip link add {name} type vlan id {id}, with its link before)"
        )),
        Some(libc::ENETDOWN) => taken(format!("the link that {name} is a VLAN of is down: ip link set it up")),
        _ => refusal(on, refused),
    }
}

/// Why a link that was made is not in use.
fn not_up(on: &OnParent, refused: Refused) -> Error {
    match refused.error.raw_os_error() {
        Some(libc::EADDRINUSE) => {
            let message = format!(
                "the hardware address is in use on the parent {} already",
                parent_name(on)
            );
            Error::new(ErrorKind::Conflict, message).with_object(ObjectKind::Option, "mac")
        }
        _ => Error::os("set a container's link up", refused.error),
    }
}
