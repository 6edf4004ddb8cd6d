//! Archives of images: what `save` writes and `load` reads.
//!
//! One shape is written: an OCI layout in a tar, with Docker's `manifest.json` beside it unless it is not wanted. Three are
//! read: that one, the layout alone, and Docker's older one with a `layer.tar` for each layer. An archive is read in one
//! pass, as it streams in: every file goes into the content store under its digest, whatever its path says, so no path
//! of an archive ever reaches the file system. What turns out not to belong to an image is removed again.

mod contents;
mod find;
mod held;
mod take;
mod write;

pub(super) use self::contents::Stored;
pub(super) use self::find::{Found, find};
pub(super) use self::held::{Held, Holder};
pub(super) use self::take::Taker;
pub(super) use self::write::{Item, stream};
pub(super) use crate::storage::inflow::{Inflow, beside};

/// More files than any archive of images has.
const MAX_FILES: u64 = 100_000;
/// More images than an archive may have.
const MAX_IMAGES: usize = 1000;
/// The annotation of containerd and Docker for an image's whole name in a layout.
pub(super) const FULL_NAME: &str = "io.containerd.image.name";
