//! What an archive has brought and no image needs yet: leased while it is worked on, removed at its end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::images::local::{LocalImages, remove_unreferenced};
use crate::store::{Lease, Node};
use crate::sys::order;
use crate::types::Digest;

/// How long a dropped call waits for its thread to let go of the lease.
const LINGER: Duration = Duration::from_secs(10);

/// Blobs and snapshots that came with an archive. Whatever no image needs in the end is removed, also where the call is
/// dropped.
#[derive(Debug)]
pub(in crate::images) struct Held {
    images: LocalImages,
    lease: Option<Arc<Lease>>,
    nodes: Nodes,
}

type Nodes = Arc<Mutex<Vec<Node>>>;

/// The part of it that a blocking thread uses.
#[derive(Debug, Clone)]
pub(in crate::images) struct Holder {
    lease: Arc<Lease>,
    nodes: Nodes,
}

impl Holder {
    /// Leases a blob. Blocking.
    pub(in crate::images) fn blob(&self, digest: &Digest) -> Result<()> {
        let node = Node::blob(digest);
        self.lease.add(std::slice::from_ref(&node))?;
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).push(node);
        Ok(())
    }
}

impl Held {
    pub(in crate::images) async fn begin(images: &LocalImages) -> Result<Self> {
        let owner = images.parts.owner.clone();
        let lease = images.parts.store.call(move |store| store.lease(&owner)).await?;
        Ok(Self {
            images: images.clone(),
            lease: Some(Arc::new(lease)),
            nodes: Nodes::default(),
        })
    }

    pub(in crate::images) fn lease(&self) -> Option<Arc<Lease>> {
        self.lease.clone()
    }

    pub(in crate::images) fn holder(&self) -> Option<Holder> {
        let lease = self.lease()?;
        let nodes = Arc::clone(&self.nodes);
        Some(Holder { lease, nodes })
    }

    /// Adds what was leased elsewhere.
    pub(in crate::images) fn add(&self, more: Vec<Node>) {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).extend(more);
    }

    /// Ends the lease and removes what no image needs.
    pub(in crate::images) async fn settle(mut self) -> Result<()> {
        let Some(lease) = self.lease.take() else { return Ok(()) };
        let (images, nodes) = (self.images.clone(), Arc::clone(&self.nodes));
        self.images
            .parts
            .store
            .call(move |_| settle(&images, lease, &nodes))
            .await
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let (Some(lease), Ok(runtime)) = (self.lease.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        let (images, nodes) = (self.images.clone(), Arc::clone(&self.nodes));
        runtime.spawn_blocking(move || {
            if let Err(error) = settle(&images, lease, &nodes) {
                tracing::warn!(error = %error.report(), "what an archive brought stays for the sweeper");
            }
        });
    }
}

/// Blocking.
fn settle(images: &LocalImages, lease: Arc<Lease>, nodes: &Nodes) -> Result<()> {
    let limit = Instant::now() + LINGER;
    while Arc::strong_count(&lease) > 1 && Instant::now() < limit {
        std::thread::sleep(Duration::from_millis(5));
    }
    if let Some(lease) = Arc::into_inner(lease) {
        lease.release()?;
    }
    let mut nodes = std::mem::take(&mut *nodes.lock().unwrap_or_else(PoisonError::into_inner));
    order::sort(&mut nodes);
    nodes.dedup();
    if nodes.is_empty() {
        return Ok(());
    }
    remove_unreferenced(&images.parts.store, &images.parts, nodes).map(drop)
}
