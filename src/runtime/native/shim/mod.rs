//! Containers that outlive this process: the library's end of a shim. See `docs/process-model.md`, "Shims".

mod begin;
mod bereft;
mod check;
mod connect;
mod place;
mod reap;
mod seen;
mod task;
mod watch;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use self::task::ShimTask;
use super::NativeRuntime;
use super::hidden::Hidden;
use super::parent;
use super::plan::Host;
use super::task::Inside;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::runtime::Launch;
use crate::runtime::cgroups::Cgroup;
use crate::runtime::detached::{Bereft, Detach, DetachedRuntime, DetachedSeen, DetachedTask, Restart, RestartAfter};
use crate::runtime::native::helper::talk;
use crate::sys::blocking::blocking;
use crate::types::ContainerId;

/// Names in a shim's directory.
const LOCK: &str = "lock";
const STATE: &str = "state";
const SOCKET: &str = "ctl";
const HEALTH: &str = "health";

#[async_trait]
impl DetachedRuntime for NativeRuntime {
    async fn start_detached(&self, launch: Launch, detach: Detach) -> Result<Arc<dyn DetachedTask>> {
        let shared = Arc::clone(&self.shared);
        let begun = blocking(move || begin::begin(&shared, &launch, &detach)).await?;
        let task = begun.finish().await?;
        Ok(Arc::new(task))
    }

    async fn adopt(&self, id: &ContainerId, dir: &Path) -> Result<Arc<dyn DetachedTask>> {
        let (shared, key, place) = (Arc::clone(&self.shared), id.clone(), dir.to_owned());
        let cgroup = blocking(move || Ok(cgroup_of(&shared, &key, &place))).await?;
        let task = ShimTask::connect(id.clone(), dir.to_owned(), cgroup).await?;
        Ok(Arc::new(task))
    }

    fn clear(&self, id: &ContainerId, dir: &Path) -> Result<()> {
        let Some(driver) = self.shared.options.detached_cgroups.as_ref() else {
            return Ok(());
        };
        parent::clear(driver.as_ref(), id, dir)?;
        for parent in driver.owner_directories() {
            // As long as others are below, it stays.
            let _ = std::fs::remove_dir(parent);
        }
        Ok(())
    }

    fn seen(&self, dir: &Path) -> Result<DetachedSeen> {
        seen::seen(dir)
    }

    fn bereft(&self, dir: &Path) -> Result<Option<Bereft>> {
        bereft::bereft(dir)
    }

    fn note_end(&self, dir: &Path, bereft: &Bereft) -> Result<bool> {
        bereft::note_end(dir, bereft)
    }
}

/// The cgroup of a container that somebody has started, if it has one.
fn cgroup_of(shared: &super::Shared, id: &ContainerId, dir: &Path) -> Option<Arc<dyn Cgroup>> {
    let driver = shared.options.detached_cgroups.as_ref()?;
    match driver.open_at(id, &parent::noted(dir)) {
        Ok(cgroup) => Some(Arc::from(cgroup)),
        Err(error) if error.is_not_found() => None,
        Err(error) => {
            tracing::warn!(container = %id, error = error.report(), "a container's cgroup cannot be opened");
            None
        }
    }
}

fn gone(id: &ContainerId) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("the shim of container {} is gone", id.short()),
    )
    .with_object(ObjectKind::Container, id.as_str())
}

/// A policy as a shim is told.
fn restart_words(restart: Restart) -> talk::Restart {
    let milliseconds = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    talk::Restart {
        after: match restart.after {
            RestartAfter::Never => 0,
            RestartAfter::Failure => 1,
            RestartAfter::Always => 2,
        },
        most: restart.max_retries.map_or(u64::MAX, u64::from),
        // A shim that never pauses would do nothing else.
        first_ms: milliseconds(restart.first).max(1),
        longest_ms: milliseconds(restart.longest).max(1),
        steady_ms: milliseconds(restart.steady),
    }
}

/// What a command must know of the container, as the shim keeps it for whoever comes.
fn inside_words(inside: &Inside) -> [u64; talk::config::INSIDE_COUNT] {
    let Host {
        bind_devices,
        single_id,
        cgroup_v2,
        host_pids: _,
        hidden,
    } = inside.host;
    let flags = [
        bind_devices,
        single_id,
        cgroup_v2,
        inside.own_processes,
        hidden.proc,
        hidden.sys,
    ];
    let flags = (0..).zip(flags).map(|(bit, set)| u64::from(set) << bit).sum();
    let [user, group] = inside.root;
    [
        flags,
        u64::from(inside.namespaces),
        u64::from(user),
        u64::from(group),
        0,
    ]
}

fn inside_of(words: &[u64]) -> Option<Inside> {
    let [flags, namespaces, user, group, ..] = *words else {
        return None;
    };
    let has = |bit: u32| flags >> bit & 1 == 1;
    Some(Inside {
        host: Host {
            bind_devices: has(0),
            single_id: has(1),
            cgroup_v2: has(2),
            host_pids: false,
            hidden: Hidden {
                proc: has(4),
                sys: has(5),
            },
        },
        namespaces: namespaces as u32,
        own_processes: has(3),
        root: [user as u32, group as u32],
    })
}
