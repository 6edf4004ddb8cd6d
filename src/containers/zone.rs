//! The time zone of a container: a description of the host's, shown at `/etc/localtime`, where the C library looks.

use std::path::{Path, PathBuf};

use super::mounts::{MountPoint, MountSpec};
use super::spec::ContainerSpec;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::sys::blocking::blocking;

/// Where a host keeps the descriptions. Source: tzset(3).
const ZONES: &str = "/usr/share/zoneinfo";
/// Where a description is that holds where nothing else is said.
const PLACE: &str = "/etc/localtime";
/// The zone of the host, whichever that is.
const LOCAL: &str = "local";

/// How a description begins. Source: RFC 9636, section 3.1.
const MAGIC: &[u8] = b"TZif";

/// Refuses what cannot be the name of a zone.
pub(super) fn check_name(zone: &str) -> Result<()> {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'+' | b'.'))
    };
    match zone.split('/').all(part) {
        true => Ok(()),
        false => Err(bad(zone, "a name as in `Europe/Paris`, or `local`")),
    }
}

fn bad(zone: &str, why: &str) -> Error {
    Error::invalid(format!("invalid time zone {zone:?}: {why}")).with_object(ObjectKind::Option, "timezone")
}

/// Where that of a container is shown, unless a mount of its own is there.
pub(super) fn mount_of(spec: &ContainerSpec) -> Option<MountPoint> {
    let zone = spec.timezone.as_deref()?;
    let taken = spec.targets().any(|target| target == Path::new(PLACE));
    (!taken).then(|| MountPoint::new(MountSpec::bind(file_of(zone), PLACE).read_only()))
}

fn file_of(zone: &str) -> PathBuf {
    match zone {
        LOCAL => PathBuf::from(PLACE),
        zone => Path::new(ZONES).join(zone),
    }
}

/// Refuses a zone that this host does not know.
///
/// # Errors
/// `NotFound`.
pub(super) async fn check(spec: &ContainerSpec) -> Result<()> {
    let Some(zone) = spec.timezone.clone() else {
        return Ok(());
    };
    blocking(move || look(&zone)).await
}

fn look(zone: &str) -> Result<()> {
    let file = file_of(zone);
    let known = std::fs::read(&file).is_ok_and(|text| text.starts_with(MAGIC));
    match known {
        true => Ok(()),
        false => {
            let message = format!(
                "the host has no description of the time zone {zone:?} ({}): install its package tzdata, or name another",
                file.display()
            );
            Err(Error::new(ErrorKind::NotFound, message).with_object(ObjectKind::Option, "timezone"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_below_the_directory_of_zones() {
        for good in [
            "Europe/Paris",
            "local",
            "UTC",
            "Etc/GMT+7",
            "America/Argentina/Buenos_Aires",
        ] {
            check_name(good).unwrap();
        }
        for bad in [
            "",
            "/etc/passwd",
            "../../etc/passwd",
            "Europe//Paris",
            "Europe/",
            "a\0b",
            "Europe/..",
            "..",
        ] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_mount_of_one_s_own_comes_first() {
        let spec = ContainerSpec::image("a").timezone("UTC");
        let shown = mount_of(&spec).unwrap();
        assert_eq!(shown.spec.target, Path::new(PLACE));
        assert!(shown.spec.read_only);
        assert!(mount_of(&spec.mount(MountSpec::bind("/x", PLACE))).is_none());
        assert!(mount_of(&ContainerSpec::image("a")).is_none());
    }

    #[test]
    fn what_is_no_zone_is_not_found() {
        for none in ["Europe/Nowhere", "zone.tab", "Europe"] {
            assert_eq!(look(none).unwrap_err().kind(), &ErrorKind::NotFound, "{none}");
        }
    }
}
