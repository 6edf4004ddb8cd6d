//! A registry over HTTP and TLS: the OCI distribution specification 1.1, which is also Docker's registry API.
//!
//! Nothing is read from the environment or the home directory, and no process-wide default (a TLS provider, say) is
//! needed or set. A connection belongs to the runtime it was made on, so make and use a registry on one runtime.

use std::sync::Arc;

use async_trait::async_trait;

use self::transport::Transport;
use super::{BlobStream, ManifestBlob, ManifestKey, Referrer, Registry, Upload};
use crate::error::Result;
use crate::types::{Descriptor, Digest};

mod auth;
mod auth_file;
mod blob;
mod challenge;
mod endpoint;
mod exchange;
mod fail;
mod lists;
mod manifest;
mod mirrors;
mod options;
#[cfg(feature = "build")]
pub(crate) mod plain;
mod provider;
mod referrers;
mod retry;
mod tls;
mod transport;
mod upload;

#[cfg(test)]
mod tests;

pub use self::auth_file::AuthFile;
pub use self::options::{ClientIdentity, HttpOptions, PlainHttp};
pub use self::provider::HttpRegistries;

/// One registry host. Tokens, connections and the choice of scheme are kept for as long as it lives.
#[derive(Debug)]
pub struct HttpRegistry {
    host: String,
    transport: Arc<Transport>,
}

impl HttpRegistry {
    /// Prepares to speak to a host, as [`Reference::host`](crate::types::Reference::host) names it. No byte is sent yet.
    /// Blocking for a moment: the host's certificates are read from disk.
    ///
    /// # Errors
    /// `InvalidArgument` for a host that is none, and for options that cannot work.
    pub fn new(host: &str, options: HttpOptions) -> Result<Self> {
        let transport = Transport::new(host, options)?;
        Ok(Self {
            host: host.to_owned(),
            transport: Arc::new(transport),
        })
    }
}

#[async_trait]
impl Registry for HttpRegistry {
    async fn manifest(&self, repository: &str, key: &ManifestKey) -> Result<ManifestBlob> {
        manifest::fetch(self, repository, key).await
    }

    async fn blob(&self, repository: &str, descriptor: &Descriptor, offset: u64) -> Result<BlobStream> {
        blob::open(self, repository, descriptor, offset).await
    }

    async fn has_blob(&self, repository: &str, descriptor: &Descriptor) -> Result<bool> {
        upload::has(self, repository, descriptor).await
    }

    async fn mount_blob(&self, repository: &str, descriptor: &Descriptor, from: &str) -> Result<bool> {
        upload::mount(self, repository, descriptor, from).await
    }

    async fn upload(&self, repository: &str, descriptor: &Descriptor, upload: Upload) -> Result<()> {
        upload::send(self, repository, descriptor, upload).await
    }

    async fn put_manifest(&self, repository: &str, key: &ManifestKey, manifest: &ManifestBlob) -> Result<()> {
        upload::put_manifest(self, repository, key, manifest).await
    }

    async fn tags(&self, repository: &str) -> Result<Vec<String>> {
        lists::tags(self, repository).await
    }

    async fn repositories(&self) -> Result<Vec<String>> {
        lists::repositories(self).await
    }

    async fn referrers(&self, repository: &str, subject: &Digest) -> Result<Vec<Referrer>> {
        lists::referrers_of(self, repository, subject).await
    }

    async fn check_login(&self) -> Result<()> {
        lists::check_login(self).await
    }
}

/// What a token must allow. Source: the token specification of the distribution project.
fn pull_scope(repository: &str) -> String {
    format!("repository:{repository}:pull")
}

/// What a token for a push must allow: the existence checks read.
fn push_scope(repository: &str) -> String {
    format!("repository:{repository}:pull,push")
}
