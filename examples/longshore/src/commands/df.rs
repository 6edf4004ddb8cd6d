//! `system df`: what is kept on disk. The sizes add up to what `du` says of the root directory.

use longshore::build::CachedStep;
use longshore::{Bytes, DiskUsage};

use super::say;
use crate::context::Context;
use crate::failure::Failure;
use crate::table::Table;

/// Options of `system df`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also each image and each container
    #[arg(short, long)]
    verbose: bool,
}

/// Prints a row per sort of thing.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let running = engine.list(longshore::ListOptions::default()).await?.len();
    let usage = engine.system().disk_usage().await?;
    let steps = kept(engine.builds().cache().await)?;
    let mounts = kept(engine.builds().mounts().await)?.len();
    let cache = Cache { steps, mounts };
    let mut table = Table::new(["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]);
    rows(&usage, running, &cache).into_iter().for_each(|row| table.row(row));
    table.print()?;
    if args.verbose {
        details(&usage)?;
    }
    Ok(0)
}

fn size(bytes: u64) -> String {
    Bytes::new(bytes).human()
}

/// What is known from earlier builds.
struct Cache {
    steps: Vec<CachedStep>,
    mounts: usize,
}

/// Nothing of an engine that does not tell.
fn kept<T>(list: longshore::Result<Vec<T>>) -> Result<Vec<T>, Failure> {
    match list {
        Err(error) if error.is_unsupported() => Ok(Vec::new()),
        list => Ok(list?),
    }
}

/// Blobs are their images', and logs their containers'. Layers that no image has, but a step of a build, are the build cache's.
fn rows(usage: &DiskUsage, running: usize, cache: &Cache) -> Vec<[String; 5]> {
    let unshared = cache.steps.iter().filter(|step| !step.shared);
    let steps: u64 = unshared.map(|step| step.size_bytes).sum();
    let used = usage.images.iter().filter(|image| image.containers > 0);
    let unused = usage.images.iter().filter(|image| image.containers == 0);
    let reclaimable: u64 = unused
        .map(|image| image.size_bytes - image.shared_bytes.min(image.size_bytes))
        .sum();
    let writable: u64 = usage.containers.iter().map(|container| container.writable_bytes).sum();
    let unused_volumes: u64 = usage
        .volumes
        .iter()
        .filter(|volume| volume.containers == 0)
        .filter_map(|volume| volume.bytes)
        .sum();
    vec![
        [
            "Images".into(),
            usage.images.len().to_string(),
            used.count().to_string(),
            size(usage.layers_bytes.saturating_sub(steps) + usage.blobs_bytes),
            size(reclaimable),
        ],
        [
            "Containers".into(),
            usage.containers.len().to_string(),
            running.to_string(),
            size(writable + usage.files_bytes),
            if running == 0 { size(writable) } else { size(0) },
        ],
        [
            "Local Volumes".into(),
            usage.volumes.len().to_string(),
            usage
                .volumes
                .iter()
                .filter(|volume| volume.containers > 0)
                .count()
                .to_string(),
            size(usage.volumes_bytes),
            size(unused_volumes),
        ],
        [
            "Build Cache".into(),
            (cache.steps.len() + cache.mounts).to_string(),
            cache.steps.iter().filter(|step| step.shared).count().to_string(),
            size(steps + usage.caches_bytes),
            size(steps + usage.caches_bytes),
        ],
        [
            "Records".into(),
            "1".into(),
            "1".into(),
            size(usage.records_bytes),
            size(0),
        ],
    ]
}

fn details(usage: &DiskUsage) -> Result<(), Failure> {
    say("")?;
    let mut images = Table::new(["IMAGE ID", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"]);
    for image in &usage.images {
        images.row([
            image.id.short(),
            size(image.size_bytes),
            size(image.shared_bytes),
            size(image.size_bytes.saturating_sub(image.shared_bytes)),
            image.containers.to_string(),
        ]);
    }
    images.print()?;
    say("")?;
    let mut containers = Table::new(["CONTAINER ID", "SIZE", "VIRTUAL SIZE"]);
    for container in &usage.containers {
        containers.row([
            container.id.short().to_owned(),
            size(container.writable_bytes),
            size(container.total_bytes),
        ]);
    }
    containers.print()?;
    Ok(())
}
