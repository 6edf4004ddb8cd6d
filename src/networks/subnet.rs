//! Subnets: an address of a network and the length of its prefix. Source: RFC 4632, RFC 4291.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ObjectKind};

/// A range of addresses with one prefix: `10.1.2.0/24`, `fd00:1::/64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    address: IpAddr,
    prefix: u8,
}

impl Subnet {
    /// The subnet of an address and a prefix. `None`: the prefix is longer than an address.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let subnet = Self { address, prefix };
        (prefix <= subnet.width()).then(|| subnet.masked())
    }

    fn masked(self) -> Self {
        Self {
            address: self.with(number(self.address) & !self.host_mask()),
            prefix: self.prefix,
        }
    }

    /// The first address, which stands for the whole.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Length of the prefix, in bits.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether it is one of IPv6.
    pub fn is_ipv6(&self) -> bool {
        self.address.is_ipv6()
    }

    /// Whether an address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv6() == self.is_ipv6() && number(address) & !self.host_mask() == number(self.address)
    }

    /// Whether a whole subnet lies in it.
    pub fn covers(&self, other: &Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.address)
    }

    /// Whether they have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// The last address.
    pub fn last(&self) -> IpAddr {
        self.with(number(self.address) | self.host_mask())
    }

    fn width(&self) -> u8 {
        if self.is_ipv6() { 128 } else { 32 }
    }

    fn host_mask(&self) -> u128 {
        let bits = u32::from(self.width().saturating_sub(self.prefix));
        1u128.checked_shl(bits).map_or(u128::MAX, |bit| bit - 1)
    }

    /// The address with a number, of this family.
    pub(super) fn with(&self, number: u128) -> IpAddr {
        match self.address {
            IpAddr::V4(_) => Ipv4Addr::from(number as u32).into(),
            IpAddr::V6(_) => Ipv6Addr::from(number).into(),
        }
    }

    /// The subnet of the same length that comes `count` later, if there is one below `last`.
    pub(super) fn nth(&self, count: u128) -> Option<Self> {
        let step = self.host_mask().checked_add(1)?.checked_mul(count)?;
        let address = number(self.address).checked_add(step)?;
        let most = if self.is_ipv6() {
            u128::MAX
        } else {
            u128::from(u32::MAX)
        };
        (address <= most).then(|| Self {
            address: self.with(address),
            prefix: self.prefix,
        })
    }
}

/// An address as a number.
pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// The bytes of an address.
pub(super) fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = Error;

    /// `ADDRESS/PREFIX`. Bits behind the prefix are cleared.
    fn from_str(text: &str) -> Result<Self, Error> {
        let parsed = text.split_once('/').and_then(|(address, prefix)| {
            let digits = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
            let prefix = digits.then(|| prefix.parse().ok())??;
            Self::new(address.parse().ok()?, prefix)
        });
        parsed.ok_or_else(|| {
            Error::invalid(format!("invalid CIDR address: {text}")).with_object(ObjectKind::Option, "subnet")
        })
    }
}

impl TryFrom<String> for Subnet {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn good_and_bad_texts() {
        assert_eq!(subnet("10.1.2.3/24").to_string(), "10.1.2.0/24");
        assert_eq!(subnet("fd00::5/64").to_string(), "fd00::/64");
        assert_eq!(subnet("0.0.0.0/0").last(), IpAddr::from([255, 255, 255, 255]));
        for bad in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0/8",
            "::/129",
            "10.0.0.0/+8",
            "10.0.0.0/",
            "x/8",
        ] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_lies_where() {
        let net = subnet("10.1.0.0/16");
        assert!(net.contains([10, 1, 255, 255].into()) && !net.contains([10, 2, 0, 0].into()));
        assert!(net.overlaps(&subnet("10.0.0.0/8")) && net.overlaps(&subnet("10.1.2.0/24")));
        assert!(!net.overlaps(&subnet("10.2.0.0/16")) && !net.overlaps(&subnet("::/0")));
        assert_eq!(subnet("10.1.2.0/24").nth(2).unwrap(), subnet("10.1.4.0/24"));
        assert_eq!(subnet("255.255.255.0/24").nth(1), None);
    }
}
