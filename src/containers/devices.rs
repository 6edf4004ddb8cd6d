//! What the devices that a container is given come to on this host.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    LinuxBlockIo, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxThrottleDevice,
    LinuxThrottleDeviceBuilder, LinuxWeightDevice, LinuxWeightDeviceBuilder, Mount, MountBuilder, Spec,
};

use super::device::{DeviceMapping, DeviceRate, DeviceWeight, bad};
use super::spec::{ContainerSpec, Limits};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::runtime::devices;

/// Whether the container's cgroup must tell devices apart: without, those that it has are all that it can use, as nothing
/// that it can write to holds a node that works.
fn are_filtered(spec: &ContainerSpec) -> bool {
    let limited = |mapping: &DeviceMapping| !(mapping.access.read && mapping.access.write);
    !spec.privileged && (!spec.device_rules.is_empty() || spec.devices.iter().any(limited))
}

/// Whether nodes that the container makes work: a rule says which.
pub(super) fn are_made(spec: &ContainerSpec) -> bool {
    spec.privileged || !spec.device_rules.is_empty()
}

/// Adds to a plan the devices that were asked for; looks at the host. With `ours` nodes of them can be made, without they
/// are the host's own. Blocks.
pub(super) fn add(planned: &mut Spec, spec: &ContainerSpec, ours: bool) -> Result<()> {
    let mut mounts = planned.mounts().clone().unwrap_or_default();
    let mut found: Vec<LinuxDevice> = Vec::new();
    let mut rules = usual_rules().map_err(build_error)?;
    for mapping in &spec.devices {
        let access = mapping.access.to_string();
        for device in of_mapping(mapping)? {
            rules.push(
                rule(
                    true,
                    device.typ(),
                    (Some(device.major()), Some(device.minor())),
                    &access,
                )
                .map_err(build_error)?,
            );
            if !ours {
                mounts.push(bound(&host_path(mapping, &device), device.path())?);
                continue;
            }
            found.retain(|known| known.path() != device.path());
            found.push(device);
        }
    }
    for asked in &spec.device_rules {
        let kind = asked.block.map_or(LinuxDeviceType::A, |block| {
            if block { LinuxDeviceType::B } else { LinuxDeviceType::C }
        });
        let numbers = (asked.major.map(i64::from), asked.minor.map(i64::from));
        rules.push(rule(true, kind, numbers, &asked.access.to_string()).map_err(build_error)?);
    }
    if spec.privileged {
        // In a user namespace no node can be made, and a bind of one that the caller may not open is of no use.
        let all = devices::of_host(!ours).map_err(|error| Error::os("look at the host's devices", error))?;
        found.extend(
            all.into_iter()
                .filter(|device| !spec.devices.iter().any(|known| known.target == *device.path())),
        );
    }
    planned.set_mounts(Some(mounts));
    let Some(linux) = planned.linux_mut() else {
        return Ok(());
    };
    if !found.is_empty() {
        linux.set_devices(Some(found));
    }
    let mut resources = linux.resources().clone().unwrap_or_default();
    if are_filtered(spec) {
        resources.set_devices(Some(rules));
    }
    if let Some(limits) = block_io(&spec.limits, resources.block_io().clone())? {
        resources.set_block_io(Some(limits));
    }
    linux.set_resources(Some(resources));
    Ok(())
}

/// Where a device of a mapping lies on the host.
fn host_path(mapping: &DeviceMapping, device: &LinuxDevice) -> PathBuf {
    match device.path().strip_prefix(&mapping.target) {
        Ok(below) if !below.as_os_str().is_empty() => mapping.source.join(below),
        _ => mapping.source.clone(),
    }
}

/// The host's own node, which works as far as the caller may use it.
fn bound(source: &Path, target: &Path) -> Result<Mount> {
    let words = ["bind", "rprivate", "nosuid", "noexec", "dev"].map(str::to_owned);
    let mount = MountBuilder::default().typ("bind").source(source).destination(target);
    mount.options(words).build().map_err(build_error)
}

fn build_error(error: OciSpecError) -> Error {
    Error::new(
        ErrorKind::Internal,
        "a device rule does not make one of the OCI runtime spec",
    )
    .with_source(error)
}

/// What a device path of the host stands for.
fn of_mapping(mapping: &DeviceMapping) -> Result<Vec<LinuxDevice>> {
    let failed = |why: String| {
        let source = mapping.source.display();
        Error::invalid(format!(
            "error gathering device information while adding custom device \"{source}\": {why}"
        ))
        .with_object(ObjectKind::Option, "device")
    };
    let source = fs::canonicalize(&mapping.source).map_err(|error| failed(error.to_string()).with_source(error))?;
    let seen = fs::metadata(&source).map_err(|error| failed(error.to_string()).with_source(error))?;
    if !seen.is_dir() {
        let node = devices::device(&mapping.target, &seen).ok_or_else(|| failed("not a device node".to_owned()))?;
        return Ok(vec![node]);
    }
    let found = devices::below(&source).map_err(|error| failed(error.to_string()).with_source(error))?;
    if found.is_empty() {
        return Err(failed("no device node in that directory".to_owned()));
    }
    Ok(found
        .into_iter()
        .filter_map(|device| moved(device, &source, &mapping.target))
        .collect())
}

fn moved(mut device: LinuxDevice, from: &Path, to: &Path) -> Option<LinuxDevice> {
    let place = to.join(device.path().strip_prefix(from).ok()?);
    device.set_path(place);
    Some(device)
}

/// What every container may do. Source: moby, `oci/defaults.go`, and runc's `specconv.AllowedDevices`.
fn usual_rules() -> Result<Vec<LinuxDeviceCgroup>, OciSpecError> {
    use LinuxDeviceType::{A, B, C};
    let any = (None, None);
    let mut rules = vec![
        rule(false, A, any, "rwm")?,
        rule(true, C, any, "m")?,
        rule(true, B, any, "m")?,
    ];
    // Null, zero, full, random, urandom; tty, console, ptmx; terminals.
    for numbers in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
        rules.push(rule(true, C, (Some(numbers.0), Some(numbers.1)), "rwm")?);
    }
    rules.push(rule(true, C, (Some(136), None), "rwm")?);
    Ok(rules)
}

fn rule(
    allow: bool,
    kind: LinuxDeviceType,
    (major, minor): (Option<i64>, Option<i64>),
    access: &str,
) -> Result<LinuxDeviceCgroup, OciSpecError> {
    let mut rule = LinuxDeviceCgroupBuilder::default()
        .allow(allow)
        .typ(kind)
        .access(access)
        .build()?;
    rule.set_major(major).set_minor(minor);
    Ok(rule)
}

/// Weights and rates of single devices, which a plan names by number.
fn block_io(limits: &Limits, planned: Option<LinuxBlockIo>) -> Result<Option<LinuxBlockIo>> {
    let weights = limits
        .blkio_weight_devices
        .iter()
        .map(weight)
        .collect::<Result<Vec<_>>>()?;
    let rates = |rates: &[DeviceRate]| rates.iter().map(throttle).collect::<Result<Vec<_>>>();
    let all = [
        rates(&limits.device_read_bps)?,
        rates(&limits.device_write_bps)?,
        rates(&limits.device_read_iops)?,
        rates(&limits.device_write_iops)?,
    ];
    if weights.is_empty() && all.iter().all(Vec::is_empty) {
        return Ok(planned);
    }
    let mut made = planned.unwrap_or_default();
    let [read_bps, write_bps, read_iops, write_iops] = all;
    made.set_weight_device(Some(weights))
        .set_throttle_read_bps_device(Some(read_bps))
        .set_throttle_write_bps_device(Some(write_bps))
        .set_throttle_read_iops_device(Some(read_iops))
        .set_throttle_write_iops_device(Some(write_iops));
    Ok(Some(made))
}

fn weight(asked: &DeviceWeight) -> Result<LinuxWeightDevice> {
    let (major, minor) = number_of(&asked.path)?;
    let built = LinuxWeightDeviceBuilder::default()
        .major(major)
        .minor(minor)
        .weight(asked.weight)
        .build();
    built.map_err(build_error)
}

fn throttle(asked: &DeviceRate) -> Result<LinuxThrottleDevice> {
    let (major, minor) = number_of(&asked.path)?;
    let built = LinuxThrottleDeviceBuilder::default()
        .major(major)
        .minor(minor)
        .rate(asked.rate)
        .build();
    built.map_err(build_error)
}

/// A block device's number.
fn number_of(path: &Path) -> Result<(i64, i64)> {
    let seen = fs::metadata(path).map_err(|error| bad(format!("{}: {error}", path.display())).with_source(error))?;
    if !seen.file_type().is_block_device() {
        return Err(bad(format!(
            "{} is no block device: only those have I/O limits",
            path.display()
        )));
    }
    Ok((major(seen.rdev()) as i64, minor(seen.rdev()) as i64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::DeviceAccess;

    #[test]
    fn h8_only_limited_access_and_rules_need_a_filter() {
        let mapping = |access: &str| DeviceMapping {
            source: "/dev/null".into(),
            target: "/dev/x".into(),
            access: access.parse().unwrap(),
        };
        let mut spec = ContainerSpec::image("a");
        spec.devices.push(mapping("rw"));
        assert!(!are_filtered(&spec) && !are_made(&spec));
        spec.devices.push(mapping("r"));
        assert!(are_filtered(&spec) && !are_made(&spec));
        spec.devices.clear();
        spec.device_rules.push("c 1:3 r".parse().unwrap());
        assert!(are_filtered(&spec) && are_made(&spec));
        spec.privileged = true;
        assert!(!are_filtered(&spec) && are_made(&spec));
    }

    #[test]
    fn h8_what_is_no_device_is_named() {
        let mapping = |source: &str| DeviceMapping {
            source: source.into(),
            target: "/dev/x".into(),
            access: DeviceAccess::default(),
        };
        let one = of_mapping(&mapping("/dev/null")).unwrap();
        assert_eq!(
            (one[0].major(), one[0].minor(), one[0].path().to_str()),
            (1, 3, Some("/dev/x"))
        );
        for (source, why) in [
            ("/etc/passwd", "not a device node"),
            ("/nowhere", "No such file"),
            ("/etc", "no device node"),
        ] {
            let error = of_mapping(&mapping(source)).unwrap_err();
            assert!(
                error.report().contains(why) && error.report().contains(source),
                "{}",
                error.report()
            );
        }
        assert!(
            number_of(Path::new("/dev/null"))
                .unwrap_err()
                .report()
                .contains("no block device")
        );
    }
}
