//! Networks on a link of the host's, their parent: what is asked of the drivers `macvlan` and `ipvlan`, and the links that
//! containers have there, as messages of rtnetlink(7). Pure. Sources: the kernel's `include/uapi/linux/if_link.h` and
//! `Documentation/networking/ipvlan.rst`; Docker's options at <https://docs.docker.com/engine/network/drivers/macvlan/> and
//! <https://docs.docker.com/engine/network/drivers/ipvlan/>.

use super::route::{self, Mac, NewLink};
use super::spec::NetworkSpec;
use crate::error::{Error, ObjectKind, Result};
use crate::sys::netlink::Message;

const PARENT: &str = "parent";
const MACVLAN_MODE: &str = "macvlan_mode";
const IPVLAN_MODE: &str = "ipvlan_mode";
const IPVLAN_FLAG: &str = "ipvlan_flag";

const MACVLAN_PASSTHRU: u32 = 8;
const IPVLAN_L2: u16 = 0;

/// The longest name of a link, without the NUL (`IFNAMSIZ`).
const LONGEST_NAME: usize = 15;
/// VLAN ids go from 1 to this: the others are reserved (IEEE 802.1Q, 9.6).
const LAST_VLAN: u16 = 4094;

/// A network whose containers have their links on another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OnParent {
    pub(super) kind: Kind,
    pub(super) parent: Parent,
}

/// The kind of link that containers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Each with a hardware address of its own.
    Macvlan { mode: u32 },
    /// All with the parent's.
    Ipvlan { mode: u16, flags: u16 },
}

/// What they are on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Parent {
    /// A link that leads nowhere, in the engine's own network.
    Nowhere,
    /// A link of the host's. With a dot and a number at the end it may be a VLAN of another that is not there yet.
    Host(String),
}

impl Kind {
    pub(super) fn driver(self) -> &'static str {
        match self {
            Self::Macvlan { .. } => "macvlan",
            Self::Ipvlan { .. } => "ipvlan",
        }
    }

    /// Whether a container has its parent's hardware address, and cannot have another.
    pub(super) fn has_the_parents_mac(self) -> bool {
        !matches!(self, Self::Macvlan { mode } if mode != MACVLAN_PASSTHRU)
    }

    /// Whether one container has the parent for itself.
    pub(super) fn is_exclusive(self) -> bool {
        matches!(self, Self::Macvlan { mode: MACVLAN_PASSTHRU })
    }

    /// Whether packets are routed by their addresses, with no neighbours to be asked for: there is no gateway then.
    pub(super) fn is_routed(self) -> bool {
        matches!(self, Self::Ipvlan { mode, .. } if mode != IPVLAN_L2)
    }

    /// Whether both can be on one parent at a time. All links of ipvlan on a parent have one mode: that of the newest.
    pub(super) fn goes_with(self, other: Self) -> bool {
        match (self, other) {
            (Self::Macvlan { .. }, Self::Macvlan { .. }) => !self.is_exclusive() && !other.is_exclusive(),
            (one, other) => one == other,
        }
    }
}

/// Whether networks of this driver are on a parent.
pub(super) fn is_driver(driver: &str) -> bool {
    matches!(driver, "macvlan" | "ipvlan")
}

/// What a network that was checked is on; `None` for one with a bridge of its own.
///
/// # Errors
/// `InvalidArgument` for values that the driver does not have.
pub(super) fn read(spec: &NetworkSpec) -> Result<Option<OnParent>> {
    let option = |name: &str| spec.options.get(name).map(String::as_str);
    let kind = match spec.driver.as_str() {
        "macvlan" => macvlan(option(MACVLAN_MODE).unwrap_or_default())?,
        "ipvlan" => ipvlan(
            option(IPVLAN_MODE).unwrap_or_default(),
            option(IPVLAN_FLAG).unwrap_or_default(),
        )?,
        _ => return Ok(None),
    };
    let parent = match option(PARENT).unwrap_or_default() {
        // As Docker does: what leads nowhere has no use for a link that was named.
        name if spec.internal || name.is_empty() => Parent::Nowhere,
        name => Parent::Host(link_name(name, kind)?.to_owned()),
    };
    Ok(Some(OnParent { kind, parent }))
}

fn macvlan(mode: &str) -> Result<Kind> {
    let mode = match mode {
        "" | "bridge" => 4,
        "private" => 1,
        "vepa" => 2,
        "passthru" => MACVLAN_PASSTHRU,
        _ => return Err(no_value(MACVLAN_MODE, mode, "bridge, private, vepa or passthru")),
    };
    Ok(Kind::Macvlan { mode })
}

fn ipvlan(mode: &str, flag: &str) -> Result<Kind> {
    let mode = match mode {
        "" | "l2" => IPVLAN_L2,
        "l3" => 1,
        "l3s" => 2,
        _ => return Err(no_value(IPVLAN_MODE, mode, "l2, l3 or l3s")),
    };
    let flags = match flag {
        "" | "bridge" => 0,
        "private" => 1,
        "vepa" => 2,
        _ => return Err(no_value(IPVLAN_FLAG, flag, "bridge, private or vepa")),
    };
    Ok(Kind::Ipvlan { mode, flags })
}

fn no_value(name: &str, value: &str, needs: &str) -> Error {
    Error::invalid(format!(
        "invalid value {value:?} of the driver option {name}: {needs} is needed"
    ))
    .with_object(ObjectKind::Option, name)
}

fn link_name(name: &str, kind: Kind) -> Result<&str> {
    let bad = |byte: u8| byte == b'/' || byte == b':' || byte.is_ascii_whitespace() || byte.is_ascii_control();
    if name.len() > LONGEST_NAME || name.bytes().any(bad) || matches!(name, "." | "..") {
        return Err(no_value(PARENT, name, "the name of a link of the host's"));
    }
    if name == "lo" {
        // Docker's words.
        let message = format!("loopback interface is not a valid {} parent link", kind.driver());
        return Err(Error::invalid(message).with_object(ObjectKind::Option, PARENT));
    }
    Ok(name)
}

/// The link and the VLAN that a name stands for, as in `eth0.10`.
pub(super) fn vlan(name: &str) -> Option<(&str, u16)> {
    let (link, id) = name.rsplit_once('.')?;
    let digits = !link.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
    let id = id.parse().ok().filter(|id| (1..=LAST_VLAN).contains(id))?;
    digits.then_some((link, id))
}

/// Takes the options of a network on a parent in, and refuses what cannot be.
///
/// # Errors
/// `InvalidArgument` for options that the driver does not have, and their values.
pub(super) fn checked(mut spec: NetworkSpec) -> Result<NetworkSpec> {
    let own: &[&str] = match spec.driver.as_str() {
        "macvlan" => &[PARENT, MACVLAN_MODE],
        _ => &[PARENT, IPVLAN_MODE, IPVLAN_FLAG],
    };
    for (name, value) in spec.options.clone() {
        match name.as_str() {
            name if own.contains(&name) => {}
            "com.docker.network.driver.mtu" | "com.docker.network.enable_ipv4" | "com.docker.network.enable_ipv6" => {
                spec.take_option(&name, &value)?;
            }
            _ => {
                let message = format!(
                    "the driver {} has no option {name}: it has {}",
                    spec.driver,
                    own.join(", ")
                );
                return Err(Error::invalid(message).with_object(ObjectKind::Option, name));
            }
        }
    }
    if !spec.between_containers {
        let message = format!(
            "containers of a network of the driver {} are kept apart by its mode: macvlan_mode=private, ipvlan_flag=private",
            spec.driver
        );
        return Err(Error::invalid(message).with_object(ObjectKind::Option, "com.docker.network.bridge.enable_icc"));
    }
    let Some(on) = read(&spec)? else { return Ok(spec) };
    if on.kind.is_routed() && spec.pools.iter().any(|pool| pool.gateway.is_some()) {
        let message = format!("a network of ipvlan in mode {IPVLAN_MODE}=l3 or l3s has no gateway: leave it out");
        return Err(Error::invalid(message).with_object(ObjectKind::Option, "gateway"));
    }
    spec.internal |= on.parent == Parent::Nowhere;
    Ok(spec)
}

/// A container's link, in its own network from the first moment on: nothing of it is ever in the parent's.
pub(super) fn new_link(kind: Kind, link: &NewLink<'_>) -> Message {
    const MACVLAN_MODE: u16 = 1;
    const IPVLAN_MODE: u16 = 1;
    const IPVLAN_FLAGS: u16 = 2;
    route::new_link(link, kind.driver(), |data| match kind {
        Kind::Macvlan { mode } => data.u32(MACVLAN_MODE, mode),
        Kind::Ipvlan { mode, flags } => data
            .attr(IPVLAN_MODE, &mode.to_ne_bytes())
            .attr(IPVLAN_FLAGS, &flags.to_ne_bytes()),
    })
}

/// What the kernel has this kind of link for is told by how it refuses one without a parent: `EINVAL`. Nothing is made.
pub(super) fn question(kind: Kind) -> Message {
    route::new_link(&NewLink::default(), kind.driver(), |data| data)
}

/// A VLAN of a link.
pub(super) fn new_vlan(id: u16, link: &NewLink<'_>) -> Message {
    const VLAN_ID: u16 = 1;
    route::new_link(link, "vlan", |data| data.attr(VLAN_ID, &id.to_ne_bytes()))
}

/// The hardware address as it is written.
pub(super) fn written(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn of(driver: &str, options: &[(&str, &str)]) -> NetworkSpec {
        let mut spec = NetworkSpec::bridge("n");
        spec.driver = driver.into();
        for (name, value) in options {
            spec.options.insert((*name).into(), (*value).into());
        }
        spec
    }

    #[test]
    fn i10_options_are_docker_s_and_checked() {
        let read = |driver: &str, options: &[(&str, &str)]| read(&of(driver, options)).unwrap().unwrap();
        let bridge = read("macvlan", &[("parent", "eth0")]);
        assert_eq!(bridge.kind, Kind::Macvlan { mode: 4 });
        assert_eq!(bridge.parent, Parent::Host("eth0".into()));
        assert_eq!(read("macvlan", &[]).parent, Parent::Nowhere);
        assert!(read("macvlan", &[("macvlan_mode", "passthru")]).kind.is_exclusive());
        assert_eq!(read("ipvlan", &[]).kind, Kind::Ipvlan { mode: 0, flags: 0 });
        assert!(read("ipvlan", &[("ipvlan_mode", "l3s")]).kind.is_routed());
        assert!(super::read(&NetworkSpec::bridge("n")).unwrap().is_none());
        for (driver, name, value) in [
            ("macvlan", "macvlan_mode", "l2"),
            ("macvlan", "ipvlan_mode", "l2"),
            ("macvlan", "parent", "lo"),
            ("macvlan", "parent", "a/b"),
            ("macvlan", "parent", "a-name-of-a-link-that-is-too-long"),
            ("macvlan", "com.docker.network.bridge.name", "br7"),
            ("ipvlan", "ipvlan_mode", "l4"),
            ("ipvlan", "ipvlan_flag", "open"),
            ("ipvlan", "nonsense", "1"),
        ] {
            let error = of(driver, &[(name, value)]).checked(None).unwrap_err();
            assert_eq!(error.kind(), &ErrorKind::InvalidArgument, "{driver} {name}={value}");
        }
    }

    #[test]
    fn i10_what_names_no_parent_leads_nowhere() {
        assert!(of("macvlan", &[]).checked(None).unwrap().internal);
        assert!(!of("macvlan", &[("parent", "eth0")]).checked(None).unwrap().internal);
        let internal = of("macvlan", &[("parent", "eth0")])
            .internal(true)
            .checked(None)
            .unwrap();
        assert_eq!(super::read(&internal).unwrap().unwrap().parent, Parent::Nowhere);
    }

    #[test]
    fn i10_vlans_are_told_from_names_with_a_dot() {
        assert_eq!(vlan("eth0.10"), Some(("eth0", 10)));
        assert_eq!(vlan("bond0.20.4094"), Some(("bond0.20", 4094)));
        for none in [
            "eth0",
            ".10",
            "eth0.",
            "eth0.0",
            "eth0.4095",
            "eth0.x",
            "eth0.+1",
            "eth0.99999",
        ] {
            assert_eq!(vlan(none), None, "{none}");
        }
    }

    #[test]
    fn i10_what_goes_together_on_one_parent() {
        let kind = |driver: &str, options: &[(&str, &str)]| read(&of(driver, options)).unwrap().unwrap().kind;
        let (bridge, vepa) = (kind("macvlan", &[]), kind("macvlan", &[("macvlan_mode", "vepa")]));
        let through = kind("macvlan", &[("macvlan_mode", "passthru")]);
        let (l2, l3) = (kind("ipvlan", &[]), kind("ipvlan", &[("ipvlan_mode", "l3")]));
        assert!(bridge.goes_with(vepa) && l2.goes_with(l2));
        assert!(!bridge.goes_with(through) && !through.goes_with(through));
        assert!(!l2.goes_with(l3) && !l2.goes_with(bridge));
    }
}
