//! What the checks may know beside the file.

use std::collections::BTreeMap;

use crate::build::{IgnoreFile, PlanOptions, StageState};
use crate::types::Platform;

/// What the checks may know beside the file. What they do not know they do not warn of.
#[derive(Debug, Clone, Default)]
pub struct CheckOptions {
    pub(super) plan: PlanOptions,
    pub(super) ignore: Option<IgnoreFile>,
    pub(super) images: BTreeMap<String, (StageState, Option<Platform>)>,
}

impl CheckOptions {
    /// Nothing but the file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Arguments, platforms and the target.
    #[must_use]
    pub fn plan(mut self, options: PlanOptions) -> Self {
        self.plan = options;
        self
    }

    /// The context's ignore file, for `CopyIgnoredFile`.
    #[must_use]
    pub fn ignore(mut self, file: IgnoreFile) -> Self {
        self.ignore = Some(file);
        self
    }

    /// A base image as the file names it, its variables put in: without it, stages upon it are not searched for undefined
    /// variables. Its platform is for `InvalidBaseImagePlatform`.
    #[must_use]
    pub fn image(mut self, name: impl Into<String>, state: StageState, platform: Option<Platform>) -> Self {
        self.images.insert(name.into(), (state, platform));
        self
    }
}
