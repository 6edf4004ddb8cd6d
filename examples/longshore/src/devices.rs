//! Options about devices of the host, and about parameters of the kernel.

use std::path::PathBuf;

use longshore::containers::{DeviceMapping, DeviceRate, DeviceRule, DeviceWeight};
use longshore::{Bytes, ContainerSpec};

use crate::options::{self, Pair};

/// Devices, and what is limited by device.
#[derive(Debug, clap::Args)]
pub struct DeviceArgs {
    /// Give it a device of the host: SRC, SRC:DST or SRC:DST:rwm; or one of CDI by its name, vendor.com/class=name
    #[arg(long, value_name = "DEVICE", value_parser = device)]
    device: Vec<Asked>,
    /// Say what it may do with devices by number, say "c 10:229 rwm"
    #[arg(long, value_name = "RULE")]
    device_cgroup_rule: Vec<DeviceRule>,
    /// Set a kernel parameter of its namespaces
    #[arg(long, value_name = "NAME=VALUE", value_parser = options::pair)]
    sysctl: Vec<Pair>,
    /// Mask of the first process's file modes, in octal
    #[arg(long, value_name = "MASK", value_parser = mask)]
    umask: Option<u32>,
    /// Time zone, as Europe/Paris, or local for the host's
    #[arg(long, value_name = "ZONE")]
    tz: Option<String>,
    /// Relative weight of a device's I/O, 10 to 1000
    #[arg(long, value_name = "DEVICE:WEIGHT", value_parser = weight)]
    blkio_weight_device: Vec<DeviceWeight>,
    /// Most bytes per second that it reads from a device
    #[arg(long, value_name = "DEVICE:BYTES", value_parser = bytes)]
    device_read_bps: Vec<DeviceRate>,
    /// Most bytes per second that it writes to a device
    #[arg(long, value_name = "DEVICE:BYTES", value_parser = bytes)]
    device_write_bps: Vec<DeviceRate>,
    /// Most reads per second from a device
    #[arg(long, value_name = "DEVICE:NUMBER", value_parser = number)]
    device_read_iops: Vec<DeviceRate>,
    /// Most writes per second to a device
    #[arg(long, value_name = "DEVICE:NUMBER", value_parser = number)]
    device_write_iops: Vec<DeviceRate>,
}

impl DeviceArgs {
    /// Puts them into what is asked of the engine.
    pub fn put(&self, spec: &mut ContainerSpec) {
        for device in &self.device {
            match device {
                Asked::Mapping(mapping) => spec.devices.push(mapping.clone()),
                Asked::Cdi(name) => spec.cdi_devices.push(name.clone()),
            }
        }
        spec.device_rules = self.device_cgroup_rule.clone();
        let sysctls = self.sysctl.iter().cloned();
        spec.sysctls = sysctls.map(|(name, value)| (name, value.unwrap_or_default())).collect();
        spec.umask = self.umask;
        spec.timezone.clone_from(&self.tz);
        spec.limits.blkio_weight_devices = self.blkio_weight_device.clone();
        spec.limits.device_read_bps = self.device_read_bps.clone();
        spec.limits.device_write_bps = self.device_write_bps.clone();
        spec.limits.device_read_iops = self.device_read_iops.clone();
        spec.limits.device_write_iops = self.device_write_iops.clone();
    }
}

/// A device as it is asked for.
#[derive(Debug, Clone)]
enum Asked {
    Mapping(DeviceMapping),
    Cdi(String),
}

/// A path is a device of the host; with `=` and no slash at its beginning, a name of CDI's, which the engine checks.
fn device(text: &str) -> Result<Asked, String> {
    if !text.starts_with('/') && text.contains('=') {
        return Ok(Asked::Cdi(text.to_owned()));
    }
    mapping(text).map(Asked::Mapping)
}

/// As Docker reads it: what follows the last colon are letters of access, or a path.
fn mapping(text: &str) -> Result<DeviceMapping, String> {
    let mut parts = text.split(':');
    let source = PathBuf::from(parts.next().unwrap_or_default());
    let mut mapping = DeviceMapping {
        target: source.clone(),
        source,
        access: Default::default(),
    };
    for part in parts {
        if part.starts_with('/') {
            mapping.target = part.into();
        } else {
            mapping.access = part.parse().map_err(|error: longshore::Error| error.to_string())?;
        }
    }
    Ok(mapping)
}

fn mask(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8).map_err(|_| format!("{text:?} is no octal number, say 027"))
}

fn of_device(text: &str) -> Result<(PathBuf, &str), String> {
    let (path, value) = text
        .rsplit_once(':')
        .ok_or_else(|| format!("{text:?}: say /dev/NAME:VALUE"))?;
    Ok((path.into(), value))
}

fn weight(text: &str) -> Result<DeviceWeight, String> {
    let (path, weight) = of_device(text)?;
    let weight = weight
        .parse()
        .map_err(|_| format!("{weight:?} is no weight, 10 to 1000"))?;
    Ok(DeviceWeight { path, weight })
}

fn bytes(text: &str) -> Result<DeviceRate, String> {
    let (path, rate) = of_device(text)?;
    let rate: Bytes = rate.parse().map_err(|error: longshore::Error| error.to_string())?;
    Ok(DeviceRate { path, rate: rate.get() })
}

fn number(text: &str) -> Result<DeviceRate, String> {
    let (path, rate) = of_device(text)?;
    let rate = rate.parse().map_err(|_| format!("{rate:?} is no number"))?;
    Ok(DeviceRate { path, rate })
}
