//! Places of containers in networks, and their ports.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Shaping;
use crate::error::{Error, ObjectKind};

/// A protocol with ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Protocol {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let all = [Self::Tcp, Self::Udp, Self::Sctp];
        let found = all.into_iter().find(|one| text.eq_ignore_ascii_case(one.as_str()));
        found.ok_or_else(|| {
            Error::invalid(format!("invalid proto: {text:?} (tcp, udp or sctp)"))
                .with_object(ObjectKind::Option, "ports")
        })
    }
}

/// A port of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Port {
    /// Its number.
    pub number: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

impl Port {
    /// A port of TCP.
    pub const fn tcp(number: u16) -> Self {
        let protocol = Protocol::Tcp;
        Self { number, protocol }
    }

    /// A port of UDP.
    pub const fn udp(number: u16) -> Self {
        let protocol = Protocol::Udp;
        Self { number, protocol }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol)
    }
}

impl FromStr for Port {
    type Err = Error;

    /// `80`, `80/tcp`, `53/udp`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let number = number.parse().ok().filter(|number| *number > 0);
        let number = number.ok_or_else(|| {
            Error::invalid(format!("invalid port number: {text:?}")).with_object(ObjectKind::Option, "ports")
        })?;
        let protocol = protocol.parse()?;
        Ok(Self { number, protocol })
    }
}

impl TryFrom<String> for Port {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Port> for String {
    fn from(port: Port) -> Self {
        port.to_string()
    }
}

/// A port of a container that the host answers at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortBinding {
    /// The container's port.
    pub port: Port,
    /// An address of the host; all of them without.
    pub host_ip: Option<IpAddr>,
    /// The first port of the host that may be used; 0: the kernel chooses a free one.
    pub host_port: u16,
    /// The last that may be used: the first that is free is taken. The same as `host_port` where it must be that one.
    pub host_port_end: u16,
}

impl PortBinding {
    /// A port of the container at a port of all addresses of the host; 0: the kernel chooses a free one.
    pub const fn new(port: Port, host_port: u16) -> Self {
        Self {
            port,
            host_ip: None,
            host_port,
            host_port_end: host_port,
        }
    }

    /// At one address of the host alone.
    #[must_use]
    pub const fn at(mut self, address: IpAddr) -> Self {
        self.host_ip = Some(address);
        self
    }
}

/// A port of the host that is open for a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublishedPort {
    /// The container's port.
    pub port: Port,
    /// The host's address.
    pub host_ip: IpAddr,
    /// The host's port.
    pub host_port: u16,
}

/// What is asked of a container's place in a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointSpec {
    /// More names of the container in this network.
    pub aliases: Vec<String>,
    /// Its address; a free one without.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address; a free one without.
    pub ipv6: Option<Ipv6Addr>,
    /// Its hardware address, `02:42:ac:11:00:02`; one made of the address without.
    pub mac: Option<String>,
    /// Of several networks, the way out is through that with the highest number.
    pub gateway_priority: i32,
    /// Names that other containers have in this network for this container alone. They need not be there yet.
    pub links: Vec<EndpointLink>,
    /// What is done to its packets there, on purpose.
    #[serde(skip_serializing_if = "Shaping::is_none")]
    pub shaping: Shaping,
    /// What the network's driver is told of it, where that is one of the embedder's own; others take none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

impl EndpointSpec {
    /// What is done to its packets, and what the driver is told, as options of the Engine API.
    #[cfg(any(feature = "api", feature = "remote"))]
    pub(crate) fn driver_options(&self) -> BTreeMap<String, String> {
        let mut options = self.shaping.to_options();
        options.extend(self.options.clone());
        options
    }
}

/// A name that one container has for another in a network: `CONTAINER:ALIAS`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EndpointLink {
    /// The other one's name or id.
    pub container: String,
    /// What it is called.
    pub alias: String,
}

impl FromStr for EndpointLink {
    type Err = Error;

    /// `CONTAINER:ALIAS`, or `CONTAINER`; both may have slashes in front of them, as Docker's lists have. Source: docker/cli,
    /// `opts/parse.go`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let (container, alias) = text.split_once(':').unwrap_or((text, text));
        let container = container.trim_start_matches('/');
        let alias = alias.rsplit('/').next().unwrap_or_default();
        if container.is_empty() || alias.is_empty() || alias.contains(':') {
            return Err(
                Error::invalid(format!("bad format for links: {text}")).with_object(ObjectKind::Option, "links")
            );
        }
        Ok(Self {
            container: container.to_owned(),
            alias: alias.to_owned(),
        })
    }
}

impl fmt::Display for EndpointLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.container, self.alias)
    }
}

/// A container's place in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The network's name.
    pub network: String,
    /// The network's id.
    pub network_id: String,
    /// Its own id.
    pub id: String,
    /// The interface's name in the container.
    pub interface: String,
    /// Its hardware address.
    pub mac: String,
    /// Its address and the length of the prefix.
    pub ipv4: Option<(Ipv4Addr, u8)>,
    /// Its IPv6 address and the length of the prefix.
    pub ipv6: Option<(Ipv6Addr, u8)>,
    /// The network's gateway.
    pub gateway: Option<Ipv4Addr>,
    /// The network's IPv6 gateway.
    pub gateway_v6: Option<Ipv6Addr>,
    /// Names that lead to it in this network.
    pub names: Vec<String>,
    /// Those that were asked for.
    pub aliases: Vec<String>,
}

impl Endpoint {
    /// The container's name comes first of those that lead to it.
    #[cfg(feature = "network")]
    pub(crate) fn rename(&mut self, old: &str, new: &str) {
        if let Some(first) = self.names.first_mut().filter(|first| *first == old) {
            new.clone_into(first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_and_written() {
        assert_eq!("80".parse::<Port>().unwrap(), Port::tcp(80));
        assert_eq!("53/UDP".parse::<Port>().unwrap(), Port::udp(53));
        assert_eq!(Port::udp(53).to_string(), "53/udp");
        for bad in ["", "0", "65536", "80/", "80/x", "-1", "80-81"] {
            assert!(bad.parse::<Port>().is_err(), "{bad}");
        }
    }

    #[test]
    fn links_are_read_and_written() {
        let of = |text: &str| text.parse::<EndpointLink>().unwrap().to_string();
        assert_eq!(of("db:store"), "db:store");
        assert_eq!(of("db"), "db:db");
        assert_eq!(of("/db:/web/store"), "db:store");
        for bad in ["", ":", "db:", ":store", "a:b:c", "/:x"] {
            assert!(bad.parse::<EndpointLink>().is_err(), "{bad}");
        }
    }
}
