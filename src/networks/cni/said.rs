//! What plugins say: results and errors. They are programs of others, so every field is looked at. Pure. Source: the CNI
//! specification 1.0.0, sections 2 and 5.

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;

use super::list::List;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::networks::LinkAddress;
use crate::networks::driver::Joined;

/// More of anything than a result has.
const MOST: usize = 256;
/// How much of a plugin's words is told.
const WORDS: usize = 1024;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Success {
    cni_version: String,
    #[serde(default)]
    interfaces: Vec<Interface>,
    #[serde(default)]
    ips: Vec<Address>,
    #[serde(default)]
    routes: Vec<Route>,
}

#[derive(Debug, Deserialize)]
struct Interface {
    name: String,
    #[serde(default)]
    sandbox: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Address {
    address: String,
    #[serde(default)]
    gateway: Option<IpAddr>,
    #[serde(default)]
    interface: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct Route {
    dst: String,
    #[serde(default)]
    gw: Option<IpAddr>,
}

#[derive(Debug, Deserialize)]
struct Failure {
    code: u32,
    #[serde(default)]
    msg: String,
    #[serde(default)]
    details: String,
}

fn nonsense(plugin: &str, what: impl std::fmt::Display) -> Error {
    let message = format!("the CNI plugin {plugin} answered {what}");
    Error::new(ErrorKind::Unavailable, message).with_object(ObjectKind::Backend, plugin)
}

/// A result, to be handed to the next plugin as it is.
///
/// # Errors
/// `Unavailable` for one that makes no sense.
pub(super) fn result(plugin: &str, list: &List, text: &[u8]) -> Result<Value> {
    let value: Value =
        serde_json::from_slice(text).map_err(|error| nonsense(plugin, "no result").with_source(error))?;
    read(plugin, list, &value)?;
    Ok(value)
}

fn read(plugin: &str, list: &List, value: &Value) -> Result<Success> {
    // `null` is how some write that there is none.
    let mut value = value.clone();
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, field| !field.is_null());
    }
    let read: Success =
        serde_json::from_value(value).map_err(|error| nonsense(plugin, "no result").with_source(error))?;
    if read.cni_version != list.version {
        let what = format!(
            "in the version {:?} of CNI, and not in {}",
            read.cni_version, list.version
        );
        return Err(nonsense(plugin, what));
    }
    if read.interfaces.len().max(read.ips.len()).max(read.routes.len()) > MOST {
        return Err(nonsense(plugin, format!("more than {MOST} of something")));
    }
    for one in &read.ips {
        let (address, _) =
            cidr(&one.address).ok_or_else(|| nonsense(plugin, format!("the address {:?}", one.address)))?;
        if one
            .gateway
            .is_some_and(|gateway| gateway.is_ipv6() != address.is_ipv6())
        {
            return Err(nonsense(plugin, format!("a gateway of another family than {address}")));
        }
        if one.interface.is_some_and(|index| index >= read.interfaces.len()) {
            return Err(nonsense(plugin, format!("an interface of {address} that there is not")));
        }
    }
    for one in &read.routes {
        let (to, _) = cidr(&one.dst).ok_or_else(|| nonsense(plugin, format!("the route {:?}", one.dst)))?;
        if one.gw.is_some_and(|gateway| gateway.is_ipv6() != to.is_ipv6()) {
            return Err(nonsense(plugin, format!("a route to {to} by another family")));
        }
    }
    Ok(read)
}

fn cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let longest = if address.is_ipv6() { 128 } else { 32 };
    let prefix = prefix.parse().ok().filter(|prefix| *prefix <= longest)?;
    Some((address, prefix))
}

/// What the result of all plugins means for the container's link of that name.
///
/// # Errors
/// As [`result`].
pub(super) fn joined(plugin: &str, list: &List, value: &Value, interface: &str) -> Result<Joined> {
    let read = read(plugin, list, value)?;
    let mut joined = Joined::default();
    for one in &read.ips {
        let link = one.interface.and_then(|index| read.interfaces.get(index));
        let here =
            link.is_none_or(|link| link.name == interface && link.sandbox.as_ref().is_some_and(|at| !at.is_empty()));
        if let Some((address, prefix_len)) = cidr(&one.address).filter(|_| here) {
            joined.addresses.push(LinkAddress { address, prefix_len });
        }
    }
    for route in &read.routes {
        let default = cidr(&route.dst).filter(|(to, prefix)| *prefix == 0 && to.is_unspecified());
        let Some((to, _)) = default else { continue };
        let mut own = read.ips.iter().filter_map(|one| one.gateway);
        let gateway = route
            .gw
            .or_else(|| own.find(|gateway| gateway.is_ipv6() == to.is_ipv6()));
        if let Some(gateway) = gateway {
            joined = joined.gateway(gateway);
        }
    }
    Ok(joined)
}

/// What a plugin means that did not succeed.
pub(super) fn failure(plugin: &str, verb: &str, list: &List, stdout: &[u8], stderr: &[u8]) -> Error {
    let read: Result<Failure, _> = serde_json::from_slice(stdout);
    let Ok(read) = read else {
        let words = match shown(stderr).as_str() {
            "" => "and said nothing".to_owned(),
            words => format!("and said: {words}"),
        };
        let message = format!("the CNI plugin {plugin} failed at {verb} {words}");
        return Error::new(ErrorKind::Denied, message).with_object(ObjectKind::Backend, plugin);
    };
    let words = match shown(read.details.as_bytes()).as_str() {
        "" => shown(read.msg.as_bytes()),
        details => format!("{} ({details})", shown(read.msg.as_bytes())),
    };
    let code = read.code;
    // Section 2, "Error".
    let kind = match code {
        1 => {
            let what = format!("version {} of CNI with the plugin {plugin}", list.version);
            let needs = format!("a plugin that has it; it says: {words}");
            return Error::unsupported(what, needs).with_object(ObjectKind::Backend, plugin);
        }
        2 | 4 | 6 | 7 => ErrorKind::InvalidArgument,
        3 => ErrorKind::NotFound,
        11 => ErrorKind::Unavailable,
        _ => ErrorKind::Denied,
    };
    let message = format!("the CNI plugin {plugin} refused {verb} with code {code}: {words}");
    Error::new(kind, message).with_object(ObjectKind::Backend, plugin)
}

/// Words of others, in one line and not too long.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(WORDS)]);
    let one_line = text.trim().replace(|one: char| one.is_control(), " ");
    one_line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn list() -> List {
        List::parse(br#"{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "p"}]}"#).unwrap()
    }

    fn whole() -> Value {
        json!({"cniVersion": "1.0.0",
            "interfaces": [{"name": "cni0", "mac": "0a:00:00:00:00:01"}, {"name": "v1"}, {"name": "eth0", "sandbox": "/proc/7/fd/9"}],
            "ips": [{"address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 2}, {"address": "10.9.0.1/16", "interface": 0}],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.7.0.0/16", "gw": "10.1.0.9"}], "dns": {"nameservers": ["10.1.0.1"]}})
    }

    #[test]
    fn k8_what_a_result_means_for_the_container() {
        let text = whole().to_string();
        let value = result("p", &list(), text.as_bytes()).unwrap();
        assert_eq!(value, whole(), "the next plugin gets it as it is");
        let joined = joined("p", &list(), &value, "eth0").unwrap();
        let expected = Joined::default()
            .address([10, 1, 0, 5].into(), 16)
            .gateway([10, 1, 0, 1].into());
        assert_eq!(joined, expected);
        let bare = json!({"cniVersion": "1.0.0", "ips": null, "dns": {}});
        assert_eq!(super::joined("p", &list(), &bare, "eth0").unwrap(), Joined::default());
    }

    #[test]
    fn k8_results_that_make_no_sense() {
        let with = |at: &str, value: Value| {
            let mut whole = whole();
            *whole.pointer_mut(at).unwrap() = value;
            result("p", &list(), whole.to_string().as_bytes())
        };
        for (at, value) in [
            ("/cniVersion", json!("0.4.0")),
            ("/cniVersion", json!(1)),
            ("/ips/0/address", json!("10.1.0.5")),
            ("/ips/0/address", json!("10.1.0.5/33")),
            ("/ips/0/gateway", json!("fd00::1")),
            ("/ips/0/interface", json!(3)),
            ("/ips/0/interface", json!(-1)),
            ("/routes/0/dst", json!("default")),
            ("/routes/1/gw", json!("fd00::1")),
            ("/ips", json!({})),
            ("/ips", json!(vec![json!({"address": "10.0.0.1/8"}); MOST + 1])),
        ] {
            let error = with(at, value).unwrap_err();
            assert_eq!(error.kind(), &ErrorKind::Unavailable, "{at}: {error}");
        }
        for text in ["", "{", "[]", "null"] {
            assert!(result("p", &list(), text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn k8_what_a_plugin_refuses_has_a_kind() {
        let of = |code: u32| {
            let said = json!({"cniVersion": "1.0.0", "code": code, "msg": "no\u{1b}[2J room", "details": "at all"});
            failure("p", "ADD", &list(), said.to_string().as_bytes(), b"")
        };
        assert!(of(1).is_unsupported());
        assert_eq!(of(7).kind(), &ErrorKind::InvalidArgument);
        assert_eq!(of(11).kind(), &ErrorKind::Unavailable);
        let error = of(999);
        assert_eq!(error.kind(), &ErrorKind::Denied);
        assert!(error.to_string().ends_with("code 999: no [2J room (at all)"), "{error}");
        let error = failure("p", "ADD", &list(), b"oops", "x".repeat(5000).as_bytes());
        assert!(error.to_string().len() < 2 * WORDS && error.kind() == &ErrorKind::Denied);
        assert!(
            failure("p", "ADD", &list(), b"", b" \n")
                .to_string()
                .ends_with("and said nothing")
        );
    }
}
