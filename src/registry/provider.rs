//! Which registry answers for a host.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

use super::{Credentials, Registry};
use crate::error::{Error, Result};

/// Opens registries by host.
#[async_trait]
pub trait RegistryProvider: Debug + Send + Sync + 'static {
    /// The registry of a host, as [`Reference::host`](crate::types::Reference::host) names it. Anonymous credentials leave
    /// it to the provider whether it knows better ones.
    ///
    /// # Errors
    /// `InvalidArgument`, or `Unsupported` where no registry can be reached at all.
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    async fn open(&self, host: &str, credentials: &Credentials) -> Result<Arc<dyn Registry>>;
}

/// No registry: image layouts on disk are the only source. The provider of a build without the feature `registry`.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRegistries;

#[async_trait]
impl RegistryProvider for NoRegistries {
    async fn open(&self, host: &str, _credentials: &Credentials) -> Result<Arc<dyn Registry>> {
        Err(Error::unsupported(
            format!("pulling from the registry {host}"),
            "the crate's feature `registry`, or an image layout on disk (oci:DIR)",
        ))
    }
}
