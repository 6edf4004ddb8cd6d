//! Containers of a runtime that makes neither namespaces nor mounts ([`Runtime::is_bare`](crate::runtime::Runtime::is_bare)): what they
//! cannot have is refused when they are created, before anything is made for it.

use super::spec::{ContainerSpec, NetworkMode};
use crate::error::{Error, ObjectKind, Result};
use crate::images::ImageInfo;

/// Refuses what would be made before a runtime is asked.
///
/// # Errors
/// `Unsupported` that names the option.
#[cold]
pub(super) fn check(spec: &ContainerSpec) -> Result<()> {
    if spec.network != NetworkMode::Host {
        return Err(Error::unsupported(
            "a network other than the host's, without namespaces",
            "the host's network (NetworkMode::Host), asked for by name",
        )
        .with_object(ObjectKind::Option, "network"));
    }
    let first = spec.targets().next();
    if let Some(target) = first {
        return Err(Error::unsupported(
            format!("the mount at {}, without namespaces", target.display()),
            "no mounts: files can be copied in before the container is started",
        )
        .with_object(ObjectKind::Option, "mount"));
    }
    Ok(())
}

/// What of the image will not be.
#[cold]
pub(super) fn warnings(image: &ImageInfo) -> Vec<String> {
    let places = image.config.config.volumes.iter().flatten();
    let told = |place: &String| format!("there is no volume at {place}: what is written there goes with the container");
    places.map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::Tmpfs;

    #[test]
    fn h21_without_namespaces_the_hosts_network_is_asked_for_by_name() {
        let spec = ContainerSpec::image("x");
        let refused = check(&spec).unwrap_err();
        assert!(
            refused.is_unsupported() && refused.report().contains("NetworkMode::Host"),
            "{}",
            refused.report()
        );
        let spec = spec.network(NetworkMode::Host);
        assert!(check(&spec).is_ok());
        let refused = check(&spec.tmpfs("/run", Tmpfs::default())).unwrap_err();
        assert!(
            refused.is_unsupported() && refused.to_string().contains("/run"),
            "{refused}"
        );
    }
}
