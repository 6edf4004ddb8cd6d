//! Caches that are elsewhere: what whoever builds says of them.

use std::path::PathBuf;

use crate::types::Reference;

/// Where a build looks for steps that it does not know itself.
///
/// What comes from there is checked as far as digests go: each layer is what the cache says that it is. That the step makes such
/// a layer is the cache's word, as it is with every builder's; so it counts in this build alone, and no other build of the root
/// believes it. A cache that is missing, damaged or not to be reached is a warning, and its steps are done anew.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheSource {
    /// A directory that a build exported to, and the tag in it, by default `latest`.
    Directory(PathBuf, Option<String>),
    /// A name in a registry, of a cache or of an image that has its cache in it.
    Registry(Reference),
    /// An image that has its cache in it: one that is here, or else one of its registry.
    Image(Reference),
}

/// Where a build puts what it knows of its steps.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheTarget {
    /// A directory, an OCI layout, which is made if it is missing; and a tag in it, by default `latest`.
    Directory(PathBuf, Option<String>, CacheMode),
    /// A name in a registry.
    Registry(Reference, CacheMode),
    /// The image itself: its config says which step made which of its layers. So its id is another one.
    Inline,
}

/// How much of a build a cache has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheMode {
    /// Steps whose layers the image has, and those that made none.
    Min,
    /// All steps of all stages.
    #[default]
    Max,
}
