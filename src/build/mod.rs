//! Building images: what there is of it.
//!
//! [`Dockerfile`] parses the whole language of today, with the place of every word.

pub mod dockerfile;
mod expand;
mod ignore;
mod limits;
mod suggest;

pub use self::dockerfile::{Command, Dockerfile, SyntaxError};
pub use self::ignore::{Below, IgnoreFile};
