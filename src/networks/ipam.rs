//! Which subnet a network gets, and which address a container. Pure: no I/O.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::parent;
use super::spec::{AddressPool, NetworkSpec};
use super::subnet::{Subnet, number};
use crate::error::{Error, ErrorKind, ObjectKind, Result};

/// Where subnets are taken from, in this order: private ranges (RFC 1918), and how large each subnet is. Small ones: there
/// is room for thousands.
const POOLS: [(&str, u8); 3] = [("172.17.0.0/16", 24), ("10.128.0.0/10", 24), ("192.168.128.0/17", 24)];

/// Subnets of a network, with their gateways: those asked for, and for what is not said a free one of ours.
///
/// # Errors
/// `InvalidArgument` for what cannot be; `Conflict` for a subnet that overlaps with another network's; `Unsupported` for a second one of
/// IPv4, or of IPv6; `IpamExhausted`.
pub(crate) fn plan(
    spec: &NetworkSpec,
    taken: &[Subnet],
    routes: &[Subnet],
    random: [u8; 5],
) -> Result<Vec<AddressPool>> {
    let mut planned: Vec<AddressPool> = Vec::new();
    for asked in &spec.pools {
        let pool = asked_for(asked)?;
        let family = |pool: &AddressPool| pool.subnet.map(|subnet| subnet.is_ipv6());
        let mut before = planned.iter().filter_map(family);
        if before.any(|one| Some(one) == family(&pool)) {
            let needs = "one network for each, which a container can be in at once";
            return Err(Error::unsupported("a network with several subnets of one kind", needs)
                .with_object(ObjectKind::Option, "subnet"));
        }
        let others = taken
            .iter()
            .chain(planned.iter().filter_map(|pool| pool.subnet.as_ref()));
        if let (Some(subnet), Some(other)) = (
            pool.subnet,
            others
                .clone()
                .find(|other| Some(true) == pool.subnet.map(|subnet| subnet.overlaps(other))),
        ) {
            let message = format!("Pool overlaps with other one on this address space: {subnet} and {other}");
            return Err(Error::new(ErrorKind::Conflict, message).with_object(ObjectKind::Option, "subnet"));
        }
        planned.push(pool);
    }
    let has = |planned: &[AddressPool], v6: bool| {
        planned
            .iter()
            .any(|pool| pool.subnet.is_some_and(|subnet| subnet.is_ipv6() == v6))
    };
    // A gateway or a range without a subnet says nothing of a place.
    planned.retain(|pool| pool.subnet.is_some());
    if !has(&planned, false) {
        planned.insert(0, with_gateway(free(taken, routes)?)?);
    }
    if spec.ipv6 && !has(&planned, true) {
        planned.push(with_gateway(unique_local(random))?);
    }
    if !spec.ipv6 && has(&planned, true) {
        return Err(invalid("an IPv6 subnet needs IPv6 to be enabled for the network"));
    }
    if parent::is_driver(&spec.driver) {
        without_guesses(&mut planned, spec);
    }
    Ok(planned)
}

/// On a link of the host's the way out is a router that is there or not, and no bridge of ours: who has one names it.
fn without_guesses(planned: &mut [AddressPool], spec: &NetworkSpec) {
    for pool in planned {
        let asked = spec.pools.iter().find(|asked| asked.subnet == pool.subnet);
        pool.gateway = asked.and_then(|asked| asked.gateway);
    }
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::invalid(message).with_object(ObjectKind::Option, "subnet")
}

fn asked_for(asked: &AddressPool) -> Result<AddressPool> {
    let Some(subnet) = asked.subnet else {
        if asked.gateway.is_some() || asked.range.is_some() {
            return Err(invalid("a gateway or an address range needs a subnet"));
        }
        return Ok(asked.clone());
    };
    let longest = if subnet.is_ipv6() { 126 } else { 30 };
    if subnet.prefix() > longest {
        return Err(invalid(format!(
            "the subnet {subnet} has no room for a gateway and a container: a prefix of at most {longest} is needed"
        )));
    }
    // Every link of IPv6 has addresses of that kind by itself.
    let of_links = matches!(subnet.address(), IpAddr::V6(address) if address.is_unicast_link_local());
    let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let first = subnet.address();
    let of_this_host = first.is_loopback() || loopback.iter().any(|one| subnet.contains(*one));
    if first.is_multicast() || first.is_unspecified() || of_this_host || of_links {
        return Err(invalid(format!(
            "the subnet {subnet} cannot be a network of containers"
        )));
    }
    if let Some(range) = asked.range.filter(|range| !subnet.covers(range)) {
        return Err(invalid(format!(
            "the address range {range} is not within the subnet {subnet}"
        )));
    }
    match asked.gateway {
        None => {
            let pool = with_gateway(subnet)?;
            Ok(AddressPool {
                range: asked.range,
                ..pool
            })
        }
        Some(gateway) if is_host(&subnet, gateway) => Ok(asked.clone()),
        Some(gateway) => Err(invalid(format!(
            "no matching subnet for gateway {gateway}: it is no address of a host in {subnet}"
        ))),
    }
}

/// Docker's choice: the first address.
fn with_gateway(subnet: Subnet) -> Result<AddressPool> {
    Ok(AddressPool {
        subnet: Some(subnet),
        gateway: Some(subnet.with(number(subnet.address()) + 1)),
        range: None,
    })
}

/// Whether an address can be a host's: neither the subnet's own nor its broadcast.
fn is_host(subnet: &Subnet, address: IpAddr) -> bool {
    subnet.contains(address) && address != subnet.address() && (subnet.is_ipv6() || address != subnet.last())
}

/// The first subnet of our pools that nobody has and to which no route of the host leads. What is taken is gone through once,
/// in order: there may be thousands.
fn free(taken: &[Subnet], routes: &[Subnet]) -> Result<Subnet> {
    // A default route leads everywhere, and is no reason to avoid anything.
    let specific = routes.iter().filter(|route| route.prefix() > 0);
    let mut others: Vec<(u128, u128)> = taken
        .iter()
        .chain(specific)
        .filter(|other| !other.is_ipv6())
        .map(ends)
        .collect();
    others.sort_unstable();
    for (pool, size) in POOLS {
        let pool: Subnet = pool.parse()?;
        let Some(first) = Subnet::new(pool.address(), size) else {
            continue;
        };
        let mut others = others.iter().peekable();
        let mut candidates = (0..)
            .map_while(|count| first.nth(count))
            .take_while(|one| pool.covers(one));
        let found = candidates.find(|one| {
            let (low, high) = ends(one);
            // Subnets lie within each other or apart: what ends before this one does so before all that follow.
            while others.next_if(|(_, last)| *last < low).is_some() {}
            others.peek().is_none_or(|(first, _)| *first > high)
        });
        if let Some(found) = found {
            return Ok(found);
        }
    }
    let message = "all predefined address pools have been fully subnetted: remove networks, or name a subnet";
    Err(Error::new(ErrorKind::IpamExhausted, message).with_object(ObjectKind::Option, "subnet"))
}

/// Its first and its last address.
fn ends(subnet: &Subnet) -> (u128, u128) {
    (number(subnet.address()), number(subnet.last()))
}

/// A unique local /64. Source: RFC 4193, section 3.
fn unique_local(random: [u8; 5]) -> Subnet {
    let mut bytes = [0u8; 16];
    bytes[0] = 0xfd;
    bytes[1..6].copy_from_slice(&random);
    let address = IpAddr::from(bytes);
    Subnet::new(address, 64).unwrap_or_else(|| unreachable!("64 bits fit into an address"))
}

/// Hands out the addresses of one subnet.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    subnet: Subnet,
    range: Subnet,
    used: BTreeSet<u128>,
    next: u128,
}

impl Addresses {
    /// Of a pool that was planned; `None` of one without a subnet.
    pub(crate) fn of(pool: &AddressPool) -> Option<Self> {
        let subnet = pool.subnet?;
        let range = pool.range.unwrap_or(subnet);
        let used = pool.gateway.iter().map(|gateway| number(*gateway)).collect();
        let mut next = number(range.address());
        if pool.gateway.is_none() && range == subnet {
            // The first address is a router's nearly everywhere: it comes last.
            next += 2;
        }
        Some(Self {
            subnet,
            range,
            used,
            next,
        })
    }

    pub(crate) fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// The address asked for, or the next free one: those given back last come last.
    ///
    /// # Errors
    /// `InvalidArgument` outside of the subnet, `Conflict` for one in use, `IpamExhausted`.
    pub(crate) fn take(&mut self, wanted: Option<IpAddr>) -> Result<IpAddr> {
        if let Some(address) = wanted {
            return self.take_this(address);
        }
        let (first, last) = (number(self.range.address()), number(self.range.last()));
        let from = self.next.clamp(first, last);
        let found = (from..=last)
            .chain(first..from)
            .find(|one| !self.used.contains(one) && is_host(&self.subnet, self.subnet.with(*one)));
        let Some(found) = found else {
            let message = format!("no available addresses on this network's address pool {}", self.range);
            return Err(Error::new(ErrorKind::IpamExhausted, message).with_object(ObjectKind::Option, "ip"));
        };
        self.used.insert(found);
        self.next = found + 1;
        Ok(self.subnet.with(found))
    }

    fn take_this(&mut self, address: IpAddr) -> Result<IpAddr> {
        if !is_host(&self.subnet, address) {
            let message = format!(
                "no configured subnet contains IP address {address}: the network has {}",
                self.subnet
            );
            return Err(Error::invalid(message).with_object(ObjectKind::Option, "ip"));
        }
        if !self.used.insert(number(address)) {
            let message = format!("Address already in use: {address}");
            return Err(Error::new(ErrorKind::Conflict, message).with_object(ObjectKind::Option, "ip"));
        }
        Ok(address)
    }

    pub(crate) fn give_back(&mut self, address: IpAddr) {
        self.used.remove(&number(address));
    }

    /// How many are in use, the gateway's included.
    pub(crate) fn in_use(&self) -> usize {
        self.used.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    fn planned(spec: &NetworkSpec, taken: &[Subnet], routes: &[Subnet]) -> Result<Vec<AddressPool>> {
        plan(spec, taken, routes, [1, 2, 3, 4, 5])
    }

    #[test]
    fn i8_a_thousand_small_subnets_that_avoid_the_host_s_routes() {
        let vpn = [subnet("0.0.0.0/0"), subnet("172.17.0.0/20"), subnet("10.128.0.0/16")];
        let mut taken = Vec::new();
        for number in 0..1000 {
            let pools = planned(&NetworkSpec::bridge(format!("n{number}")), &taken, &vpn).unwrap();
            let found = pools[0].subnet.unwrap();
            assert!(!vpn[1..].iter().any(|route| route.overlaps(&found)), "{found}");
            taken.push(found);
        }
        assert_eq!(taken[0], subnet("172.17.16.0/24"));
    }

    #[test]
    fn pools_end() {
        let all = [subnet("172.16.0.0/12"), subnet("10.0.0.0/8"), subnet("192.168.0.0/16")];
        let error = planned(&NetworkSpec::bridge("n"), &all, &[]).unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::IpamExhausted);
    }

    #[test]
    fn what_is_asked_for_is_checked() {
        let with = |subnet: &str, gateway: Option<&str>, range: Option<&str>| {
            let mut spec = NetworkSpec::bridge("n");
            spec.pools.push(AddressPool {
                subnet: Some(subnet.parse().unwrap()),
                gateway: gateway.map(|text| text.parse().unwrap()),
                range: range.map(|text| text.parse().unwrap()),
            });
            planned(&spec, &[self::subnet("10.9.0.0/16")], &[]).map(|pools| pools[0].clone())
        };
        let good = with("10.1.0.0/24", None, Some("10.1.0.128/25")).unwrap();
        assert_eq!(good.gateway.unwrap().to_string(), "10.1.0.1");
        for (subnet, gateway, range) in [
            ("10.1.0.0/31", None, None),
            ("224.0.0.0/24", None, None),
            ("127.0.0.0/8", None, None),
            ("126.0.0.0/7", None, None),
            ("0.0.0.0/8", None, None),
            ("10.1.0.0/24", Some("10.2.0.1"), None),
            ("10.1.0.0/24", Some("10.1.0.0"), None),
            ("10.1.0.0/24", Some("10.1.0.255"), None),
            ("10.1.0.0/24", None, Some("10.2.0.0/25")),
            ("fd00::/64", None, None),
        ] {
            let error = with(subnet, gateway, range).unwrap_err();
            assert_eq!(
                error.kind(),
                &ErrorKind::InvalidArgument,
                "{subnet} {gateway:?} {range:?}"
            );
        }
        assert!(with("10.9.1.0/24", None, None).unwrap_err().is_conflict());
        let six = |text: &str| planned(&NetworkSpec::bridge("n").ipv6(true).subnet(subnet(text)), &[], &[]);
        for bad in ["fe80::/64", "ff02::/64", "::1/126", "fd00::/127", "::/0"] {
            assert_eq!(six(bad).unwrap_err().kind(), &ErrorKind::InvalidArgument, "{bad}");
        }
        six("fd00:1::/64").unwrap();
        let both = NetworkSpec::bridge("n").ipv6(true);
        let both = both.subnet(subnet("10.1.0.0/24")).subnet(subnet("fd00:1::/64"));
        assert_eq!(planned(&both, &[], &[]).unwrap().len(), 2);
        for more in ["10.2.0.0/24", "fd00:2::/64"] {
            let several = both.clone().subnet(subnet(more));
            assert!(planned(&several, &[], &[]).unwrap_err().is_unsupported(), "{more}");
        }
    }

    #[test]
    fn ipv6_gets_a_unique_local_subnet() {
        let spec = NetworkSpec::bridge("n").ipv6(true);
        let pools = planned(&spec, &[], &[]).unwrap();
        assert_eq!(pools[1].subnet.unwrap(), subnet("fd01:203:405::/64"));
        assert_eq!(pools[1].gateway.unwrap().to_string(), "fd01:203:405::1");
    }

    #[test]
    fn i10_a_router_is_not_guessed_and_its_place_is_left_free() {
        let mut spec = NetworkSpec::macvlan("n", "eth0").subnet(subnet("10.1.0.0/29"));
        let pools = planned(&spec, &[], &[subnet("10.1.0.0/24")]).unwrap();
        assert_eq!(pools[0].gateway, None);
        let mut addresses = Addresses::of(&pools[0]).unwrap();
        let all: Vec<String> = std::iter::from_fn(|| addresses.take(None).ok())
            .map(|address| address.to_string())
            .collect();
        let last = ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6", "10.1.0.1"];
        assert_eq!(all, last);
        spec.pools[0].gateway = Some("10.1.0.6".parse().unwrap());
        assert_eq!(planned(&spec, &[], &[]).unwrap()[0].gateway, spec.pools[0].gateway);
    }

    #[test]
    fn addresses_are_handed_out_in_turn_and_end() {
        let mut addresses = Addresses::of(&with_gateway(subnet("10.0.0.0/29")).unwrap()).unwrap();
        let mut take = |wanted: Option<&str>| {
            addresses
                .take(wanted.map(|text| text.parse().unwrap()))
                .map(|a| a.to_string())
        };
        assert_eq!(take(None).unwrap(), "10.0.0.2");
        assert_eq!(take(Some("10.0.0.4")).unwrap(), "10.0.0.4");
        assert!(take(Some("10.0.0.4")).unwrap_err().is_conflict());
        assert!(take(Some("10.0.0.1")).unwrap_err().is_conflict());
        for outside in ["10.0.0.0", "10.0.0.7", "10.0.1.2", "::1"] {
            assert_eq!(
                take(Some(outside)).unwrap_err().kind(),
                &ErrorKind::InvalidArgument,
                "{outside}"
            );
        }
        assert_eq!(take(None).unwrap(), "10.0.0.3");
        assert_eq!(take(None).unwrap(), "10.0.0.5");
        assert_eq!(take(None).unwrap(), "10.0.0.6");
        assert_eq!(take(None).unwrap_err().kind(), &ErrorKind::IpamExhausted);
        addresses.give_back("10.0.0.2".parse().unwrap());
        assert_eq!(addresses.take(None).unwrap().to_string(), "10.0.0.2");
    }

    proptest::proptest! {
        #[test]
        fn no_address_twice_and_none_outside(prefix in 16u8..=30, count in 1usize..80, back in 0usize..40) {
            let net = Subnet::new([10, 7, 0, 0].into(), prefix).unwrap();
            let mut addresses = Addresses::of(&with_gateway(net).unwrap()).unwrap();
            let mut held = Vec::new();
            for turn in 0..count {
                if turn == back && !held.is_empty() {
                    addresses.give_back(held.remove(0));
                }
                match addresses.take(None) {
                    Ok(address) => {
                        proptest::prop_assert!(is_host(&net, address) && !held.contains(&address));
                        held.push(address);
                    }
                    Err(error) => proptest::prop_assert_eq!(error.kind(), &ErrorKind::IpamExhausted),
                }
            }
        }
    }
}
