//! Devices, and what is limited by device: Docker's JSON to a spec, and back.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::error::Failure;
use super::super::object::Object;
use crate::containers::cdi;
use crate::containers::{ContainerSpec, DeviceMapping, DeviceRate, DeviceWeight, Limits};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Device {
    path_on_host: PathBuf,
    #[serde(default)]
    path_in_container: PathBuf,
    #[serde(default)]
    cgroup_permissions: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    #[serde(default)]
    driver: String,
    #[serde(default, rename = "DeviceIDs")]
    device_ids: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weight {
    path: PathBuf,
    weight: u16,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Rate {
    path: PathBuf,
    rate: u64,
}

/// Devices and rules of `containers/create`.
pub(super) fn take(host: &mut Object, spec: &mut ContainerSpec) -> Result<(), Failure> {
    for device in host.take_or_default::<Vec<Device>>("Devices")? {
        match device.path_on_host.to_str().filter(|name| cdi::is_name(name)) {
            Some(name) => spec.cdi_devices.push(name.to_owned()),
            None => spec.devices.push(mapping(device)?),
        }
    }
    for request in host.take_or_default::<Vec<Request>>("DeviceRequests")? {
        spec.cdi_devices.extend(requested(request)?);
    }
    for rule in host.take_or_default::<Vec<String>>("DeviceCgroupRules")? {
        spec.device_rules.push(rule.parse()?);
    }
    spec.sysctls = host.take_or_default("Sysctls")?;
    Ok(())
}

/// Docker's requests are for drivers of its own, too; here CDI is the only one.
fn requested(request: Request) -> Result<Vec<String>, Failure> {
    if request.driver != "cdi" {
        let what = format!("DeviceRequests with the driver {:?}", request.driver);
        return Err(Failure::option(
            &what,
            "the driver cdi, with names of devices as DeviceIDs",
        ));
    }
    let ids = request.device_ids.unwrap_or_default();
    ids.iter().try_for_each(|name| cdi::check_name(name))?;
    Ok(ids)
}

/// What is not said is as on the host, with every right.
fn mapping(device: Device) -> Result<DeviceMapping, Failure> {
    let target = match device.path_in_container.as_os_str().is_empty() {
        true => device.path_on_host.clone(),
        false => device.path_in_container,
    };
    let access = match device.cgroup_permissions.as_str() {
        "" => Default::default(),
        letters => letters.parse()?,
    };
    Ok(DeviceMapping {
        source: device.path_on_host,
        target,
        access,
    })
}

/// Block I/O of a whole container alone, as an update takes it too.
pub(super) fn take_weight(host: &mut Object, limits: &mut Limits) -> Result<(), Failure> {
    limits.blkio_weight = match host.take::<i64>("BlkioWeight")? {
        None | Some(0) => None,
        Some(weight) => match u16::try_from(weight) {
            Ok(weight @ 10..=1000) => Some(weight),
            _ => return Err(Failure::bad("Range of blkio weight is from 10 to 1000")),
        },
    };
    Ok(())
}

/// Block I/O by device.
pub(super) fn take_rates(host: &mut Object, limits: &mut Limits) -> Result<(), Failure> {
    let weights: Vec<Weight> = host.take_or_default("BlkioWeightDevice")?;
    let weights = weights
        .into_iter()
        .map(|Weight { path, weight }| DeviceWeight { path, weight });
    limits.blkio_weight_devices = weights.collect();
    for (key, rates) in [
        ("BlkioDeviceReadBps", &mut limits.device_read_bps),
        ("BlkioDeviceWriteBps", &mut limits.device_write_bps),
        ("BlkioDeviceReadIOps", &mut limits.device_read_iops),
        ("BlkioDeviceWriteIOps", &mut limits.device_write_iops),
    ] {
        let asked: Vec<Rate> = host.take_or_default(key)?;
        *rates = asked
            .into_iter()
            .map(|Rate { path, rate }| DeviceRate { path, rate })
            .collect();
    }
    Ok(())
}

/// As `inspect` shows them.
pub(super) fn shown(spec: &ContainerSpec) -> Value {
    let devices = spec.devices.iter().map(|device| {
        json!({
            "PathOnHost": device.source, "PathInContainer": device.target, "CgroupPermissions": device.access.to_string(),
        })
    });
    let limits = &spec.limits;
    let weights = limits.blkio_weight_devices.iter();
    let weights = weights.map(|device| json!({"Path": device.path, "Weight": device.weight}));
    json!({
        "Devices": none_if_no(devices.collect()),
        "DeviceRequests": match spec.cdi_devices.as_slice() {
            [] => Value::Null,
            names => json!([{
                "Driver": "cdi", "Count": 0, "DeviceIDs": names, "Capabilities": null, "Options": null,
            }]),
        },
        "DeviceCgroupRules": none_if_no(spec.device_rules.iter().map(|rule| json!(rule.to_string())).collect()),
        "BlkioWeight": limits.blkio_weight.unwrap_or(0),
        "BlkioWeightDevice": none_if_no(weights.collect()),
        "BlkioDeviceReadBps": rates(&limits.device_read_bps),
        "BlkioDeviceWriteBps": rates(&limits.device_write_bps),
        "BlkioDeviceReadIOps": rates(&limits.device_read_iops),
        "BlkioDeviceWriteIOps": rates(&limits.device_write_iops),
    })
}

fn rates(rates: &[DeviceRate]) -> Value {
    none_if_no(
        rates
            .iter()
            .map(|device| json!({"Path": device.path, "Rate": device.rate}))
            .collect(),
    )
}

fn none_if_no(list: Vec<Value>) -> Value {
    if list.is_empty() { Value::Null } else { json!(list) }
}
