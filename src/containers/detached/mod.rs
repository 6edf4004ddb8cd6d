//! Containers that outlive their engine: each has a shim, and every process that opens the root may act on it as if it had
//! started it. `docs/detached.md` tells who does what.
//!
//! What a shim has written down is the truth about a container that was started; its row in the database follows. Whoever
//! writes the row has the container's **turn**, a lock that all processes see, and writes only what is newer than what the row
//! says already. So it does not matter how many engines watch one container, or whether none does.

mod adopt;
mod bereft;
mod follow;
mod health;
mod renew;
mod settle;
mod signal;
mod start;
mod streams;
mod supervise;
mod turn;

pub(crate) use self::renew::Need;
pub(crate) use self::start::make_shim_dir;
pub(crate) use self::streams::close_input;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::local::Shared;
use super::mounts::MountFrom;
use super::policy::{self, RestartPolicy};
use super::record::Record;
use super::spec::{ContainerSpec, NamespaceMode, NetworkMode};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::logs::{LogFileFormat, LogFiles, split_options};
use crate::runtime::detached::{
    Detach, DetachedLog, DetachedLogFormat, DetachedRuntime, DetachedState, Restart, RestartAfter,
};
use crate::types::{ContainerId, OwnerId};

/// How far a row follows what a shim has written down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// Which shim.
    pub(crate) shim: u32,
    /// The last of its changes that the row has.
    pub(crate) change: u64,
    /// The ends that were told as events.
    pub(crate) ends: u64,
    /// The run whose health was looked at last, and the changes of that which were told as events.
    #[serde(default)]
    pub(crate) health: (u64, u32),
    /// When the last of these was.
    #[serde(default)]
    pub(crate) health_ns: i64,
}

impl Mark {
    /// How far a row follows that has this state.
    pub(super) fn of(state: &DetachedState) -> Self {
        Self {
            shim: state.shim_pid,
            change: state.change,
            ends: state.ends,
            health: (
                health::run_of(state),
                state.health.as_ref().map_or(0, |health| health.changes),
            ),
            health_ns: state.health.as_ref().map_or(0, |health| health.changed_ns),
        }
    }

    /// Whether the row has this state already, or a later one.
    pub(super) fn has(&self, state: &DetachedState) -> bool {
        self.shim == state.shim_pid && self.change >= state.change
    }
}

impl Record {
    /// Whether it outlives its engine.
    pub(crate) fn is_detached(&self) -> bool {
        self.owner.is_none()
    }
}

impl Shared {
    /// The part of the runtime that has shims.
    pub(crate) fn shims(&self) -> Result<&dyn DetachedRuntime> {
        let runtime = &self.parts.runtimes.usual;
        runtime.detached().ok_or_else(|| {
            let needs = format!("a runtime with shims, as \"native\" is; {:?} has none", runtime.name());
            Error::unsupported("Lifetime::Detached", needs)
        })
    }

    /// Where a container's shim keeps its things.
    pub(super) fn shim_dir(&self, id: &ContainerId) -> PathBuf {
        self.dir_of(id).join("shim")
    }

    /// Refuses what only an engine that lives can do for a container.
    pub(crate) fn check_detached(&self, spec: &ContainerSpec) -> Result<()> {
        if let Some(name) = &spec.runtime {
            let needs = "Lifetime::Bound, or the native runtime, which has shims";
            let what = format!("Lifetime::Detached with the runtime {name:?}");
            return Err(Error::unsupported(what, needs).with_object(ObjectKind::Option, "runtime"));
        }
        self.shims()?;
        let option = |what: String, needs: &str, option: &str| {
            Err(Error::unsupported(what, needs).with_object(ObjectKind::Option, option))
        };
        if let NetworkMode::Named(_) | NetworkMode::Container(_) = spec.network {
            let what = format!("the network {} of a container that outlives its engine", spec.network);
            return option(what, "the network none or host, or Lifetime::Bound", "network");
        }
        for (mode, name) in [(&spec.pid_mode, "pid_mode"), (&spec.ipc_mode, "ipc_mode")] {
            if let NamespaceMode::Container(_) = mode {
                let what = "a namespace of another container, in one that outlives its engine".to_owned();
                return option(what, "namespaces of its own or the host's, or Lifetime::Bound", name);
            }
        }
        let served = |from: &MountFrom| matches!(from, MountFrom::Bind(bind) if bind.container_user);
        if self.parts.ownership != "direct" && spec.mounts.iter().any(|mount| served(&mount.source)) {
            let what =
                "a bind whose files are the container user's, served by the engine of an ordinary user".to_owned();
            return option(what, "root, or Lifetime::Bound", "mounts");
        }
        self.log_of_shim(spec).map(drop)
    }

    /// What a shim is told of a container.
    pub(crate) fn detach_of(&self, record: &Record, attached: bool) -> Result<Detach> {
        let files = self.log_of_shim(&record.body.spec)?;
        let format = files.format.map(|format| match format {
            LogFileFormat::Frames => DetachedLogFormat::Frames,
            LogFileFormat::Json => DetachedLogFormat::Json {
                known_as: format!("{}-json.log", record.id),
            },
        });
        Ok(Detach {
            dir: self.shim_dir(&record.id),
            log: DetachedLog {
                format,
                dir: self.dir_of(&record.id),
                max_size_bytes: files.max_size_bytes,
                max_files: files.max_files,
            },
            restart: restart_of(record.body.spec.restart),
            check: record.check_of_shim()?,
            attached,
        })
    }

    /// The log that a shim can write.
    fn log_of_shim(&self, spec: &ContainerSpec) -> Result<LogFiles> {
        let driver = self.parts.logs.get(spec.log.driver.as_deref())?;
        let (_, options) = split_options(&spec.log.options)?;
        let unsupported =
            |what: String, needs: &str| Err(Error::unsupported(what, needs).with_object(ObjectKind::Option, "log"));
        let Some(files) = driver.files(&options)? else {
            let what = format!(
                "the log driver {:?} of a container that outlives its engine",
                driver.name()
            );
            return unsupported(what, "one of local, json-file and none, or Lifetime::Bound");
        };
        if files.compress {
            let what = "packed logs of a container that outlives its engine".to_owned();
            return unsupported(what, "the log option compress=false, or Lifetime::Bound");
        }
        if files.attributes {
            let what = "the log options labels, env and tag of a container that outlives its engine".to_owned();
            return unsupported(what, "a log without them, or Lifetime::Bound");
        }
        Ok(files)
    }
}

/// A policy in the words of the runtime.
pub(super) fn restart_of(policy: RestartPolicy) -> Restart {
    let after = match policy {
        RestartPolicy::No => RestartAfter::Never,
        RestartPolicy::Always | RestartPolicy::UnlessStopped => RestartAfter::Always,
        RestartPolicy::OnFailure { .. } => RestartAfter::Failure,
    };
    Restart {
        after,
        max_retries: Some(policy.max_retries()).filter(|most| *most > 0),
        first: policy::FIRST,
        longest: policy::LONGEST,
        steady: policy::STEADY,
    }
}

/// The owner in whose name the cgroups of a root's detached containers are made: nobody, and the same in every process. Its id
/// says where the root is, what tells roots apart first since names have twelve digits of it, and what no random id says.
#[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
pub(crate) fn nobody_of(root: &std::path::Path) -> Result<OwnerId> {
    use std::os::unix::fs::MetadataExt as _;
    let root = std::fs::metadata(root).map_err(|error| Error::os("look at the root directory", error))?;
    let (dev, ino) = (root.dev(), root.ino());
    let mut id = *b"................................";
    id[..4].copy_from_slice(&(ino as u32).to_be_bytes());
    id[4..6].copy_from_slice(&(dev as u16).to_be_bytes());
    id[6..14].copy_from_slice(&dev.to_be_bytes());
    id[14..22].copy_from_slice(&ino.to_be_bytes());
    Ok(OwnerId::of_bytes(&id))
}

/// How a container ended that ended with its shim.
pub(crate) fn unknown_end(id: &ContainerId, why: Option<&str>) -> Error {
    let why = why.unwrap_or("nobody saw its end");
    let message = format!("how container {} ended is not known: {why}", id.short());
    Error::new(ErrorKind::Unavailable, message)
        .with_object(ObjectKind::Container, id.as_str())
        .with_step("learn how it ended")
}
