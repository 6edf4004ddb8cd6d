//! Building images.
//!
//! [`Dockerfile`] parses the whole language of today, with the place of every word; [`Plan`] says what is to be done. With an
//! engine, [`Engine::build`](crate::Engine::build) does it: an [`ImageBuilder`] takes a [`BuildSpec`].

#[cfg(feature = "engine")]
mod cache;
pub mod check;
#[cfg(feature = "engine")]
pub(crate) mod context;
#[cfg(feature = "engine")]
pub(crate) mod copy;
pub mod dockerfile;
#[cfg(feature = "engine")]
mod exec;
mod expand;
mod ignore;
#[cfg(any(feature = "engine", feature = "remote"))]
pub mod image;
mod limits;
#[cfg(feature = "engine")]
pub(crate) mod local;
#[cfg(feature = "engine")]
mod manager;
#[cfg(feature = "engine")]
mod output;
pub mod plan;
#[cfg(feature = "engine")]
pub(crate) mod spec;
mod suggest;
#[cfg(feature = "engine")]
mod verify;

#[cfg(feature = "engine")]
pub use self::cache::{CacheMode, CacheSource, CacheTarget, CachedMount, CachedStep, PruneCache, PrunedCache};
pub use self::check::{CheckOptions, Rule, Warning};
#[cfg(feature = "engine")]
pub use self::context::ContextSource;
pub use self::dockerfile::{Command, Dockerfile, SyntaxError};
#[cfg(feature = "engine")]
pub use self::exec::StepFailure;
pub use self::ignore::{Below, IgnoreFile};
#[cfg(any(feature = "engine", feature = "remote"))]
pub use self::image::Assembly;
#[cfg(feature = "engine")]
pub use self::manager::ImageBuilder;
#[cfg(feature = "engine")]
pub use self::output::{BuildOutput, BuildResult, BuiltImage};
pub use self::plan::{
    Action, AddAction, CopyAction, MadeStage, MountAction, Plan, PlanOptions, RunAction, StageBuilder, StageState, Step,
};
#[cfg(feature = "engine")]
pub use self::spec::{BuildSpec, BuildTimes, Entitlement, Secret};
#[cfg(feature = "engine")]
pub use self::verify::{Difference, Verified};
