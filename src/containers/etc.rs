//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a container: files of ours, shown over the image's, as Docker
//! does.

use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::connect::Places;
use super::spec::{ContainerSpec, NetworkMode};
use crate::error::{Error, Result};

/// The files' names in the container's directory and their places in the container.
pub(crate) const FILES: [(&str, &str); 3] = [
    ("hosts", "/etc/hosts"),
    ("hostname", "/etc/hostname"),
    ("resolv.conf", "/etc/resolv.conf"),
];

const LOCAL_HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
                           ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// What the files tell of networks.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Addresses at which the container's own names are.
    own: Vec<IpAddr>,
    /// Lines that were asked for.
    extra: Vec<(IpAddr, String)>,
    /// Where the resolver is, of a container that has one.
    resolver: Option<IpAddr>,
    /// Where the files are of the container whose network is shared.
    peer: Option<PathBuf>,
}

impl Seen {
    pub(crate) fn new(spec: &ContainerSpec, places: &Places, peer: Option<PathBuf>) -> Self {
        let mut own = Vec::new();
        for endpoint in places.endpoints.iter().take(1) {
            own.extend(endpoint.ipv4.map(|(address, _)| IpAddr::V4(address)));
            own.extend(endpoint.ipv6.map(|(address, _)| IpAddr::V6(address)));
        }
        let lines = spec.extra_hosts.iter().filter_map(|line| extra_host(line));
        let extra = lines.filter_map(|(name, address)| Some((address.or(places.host_gateway)?, name.to_owned())));
        Self {
            own,
            extra: extra.collect(),
            resolver: (!places.endpoints.is_empty()).then_some(RESOLVER),
            peer,
        }
    }
}

/// Where a container's resolver is. Source: Docker.
const RESOLVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 11));

/// A line that was asked for: a name, and its address; `None` is the host's gateway.
pub(crate) fn extra_host(line: &str) -> Option<(&str, Option<IpAddr>)> {
    let (name, address) = line.split_once([':', '=']).filter(|(name, _)| !name.is_empty())?;
    if name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '#') {
        return None;
    }
    if address == "host-gateway" {
        return Some((name, None));
    }
    let bare = address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(address);
    Some((name, Some(bare.parse().ok()?)))
}

/// Writes the files and says what is to be shown where, but for places that a mount of the caller's takes. Those that are in use
/// are the container's, and stay. Blocking.
pub(crate) fn write(
    (dir, in_use): (&Path, bool),
    spec: &ContainerSpec,
    hostname: &str,
    seen: &Seen,
) -> Result<Vec<(PathBuf, PathBuf)>> {
    let failed = |error| Error::os("write a container's files for /etc", error);
    std::fs::create_dir_all(dir).map_err(failed)?;
    let mut shown = Vec::new();
    for (name, place) in FILES {
        if spec.targets().any(|target| target == Path::new(place)) {
            continue;
        }
        let file = dir.join(name);
        if !(in_use && file.exists()) {
            put(&file, &content(name, spec, hostname, seen)).map_err(failed)?;
        }
        shown.push((file, PathBuf::from(place)));
    }
    Ok(shown)
}

/// Writes a file that everybody may read, whatever the umask.
fn put(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    if file.metadata()?.permissions().mode() & 0o7777 != 0o644 {
        file.set_permissions(PermissionsExt::from_mode(0o644))?;
    }
    file.write_all(text.as_bytes())
}

/// On the host's network a container sees the host's names and resolvers; on none there is nobody to ask.
fn content(name: &str, spec: &ContainerSpec, hostname: &str, seen: &Seen) -> String {
    let shared = || match (&spec.network, &seen.peer) {
        (NetworkMode::Host, _) => std::fs::read_to_string(Path::new("/etc").join(name)).ok(),
        (NetworkMode::Container(_), Some(peer)) => std::fs::read_to_string(peer.join(name)).ok(),
        _ => None,
    };
    match name {
        "hostname" => format!("{hostname}\n"),
        "hosts" => shared().unwrap_or_else(|| local_hosts(spec, hostname, seen)) + &extra_lines(seen),
        _ => resolvers(spec, seen, shared),
    }
}

fn extra_lines(seen: &Seen) -> String {
    seen.extra
        .iter()
        .map(|(address, name)| format!("{address}\t{name}\n"))
        .collect()
}

/// What is asked for stands in the place of the host's. Source: resolv.conf(5); Docker's option `ndots:0` for its resolver.
fn resolvers(spec: &ContainerSpec, seen: &Seen, shared: impl FnOnce() -> Option<String>) -> String {
    let host = || std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let own = !spec.dns.is_empty() || !spec.dns_search.is_empty() || !spec.dns_options.is_empty();
    let base = match seen.resolver {
        Some(_) => host(),
        None => match shared() {
            Some(text) if !own => return text,
            Some(text) => text,
            None => String::new(),
        },
    };
    let lines = |word: &str| -> Vec<String> {
        let of = base.lines().filter_map(|line| line.trim().strip_prefix(word));
        of.map(|rest| rest.trim().to_owned())
            .filter(|rest| !rest.is_empty())
            .collect()
    };
    let servers = match (seen.resolver, spec.dns.is_empty()) {
        (Some(resolver), _) => vec![resolver.to_string()],
        (None, false) => spec.dns.iter().map(ToString::to_string).collect(),
        (None, true) => lines("nameserver "),
    };
    let mut text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    let search = match spec.dns_search.as_slice() {
        // Docker's word for none.
        [only] if only == "." => Vec::new(),
        [] => lines("search "),
        all => vec![all.join(" ")],
    };
    text.extend(search.last().map(|search| format!("search {search}\n")));
    let mut options = if spec.dns_options.is_empty() {
        lines("options ")
    } else {
        spec.dns_options.clone()
    };
    if seen.resolver.is_some() && !options.iter().any(|option| option.contains("ndots:")) {
        options.push("ndots:0".into());
    }
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

/// The container's own names lead to itself: at its address, if it has one.
fn local_hosts(spec: &ContainerSpec, hostname: &str, seen: &Seen) -> String {
    let names = match &spec.domainname {
        Some(domain) => format!("{hostname}.{domain} {hostname}"),
        None => hostname.to_owned(),
    };
    if seen.own.is_empty() {
        return format!("{LOCAL_HOSTS}127.0.0.1\t{names}\n");
    }
    let own = seen.own.iter().map(|address| format!("{address}\t{names}\n"));
    std::iter::once(LOCAL_HOSTS.to_owned()).chain(own).collect()
}
