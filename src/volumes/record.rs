//! What is written down of a volume: the body of its row, and the same beside its files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::VolumeInfo;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::store::VolumeRow;
use crate::types::{OwnerId, VolumeName};

/// The part of a row that only this module reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Body {
    pub(crate) driver: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) options: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) anonymous: bool,
}

/// What stands beside a volume's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    pub(super) name: VolumeName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) owner: Option<String>,
    pub(super) created_ns: i64,
    pub(super) body: Body,
}

/// A volume as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) name: VolumeName,
    pub(crate) owner: Option<OwnerId>,
    pub(crate) created_ns: i64,
    pub(crate) body: Body,
}

impl Record {
    pub(crate) fn from_row(row: VolumeRow) -> Result<Self> {
        let body = serde_json::from_slice(row.body.as_bytes()).map_err(|error| {
            let message = format!("the record of volume {} is unreadable", row.name);
            Error::new(ErrorKind::Corrupt, message)
                .with_object(ObjectKind::Volume, row.name.as_str())
                .with_source(error)
        })?;
        Ok(Self {
            name: row.name,
            owner: row.owner,
            created_ns: row.created_ns,
            body,
        })
    }

    pub(crate) fn to_row(&self) -> Result<VolumeRow> {
        Ok(VolumeRow {
            name: self.name.clone(),
            owner: self.owner.clone(),
            created_ns: self.created_ns,
            body: json(&self.body)?,
        })
    }

    /// What stands beside its files.
    pub(super) fn note(&self) -> Result<String> {
        json(&Note {
            name: self.name.clone(),
            owner: self.owner.as_ref().map(|owner| owner.as_str().to_owned()),
            created_ns: self.created_ns,
            body: self.body.clone(),
        })
    }

    pub(super) fn info(&self) -> VolumeInfo {
        VolumeInfo {
            created: std::time::SystemTime::UNIX_EPOCH
                + std::time::Duration::from_nanos(u64::try_from(self.created_ns).unwrap_or(0)),
            options: self.body.options.clone(),
            labels: self.body.labels.clone(),
            anonymous: self.body.anonymous,
            ..VolumeInfo::new(self.name.as_str(), self.body.driver.as_str())
        }
    }
}

fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|error| Error::internal("a volume's record cannot be written").with_source(error))
}
