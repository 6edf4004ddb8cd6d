//! The engine as a whole over the API: info, events, disk usage.

use async_trait::async_trait;
use futures_util::stream;
use serde_json::Value;

use super::client::{Ask, Client};
use super::json::{self, count, list, number, required, stamp, text, text_or_empty};
use super::pieces::{self, Lines};
use crate::error::Result;
use crate::events::{Event, EventItem, EventKind, EventStream};
use crate::system::{ContainerCounts, ContainerUsage, DiskUsage, EventQuery, ImageUsage, SystemInfo, SystemManager};
use crate::types::Filter;
use crate::volumes::VolumeUsage;

/// What Docker calls the engine.
const DAEMON: &str = "daemon";

/// An engine elsewhere, as a whole.
#[derive(Debug)]
pub(super) struct System(pub(super) Client);

#[async_trait]
impl SystemManager for System {
    async fn info(&self) -> Result<SystemInfo> {
        Ok(info(&self.0.json(Ask::get("info")).await?))
    }

    async fn events(&self, query: EventQuery) -> Result<EventStream> {
        let ask = Ask::get("events")
            .with_some("since", query.since_ns.map(stamp))
            .with_some("until", query.until_ns.map(stamp))
            .filter(&theirs(&query.filter));
        let answer = self.0.send(ask).await?;
        let lines = Lines::new(pieces::bytes(self.0.clone(), answer));
        Ok(Box::pin(stream::try_unfold(lines, |mut lines| async move {
            while let Some(line) = lines.next().await? {
                if let Some(event) = event(&line) {
                    return Ok(Some((EventItem::Event(event), lines)));
                }
            }
            Ok(None)
        })))
    }

    async fn disk_usage(&self) -> Result<DiskUsage> {
        usage(&self.0.json(Ask::get("system/df")).await?)
    }
}

/// Our filter in Docker's words.
fn theirs(filter: &Filter) -> Filter {
    let mut out = Filter::new();
    for key in filter.keys() {
        let name = if key == "engine" { DAEMON } else { key };
        for value in filter.values(key) {
            let value = if key == "type" && value == "engine" {
                DAEMON
            } else {
                value
            };
            out = out.with(name, value);
        }
    }
    out
}

/// Nothing of a sort of object that is not ours: plugins, swarms.
fn event(line: &Value) -> Option<Event> {
    let kind = match line["Type"].as_str()? {
        DAEMON => EventKind::Engine,
        word => word.parse().ok()?,
    };
    let seconds = line["time"]
        .as_i64()
        .and_then(|seconds| seconds.checked_mul(1_000_000_000));
    Some(Event {
        time_ns: line["timeNano"].as_i64().or(seconds)?,
        kind,
        action: text(line, "Action")?,
        id: text_or_empty(&line["Actor"], "ID"),
        attributes: json::map(&line["Actor"], "Attributes"),
    })
}

/// Those of the devices that an engine has found that are CDI's.
fn cdi_devices(value: &Value) -> Vec<String> {
    let found = value["DiscoveredDevices"].as_array().into_iter().flatten();
    let cdi = found.filter(|device| device["Source"] == "cdi");
    cdi.filter_map(|device| text(device, "ID")).collect()
}

fn info(value: &Value) -> SystemInfo {
    let security = list(value, "SecurityOptions").unwrap_or_default();
    // The root and the owner are those of an engine in this process.
    SystemInfo {
        id: text_or_empty(value, "ID"),
        name: text_or_empty(value, "Name"),
        version: text_or_empty(value, "ServerVersion"),
        storage_driver: text_or_empty(value, "Driver"),
        storage_reason: reason(value),
        log_driver: text_or_empty(value, "LoggingDriver"),
        cgroup_driver: text_or_empty(value, "CgroupDriver"),
        cgroup_version: text_or_empty(value, "CgroupVersion"),
        runtime: text_or_empty(value, "DefaultRuntime"),
        containers: ContainerCounts {
            running: count(value, "ContainersRunning"),
            paused: count(value, "ContainersPaused"),
            stopped: count(value, "ContainersStopped"),
        },
        images: count(value, "Images"),
        kernel_version: text_or_empty(value, "KernelVersion"),
        operating_system: text_or_empty(value, "OperatingSystem"),
        architecture: text_or_empty(value, "Architecture"),
        cpus: count(value, "NCPU"),
        memory_bytes: number(value, "MemTotal"),
        rootless: security.iter().any(|option| option == "name=rootless"),
        cdi_directories: list(value, "CDISpecDirs")
            .unwrap_or_default()
            .into_iter()
            .map(Into::into)
            .collect(),
        cdi_devices: cdi_devices(value),
        warnings: list(value, "Warnings").unwrap_or_default(),
        ..SystemInfo::default()
    }
}

/// Why the storage driver was chosen, where it is told.
fn reason(value: &Value) -> String {
    let mut pairs = json::objects(value, "DriverStatus");
    let found = pairs.find(|pair| pair[0] == "Chosen because");
    found.and_then(|pair| pair[1].as_str()).unwrap_or_default().to_owned()
}

/// The lists are under their old names, or since 1.52 in parts.
fn usage(value: &Value) -> Result<DiskUsage> {
    let lines = |old: &str, new: &str| -> Vec<Value> {
        let found = value[old].as_array().or_else(|| value[new]["Items"].as_array());
        found.cloned().unwrap_or_default()
    };
    let images = lines("Images", "ImageUsage");
    let images = images.iter().map(|line| {
        Ok(ImageUsage {
            id: required(line, "Id")?,
            size_bytes: number(line, "Size"),
            shared_bytes: number(line, "SharedSize"),
            containers: count(line, "Containers"),
        })
    });
    let containers = lines("Containers", "ContainerUsage");
    let containers = containers.iter().map(|line| {
        Ok(ContainerUsage {
            id: required(line, "Id")?,
            writable_bytes: number(line, "SizeRw"),
            total_bytes: number(line, "SizeRootFs"),
        })
    });
    let layers = value["LayersSize"].as_u64();
    let volumes = lines("Volumes", "VolumeUsage");
    let volumes = volumes.iter().map(|line| {
        let data = &line["UsageData"];
        VolumeUsage::new(
            text_or_empty(line, "Name"),
            data["Size"].as_u64(),
            count(data, "RefCount"),
        )
    });
    let volumes: Vec<VolumeUsage> = volumes.collect();
    let caches = lines("BuildCache", "BuildCacheUsage");
    let caches = caches.iter().filter(|line| line["Type"] == "exec.cachemount");
    Ok(DiskUsage {
        caches_bytes: caches.map(|line| number(line, "Size")).sum(),
        volumes_bytes: volumes.iter().filter_map(|volume| volume.bytes).sum(),
        volumes,
        images: images.collect::<Result<_>>()?,
        containers: containers.collect::<Result<_>>()?,
        layers_bytes: layers.unwrap_or_else(|| number(&value["ImageUsage"], "TotalSize")),
        ..DiskUsage::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn g12_events_of_dockerd() {
        let line = json!({"Type": "container", "Action": "die", "time": 5, "timeNano": 5_000_000_007_i64,
            "Actor": {"ID": "abc", "Attributes": {"exitCode": "3", "image": "busybox"}}});
        let read = event(&line).unwrap();
        assert_eq!(
            (read.time_ns, read.kind, read.action.as_str()),
            (5_000_000_007, EventKind::Container, "die")
        );
        assert_eq!(read.attributes["exitCode"], "3");
        let daemon = json!({"Type": "daemon", "Action": "reload", "time": 5});
        assert_eq!(event(&daemon).unwrap().kind, EventKind::Engine);
        assert!(event(&json!({"Type": "secret", "Action": "create", "time": 5})).is_none());
        let asked = Filter::new().with("type", "engine").with("event", "die");
        assert_eq!(theirs(&asked), Filter::new().with("type", DAEMON).with("event", "die"));
    }

    #[test]
    fn usage_in_both_forms() {
        let id = format!("sha256:{}", "a".repeat(64));
        let image = json!({"Id": id, "Size": 7, "SharedSize": -1, "Containers": 2});
        let old = usage(&json!({"LayersSize": 9, "Images": [image], "Containers": null})).unwrap();
        let new = usage(&json!({"ImageUsage": {"TotalSize": 9, "Items": [image]}})).unwrap();
        assert_eq!(old, new);
        assert_eq!(
            (old.layers_bytes, old.images[0].shared_bytes, old.images[0].containers),
            (9, 0, 2)
        );
    }
}
