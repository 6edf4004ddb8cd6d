//! What a caller asks of a network, and what is recorded of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::own::{self, Own};
use super::parent;
use super::subnet::Subnet;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::types::NetworkId;

/// Where ports of a network's containers are published that name no address.
const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";

/// Names that are ours or Docker's.
pub(crate) const RESERVED: [&str; 4] = ["bridge", "host", "none", "default"];

/// A subnet of a network, with what is said of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPool {
    /// The subnet; a free one of ours without.
    pub subnet: Option<Subnet>,
    /// The bridge's own address; the first of the subnet without. With a parent, that of the way out, which is somebody else's:
    /// there is none without.
    pub gateway: Option<IpAddr>,
    /// Where containers' addresses are taken from; the whole subnet without.
    pub range: Option<Subnet>,
}

/// A network to create. `NetworkSpec::bridge(name)` is one as `docker network create NAME` makes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NetworkSpec {
    /// Its name.
    pub name: String,
    /// The driver: `bridge`, `macvlan`, `ipvlan`, or one of the embedder's own.
    pub driver: String,
    /// Its subnets.
    #[serde(default)]
    pub pools: Vec<AddressPool>,
    /// Whether it has IPv6 too: a unique local subnet, unless one is named.
    #[serde(default)]
    pub ipv6: bool,
    /// Whether it leads nowhere but to its own containers.
    #[serde(default)]
    pub internal: bool,
    /// Whether containers on it reach each other (`com.docker.network.bridge.enable_icc`).
    #[serde(default = "yes")]
    pub between_containers: bool,
    /// Largest packet, in bytes; the kernel's default is 1500.
    #[serde(default)]
    pub mtu_bytes: Option<u32>,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Options of the driver, as given.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Docker's word for a swarm network that containers may join; it says nothing here.
    #[serde(default)]
    pub attachable: bool,
    /// Whether its definition outlives the engine that made it. One that does not goes with its engine.
    #[serde(default)]
    pub persistent: bool,
}

fn yes() -> bool {
    true
}

impl NetworkSpec {
    /// A bridge network.
    pub fn bridge(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            driver: "bridge".into(),
            pools: Vec::new(),
            ipv6: false,
            internal: false,
            between_containers: true,
            mtu_bytes: None,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            attachable: false,
            persistent: false,
        }
    }

    /// A network on a link of the host's, its parent, on which each container has a hardware address of its own: needs
    /// `CAP_NET_ADMIN` in the host's network. `eth0.10` is the VLAN 10 of `eth0`, whether the host has it or not.
    pub fn macvlan(name: impl Into<String>, parent: impl Into<String>) -> Self {
        Self::on_parent("macvlan", name, parent)
    }

    /// A network on a link of the host's, its parent, whose hardware address the containers share: needs `CAP_NET_ADMIN` in the
    /// host's network.
    pub fn ipvlan(name: impl Into<String>, parent: impl Into<String>) -> Self {
        Self::on_parent("ipvlan", name, parent)
    }

    fn on_parent(driver: &str, name: impl Into<String>, parent: impl Into<String>) -> Self {
        let mut spec = Self::bridge(name).driver_option("parent", parent);
        spec.driver = driver.into();
        spec
    }

    /// A network of a driver of the embedder's own, which was made known with
    /// [`EngineBuilder::with_network_driver`](crate::engine::EngineBuilder::with_network_driver).
    pub fn of_driver(driver: impl Into<String>, name: impl Into<String>) -> Self {
        let mut spec = Self::bridge(name);
        spec.driver = driver.into();
        spec
    }

    /// Sets an option of the driver: `macvlan_mode`, `ipvlan_mode`, `parent`, say.
    #[must_use]
    pub fn driver_option(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.insert(name.into(), value.into());
        self
    }

    /// Names a subnet.
    #[must_use]
    pub fn subnet(mut self, subnet: Subnet) -> Self {
        self.pools.push(AddressPool {
            subnet: Some(subnet),
            ..AddressPool::default()
        });
        self
    }

    /// Whether it has IPv6 too.
    #[must_use]
    pub fn ipv6(mut self, on: bool) -> Self {
        self.ipv6 = on;
        self
    }

    /// Whether it leads nowhere but to its own containers.
    #[must_use]
    pub fn internal(mut self, on: bool) -> Self {
        self.internal = on;
        self
    }

    /// Whether containers on it reach each other.
    #[must_use]
    pub fn between_containers(mut self, on: bool) -> Self {
        self.between_containers = on;
        self
    }

    /// Sets the largest packet, in bytes.
    #[must_use]
    pub fn mtu_bytes(mut self, mtu: u32) -> Self {
        self.mtu_bytes = Some(mtu);
        self
    }

    /// Sets a label.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Whether its definition outlives the engine that made it.
    #[must_use]
    pub fn persistent(mut self, on: bool) -> Self {
        self.persistent = on;
        self
    }

    /// Takes the driver's options in, and refuses what cannot be.
    pub(crate) fn checked(mut self, own: Option<&Own>) -> Result<Self> {
        check_name(&self.name)?;
        match self.driver.as_str() {
            driver if own.is_some_and(|own| own.has(driver)) => self = own::checked(self)?,
            "bridge" => {
                for (name, value) in self.options.clone() {
                    self.take_option(&name, &value)?;
                }
            }
            driver if parent::is_driver(driver) => self = parent::checked(self)?,
            "overlay" => {
                return Err(Error::unsupported(
                    "the network driver \"overlay\"",
                    "a cluster of engines, which there is not",
                ));
            }
            "host" | "null" => {
                let message = format!("only one instance of \"{}\" network is allowed", self.driver);
                return Err(Error::new(ErrorKind::Denied, message).with_object(ObjectKind::Network, self.name));
            }
            other => return Err(own::unknown(other, own.into_iter().flat_map(Own::names))),
        }
        // Source: RFC 791, section 3.2; RFC 8200, section 5.
        let least = if self.ipv6 { 1280 } else { 68 };
        match self.mtu_bytes {
            Some(mtu) if !(least..=65535).contains(&mtu) => Err(Error::invalid(format!(
                "invalid MTU {mtu}: from 68 (1280 with IPv6) to 65535 bytes"
            ))
            .with_object(ObjectKind::Option, "com.docker.network.driver.mtu")),
            _ => Ok(self),
        }
    }

    /// Where ports of its containers are published that name no address, if the network says so. Every address says nothing, as in Docker.
    pub(super) fn host_binding(&self) -> Option<IpAddr> {
        let address: IpAddr = self.options.get(HOST_BINDING)?.parse().ok()?;
        Some(address).filter(|address| !address.is_unspecified())
    }

    /// Docker's options of the bridge driver. Source: <https://docs.docker.com/engine/network/drivers/bridge/#options>.
    pub(super) fn take_option(&mut self, name: &str, value: &str) -> Result<()> {
        let bad = |needs: &str| {
            Error::invalid(format!(
                "invalid value {value:?} of the driver option {name}: {needs} is needed"
            ))
            .with_object(ObjectKind::Option, name)
        };
        let flag = || match value {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(bad("true or false")),
        };
        match name {
            "com.docker.network.bridge.enable_icc" => self.between_containers = flag()?,
            "com.docker.network.driver.mtu" => self.mtu_bytes = Some(value.parse().map_err(|_| bad("a number"))?),
            // The bridge is in a network namespace of the engine's: its name there is nobody's concern, and whether what leaves
            // it has the host's address is no choice.
            "com.docker.network.bridge.name" | "com.docker.network.container_iface_prefix" => {}
            "com.docker.network.bridge.enable_ip_masquerade" if !flag()? => {
                return Err(Error::unsupported(
                    "a network without address translation",
                    "an internal network, or one with it",
                ));
            }
            "com.docker.network.bridge.enable_ip_masquerade" => {}
            HOST_BINDING => {
                value
                    .parse::<std::net::Ipv4Addr>()
                    .map_err(|_| bad("an IPv4 address"))?;
            }
            "com.docker.network.enable_ipv4" if !flag()? => {
                return Err(Error::unsupported("a network without IPv4", "a network with IPv4"));
            }
            "com.docker.network.enable_ipv6" => self.ipv6 = flag()?,
            "com.docker.network.enable_ipv4" => {}
            other if other.starts_with("com.docker.network.") => {
                return Err(
                    Error::unsupported(format!("the driver option {other}"), "a network without it")
                        .with_object(ObjectKind::Option, other),
                );
            }
            other => {
                let message =
                    format!("the driver bridge has no option {other}: it has those of Docker's, com.docker.network.…");
                return Err(Error::invalid(message).with_object(ObjectKind::Option, other));
            }
        }
        Ok(())
    }
}

/// Docker's rule for names of networks, with a bound.
fn check_name(name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if !first || !rest || name.len() > 128 {
        let message = format!(
            "invalid network name {name:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, at most 128 characters"
        );
        return Err(Error::invalid(message).with_object(ObjectKind::Network, name));
    }
    if RESERVED.contains(&name) {
        let message = format!("operation is not permitted on predefined {name} network");
        return Err(Error::new(ErrorKind::Denied, message).with_object(ObjectKind::Network, name));
    }
    Ok(())
}

/// A network as recorded: the spec with its subnets chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetworkRecord {
    pub(crate) id: NetworkId,
    pub(crate) created_ns: i64,
    pub(crate) spec: NetworkSpec,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_options_are_checked() {
        for good in ["a", "web_1.x-y", "0net"] {
            NetworkSpec::bridge(good).checked(None).unwrap();
        }
        for bad in ["", "-a", "a b", "a/b", "é", &"a".repeat(129)] {
            let error = NetworkSpec::bridge(bad).checked(None).unwrap_err();
            assert_eq!(error.kind(), &ErrorKind::InvalidArgument, "{bad}");
        }
        for reserved in RESERVED {
            let error = NetworkSpec::bridge(reserved).checked(None).unwrap_err();
            assert_eq!(error.kind(), &ErrorKind::Denied, "{reserved}");
        }
        let with = |name: &str, value: &str| {
            let mut spec = NetworkSpec::bridge("n");
            spec.options.insert(name.into(), value.into());
            spec.checked(None)
        };
        assert!(
            !with("com.docker.network.bridge.enable_icc", "false")
                .unwrap()
                .between_containers
        );
        assert_eq!(
            with("com.docker.network.driver.mtu", "1400").unwrap().mtu_bytes,
            Some(1400)
        );
        for (name, value) in [
            ("com.docker.network.bridge.enable_icc", "maybe"),
            ("com.docker.network.driver.mtu", "12"),
            ("com.docker.network.driver.mtu", "x"),
        ] {
            assert_eq!(
                with(name, value).unwrap_err().kind(),
                &ErrorKind::InvalidArgument,
                "{name}"
            );
        }
        assert!(with("com.docker.network.unheard_of", "1").unwrap_err().is_unsupported());
        for (name, value) in [("colour", "red"), ("parent", "eth0"), ("", "")] {
            let error = with(name, value).unwrap_err();
            assert_eq!(error.kind(), &ErrorKind::InvalidArgument, "{name}");
        }
        let small = NetworkSpec::bridge("n").mtu_bytes(1279);
        small.clone().checked(None).unwrap();
        let error = small.ipv6(true).checked(None).unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::InvalidArgument);
    }

    #[test]
    fn i5_a_network_says_where_ports_are_published() {
        let with = |value: &str| {
            NetworkSpec::bridge("n")
                .driver_option(HOST_BINDING, value)
                .checked(None)
        };
        assert_eq!(with("127.0.0.1").unwrap().host_binding(), Some([127, 0, 0, 1].into()));
        assert_eq!(with("0.0.0.0").unwrap().host_binding(), None);
        assert_eq!(NetworkSpec::bridge("n").host_binding(), None);
        for bad in ["", "::1", "localhost"] {
            assert_eq!(with(bad).unwrap_err().kind(), &ErrorKind::InvalidArgument, "{bad:?}");
        }
    }

    #[test]
    fn i11_overlay_is_a_typed_refusal() {
        let mut spec = NetworkSpec::bridge("n");
        spec.driver = "overlay".into();
        assert!(spec.clone().checked(None).unwrap_err().is_unsupported());
        spec.driver = "weave".into();
        assert!(spec.checked(None).unwrap_err().is_not_found());
    }
}
