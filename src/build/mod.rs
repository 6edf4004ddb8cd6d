//! Building images: what there is of it.
//!
//! [`Dockerfile`] parses the whole language of today, with the place of every word.

pub mod check;
pub mod dockerfile;
mod expand;
mod ignore;
#[cfg(any(feature = "engine", feature = "remote"))]
pub mod image;
mod limits;
pub mod plan;
mod suggest;

pub use self::check::{CheckOptions, Rule, Warning};
pub use self::dockerfile::{Command, Dockerfile, SyntaxError};
pub use self::ignore::{Below, IgnoreFile};
#[cfg(any(feature = "engine", feature = "remote"))]
pub use self::image::Assembly;
pub use self::plan::{Action, AddAction, CopyAction, Plan, PlanOptions, RunAction, StageBuilder, StageState, Step};
