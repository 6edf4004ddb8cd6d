//! `disk_usage`: what the root directory takes, measured on the disk as `du` does.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::local::Parts;
use super::{ContainerUsage, DiskUsage, ImageUsage};
use crate::containers::Record;
use crate::error::{Error, Result};
use crate::storage::files::blocking;
use crate::storage::snapshot::usage_of;
use crate::store::ImageRecord;
use crate::types::{ChainId, ImageId};

/// What the parts of the root directory take, in bytes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Measured {
    content: u64,
    snapshots: u64,
    containers: u64,
    volumes: u64,
    caches: u64,
    rest: u64,
}

impl Parts {
    pub(super) async fn disk_usage(&self) -> Result<DiskUsage> {
        let (images, rows) = self
            .store
            .call(|store| Ok((store.images()?, store.containers()?)))
            .await?;
        let images: Vec<ImageRecord> = images.into_iter().map(|entry| entry.record).collect();
        let records = rows.into_iter().map(Record::from_row).collect::<Result<Vec<_>>>()?;
        let layers = self.layers(&images).await?;
        let mut containers = Vec::new();
        for record in &records {
            containers.extend(self.container_usage(record, &images).await?);
        }
        let root = self.root.path().to_owned();
        let measured = blocking(move || measure(&root)).await?;
        let writable: u64 = containers.iter().map(|container| container.writable_bytes).sum();
        let on_disk = measured.snapshots.saturating_sub(writable);
        Ok(DiskUsage {
            images: image_usage(&images, &records, &layers),
            // Directories of other ids are closed to an ordinary user: then what was counted at unpacking is nearer.
            layers_bytes: match self.ownership {
                "mapped" => on_disk.max(layers.values().sum()),
                _ => on_disk,
            },
            blobs_bytes: measured.content,
            files_bytes: measured.containers,
            records_bytes: measured.rest,
            volumes_bytes: measured.volumes,
            caches_bytes: measured.caches,
            volumes: self.volumes.0.usage().await?,
            containers,
        })
    }

    /// Each layer of all images once.
    async fn layers(&self, images: &[ImageRecord]) -> Result<HashMap<ChainId, u64>> {
        let mut layers = HashMap::new();
        for chain in images.iter().flat_map(ImageRecord::chain_ids) {
            if layers.contains_key(&chain) {
                continue;
            }
            let usage = if_there(self.snapshotter.layer_usage(&chain).await)?;
            layers.insert(chain, usage.map_or(0, |usage| usage.bytes));
        }
        Ok(layers)
    }

    /// Nothing for a container that was removed meanwhile.
    async fn container_usage(&self, record: &Record, images: &[ImageRecord]) -> Result<Option<ContainerUsage>> {
        let Some(usage) = if_there(self.snapshotter.usage(&record.snapshot_key()).await)? else {
            return Ok(None);
        };
        let image = images.iter().find(|image| image.id == record.body.image_id);
        Ok(Some(ContainerUsage {
            id: record.id.clone(),
            writable_bytes: usage.bytes,
            total_bytes: usage.bytes + image.map_or(0, |image| image.size),
        }))
    }
}

fn image_usage(images: &[ImageRecord], containers: &[Record], layers: &HashMap<ChainId, u64>) -> Vec<ImageUsage> {
    let mut users: HashMap<ChainId, usize> = HashMap::new();
    for chain in images.iter().flat_map(ImageRecord::chain_ids) {
        *users.entry(chain).or_default() += 1;
    }
    let bytes = |chain: &ChainId| layers.get(chain).copied().unwrap_or(0);
    let used_by = |id: &ImageId| containers.iter().filter(|record| record.body.image_id == *id).count();
    let usage = |image: &ImageRecord| {
        let chains = image.chain_ids();
        let shared = chains
            .iter()
            .filter(|chain| users.get(*chain).is_some_and(|users| *users > 1));
        ImageUsage {
            id: image.id,
            size_bytes: chains.iter().map(bytes).sum(),
            shared_bytes: shared.map(bytes).sum(),
            containers: used_by(&image.id),
        }
    };
    images.iter().map(usage).collect()
}

fn if_there<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Blocks of everything below the root, each entry of it with its own.
fn measure(root: &Path) -> Result<Measured> {
    let failed = |error| Error::os("measure the root directory", error);
    let mut measured = Measured {
        rest: fs::symlink_metadata(root).map_err(failed)?.blocks() * 512,
        ..Measured::default()
    };
    for entry in fs::read_dir(root).map_err(failed)?.flatten() {
        // Journals and temporary files come and go.
        let Ok(own) = entry.metadata() else { continue };
        let below = match own.is_dir() {
            true => if_there(usage_of(&entry.path()))?.map_or(0, |usage| usage.bytes),
            false => 0,
        };
        let part = match entry.file_name().to_str() {
            Some("content") => &mut measured.content,
            Some("snapshots") => &mut measured.snapshots,
            Some("containers") => &mut measured.containers,
            Some("volumes") => &mut measured.volumes,
            Some("caches") => &mut measured.caches,
            _ => &mut measured.rest,
        };
        *part += own.blocks() * 512 + below;
    }
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_add_up_to_what_du_says() {
        let dir = tempfile::tempdir().unwrap();
        for (path, len) in [
            ("content/blobs/a", 100_000),
            ("snapshots/l/x/file", 5),
            ("containers/1/log", 9000),
            ("volumes/data/_data/file", 7000),
            ("caches/x/files/file", 20_000),
            ("store.db", 4096),
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![7u8; len]).unwrap();
        }
        fs::hard_link(dir.path().join("content/blobs/a"), dir.path().join("content/blobs/b")).unwrap();
        let measured = measure(dir.path()).unwrap();
        let du = std::process::Command::new("du")
            .args(["-s", "-B1"])
            .arg(dir.path())
            .output()
            .unwrap();
        let du: u64 = String::from_utf8_lossy(&du.stdout)
            .split('\t')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        let Measured {
            content,
            snapshots,
            containers,
            volumes,
            caches,
            rest,
        } = measured;
        assert_eq!(content + snapshots + containers + volumes + caches + rest, du);
        assert!((100_000..200_000).contains(&content), "{content}");
        assert!(snapshots > 0 && containers >= 9000 && volumes >= 7000 && caches >= 20_000 && rest >= 4096);
    }
}
