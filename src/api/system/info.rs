//! `info`.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::super::call::Call;
use super::super::fields::{self, Shape};
use super::super::reply;
use super::super::router::Answer;
use super::super::times;
use crate::system::SystemInfo;

pub(super) async fn info(call: Call) -> Answer {
    let info = call.engine.system().info().await?;
    let mut value = body(&info, SystemTime::now());
    fields::fit(Shape::Info, call.version, &mut value);
    Ok(reply::ok(&value))
}

/// The union of all versions' shapes. What there is not is false, 0 or empty: clients read these fields.
pub(in crate::api) fn body(info: &SystemInfo, now: SystemTime) -> Value {
    let count = &info.containers;
    let limits = info.cgroup_version != "none";
    let mut security = vec!["name=seccomp,profile=builtin"];
    if info.rootless {
        security.push("name=rootless");
    }
    let mut value = json!({
        "ID": info.id,
        "Containers": count.running + count.paused + count.stopped,
        "ContainersRunning": count.running,
        "ContainersPaused": count.paused,
        "ContainersStopped": count.stopped,
        "Images": info.images,
        "Driver": info.storage_driver,
        "DriverStatus": [["Chosen because", info.storage_reason]],
        "Plugins": {
            "Volume": ["local"],
            "Network": ["host", "null"],
            "Authorization": null,
            "Log": [info.log_driver],
        },
        "MemoryLimit": limits,
        "SwapLimit": limits,
        "KernelMemory": false,
        "KernelMemoryTCP": false,
        "CpuCfsPeriod": limits,
        "CpuCfsQuota": limits,
        "CPUShares": limits,
        "CPUSet": limits,
        "PidsLimit": limits,
        "IPv4Forwarding": false,
        "BridgeNfIptables": false,
        "BridgeNfIp6tables": false,
        "Debug": false,
        "NFd": 0,
        "OomKillDisable": false,
        "NGoroutines": 0,
    });
    if let (Value::Object(value), Value::Object(host)) = (&mut value, host(info, &security, now)) {
        value.extend(host);
    }
    if !info.cdi_devices.is_empty() {
        let devices = info.cdi_devices.iter();
        let devices = devices.map(|name| json!({"Source": "cdi", "ID": name}));
        value["DiscoveredDevices"] = devices.collect();
    }
    value
}

/// The half of it that tells of the host and of what is chosen.
fn host(info: &SystemInfo, security: &[&str], now: SystemTime) -> Value {
    json!({
        "SystemTime": times::rfc3339(now),
        "LoggingDriver": info.log_driver,
        "CgroupDriver": cgroup_driver(info),
        "CgroupVersion": info.cgroup_version,
        "NEventsListener": 0,
        "KernelVersion": info.kernel_version,
        "OperatingSystem": info.operating_system,
        "OSVersion": "",
        "OSType": "linux",
        "Architecture": info.architecture,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": {
            "AllowNondistributableArtifactsCIDRs": null,
            "AllowNondistributableArtifactsHostnames": null,
            "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8"],
            "IndexConfigs": {"docker.io": {"Name": "docker.io", "Mirrors": [], "Secure": true, "Official": true}},
            "Mirrors": [],
        },
        "NCPU": info.cpus,
        "MemTotal": info.memory_bytes,
        "GenericResources": null,
        "DockerRootDir": info.root,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": info.name,
        "Labels": [],
        "ExperimentalBuild": false,
        "ServerVersion": info.version,
        "Runtimes": {&info.runtime: {"path": ""}},
        "DefaultRuntime": info.runtime,
        "Swarm": {
            "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "",
            "RemoteManagers": null,
        },
        "LiveRestoreEnabled": false,
        "Isolation": "",
        "InitBinary": "",
        "ContainerdCommit": {"ID": "", "Expected": ""},
        "RuncCommit": {"ID": "", "Expected": ""},
        "InitCommit": {"ID": "", "Expected": ""},
        "SecurityOptions": security,
        "CDISpecDirs": info.cdi_directories,
        "Warnings": if info.warnings.is_empty() { Value::Null } else { json!(info.warnings) },
    })
}

/// Docker's word for a driver that writes the files itself.
fn cgroup_driver(info: &SystemInfo) -> &str {
    match info.cgroup_driver.as_str() {
        "none" => "none",
        _ => "cgroupfs",
    }
}
