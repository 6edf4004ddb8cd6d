//! What is done to containers' packets on purpose: links that are slow or lose some, and containers that are kept apart.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use super::{Net, Places, lock};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::networks::{nft, shape};
use crate::sys::netlink::{Refused, Socket};
use crate::types::{ContainerId, LinkShape, NetworkId, Shaping};

/// Both ends of a container's link, and what is done there.
struct Ends {
    link: u32,
    inside: u32,
    namespace: Arc<OwnedFd>,
    shaping: Shaping,
}

impl Net {
    /// Does this, and nothing else, to a container's packets in a network. What fails changes nothing. Blocks.
    ///
    /// # Errors
    /// `NotFound` where it is not in it; `Unsupported` for what the kernel has no discipline for.
    pub(crate) fn shape(&self, container: &ContainerId, network: &NetworkId, shaping: Shaping) -> Result<()> {
        let ends = self.ends(container, network)?;
        let shaped = self.shape_ends(&ends, shaping);
        if shaped.is_err() {
            let tried = Ends { shaping, ..ends };
            if let Err(error) = self.shape_ends(&tried, ends.shaping) {
                tracing::warn!(error = error.report(), "a link could not be made what it was");
            }
            return shaped;
        }
        let mut places = lock(&self.places);
        let member = places.members.get_mut(container);
        let mut own = member.into_iter().flat_map(|member| &mut member.places);
        if let Some(place) = own.find(|place| place.network == *network) {
            place.shaping = shaping;
        }
        Ok(())
    }

    fn ends(&self, container: &ContainerId, network: &NetworkId) -> Result<Ends> {
        let places = lock(&self.places);
        let member = places.members.get(container);
        let place = member.and_then(|member| member.places.iter().find(|place| place.network == *network));
        let (Some(member), Some(place)) = (member, place) else {
            let message = format!(
                "container {} is not in the network {}",
                container.short(),
                network.short()
            );
            return Err(Error::new(ErrorKind::NotFound, message).with_object(ObjectKind::Network, network.as_str()));
        };
        if place.alone.is_some() {
            let needs =
                "a bridge network: this link has no other end of the engine's, at which what comes in could be shaped";
            return Err(Error::unsupported("a shape of this link", needs).with_object(ObjectKind::Option, "shaping"));
        }
        Ok(Ends {
            link: place.link,
            inside: place.inside,
            namespace: Arc::clone(&member.namespace),
            shaping: place.shaping,
        })
    }

    /// Changes the ends on which something is done or was.
    fn shape_ends(&self, ends: &Ends, wanted: Shaping) -> Result<()> {
        if wanted.incoming != ends.shaping.incoming {
            shape_end(&mut lock(&self.kernel).route, ends.link, &wanted.incoming)?;
        }
        if wanted.outgoing != ends.shaping.outgoing {
            let namespace = Some(ends.namespace.as_fd());
            let fd = self
                .house
                .socket(namespace, libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
            let mut inside = Socket::new(fd).map_err(|error| Error::os("set a netlink socket up", error))?;
            shape_end(&mut inside, ends.inside, &wanted.outgoing)?;
        }
        Ok(())
    }

    /// From now on no packet goes from one of two containers to the other, on whatever network, or everything does again. Blocks.
    ///
    /// # Errors
    /// `Unsupported` where the kernel has no rules for bridges.
    pub(crate) fn keep_apart(&self, one: &ContainerId, other: &ContainerId, apart: bool) -> Result<()> {
        let pair = pair(one, other);
        let changed = {
            let mut places = lock(&self.places);
            if apart && places.share_a_parent(one, other) {
                return Err(beside_rules());
            }
            match apart {
                true => places.apart.insert(pair.clone()),
                false => places.apart.remove(&pair),
            }
        };
        if !changed {
            return Ok(());
        }
        let ruled = self.rule_apart();
        if ruled.is_err() {
            let mut places = lock(&self.places);
            match apart {
                true => places.apart.remove(&pair),
                false => places.apart.insert(pair),
            };
        }
        ruled
    }

    /// A container is gone for good.
    pub(crate) fn forget(&self, container: &ContainerId) {
        // Rules that speak of its links stay, and mean nothing: no other link ever has their numbers.
        lock(&self.places)
            .apart
            .retain(|(one, other)| one != container && other != container);
    }

    /// The same for a container that takes a place: before it has a link there.
    pub(super) fn rule_apart_for(&self, container: &ContainerId) -> Result<()> {
        let concerned = {
            let places = lock(&self.places);
            let mut pairs = places.apart.iter();
            if pairs.any(|(one, other)| (one == container || other == container) && places.share_a_parent(one, other)) {
                return Err(beside_rules());
            }
            let mut pairs = places.apart.iter();
            pairs.any(|(one, other)| one == container || other == container)
        };
        match concerned {
            true => self.rule_apart(),
            false => Ok(()),
        }
    }

    /// Rules as the pairs are now. Held meanwhile is the kernel, so that what is newer comes later.
    fn rule_apart(&self) -> Result<()> {
        let mut kernel = lock(&self.kernel);
        let links = lock(&self.places).links_apart();
        kernel
            .nft
            .send(&nft::apart(&links), Some(nft::around()))
            .map_err(|refused| no_bridge_rules(refused.error))
    }
}

impl Places {
    /// Whether two containers are on a network that no bridge is between.
    fn share_a_parent(&self, one: &ContainerId, other: &ContainerId) -> bool {
        let alone = |container: &ContainerId| {
            let member = self.members.get(container);
            let places = member.into_iter().flat_map(|member| &member.places);
            places.filter(|place| place.alone.is_some()).map(|place| &place.network)
        };
        alone(one).any(|network| alone(other).any(|theirs| theirs == network))
    }

    /// Links between which nothing goes.
    pub(super) fn links_apart(&self) -> Vec<(u32, u32)> {
        let of = |container: &ContainerId| {
            let member = self.members.get(container);
            member.into_iter().flat_map(|member| &member.places)
        };
        let mut links = Vec::new();
        for (one, other) in &self.apart {
            for place in of(one) {
                let theirs = of(other).filter(|theirs| theirs.network == place.network);
                links.extend(theirs.flat_map(|theirs| [(place.link, theirs.link), (theirs.link, place.link)]));
            }
        }
        links
    }
}

fn beside_rules() -> Error {
    let needs = "bridge networks alone: what two containers send each other on a network without a bridge meets no rule of the engine's";
    Error::unsupported("keeping containers apart on a network of macvlan or ipvlan", needs)
}

/// The same whoever is named first.
fn pair(one: &ContainerId, other: &ContainerId) -> (ContainerId, ContainerId) {
    match one <= other {
        true => (one.clone(), other.clone()),
        false => (other.clone(), one.clone()),
    }
}

fn no_bridge_rules(error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::EPROTONOSUPPORT | libc::EOPNOTSUPP | libc::ENOENT | libc::EAFNOSUPPORT) => {
            let needs = "nf_tables for bridges in the kernel: as root, modprobe nft_meta_bridge";
            Error::unsupported("keeping containers apart", needs).with_source(error)
        }
        _ => Error::os("load the rules that keep containers apart", error),
    }
}

fn shape_end(socket: &mut Socket, link: u32, wanted: &LinkShape) -> Result<()> {
    match (socket.send(&[shape::set(link, wanted)], None), shape::kind(wanted)) {
        (Ok(()), _) => Ok(()),
        // Nothing was done there.
        (Err(Refused { error, .. }), None) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        (Err(Refused { error, .. }), Some(kind)) if error.raw_os_error() == Some(libc::ENOENT) => {
            let needs = format!("sch_{kind} in the kernel: as root, modprobe sch_{kind}");
            Err(Error::unsupported(format!("links that are shaped by {kind}"), needs)
                .with_object(ObjectKind::Option, "shaping")
                .with_source(error))
        }
        (Err(Refused { error, .. }), _) => Err(Error::os("shape a link", error)),
    }
}
