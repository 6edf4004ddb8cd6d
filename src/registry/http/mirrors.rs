//! A host with mirrors: they are asked in order, and the host itself last.
//!
//! A mirror that cannot be reached is left out for a minute. One that has not got what is asked for is no reason to fail
//! either, since mirrors are often incomplete. Digests are checked whoever answers; what a tag means is told by the first
//! that knows it, as with every client that has mirrors. Pushes and lists go to the host itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::HttpRegistry;
use crate::error::{ErrorKind, Result};
use crate::registry::{BlobStream, ManifestBlob, ManifestKey, Referrer, Registry, Upload};
use crate::types::{Descriptor, Digest};

/// How long a mirror that could not be reached is left alone.
const REST: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Mirrored {
    start: Instant,
    mirrors: Vec<Mirror>,
    origin: Arc<HttpRegistry>,
}

#[derive(Debug)]
struct Mirror {
    registry: Arc<HttpRegistry>,
    /// Milliseconds after the start until which it rests; 0: it does not.
    rests_until: AtomicU64,
}

impl Mirrored {
    pub(super) fn new(mirrors: Vec<Arc<HttpRegistry>>, origin: Arc<HttpRegistry>) -> Self {
        let mirror = |registry| Mirror {
            registry,
            rests_until: AtomicU64::new(0),
        };
        Self {
            start: Instant::now(),
            mirrors: mirrors.into_iter().map(mirror).collect(),
            origin,
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Those that do not rest.
    fn awake(&self) -> impl Iterator<Item = &Mirror> {
        let now = self.now_ms();
        self.mirrors
            .iter()
            .filter(move |mirror| mirror.rests_until.load(Ordering::Acquire) <= now)
    }

    /// Notes why a mirror did not help.
    fn failed(&self, mirror: &Mirror, error: &crate::error::Error) {
        tracing::debug!(mirror = %mirror.registry.host, error = %error, "a mirror did not help");
        if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) {
            let until = self
                .now_ms()
                .saturating_add(u64::try_from(REST.as_millis()).unwrap_or(u64::MAX));
            mirror.rests_until.store(until, Ordering::Release);
        }
    }
}

#[async_trait]
impl Registry for Mirrored {
    async fn manifest(&self, repository: &str, key: &ManifestKey) -> Result<ManifestBlob> {
        for mirror in self.awake() {
            match mirror.registry.manifest(repository, key).await {
                Ok(manifest) => return Ok(manifest),
                Err(error) => self.failed(mirror, &error),
            }
        }
        self.origin.manifest(repository, key).await
    }

    async fn blob(&self, repository: &str, descriptor: &Descriptor, offset: u64) -> Result<BlobStream> {
        for mirror in self.awake() {
            match mirror.registry.blob(repository, descriptor, offset).await {
                Ok(stream) => return Ok(stream),
                Err(error) => self.failed(mirror, &error),
            }
        }
        self.origin.blob(repository, descriptor, offset).await
    }

    async fn has_blob(&self, repository: &str, descriptor: &Descriptor) -> Result<bool> {
        self.origin.has_blob(repository, descriptor).await
    }

    async fn mount_blob(&self, repository: &str, descriptor: &Descriptor, from: &str) -> Result<bool> {
        self.origin.mount_blob(repository, descriptor, from).await
    }

    async fn upload(&self, repository: &str, descriptor: &Descriptor, upload: Upload) -> Result<()> {
        self.origin.upload(repository, descriptor, upload).await
    }

    async fn put_manifest(&self, repository: &str, key: &ManifestKey, manifest: &ManifestBlob) -> Result<()> {
        self.origin.put_manifest(repository, key, manifest).await
    }

    async fn tags(&self, repository: &str) -> Result<Vec<String>> {
        self.origin.tags(repository).await
    }

    async fn repositories(&self) -> Result<Vec<String>> {
        self.origin.repositories().await
    }

    async fn referrers(&self, repository: &str, subject: &Digest) -> Result<Vec<Referrer>> {
        self.origin.referrers(repository, subject).await
    }

    async fn check_login(&self) -> Result<()> {
        self.origin.check_login().await
    }
}
