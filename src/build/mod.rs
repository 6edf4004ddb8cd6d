//! Building images: what there is of it.
//!
//! [`Dockerfile`] parses the whole language of today, with the place of every word.

pub mod check;
pub mod dockerfile;
mod expand;
mod ignore;
mod limits;
pub mod plan;
mod suggest;

pub use self::check::{CheckOptions, Rule, Warning};
pub use self::dockerfile::{Command, Dockerfile, SyntaxError};
pub use self::ignore::{Below, IgnoreFile};
pub use self::plan::{Action, Plan, PlanOptions, StageState, Step};
