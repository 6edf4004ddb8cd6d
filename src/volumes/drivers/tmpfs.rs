//! Volumes in memory. What they hold lasts as long as a container runs that uses them.

use async_trait::async_trait;

use crate::error::{Error, ObjectKind, Result};
use crate::types::{Bytes, Outcome};
use crate::volumes::{VolumeContext, VolumeDriver, VolumeSource};

/// The driver `tmpfs`.
#[derive(Debug)]
pub(crate) struct TmpfsDriver;

#[async_trait]
impl VolumeDriver for TmpfsDriver {
    async fn create(&self, volume: &VolumeContext) -> Result<Outcome> {
        source(volume).map(|_| Outcome::Done)
    }

    async fn remove(&self, _volume: &VolumeContext) -> Result<()> {
        Ok(())
    }

    async fn mount(&self, volume: &VolumeContext) -> Result<VolumeSource> {
        source(volume)
    }
}

fn source(volume: &VolumeContext) -> Result<VolumeSource> {
    let mut words = Vec::new();
    for (name, value) in &volume.options {
        let bad = || {
            let message =
                format!("invalid option {name}={value} of a volume in memory: size=64m, mode=1777, uid=0, gid=0");
            Error::invalid(message).with_object(ObjectKind::Option, name.as_str())
        };
        match name.as_str() {
            "size" => words.push(format!("size={}", value.parse::<Bytes>().map_err(|_| bad())?.get())),
            "mode" => words.push(format!(
                "mode={:o}",
                u32::from_str_radix(value, 8).map_err(|_| bad())? & 0o7777
            )),
            "uid" | "gid" => words.push(format!("{name}={}", value.parse::<u32>().map_err(|_| bad())?)),
            _ => return Err(bad()),
        }
    }
    Ok(VolumeSource::FileSystem {
        kind: "tmpfs".into(),
        source: "tmpfs".into(),
        options: words,
    })
}
