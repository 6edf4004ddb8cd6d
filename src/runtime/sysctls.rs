//! Kernel parameters that belong to a namespace. Source: sysctl(8), and moby's and runc's lists of the namespaced ones.

use oci_spec::runtime::LinuxNamespaceType;

use crate::error::{Error, ObjectKind, Result};

/// Where a sysctl lies below `/proc`. Only those of namespaces may be set.
///
/// # Errors
/// `InvalidArgument` for every other.
pub fn path(name: &str) -> Result<String> {
    const NAMESPACED: [&str; 7] = [
        "kernel.shm",
        "kernel.msg",
        "kernel.sem",
        "fs.mqueue.",
        "net.",
        "kernel.hostname",
        "kernel.domainname",
    ];
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':');
    let known = NAMESPACED
        .iter()
        .any(|prefix| name.replace('/', ".").starts_with(prefix));
    if !known || !name.chars().all(fine) || name.contains("..") {
        return Err(refused(format!(
            "sysctl {name:?} does not belong to a namespace of the container"
        )));
    }
    // As sysctl(8): a name with slashes first keeps its dots.
    let slashes = name
        .find('/')
        .is_some_and(|slash| name.find('.').is_none_or(|dot| slash < dot));
    let path = if slashes {
        name.to_owned()
    } else {
        name.replace('.', "/")
    };
    Ok(format!("sys/{path}"))
}

/// The namespace that a sysctl belongs to, and its name in words.
pub fn namespace(name: &str) -> (LinuxNamespaceType, &'static str) {
    let first = name.split(['.', '/']).next().unwrap_or_default();
    match (first, name.replace('/', ".").as_str()) {
        ("net", _) => (LinuxNamespaceType::Network, "network"),
        (_, "kernel.hostname" | "kernel.domainname") => (LinuxNamespaceType::Uts, "UTS"),
        _ => (LinuxNamespaceType::Ipc, "IPC"),
    }
}

/// Why a sysctl of a namespace that the container shares with the host cannot be set.
pub fn of_the_host(name: &str, whose: &str) -> Error {
    refused(format!(
        "sysctl {name:?} is not allowed in the {whose} namespace of the host"
    ))
}

fn refused(message: String) -> Error {
    Error::invalid(message).with_object(ObjectKind::Option, "sysctl")
}
