//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a container: files of ours, shown over the image's, as Docker
//! does.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

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

/// Writes the files and says what is to be shown where, but for places that a mount of the caller's takes. Blocking.
pub(crate) fn write(dir: &Path, spec: &ContainerSpec, hostname: &str) -> Result<Vec<(PathBuf, PathBuf)>> {
    let failed = |error| Error::os("write a container's files for /etc", error);
    std::fs::create_dir_all(dir).map_err(failed)?;
    let mut shown = Vec::new();
    for (name, place) in FILES {
        if spec.targets().any(|target| target == Path::new(place)) {
            continue;
        }
        let file = dir.join(name);
        put(&file, &content(name, spec, hostname)).map_err(failed)?;
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
fn content(name: &str, spec: &ContainerSpec, hostname: &str) -> String {
    let of_host = || match spec.network {
        NetworkMode::Host => std::fs::read_to_string(Path::new("/etc").join(name)).ok(),
        NetworkMode::None | NetworkMode::Container(_) => None,
    };
    match name {
        "hostname" => format!("{hostname}\n"),
        "hosts" => of_host().unwrap_or_else(|| local_hosts(spec, hostname)),
        _ => of_host().unwrap_or_default(),
    }
}

/// The container's own names lead to itself; there is no other address on no network.
fn local_hosts(spec: &ContainerSpec, hostname: &str) -> String {
    match &spec.domainname {
        Some(domain) => format!("{LOCAL_HOSTS}127.0.0.1\t{hostname}.{domain} {hostname}\n"),
        None => format!("{LOCAL_HOSTS}127.0.0.1\t{hostname}\n"),
    }
}
