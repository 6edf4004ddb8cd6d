//! Layers: tar archives, mostly compressed, that change a directory tree. Every one is treated as hostile.
//!
//! [`apply`] writes a layer out. What it does not trust: paths (resolved inside the target by the kernel, whatever symlinks
//! the layer made before), sizes (bounded by [`Limits`]), headers (one parser, one decision where the next one is), and
//! the media type (bytes are sniffed).
//!
//! [`LayerReader`] is the way back: what a container wrote, as a list of changes or as a layer.

mod apply;
pub(crate) mod compress;
mod crew;
pub(crate) mod decompress;
mod limits;
pub(crate) mod name;
mod notes;
mod pax;
mod read;
pub(crate) mod tar;
#[cfg(test)]
mod tests;
mod tree;

pub use self::apply::{Applied, apply};
pub(crate) use self::apply::{Hashing, OPAQUE_TRUSTED, OPAQUE_USER, OWNER_XATTR, Plain, apply_plain, apply_with};
pub(crate) use self::crew::Processors;
pub use self::limits::Limits;
pub(crate) use self::notes::Notes;
#[cfg_attr(not(feature = "build"), allow(unused_imports, reason = "for builds"))]
pub(crate) use self::read::{Archive, Attributes, Dir, Ground, Head, Node, Owners, Type, is_read};
pub use self::read::{LayerReader, Sight};
pub(crate) use self::read::{Spot, open_inside};
pub(crate) use self::tree::Tree;
