//! Networks: what containers can be attached to.
//!
//! `none` has nothing but loopback, `host` is the host's. Bridge networks, `bridge` and those that users define, live in a
//! network namespace of the engine's own: their bridges, the engine's ends of containers' links, and all rules.
//! Nothing of them is in the host's network. What leaves them goes through sockets of the engine's process, and
//! so does what comes in at published ports; what goes from container to container does not. Networks of the drivers
//! `macvlan` and `ipvlan` are on a link of the host's, which containers have a part of: what they send goes out there. Any other
//! driver is an embedder's own [`NetworkDriver`].

mod associations;
mod cni;
mod dns;
mod driver;
mod host;
mod ipam;
mod local;
mod net;
mod nft;
mod own;
mod parent;
mod proxy;
mod publish;
mod resolver;
mod room;
mod route;
mod shape;
mod spec;
mod subnet;

use std::fmt::Debug;
use std::net::IpAddr;
use std::time::SystemTime;

use async_trait::async_trait;

pub use self::cni::CniNetworks;
pub use self::driver::{Addressing, EndpointContext, Joined, NetworkContext, NetworkDriver, NetworkSandbox};
pub(crate) use self::local::{LocalNetworks, Parts, Request};
pub(crate) use self::own::{Drivers, Own};
pub use self::spec::{AddressPool, NetworkSpec};
pub use self::subnet::Subnet;
use crate::error::{Error, Result};
use crate::types::{ContainerId, Endpoint, Filter, NetworkId, Outcome};

/// An address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinkAddress {
    /// The address.
    pub address: IpAddr,
    /// Length of the network's prefix, in bits.
    pub prefix_len: u8,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Link {
    /// The kernel's number for it.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether it is set up.
    pub up: bool,
    /// Its hardware address, six bytes for an Ethernet; empty where it has none.
    pub hardware_address: Vec<u8>,
    /// Its addresses.
    pub addresses: Vec<LinkAddress>,
}

/// A network that containers can be attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NetworkInfo {
    /// Its id. `host` and `none`, which every engine has, have none.
    pub id: Option<NetworkId>,
    /// Its name, as [`ContainerSpec::network`](crate::ContainerSpec::network) chooses it.
    pub name: String,
    /// The driver behind it.
    pub driver: String,
    /// When it was created.
    pub created: Option<SystemTime>,
    /// What was asked for, with the subnets that were chosen.
    pub spec: NetworkSpec,
    /// Interfaces that a container on it shares. Those of other networks are each container's own.
    pub links: Vec<Link>,
    /// Containers of this engine on it.
    pub containers: Vec<NetworkMember>,
    /// How many addresses of each subnet are in use in this engine, the gateway's included.
    pub in_use: Vec<(Subnet, usize)>,
}

impl NetworkInfo {
    /// A network of a name, with nothing known of it but its driver.
    pub fn of(name: impl Into<String>, driver: impl Into<String>) -> Self {
        let (name, driver) = (name.into(), driver.into());
        let mut spec = NetworkSpec::bridge(&name);
        spec.driver.clone_from(&driver);
        Self {
            id: None,
            name,
            driver,
            created: None,
            spec,
            links: Vec::new(),
            containers: Vec::new(),
            in_use: Vec::new(),
        }
    }

    /// Whether it is one that every engine has.
    pub fn is_predefined(&self) -> bool {
        matches!(self.name.as_str(), "bridge" | "host" | "none")
    }
}

/// A container on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkMember {
    /// Its id.
    pub id: ContainerId,
    /// Its name.
    pub name: String,
    /// Its place.
    pub endpoint: Endpoint,
}

/// What `create` made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedNetwork {
    /// The new network's id.
    pub id: NetworkId,
    /// What was asked for and will not be, and why.
    pub warnings: Vec<String>,
}

/// What can be done with networks. Every verb has a default body, so a verb that is added breaks no implementation.
/// Containers are connected and disconnected by their own manager.
#[async_trait]
pub trait NetworkManager: Debug + Send + Sync + 'static {
    /// Makes a network.
    ///
    /// # Errors
    /// `InvalidArgument`; `Conflict` for a name that is taken or a subnet that overlaps with another network's;
    /// `IpamExhausted`; `Denied` for a name of ours; `NotFound` and `Unsupported` for the driver and its options.
    ///
    /// # Cancel safety
    /// A dropped call has made it, and removes it again, or has not.
    async fn create(&self, spec: NetworkSpec) -> Result<CreatedNetwork> {
        let _ = spec;
        Err(Error::unsupported_verb("networks.create"))
    }

    /// All networks, by name.
    ///
    /// # Errors
    /// `Os` if the kernel does not answer.
    async fn list(&self) -> Result<Vec<NetworkInfo>> {
        Err(Error::unsupported_verb("networks.list"))
    }

    /// Everything about one network: by name, id, or the beginning of an id.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` where several ids begin so; `Os` if the kernel does not answer.
    async fn inspect(&self, name: &str) -> Result<NetworkInfo> {
        let _ = name;
        Err(Error::unsupported_verb("networks.inspect"))
    }

    /// Removes a network. One that is gone is [`Outcome::Already`] where it went meanwhile.
    ///
    /// # Errors
    /// `NotFound`; `Denied` for one that every engine has; `Conflict` with containers on it, or in use by another engine.
    async fn remove(&self, name: &str) -> Result<Outcome> {
        let _ = name;
        Err(Error::unsupported_verb("networks.remove"))
    }

    /// Removes networks that no container is on: their names. Filters: `label`, `label!`, `until`.
    ///
    /// # Errors
    /// `InvalidArgument` for a filter.
    async fn prune(&self, filter: Filter) -> Result<Vec<String>> {
        let _ = filter;
        Err(Error::unsupported_verb("networks.prune"))
    }
}
