//! `system/df`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::call::Call;
use super::super::containers::summary as container_summary;
use super::super::fields::{self, Shape};
use super::super::images::summary as image_summary;
use super::super::reply;
use super::super::router::Answer;
use crate::containers::{ContainerSummary, ListOptions};
use crate::images::ImageSummary;
use crate::system::DiskUsage;
use crate::types::Filter;

pub(super) async fn df(call: Call) -> Answer {
    let engine = &call.engine;
    let usage = engine.system().disk_usage().await?;
    let images = engine.images().list(Filter::new()).await?;
    let everything = ListOptions {
        all: true,
        filter: Filter::new(),
    };
    let containers = engine.containers().list(everything).await?;
    let wanted: Vec<&str> = call.query.all("type").collect();
    let mut value = body(&usage, &images, &containers, &wanted, call.query.flag("verbose"));
    fields::fit(Shape::DiskUsage, call.version, &mut value);
    Ok(reply::ok(&value))
}

/// The union of all versions' shapes. `wanted` are sorts of objects; none is all of them.
fn body(
    usage: &DiskUsage,
    images: &[ImageSummary],
    containers: &[ContainerSummary],
    wanted: &[&str],
    verbose: bool,
) -> Value {
    let wants = |sort: &str| wanted.is_empty() || wanted.contains(&sort);
    let image_lines = image_lines(usage, images);
    let container_lines = container_lines(usage, containers);
    let mut value = json!({});
    if wants("image") {
        let used = usage.images.iter().filter(|image| image.containers > 0);
        let free = usage.images.iter().filter(|image| image.containers == 0);
        let free: u64 = free
            .map(|image| image.size_bytes.saturating_sub(image.shared_bytes))
            .sum();
        value["LayersSize"] = json!(usage.layers_bytes);
        value["ImageUsage"] = part(used.count(), image_lines.len(), usage.layers_bytes, free);
        with_items(&mut value, "ImageUsage", "Images", image_lines, verbose);
    }
    if wants("container") {
        let active = containers.iter().filter(|container| container.state.is_alive());
        let active: Vec<&str> = active.map(|container| container.id.as_str()).collect();
        let total: u64 = usage.containers.iter().map(|container| container.writable_bytes).sum();
        let idle = usage
            .containers
            .iter()
            .filter(|container| !active.contains(&container.id.as_str()));
        let free: u64 = idle.map(|container| container.writable_bytes).sum();
        value["ContainerUsage"] = part(active.len(), container_lines.len(), total, free);
        with_items(&mut value, "ContainerUsage", "Containers", container_lines, verbose);
    }
    // There are no volumes and no build cache yet.
    for (sort, name, legacy) in [
        ("volume", "VolumeUsage", "Volumes"),
        ("build-cache", "BuildCacheUsage", "BuildCache"),
    ] {
        if wants(sort) {
            value[name] = part(0, 0, 0, 0);
            with_items(&mut value, name, legacy, Vec::new(), verbose);
        }
    }
    value
}

fn part(active: usize, total: usize, bytes: u64, reclaimable: u64) -> Value {
    json!({"ActiveCount": active, "TotalCount": total, "TotalSize": bytes, "Reclaimable": reclaimable})
}

/// The same lines for old versions, and for new ones that ask for them.
fn with_items(value: &mut Value, name: &str, legacy: &str, items: Vec<Value>, verbose: bool) {
    if verbose {
        value[name]["Items"] = json!(items);
    }
    value[legacy] = Value::Array(items);
}

fn image_lines(usage: &DiskUsage, images: &[ImageSummary]) -> Vec<Value> {
    let none = BTreeMap::new();
    let lines = images.iter().map(|image| {
        let mut line = image_summary(image, &none);
        if let Some(found) = usage.images.iter().find(|known| known.id == image.id) {
            line["SharedSize"] = json!(found.shared_bytes);
            line["Containers"] = json!(found.containers);
        }
        line
    });
    lines.collect()
}

fn container_lines(usage: &DiskUsage, containers: &[ContainerSummary]) -> Vec<Value> {
    let lines = containers.iter().map(|container| {
        let mut line = container_summary(container);
        if let Some(found) = usage.containers.iter().find(|known| known.id == container.id) {
            line["SizeRw"] = json!(found.writable_bytes);
            line["SizeRootFs"] = json!(found.total_bytes);
        }
        line
    });
    lines.collect()
}
