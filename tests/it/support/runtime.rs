//! The runtime that tests have where they name none, and what cannot be had of it: `LONGSHORE_IT_RUNTIME` names another than
//! the library's own, and a host may grant no namespaces.

use std::path::Path;
use std::sync::OnceLock;

use longshore::probe::probe;
use longshore::{ContainerSpec, Engine, EngineBuilder, NetworkMode};

use super::is_root;
use crate::frame::{Check, Stop, skip};

/// The runtime of containers that name none, if it is another than the native one.
pub fn chosen() -> Option<&'static str> {
    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
    let named = || {
        std::env::var("LONGSHORE_IT_RUNTIME")
            .ok()
            .filter(|name| !name.is_empty())
    };
    CHOSEN.get_or_init(named).as_deref()
}

/// An engine with that runtime.
pub fn builder(root: &Path) -> EngineBuilder {
    let builder = Engine::builder(root);
    match chosen() {
        Some(name) => builder.default_runtime(name),
        None => builder,
    }
}

/// Whether containers are made by a program of the host's.
pub fn is_external() -> bool {
    chosen().is_some_and(|name| name != "chroot")
}

/// A container's network where it names none, as far as the runtime has one.
pub fn with_a_network(spec: ContainerSpec) -> ContainerSpec {
    match chosen() {
        Some("chroot") => spec.network(NetworkMode::Host),
        _ => spec,
    }
}

/// Ends a test that is about what the native runtime alone has.
pub fn native_alone(what: &str) -> Check {
    match chosen() {
        Some(name) => skip(format!("{what}: not with the runtime {name:?}")),
        None => Ok(()),
    }
}

/// Ends a test whose containers look at their `/proc`, or mount something.
pub fn mounts() -> Check {
    match chosen() {
        Some("chroot") => skip("containers of the runtime \"chroot\" have neither /proc nor other mounts"),
        _ => Ok(()),
    }
}

/// Why no namespaces are to be had here, in the words of the probe. Root needs a capability for them, everybody else those of users.
pub fn no_namespaces() -> Option<&'static str> {
    static WHY: OnceLock<Option<String>> = OnceLock::new();
    let why = || {
        let probe = probe();
        let users = probe.get("user_namespaces")?;
        let wanting = users.state == longshore::probe::State::No && !may_make_them();
        wanting.then(|| format!("no namespaces: {}", users.detail))
    };
    WHY.get_or_init(why).as_deref()
}

/// Ends a test that makes namespaces or mounts where none are to be had.
pub fn namespaces() -> Check {
    no_namespaces().map_or(Ok(()), skip)
}

/// Whether this process has CAP_SYS_ADMIN. Source: proc_pid_status(5).
fn may_make_them() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = hex.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    is_root() && bits.is_some_and(|bits| bits & 1 << 21 != 0)
}

/// What an error ends that a test did not expect. Where the runtime is another or there are no namespaces, what is unsupported is not
/// the test's business; with namespaces and the native runtime it is a failure like any.
pub fn ended_by(error: &longshore::Error) -> Option<Stop> {
    if !error.is_unsupported() {
        return None;
    }
    let where_it_is = chosen().map(|name| format!("the runtime {name:?}"));
    let where_it_is = where_it_is.or_else(|| no_namespaces().map(str::to_owned))?;
    Some(Stop::Skip(format!("{where_it_is}: {}", error.report())))
}
