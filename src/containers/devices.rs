//! What the devices that a container is given come to on this host.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    LinuxBlockIo, LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
    LinuxThrottleDevice, LinuxThrottleDeviceBuilder, LinuxWeightDevice, LinuxWeightDeviceBuilder, Mount, MountBuilder,
    Spec,
};

use super::cdi::DeviceNode;
use super::device::{DeviceMapping, DeviceRate, DeviceWeight, bad};
use super::spec::{ContainerSpec, Limits};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::runtime::devices;

/// Whether the container's cgroup must tell devices apart: without, those that it has are all that it can use, as nothing
/// that it can write to holds a node that works.
fn are_filtered(spec: &ContainerSpec, nodes: &[(String, DeviceNode)]) -> bool {
    let limited = |mapping: &DeviceMapping| !(mapping.access.read && mapping.access.write);
    let node_is_limited = |(_, node): &(String, DeviceNode)| !access_of(node).contains("rw");
    let any = !spec.device_rules.is_empty() || spec.devices.iter().any(limited) || nodes.iter().any(node_is_limited);
    !spec.privileged && any
}

/// Whether nodes that the container makes work: a rule says which.
pub(super) fn are_made(spec: &ContainerSpec) -> bool {
    spec.privileged || !spec.device_rules.is_empty()
}

/// A device for a container.
struct Given {
    /// As it is in the container.
    device: LinuxDevice,
    /// The node on the host.
    host: PathBuf,
    access: String,
}

/// All that were asked for, those of CDI specifications behind the others.
fn given(spec: &ContainerSpec, nodes: &[(String, DeviceNode)], ours: bool) -> Result<Vec<Given>> {
    let mut all = Vec::new();
    for mapping in &spec.devices {
        let access = mapping.access.to_string();
        all.extend(of_mapping(mapping)?.into_iter().map(|device| Given {
            host: host_path(mapping, &device),
            device,
            access: access.clone(),
        }));
    }
    for (name, node) in nodes {
        all.push(of_node(name, node, ours)?);
    }
    Ok(all)
}

/// Adds to a plan the devices that were asked for; looks at the host. With `ours` nodes of them can be made, without they
/// are the host's own. Blocks.
pub(super) fn add(planned: &mut Spec, spec: &ContainerSpec, nodes: &[(String, DeviceNode)], ours: bool) -> Result<()> {
    let mut mounts = planned.mounts().clone().unwrap_or_default();
    let mut found: Vec<LinuxDevice> = Vec::new();
    let mut rules = usual_rules().map_err(build_error)?;
    for Given { device, host, access } in given(spec, nodes, ours)? {
        let numbers = (Some(device.major()), Some(device.minor()));
        rules.push(rule(true, device.typ(), numbers, &access).map_err(build_error)?);
        if !ours {
            mounts.retain(|known| known.destination() != device.path());
            mounts.push(bound(&host, device.path())?);
            continue;
        }
        found.retain(|known| known.path() != device.path());
        found.push(device);
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
        let known: Vec<PathBuf> = found.iter().map(|device| device.path().clone()).collect();
        let given = |device: &LinuxDevice| {
            let asked = spec.devices.iter().any(|known| known.target == *device.path());
            asked || known.contains(device.path()) || nodes.iter().any(|(_, node)| node.path == *device.path())
        };
        found.extend(all.into_iter().filter(|device| !given(device)));
    }
    planned.set_mounts(Some(mounts));
    let Some(linux) = planned.linux_mut() else {
        return Ok(());
    };
    if !found.is_empty() {
        linux.set_devices(Some(found));
    }
    let mut resources = linux.resources().clone().unwrap_or_default();
    if are_filtered(spec, nodes) {
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

/// What may be done with a node of a CDI specification: everything, if it does not say.
fn access_of(node: &DeviceNode) -> &str {
    node.permissions
        .as_deref()
        .filter(|letters| !letters.is_empty())
        .unwrap_or("rwm")
}

/// A node of a CDI device. What the specification does not say of it is as on the host; where nodes cannot be made, the host's
/// is shown as it is.
fn of_node(name: &str, node: &DeviceNode, ours: bool) -> Result<Given> {
    let host = node.host_path.clone().unwrap_or_else(|| node.path.clone());
    let failed = |why: String| {
        let message = format!("the node {} of the CDI device {name}: {why}", host.display());
        Error::invalid(message).with_object(ObjectKind::CdiDevice, name)
    };
    if node.kind.as_deref() == Some("p") {
        let what = format!("a pipe ({}) as a node of the CDI device {name}", node.path.display());
        return Err(Error::unsupported(what, "a node of a device").with_object(ObjectKind::CdiDevice, name));
    }
    let wanted = match node.kind.as_deref() {
        Some("b") => Some(LinuxDeviceType::B),
        Some("c" | "u") => Some(LinuxDeviceType::C),
        _ => None,
    };
    let numbers = node.major.zip(node.minor);
    let mut device = match (wanted, numbers.filter(|(major, _)| *major != 0)) {
        // All is said: the node need not be on the host.
        (Some(kind), Some((major, minor))) if ours => {
            let made = LinuxDeviceBuilder::default()
                .path(&node.path)
                .typ(kind)
                .major(major)
                .minor(minor);
            made.file_mode(0o666u32)
                .uid(0u32)
                .gid(0u32)
                .build()
                .map_err(build_error)?
        }
        _ => {
            let seen = fs::metadata(&host).map_err(|error| failed(error.to_string()).with_source(error))?;
            devices::device(&node.path, &seen).ok_or_else(|| failed("not a device node".to_owned()))?
        }
    };
    if wanted.is_some_and(|kind| kind != device.typ()) {
        return Err(failed("it is of another type on the host".to_owned()));
    }
    if numbers.is_some_and(|(major, minor)| major != 0 && (major, minor) != (device.major(), device.minor())) {
        return Err(failed("it has other numbers on the host".to_owned()));
    }
    if let Some(mode) = node.file_mode {
        device.set_file_mode(Some(mode & 0o777));
    }
    device.set_uid(node.uid.or(device.uid()));
    device.set_gid(node.gid.or(device.gid()));
    Ok(Given {
        device,
        host,
        access: access_of(node).to_owned(),
    })
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
        assert!(!are_filtered(&spec, &[]) && !are_made(&spec));
        spec.devices.push(mapping("r"));
        assert!(are_filtered(&spec, &[]) && !are_made(&spec));
        spec.devices.clear();
        spec.device_rules.push("c 1:3 r".parse().unwrap());
        assert!(are_filtered(&spec, &[]) && are_made(&spec));
        spec.privileged = true;
        assert!(!are_filtered(&spec, &[]) && are_made(&spec));
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

    #[test]
    fn h9_nodes_are_as_they_are_said_and_else_as_on_the_host() {
        let node = |value: serde_json::Value| serde_json::from_value::<DeviceNode>(value).unwrap();
        let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let of = |text: &str, ours| of_node("v/c=x", &node(json(text)), ours);
        let looks = |given: &Given| {
            let device = &given.device;
            (
                device.typ(),
                device.major(),
                device.minor(),
                device.file_mode(),
                device.uid(),
                device.gid(),
            )
        };
        let null = of_mapping(&DeviceMapping {
            source: "/dev/null".into(),
            target: "/dev/x".into(),
            access: DeviceAccess::default(),
        });
        let null = null.unwrap().remove(0);
        let given = of(r#"{"path": "/dev/x", "hostPath": "/dev/null"}"#, true).unwrap();
        assert_eq!((&given.device, given.access.as_str()), (&null, "rwm"));
        assert_eq!(given.host, Path::new("/dev/null"));
        let said =
            r#"{"path": "/dev/x", "hostPath": "/dev/null", "fileMode": 416, "uid": 5, "gid": 6, "permissions": "r"}"#;
        let given = of(said, true).unwrap();
        assert_eq!(looks(&given), (LinuxDeviceType::C, 1, 3, Some(0o640), Some(5), Some(6)));
        assert!(are_filtered(
            &ContainerSpec::image("a"),
            &[(String::new(), node(json(said)))]
        ));
        // One that is said in full need not be on the host, where nodes can be made.
        let absent = r#"{"path": "/dev/absent", "type": "b", "major": 7, "minor": 9}"#;
        assert_eq!(
            looks(&of(absent, true).unwrap()),
            (LinuxDeviceType::B, 7, 9, Some(0o666), Some(0), Some(0))
        );
        for (text, ours, why) in [
            (
                absent,
                false,
                "the node /dev/absent of the CDI device v/c=x: No such file",
            ),
            (r#"{"path": "/etc/passwd"}"#, true, "not a device node"),
            (r#"{"path": "/dev/null", "type": "b"}"#, true, "of another type"),
            (
                r#"{"path": "/dev/null", "major": 1, "minor": 5}"#,
                true,
                "other numbers",
            ),
            (r#"{"path": "/dev/x", "type": "p"}"#, true, "a pipe (/dev/x)"),
        ] {
            let Err(error) = of(text, ours) else { panic!("{text}") };
            assert!(error.to_string().contains(why), "{error}");
            assert_eq!(error.object(), Some((ObjectKind::CdiDevice, "v/c=x")));
        }
    }
}
