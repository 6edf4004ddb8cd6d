//! Blobs, layers and snapshots: the [`ContentStore`](content::ContentStore) and [`Snapshotter`](snapshot::Snapshotter)
//! seams, the extractor that treats every layer as hostile, and [`unpack`], which joins them.

pub mod content;
pub(crate) mod files;
pub(crate) mod inflow;
pub mod layer;
pub(crate) mod outflow;
pub mod ownership;
pub(crate) mod room;
pub mod snapshot;
pub mod sweep;
pub mod unpack;
