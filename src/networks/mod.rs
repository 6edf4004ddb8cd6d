//! Networks: what containers can be attached to. So far `none`, which has nothing but loopback, and `host`.

mod host;

use std::fmt::Debug;
use std::net::IpAddr;

use async_trait::async_trait;

use crate::driver::Spawner;
use crate::error::{Error, ObjectKind, Result};

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
    /// Its name, as [`ContainerSpec::network`](crate::ContainerSpec::network) chooses it.
    pub name: String,
    /// The driver behind it.
    pub driver: String,
    /// Interfaces that a container on it shares. Those of `none` are each container's own.
    pub links: Vec<Link>,
}

/// What can be done with networks. Every verb has a default body, so a verb that is added breaks no implementation.
#[async_trait]
pub trait NetworkManager: Debug + Send + Sync + 'static {
    /// All networks, by name.
    ///
    /// # Errors
    /// `Os` if the kernel does not answer.
    async fn list(&self) -> Result<Vec<NetworkInfo>> {
        Err(Error::unsupported_verb("networks.list"))
    }

    /// Everything about one network.
    ///
    /// # Errors
    /// `NotFound`; `Os` if the kernel does not answer.
    async fn inspect(&self, name: &str) -> Result<NetworkInfo> {
        let _ = name;
        Err(Error::unsupported_verb("networks.inspect"))
    }
}

/// Networks of this host.
#[derive(Debug)]
pub(crate) struct LocalNetworks {
    pub(crate) spawner: Spawner,
}

#[async_trait]
impl NetworkManager for LocalNetworks {
    async fn list(&self) -> Result<Vec<NetworkInfo>> {
        Ok(vec![self.inspect("host").await?, self.inspect("none").await?])
    }

    async fn inspect(&self, name: &str) -> Result<NetworkInfo> {
        let links = match name {
            "host" => self.spawner.call(host::links()).await?,
            "none" => Vec::new(),
            _ => return Err(Error::not_found(ObjectKind::Network, name)),
        };
        Ok(NetworkInfo {
            name: name.to_owned(),
            driver: if name == "none" { "null" } else { name }.to_owned(),
            links,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Driver;

    #[tokio::test]
    async fn host_has_loopback_with_its_address() {
        let driver = Driver::start().unwrap();
        let networks = LocalNetworks {
            spawner: driver.spawner().clone(),
        };
        let host = networks.inspect("host").await.unwrap();
        let loopback = host.links.iter().find(|link| link.name == "lo").unwrap();
        assert!(loopback.up);
        let address = LinkAddress {
            address: [127, 0, 0, 1].into(),
            prefix_len: 8,
        };
        assert!(loopback.addresses.contains(&address), "{loopback:?}");
        let names: Vec<_> = networks
            .list()
            .await
            .unwrap()
            .into_iter()
            .map(|network| network.name)
            .collect();
        assert_eq!(names, ["host", "none"]);
        assert!(networks.inspect("bridge").await.unwrap_err().is_not_found());
    }
}
