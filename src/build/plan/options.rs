//! What whoever builds says beside the Dockerfile.

use std::collections::{BTreeMap, BTreeSet};

use crate::types::Platform;

/// What to build, and with which arguments.
#[derive(Debug, Clone)]
pub struct PlanOptions {
    pub(crate) target: Option<String>,
    pub(crate) arguments: BTreeMap<String, String>,
    pub(crate) platform: Platform,
    pub(crate) build_platform: Platform,
    pub(crate) contexts: BTreeSet<String>,
}

impl PlanOptions {
    /// The last stage, for the platform of this host, without arguments.
    pub fn new() -> Self {
        Self {
            target: None,
            arguments: BTreeMap::new(),
            platform: Platform::host(),
            build_platform: Platform::host(),
            contexts: BTreeSet::new(),
        }
    }

    /// The stage to build, by name or number, in place of the last.
    #[must_use]
    pub fn target(mut self, name: impl Into<String>) -> Self {
        self.target = Some(name.into()).filter(|name| !name.is_empty());
        self
    }

    /// A value for a variable that the Dockerfile declares with `ARG`.
    #[must_use]
    pub fn argument(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.arguments.insert(name.into(), value.into());
        self
    }

    /// The platform that the image is for.
    #[must_use]
    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = platform;
        self
    }

    /// The platform that the build itself runs on: `$BUILDPLATFORM`.
    #[must_use]
    pub fn build_platform(mut self, platform: Platform) -> Self {
        self.build_platform = platform;
        self
    }

    /// A named context: it stands in for the stage or the image of that name.
    #[must_use]
    pub fn context(mut self, name: impl Into<String>) -> Self {
        self.contexts.insert(name.into());
        self
    }
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self::new()
    }
}
