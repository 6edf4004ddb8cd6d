//! Volumes over the API.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::client::{Ask, Client, segment};
use super::error::nonsense;
use super::json::{self, list, map, text, text_or_empty};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::sys::order;
use crate::types::{Filter, Outcome};
use crate::volumes::{ANONYMOUS_LABEL, CreateVolume, PrunedVolumes, RemoveVolumeOptions, VolumeInfo, VolumeManager};

/// Volumes of an engine elsewhere.
#[derive(Debug)]
pub(super) struct Volumes(pub(super) Client);

fn of(name: &str) -> Result<String> {
    if name.is_empty() {
        return Err(Error::not_found(ObjectKind::Volume, name));
    }
    Ok(format!("volumes/{}", segment(name)))
}

#[async_trait]
impl VolumeManager for Volumes {
    async fn create(&self, request: CreateVolume) -> Result<VolumeInfo> {
        let driver = request.driver.as_deref().unwrap_or("local");
        let body = json!({
            "Name": request.name.as_deref().unwrap_or_default(),
            "Driver": driver,
            "DriverOpts": request.options,
            "Labels": request.labels,
        });
        let made = info(&self.0.json(Ask::post("volumes/create").json(&body)).await?)?;
        // dockerd finds nothing wrong with one of another driver.
        if made.driver != driver {
            let message = format!(
                "the volume {} is there already, kept by the driver {:?}",
                made.name, made.driver
            );
            return Err(Error::new(ErrorKind::Conflict, message).with_object(ObjectKind::Volume, made.name));
        }
        Ok(made)
    }

    async fn inspect(&self, name: &str) -> Result<VolumeInfo> {
        let mut found = info(&self.0.json(Ask::get(of(name)?)).await?)?;
        let users = Filter::new().with("volume", name);
        let users = self
            .0
            .json(Ask::get("containers/json").flag("all", true).filter(&users))
            .await?;
        found.users = users
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|line| text(line, "Id"))
            .collect();
        Ok(found)
    }

    async fn list(&self, filter: Filter) -> Result<Vec<VolumeInfo>> {
        let told = self.0.json(Ask::get("volumes").filter(&filter)).await?;
        let mut found = json::objects(&told, "Volumes").map(info).collect::<Result<Vec<_>>>()?;
        order::sort_by(&mut found, |a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    async fn remove(&self, name: &str, options: RemoveVolumeOptions) -> Result<Outcome> {
        self.0.tell(Ask::delete(of(name)?).flag("force", options.force)).await?;
        Ok(Outcome::Done)
    }

    async fn prune(&self, filter: Filter) -> Result<PrunedVolumes> {
        let pruned = self.0.json(Ask::post("volumes/prune").filter(&filter)).await?;
        Ok(PrunedVolumes {
            removed: list(&pruned, "VolumesDeleted").unwrap_or_default(),
            reclaimed_bytes: json::number(&pruned, "SpaceReclaimed"),
        })
    }
}

/// A list does not tell who uses a volume.
fn info(value: &Value) -> Result<VolumeInfo> {
    let name = text(value, "Name").ok_or_else(|| nonsense("a volume without a name"))?;
    let labels = map(value, "Labels");
    Ok(VolumeInfo {
        mountpoint: text(value, "Mountpoint").map(Into::into),
        created: json::moment(value, "CreatedAt").unwrap_or(std::time::UNIX_EPOCH),
        options: map(value, "Options"),
        anonymous: labels.contains_key(ANONYMOUS_LABEL),
        labels,
        ..VolumeInfo::new(name, text_or_empty(value, "Driver"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j4_a_volume_of_dockerd() {
        let told = json!({"CreatedAt": "2024-01-31T12:00:00Z", "Driver": "local", "Labels": null, "Name": "data",
            "Mountpoint": "/var/lib/docker/volumes/data/_data", "Options": {"type": "nfs"}, "Scope": "local"});
        let read = info(&told).unwrap();
        assert_eq!((read.name.as_str(), read.driver.as_str()), ("data", "local"));
        assert_eq!((read.options["type"].as_str(), read.anonymous), ("nfs", false));
        assert!(info(&json!({"Driver": "local"})).is_err());
        assert!(of("").unwrap_err().is_not_found());
        assert_eq!(of("a/b").unwrap(), "volumes/a%2Fb");
    }
}
