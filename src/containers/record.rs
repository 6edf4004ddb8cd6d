//! What is written down of a container: the body of its row.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::detached::Mark;
use super::health::{Health, HealthCheck};
use super::plan::ImageDefaults;
use super::spec::ContainerSpec;
use super::state::ContainerState;
use super::{ContainerExit, MountPoint, lean};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::store::ContainerRow;
use crate::sys::boot;
use crate::types::{ChainId, ContainerId, ContainerName, Endpoint, ExitStatus, ImageId, OwnerId, PublishedPort};

/// A container as recorded.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) id: ContainerId,
    pub(crate) name: ContainerName,
    pub(crate) owner: Option<OwnerId>,
    pub(crate) state: ContainerState,
    pub(crate) created_ns: i64,
    pub(crate) body: Body,
}

/// The part that only this module reads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Body {
    #[serde(serialize_with = "lean::spec")]
    pub(crate) spec: ContainerSpec,
    pub(crate) image_id: ImageId,
    pub(crate) chain: Option<ChainId>,
    pub(crate) image: ImageDefaults,
    /// Mounts as they are, beside `binds` and `tmpfs` of the specification.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) mounts: Vec<MountPoint>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) process: Option<ProcessIdentity>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) started_ns: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) finished_ns: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) exit: Option<ExitRecord>,
    /// Its shim was killed under it: its policy is the business of an engine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) bereft: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// Its places in networks, while it runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) endpoints: Vec<Endpoint>,
    /// Its published ports, while it runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ports: Vec<PublishedPort>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) warnings: Vec<String>,
    /// How often its policy has started it again.
    #[serde(default)]
    pub(crate) restarts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) health: Option<Health>,
    /// Of a detached container that was started: how far this follows its shim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mark: Option<Mark>,
}

/// A process that cannot be mistaken for another with the same pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessIdentity {
    pub(crate) pid: u32,
    /// Start time in clock ticks since boot. Source: proc_pid_stat(5), field 22.
    pub(crate) start_ticks: u64,
    /// The boot: number and ticks of a former one may be another process's in this one. Older records lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) boot: Option<[u64; 2]>,
}

impl ProcessIdentity {
    /// A process of this boot.
    pub(crate) fn here(pid: u32, start_ticks: u64) -> Self {
        Self {
            pid,
            start_ticks,
            boot: boot::id().ok(),
        }
    }

    /// Whether both are one process.
    pub(crate) fn is(&self, other: &Self) -> bool {
        (self.pid, self.start_ticks) == (other.pid, other.start_ticks) && !self.is_of_another_boot(other.boot)
    }

    /// Whether it cannot live any more, since the host was restarted.
    pub(crate) fn is_of_former_boot(&self) -> bool {
        self.is_of_another_boot(boot::id().ok())
    }

    fn is_of_another_boot(&self, boot: Option<[u64; 2]>) -> bool {
        matches!((self.boot, boot), (Some(then), Some(now)) if then != now)
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExitRecord {
    pub(crate) status: ExitStatus,
    pub(crate) oom_killed: Option<bool>,
}

impl From<ExitRecord> for ContainerExit {
    fn from(record: ExitRecord) -> Self {
        Self {
            status: record.status,
            oom_killed: record.oom_killed,
        }
    }
}

impl From<ContainerExit> for ExitRecord {
    fn from(exit: ContainerExit) -> Self {
        Self {
            status: exit.status,
            oom_killed: exit.oom_killed,
        }
    }
}

impl Record {
    pub(crate) fn from_row(row: ContainerRow) -> Result<Self> {
        let body = serde_json::from_slice(row.body.as_bytes())
            .map_err(|error| damaged(&row, "an unreadable body").with_source(error))?;
        Self::with_body(row, body)
    }

    /// As [`Self::from_row`], where it is known what the body says.
    pub(crate) fn with_body(row: ContainerRow, body: Body) -> Result<Self> {
        let state = ContainerState::parse(&row.state).ok_or_else(|| damaged(&row, "an unknown state"))?;
        Ok(Self {
            id: row.id,
            name: row.name,
            owner: row.owner,
            state,
            created_ns: row.created_ns,
            body,
        })
    }

    pub(crate) fn to_row(&self) -> Result<ContainerRow> {
        Ok(ContainerRow {
            id: self.id.clone(),
            name: self.name.clone(),
            owner: self.owner.clone(),
            state: self.state.as_str().to_owned(),
            created_ns: self.created_ns,
            body: self.body.to_json()?,
        })
    }

    /// The key of its writable snapshot.
    pub(crate) fn snapshot_key(&self) -> String {
        snapshot_key(&self.id)
    }

    /// Program and arguments in effect.
    pub(crate) fn command(&self) -> Vec<String> {
        super::plan::arguments(&self.body.spec, &self.body.image).unwrap_or_default()
    }

    /// The health check in effect.
    pub(crate) fn health_check(&self) -> HealthCheck {
        let (spec, image) = (&self.body.spec, &self.body.image);
        spec.health.clone().over(image.health.as_ref())
    }

    /// Labels in effect.
    pub(crate) fn labels(&self) -> std::collections::BTreeMap<String, String> {
        let mut labels = self.body.image.labels.clone();
        labels.extend(self.body.spec.labels.clone());
        labels
    }
}

impl Body {
    /// Of a container that was never started.
    pub(crate) fn new(spec: ContainerSpec, image_id: ImageId, chain: Option<ChainId>, image: ImageDefaults) -> Self {
        Self {
            spec,
            image_id,
            chain,
            image,
            mounts: Vec::new(),
            process: None,
            started_ns: None,
            finished_ns: None,
            exit: None,
            bereft: false,
            error: None,
            endpoints: Vec::new(),
            ports: Vec::new(),
            warnings: Vec::new(),
            restarts: 0,
            health: None,
            mark: None,
        }
    }

    pub(crate) fn to_json(&self) -> Result<String> {
        serde_json::to_string(self)
            .map_err(|error| Error::internal("a container's record cannot be written").with_source(error))
    }
}

fn damaged(row: &ContainerRow, what: &str) -> Error {
    let message = format!("the record of container {} has {what}", row.id.short());
    Error::new(ErrorKind::Corrupt, message).with_object(ObjectKind::Container, row.id.as_str())
}

/// The key of a container's writable snapshot.
pub(crate) fn snapshot_key(id: &ContainerId) -> String {
    format!("c-{}", id.as_str())
}

/// Nanoseconds since 1970 of now.
pub(crate) fn now_ns() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as i64)
}

/// The time of nanoseconds since 1970.
pub(crate) fn time_of(ns: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(ns.max(0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::{HealthCheck, LogConfig, NetworkMode, RestartPolicy};
    use crate::types::{Bytes, Digest};

    fn body(spec: ContainerSpec) -> Body {
        Body::new(spec, Digest::of(b"image"), None, ImageDefaults::default())
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let rich = ContainerSpec::image("busybox")
            .command(["sh", "-c", "true"])
            .env("A", "b")
            .memory(Bytes::mib(64))
            .network(NetworkMode::Host)
            .bind("/a", "/b")
            .health(HealthCheck::shell("true"))
            .log(LogConfig::driver("json-file"))
            .restart(RestartPolicy::Always);
        for spec in [ContainerSpec::image("busybox"), rich, ContainerSpec::default()] {
            let written = body(spec.clone()).to_json().unwrap();
            let read: Body = serde_json::from_str(&written).unwrap();
            assert_eq!(read.spec, spec, "{written}");
        }
        let plain = body(ContainerSpec::image("busybox")).to_json().unwrap();
        assert!(!plain.contains("hostname") && !plain.contains("memory"), "{plain}");
        // As it was written before.
        let whole = serde_json::to_string(&ContainerSpec::image("busybox")).unwrap();
        let read: ContainerSpec = serde_json::from_str(&whole).unwrap();
        assert_eq!(read, ContainerSpec::image("busybox"));
    }
}
