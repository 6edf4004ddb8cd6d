//! From blobs to snapshots.

use std::fmt::Debug;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;

use crate::error::Result;
use crate::types::{Descriptor, DiffId};

/// A layer of an image: its blob, and the digest of its uncompressed tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerRef {
    /// The compressed blob.
    pub descriptor: Descriptor,
    /// What its uncompressed bytes hash to.
    pub diff_id: DiffId,
}

/// Where bytes of missing blobs come from.
#[async_trait]
pub trait BlobSource: Debug + Send + Sync + 'static {
    /// Opens a blob's bytes from its start.
    async fn open(
        &self,
        descriptor: &Descriptor,
    ) -> Result<Pin<Box<dyn Stream<Item = Result<Bytes>> + Send + 'static>>>;
}
