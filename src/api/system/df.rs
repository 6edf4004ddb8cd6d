//! `system/df`.

use serde_json::{Value, json};

use super::super::call::Call;
use super::super::containers::{add_sizes, summary as container_summary};
use super::super::error::Failure;
use super::super::fields::{self, Shape};
use super::super::images::{add_usage, known, summary as image_summary};
use super::super::reply;
use super::super::router::Answer;
use super::super::volumes::body as volume_body;
use super::steps;
use crate::containers::{ContainerSummary, ListOptions};
use crate::images::{ImageInfo, ImageSummary};
use crate::system::DiskUsage;
use crate::types::Filter;
use crate::volumes::{VolumeInfo, VolumeUsage};

/// Sorts of objects that one can ask for.
const SORTS: [&str; 4] = ["container", "image", "volume", "build-cache"];

pub(super) async fn df(call: Call) -> Answer {
    // Both options are newer than most clients; older versions ignore them.
    let wanted: Vec<&str> = match call.version.at_least(42) {
        true => call.query.all("type").collect(),
        false => Vec::new(),
    };
    if let Some(unknown) = wanted.iter().find(|sort| !SORTS.contains(sort)) {
        return Err(Failure::bad(format!("unknown object type: {unknown}")));
    }
    let engine = &call.engine;
    let usage = engine.system().disk_usage().await?;
    let mut images = Vec::new();
    for image in engine.images().list(Filter::new()).await? {
        if let Some(info) = known(&call, &image.id).await? {
            images.push((image, info));
        }
    }
    let everything = ListOptions {
        all: true,
        filter: Filter::new(),
    };
    let containers = engine.containers().list(everything).await?;
    let form = Form {
        old: !call.version.at_least(52) || !call.query.flag("verbose"),
        new: call.version.at_least(52),
    };
    let volumes = match wanted.is_empty() || wanted.contains(&"volume") {
        true => engine.volumes().list(Filter::new()).await?,
        false => Vec::new(),
    };
    let build = match wanted.is_empty() || wanted.contains(&"build-cache") {
        true => steps::usage(engine).await?,
        false => steps::BuildCache::default(),
    };
    let objects = Objects {
        images: &images,
        containers: &containers,
        volumes: &volumes,
        build,
    };
    let mut value = body(&usage, objects, &wanted, form);
    fields::fit(Shape::DiskUsage, call.version, &mut value);
    for (names, shape) in LINES {
        lines_of(&mut value, names).for_each(|line| fields::fit(shape, call.version, line));
    }
    Ok(reply::ok(&value))
}

/// Where there are lines of lists, and of which.
const LINES: [([&str; 2], Shape); 2] = [
    (["Images", "ImageUsage"], Shape::ImageSummary),
    (["Containers", "ContainerUsage"], Shape::ContainerSummary),
];

/// Every line under an old name and a new one.
fn lines_of<'a>(value: &'a mut Value, [old, new]: [&str; 2]) -> impl Iterator<Item = &'a mut Value> {
    let Value::Object(parts) = value else {
        return Vec::new().into_iter();
    };
    let mut lines = Vec::new();
    for (name, part) in parts {
        let found = match name.as_str() {
            name if name == old => Some(part),
            name if name == new => part.get_mut("Items"),
            _ => None,
        };
        lines.extend(found.and_then(Value::as_array_mut).into_iter().flatten());
    }
    lines.into_iter()
}

/// What is shown. The lists beside the parts of 1.52 are deprecated; dockerd shows them all the same, unless a client asks
/// for `verbose`, which says that it knows the parts.
/// Source: moby, `getDiskUsage`.
#[derive(Debug, Clone, Copy)]
struct Form {
    old: bool,
    new: bool,
}

/// What takes space.
struct Objects<'a> {
    images: &'a [(ImageSummary, ImageInfo)],
    containers: &'a [ContainerSummary],
    volumes: &'a [VolumeInfo],
    build: steps::BuildCache,
}

/// The union of all versions' shapes. `wanted` are sorts of objects; none is all of them.
fn body(usage: &DiskUsage, objects: Objects<'_>, wanted: &[&str], form: Form) -> Value {
    let Objects {
        images,
        containers,
        volumes,
        build,
    } = objects;
    let wants = |sort: &str| wanted.is_empty() || wanted.contains(&sort);
    let image_lines = image_lines(usage, images);
    let container_lines = container_lines(usage, containers);
    let mut value = json!({"BuilderSize": 0});
    if wants("image") {
        let used = usage.images.iter().filter(|image| image.containers > 0);
        let free = usage.images.iter().filter(|image| image.containers == 0);
        let free: u64 = free
            .map(|image| image.size_bytes.saturating_sub(image.shared_bytes))
            .sum();
        if form.old {
            value["LayersSize"] = json!(usage.layers_bytes);
        }
        let sums = sums(used.count(), image_lines.len(), usage.layers_bytes, free);
        add(&mut value, ("ImageUsage", "Images"), sums, image_lines, form);
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
        let sums = sums(active.len(), container_lines.len(), total, free);
        add(
            &mut value,
            ("ContainerUsage", "Containers"),
            sums,
            container_lines,
            form,
        );
    }
    if wants("volume") {
        let lines = volume_lines(usage, volumes);
        let used = usage.volumes.iter().filter(|volume| volume.containers > 0);
        let bytes = |volume: &VolumeUsage| volume.bytes.unwrap_or(0);
        let total: u64 = usage.volumes.iter().map(bytes).sum();
        let free: u64 = usage
            .volumes
            .iter()
            .filter(|volume| volume.containers == 0)
            .map(bytes)
            .sum();
        let sums = sums(used.count(), lines.len(), total, free);
        add(&mut value, ("VolumeUsage", "Volumes"), sums, lines, form);
    }
    if wants("build-cache") {
        let sums = sums(build.shared, build.lines.len(), build.bytes, build.free_bytes);
        add(&mut value, ("BuildCacheUsage", "BuildCache"), sums, build.lines, form);
    }
    value
}

fn sums(active: usize, total: usize, bytes: u64, reclaimable: u64) -> Value {
    let mut value = json!({"ActiveCount": active, "TotalCount": total, "TotalSize": bytes, "Reclaimable": reclaimable});
    // Docker leaves zeros out.
    if let Value::Object(sums) = &mut value {
        sums.retain(|_, number| number.as_u64() != Some(0));
    }
    value
}

/// Adds a sort of objects, under its new name and its old one.
fn add(value: &mut Value, (name, legacy): (&str, &str), sums: Value, items: Vec<Value>, form: Form) {
    if form.new {
        value[name] = sums;
    }
    // An empty list is left out here, and there below.
    if form.new && !items.is_empty() {
        value[name]["Items"] = json!(items);
    }
    if form.old {
        value[legacy] = Value::Array(items);
    }
}

fn image_lines(usage: &DiskUsage, images: &[(ImageSummary, ImageInfo)]) -> Vec<Value> {
    let lines = images.iter().map(|(image, info)| {
        let mut line = image_summary(image, Some(info));
        if let Some(counted) = usage.images.iter().find(|known| known.id == image.id) {
            add_usage(&mut line, counted);
        }
        line
    });
    lines.collect()
}

fn volume_lines(usage: &DiskUsage, volumes: &[VolumeInfo]) -> Vec<Value> {
    let lines = volumes.iter().map(|volume| {
        let mut line = volume_body(volume);
        let counted = usage.volumes.iter().find(|known| known.name == volume.name);
        // What nobody can say is -1.
        let bytes = counted
            .and_then(|known| known.bytes)
            .and_then(|bytes| i64::try_from(bytes).ok());
        let users = counted.map_or(volume.users.len(), |known| known.containers);
        line["UsageData"] = json!({"Size": bytes.unwrap_or(-1), "RefCount": users});
        line
    });
    lines.collect()
}

fn container_lines(usage: &DiskUsage, containers: &[ContainerSummary]) -> Vec<Value> {
    let lines = containers.iter().map(|container| {
        let mut line = container_summary(container);
        add_sizes(&mut line, &container.id, &usage.containers);
        line
    });
    lines.collect()
}
