//! Building images: what there is of it.
//!
//! [`Dockerfile`] parses the whole language of today, with the place of every word.

pub mod check;
#[cfg(feature = "engine")]
#[allow(dead_code, unused_imports, reason = "nothing carries out steps yet")]
pub(crate) mod context;
#[cfg(feature = "engine")]
#[allow(dead_code, reason = "nothing carries out steps yet")]
pub(crate) mod copy;
pub mod dockerfile;
mod expand;
mod ignore;
#[cfg(any(feature = "engine", feature = "remote"))]
pub mod image;
mod limits;
pub mod plan;
mod suggest;

pub use self::check::{CheckOptions, Rule, Warning};
#[cfg(feature = "engine")]
pub use self::context::ContextSource;
pub use self::dockerfile::{Command, Dockerfile, SyntaxError};
pub use self::ignore::{Below, IgnoreFile};
#[cfg(any(feature = "engine", feature = "remote"))]
pub use self::image::Assembly;
pub use self::plan::{Action, AddAction, CopyAction, Plan, PlanOptions, RunAction, StageBuilder, StageState, Step};
