//! The build cache in `system/df`: steps of builds, and caches that their commands mounted.

use serde_json::Value;

use crate::engine::Engine;
use crate::error::Result;

/// What is known from earlier builds.
#[derive(Debug, Default)]
pub(super) struct BuildCache {
    pub(super) lines: Vec<Value>,
    /// Steps whose layers an image has.
    pub(super) shared: usize,
    pub(super) bytes: u64,
    /// Of that, what a prune gives back.
    pub(super) free_bytes: u64,
}

#[cfg(not(feature = "build"))]
pub(super) async fn usage(_: &Engine) -> Result<BuildCache> {
    Ok(BuildCache::default())
}

#[cfg(feature = "build")]
pub(super) async fn usage(engine: &Engine) -> Result<BuildCache> {
    let (steps, mounts) = (engine.builds().cache().await, engine.builds().mounts().await);
    Ok(with_build::lines(
        &with_build::if_kept(steps)?,
        &with_build::if_kept(mounts)?,
    ))
}

#[cfg(feature = "build")]
mod with_build {
    use serde_json::{Value, json};

    use super::super::super::times::rfc3339;
    use super::BuildCache;
    use crate::build::{CachedMount, CachedStep};
    use crate::error::Result;

    /// Nothing where the engine keeps no such things.
    pub(super) fn if_kept<T>(result: Result<Vec<T>>) -> Result<Vec<T>> {
        match result {
            Err(error) if error.is_unsupported() => Ok(Vec::new()),
            other => other,
        }
    }

    pub(super) fn lines(steps: &[CachedStep], mounts: &[CachedMount]) -> BuildCache {
        let mut found = BuildCache::default();
        for step in steps {
            found.shared += usize::from(step.shared);
            found.bytes += step.size_bytes;
            found.free_bytes += if step.shared { 0 } else { step.size_bytes };
            found.lines.push(step_line(step));
        }
        for mount in mounts {
            found.bytes += mount.size_bytes;
            found.free_bytes += mount.size_bytes;
            found.lines.push(mount_line(mount));
        }
        found
    }

    fn step_line(step: &CachedStep) -> Value {
        json!({
            "ID": step.key.hex(), "Type": "regular", "Description": step.text, "InUse": false, "Shared": step.shared,
            "Size": step.size_bytes, "CreatedAt": rfc3339(step.created), "LastUsedAt": rfc3339(step.used),
            "UsageCount": 1,
        })
    }

    fn mount_line(mount: &CachedMount) -> Value {
        json!({
            "ID": mount.name, "Type": "exec.cachemount", "Description": "a cache that commands mount", "InUse": false,
            "Shared": false, "Size": mount.size_bytes, "CreatedAt": rfc3339(mount.used),
            "LastUsedAt": rfc3339(mount.used), "UsageCount": 1,
        })
    }
}
