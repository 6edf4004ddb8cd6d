//! Who makes networks that are not ours: the [`NetworkDriver`] seam.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{LinkAddress, NetworkSpec};
use crate::error::{Error, Result};
use crate::runtime::native::house::House;
use crate::types::{ContainerId, NetworkId, Outcome, PublishedPort};

/// How long a call of a driver may take that says nothing else.
const LIMIT: Duration = Duration::from_secs(30);

/// What a driver is told of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NetworkContext {
    /// Its id: no other network, of whatever engine, ever has it.
    pub id: NetworkId,
    /// Its name.
    pub name: String,
    /// What was asked for: [`NetworkSpec::options`] are the driver's own, and [`NetworkSpec::pools`] the subnets that the engine
    /// chose, unless the driver gives addresses itself.
    pub spec: NetworkSpec,
    /// A directory of the network's own below the root, for whatever the driver keeps; it is removed after the network.
    pub dir: PathBuf,
}

/// What a driver is told of a container's place in a network.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointContext {
    /// Its id, 64 hexadecimal digits: no other place ever has it.
    pub id: String,
    /// The container.
    pub container: ContainerId,
    /// The container's name.
    pub container_name: String,
    /// The name that the link must have in the container's network: `eth0`.
    pub interface: String,
    /// Addresses that the engine gives it, at most one of each family. None where the driver gives them.
    pub addresses: Vec<LinkAddress>,
    /// Addresses that the user asked for. Where the engine gives addresses, they are among those.
    pub requested: Vec<IpAddr>,
    /// The way out that the engine sets; none where the driver gives addresses.
    pub gateway: Option<Ipv4Addr>,
    /// The same of IPv6.
    pub gateway_v6: Option<Ipv6Addr>,
    /// The hardware address that the user asked for. A link that has another one gets it from the engine, unless the driver gives
    /// addresses.
    pub mac: Option<[u8; 6]>,
    /// Ports of the host's that are to lead to it, where the driver publishes some ([`NetworkDriver::publishes`]): the engine has taken
    /// them, so that nobody else can, and answers none of them.
    pub ports: Vec<PublishedPort>,
    /// What the user told the driver of this place ([`EndpointSpec::options`](crate::types::EndpointSpec::options)).
    pub options: BTreeMap<String, String>,
}

/// A container's network namespace, which has nothing but loopback before its first network.
#[derive(Clone)]
pub struct NetworkSandbox {
    pub(super) house: Arc<House>,
    pub(super) namespace: Arc<OwnedFd>,
}

impl NetworkSandbox {
    /// The namespace itself: for `IFLA_NET_NS_FD` of rtnetlink(7), say, and for setns(2) in a process of the driver's own.
    pub fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    /// A socket that belongs to the namespace, whoever uses it; close-on-exec is set. The arguments are those of socket(2). It is what
    /// a driver configures a link with, as an ordinary user too. Blocks for some system calls of another process.
    ///
    /// # Errors
    /// `Os`: what the kernel refuses; `Os` with `EPIPE` once the engine ends.
    pub fn socket(&self, domain: i32, kind: i32, protocol: i32) -> Result<OwnedFd> {
        self.house.socket(Some(self.namespace.as_fd()), domain, kind, protocol)
    }
}

impl Debug for NetworkSandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkSandbox").finish_non_exhaustive()
    }
}

/// Who gives addresses to containers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Addressing {
    /// The engine: it chooses subnets and addresses, and sets addresses, routes, hardware address and MTU of the link.
    #[default]
    Engine,
    /// The driver: it sets the link up with all of that, and says in [`Joined`] what it set.
    Driver,
}

/// What a driver says of a place that it made. What it says of addresses counts where it gives them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Joined {
    /// Addresses of the link: the first of each family is the container's address.
    pub addresses: Vec<LinkAddress>,
    /// The way out.
    pub gateway: Option<Ipv4Addr>,
    /// The same of IPv6.
    pub gateway_v6: Option<Ipv6Addr>,
}

impl Joined {
    /// With one more address.
    #[must_use]
    pub fn address(mut self, address: IpAddr, prefix_len: u8) -> Self {
        self.addresses.push(LinkAddress { address, prefix_len });
        self
    }

    /// With a way out.
    #[must_use]
    pub fn gateway(mut self, gateway: IpAddr) -> Self {
        match gateway {
            IpAddr::V4(gateway) => self.gateway = Some(gateway),
            IpAddr::V6(gateway) => self.gateway_v6 = Some(gateway),
        }
        self
    }
}

/// Makes networks, and containers' links to them. An embedder's own is made known with
/// [`EngineBuilder::with_network_driver`](crate::engine::EngineBuilder::with_network_driver); a network names it as its driver.
///
/// **What the engine keeps for itself**: names, records, addresses (unless [`NetworkDriver::addressing`] says otherwise), the
/// container's namespace, the resolver in it, and what was begun. Before it asks for something it writes down what it asks for,
/// so that an engine which is killed at whatever moment leaves nothing that another engine with the same driver does not take
/// back: at its opening, at reconcile, and before the network is used again.
///
/// **What is asked how often**: any call may be the last one before a kill, so each may come again: a driver finds what is there
/// already, and takes what is gone for removed. `create` and `remove` of one network come one at a time; what concerns different
/// places comes side by side. Calls run on a thread that all drivers of an engine share, in a tokio runtime, and must not block it. One that takes longer than
/// [`NetworkDriver::limit`] is dropped, and is `Timeout`.
#[async_trait]
pub trait NetworkDriver: Debug + Send + Sync + 'static {
    /// Who gives addresses; default the engine.
    fn addressing(&self) -> Addressing {
        Addressing::Engine
    }

    /// Whether containers on a network can have their ports published by the driver; default not. Asked for a container that is on no
    /// bridge network, for each of its networks, before anything is made. It must answer at once.
    fn publishes(&self, network: &NetworkContext) -> bool {
        let _ = network;
        false
    }

    /// How long each call may take; default 30 seconds.
    fn limit(&self) -> Duration {
        LIMIT
    }

    /// Makes a network, or finds it there. Called when a user creates it, and again by every engine before its first container joins
    /// it: after a reboot, say, nothing of it may be left.
    ///
    /// # Errors
    /// `InvalidArgument` for options that cannot be; whatever else stands in the way. After a first call that fails, or that nobody
    /// waits for any more, [`NetworkDriver::remove`] is called.
    async fn create(&self, network: &NetworkContext) -> Result<Outcome>;

    /// Removes a network that no container is on. One that is gone is success.
    ///
    /// # Errors
    /// What stands in the way; the network then stays.
    async fn remove(&self, network: &NetworkContext) -> Result<()>;

    /// Gives a container a link, named [`EndpointContext::interface`], in its namespace. Where the engine gives addresses, all else of
    /// the link is set by the engine afterwards.
    ///
    /// # Errors
    /// What stands in the way; the container does not start, or is not connected. [`NetworkDriver::leave`] is called then, too, and after
    /// a call that took too long.
    async fn join(
        &self,
        network: &NetworkContext,
        endpoint: &EndpointContext,
        sandbox: &NetworkSandbox,
    ) -> Result<Joined>;

    /// Takes back what [`NetworkDriver::join`] made, or began to make. There is no namespace any more where the engine was killed that
    /// had it, and a link that was in it is gone. One that is gone is success.
    ///
    /// # Errors
    /// They are logged: the container is out in any case, and its link is removed. The call comes again at the next reconcile,
    /// and before the network is removed, which is not removed before it succeeds.
    async fn leave(
        &self,
        network: &NetworkContext,
        endpoint: &EndpointContext,
        sandbox: Option<&NetworkSandbox>,
    ) -> Result<()>;

    /// Looks whether a place is as [`NetworkDriver::join`] made it: the audit tells of it if not. Default: all is well.
    ///
    /// # Errors
    /// What is wrong.
    async fn check(
        &self,
        network: &NetworkContext,
        endpoint: &EndpointContext,
        sandbox: &NetworkSandbox,
    ) -> Result<()> {
        let _ = (network, endpoint, sandbox);
        Ok(())
    }
}

/// What a driver says of addresses, if it can be.
///
/// # Errors
/// `Unavailable`: what cannot be an address of a link.
pub(super) fn checked(joined: Joined) -> Result<Joined> {
    const MOST: usize = 64;
    let bad = |one: &LinkAddress| {
        let longest = if one.address.is_ipv6() { 128 } else { 32 };
        one.prefix_len > longest || cannot_be(one.address)
    };
    let gateways = [joined.gateway.map(IpAddr::V4), joined.gateway_v6.map(IpAddr::V6)];
    if joined.addresses.len() > MOST
        || joined.addresses.iter().any(bad)
        || gateways.into_iter().flatten().any(cannot_be)
    {
        let message = "the network driver names addresses that no link can have";
        return Err(Error::new(crate::error::ErrorKind::Unavailable, message));
    }
    Ok(joined)
}

fn cannot_be(address: IpAddr) -> bool {
    address.is_unspecified() || address.is_multicast() || address.is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k8_addresses_of_a_driver_are_believed_as_far_as_they_can_be() {
        let of = |address: &str, prefix| Joined::default().address(address.parse().unwrap(), prefix);
        checked(of("10.1.2.3", 32)).unwrap();
        checked(of("fd00::1", 64).gateway("fe80::1".parse().unwrap())).unwrap();
        for (address, prefix) in [
            ("10.1.2.3", 33),
            ("fd00::1", 129),
            ("127.0.0.1", 8),
            ("224.0.0.1", 4),
            ("::", 64),
        ] {
            assert!(checked(of(address, prefix)).is_err(), "{address}/{prefix}");
        }
        assert!(checked(Joined::default().gateway("0.0.0.0".parse().unwrap())).is_err());
        let many = (0..65u8).fold(Joined::default(), |all, last| all.address([10, 0, 0, last].into(), 8));
        assert!(checked(many).is_err());
    }
}
