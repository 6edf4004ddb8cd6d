//! A container's cgroup in the words of a runtime. The engine's driver has made it, with its limits: the runtime is told where
//! it is, and of the devices, which are all that it sets there. Pure.

use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxResources};

use crate::runtime::cgroups::CgroupMode;

/// Where the hierarchy of version 2 is, for a runtime.
const UNIFIED: &str = "/sys/fs/cgroup";

/// `cgroupsPath` for runc: of version 2 from the mount on, of version 1 below the cgroup that runc is in, as the driver's are; or as
/// it was `named`, which means the same to both.
pub(super) fn path(directories: &[PathBuf], mode: CgroupMode, named: Option<&Path>) -> Option<String> {
    let own = directories.first()?;
    if mode == CgroupMode::V2 {
        let below = own.strip_prefix(UNIFIED).ok()?;
        return Some(format!("/{}", below.to_str()?));
    }
    if let Some(named) = named {
        return named.to_str().map(str::to_owned);
    }
    let parent = own.parent()?.file_name()?;
    Path::new(parent).join(own.file_name()?).to_str().map(str::to_owned)
}

/// What a container may do with devices, where the specification does not say: a runtime has no other way to keep it from those
/// of the host, which the native one does by mounts in which no node works.
pub(super) fn device_rules(
    asked: Option<&LinuxResources>,
    devices: &[LinuxDevice],
    privileged: bool,
) -> Result<Vec<LinuxDeviceCgroup>, OciSpecError> {
    if let Some(rules) = asked
        .and_then(|resources| resources.devices().as_ref())
        .filter(|rules| !rules.is_empty())
    {
        return Ok(rules.clone());
    }
    if privileged {
        return Ok(vec![rule(true, LinuxDeviceType::A, None, "rwm")?]);
    }
    let mut rules = vec![
        rule(false, LinuxDeviceType::A, None, "rwm")?,
        // To make a node is harmless where it does not work.
        rule(true, LinuxDeviceType::C, None, "m")?,
        rule(true, LinuxDeviceType::B, None, "m")?,
    ];
    for device in crate::runtime::defaults::devices().iter().chain(devices) {
        rules.push(rule(
            true,
            device.typ(),
            Some((device.major(), Some(device.minor()))),
            "rwm",
        )?);
    }
    // Terminals: /dev/ptmx, and those of devpts. Source: the kernel's Documentation/admin-guide/devices.txt.
    rules.push(rule(true, LinuxDeviceType::C, Some((5, Some(2))), "rwm")?);
    rules.push(rule(true, LinuxDeviceType::C, Some((136, None)), "rwm")?);
    Ok(rules)
}

fn rule(
    allow: bool,
    kind: LinuxDeviceType,
    numbers: Option<(i64, Option<i64>)>,
    access: &str,
) -> Result<LinuxDeviceCgroup, OciSpecError> {
    let mut rule = LinuxDeviceCgroupBuilder::default()
        .allow(allow)
        .typ(kind)
        .access(access);
    if let Some((major, minor)) = numbers {
        rule = rule.major(major);
        if let Some(minor) = minor {
            rule = rule.minor(minor);
        }
    }
    rule.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h21_the_path_of_a_cgroup_for_runc() {
        let of = |path: &str, mode| super::path(&[PathBuf::from(path), PathBuf::from("/x")], mode, None);
        let v2 = of("/sys/fs/cgroup/app.service/longshore-1/c", CgroupMode::V2);
        assert_eq!(v2.as_deref(), Some("/app.service/longshore-1/c"));
        let v1 = of("/sys/fs/cgroup/memory/user/longshore-1/c", CgroupMode::V1);
        assert_eq!(v1.as_deref(), Some("longshore-1/c"));
        assert_eq!(super::path(&[], CgroupMode::V2, None), None);
        assert_eq!(of("/elsewhere/c", CgroupMode::V2), None);
    }

    #[test]
    fn h22_a_named_cgroup_is_called_the_same_for_runc() {
        let named = |dir: &str, mode| super::path(&[PathBuf::from(dir)], mode, Some(Path::new("/web/c")));
        let v1 = named("/sys/fs/cgroup/memory/web/c", CgroupMode::Hybrid);
        assert_eq!(v1.as_deref(), Some("/web/c"));
        let v2 = named("/sys/fs/cgroup/web/c", CgroupMode::V2);
        assert_eq!(v2.as_deref(), Some("/web/c"));
        let below = super::path(
            &["/sys/fs/cgroup/app/web/c".into()],
            CgroupMode::V2,
            Some(Path::new("web/c")),
        );
        assert_eq!(below.as_deref(), Some("/app/web/c"));
    }

    #[test]
    fn h21_devices_are_kept_away_unless_they_are_asked_for() {
        let usual = device_rules(None, &[], false).unwrap();
        assert!(!usual[0].allow() && usual[0].typ() == Some(LinuxDeviceType::A));
        assert!(usual[1..].iter().all(LinuxDeviceCgroup::allow));
        let one = crate::runtime::defaults::devices().remove(0);
        assert_eq!(device_rules(None, &[one], false).unwrap().len(), usual.len() + 1);
        assert!(device_rules(None, &[], true).unwrap()[0].allow());
        let mut asked = LinuxResources::default();
        asked.set_devices(Some(vec![usual[0].clone()]));
        assert_eq!(device_rules(Some(&asked), &[], true).unwrap(), usual[..1]);
    }
}
