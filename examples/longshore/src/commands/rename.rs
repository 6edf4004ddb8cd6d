//! `rename`: gives a container another name.

use crate::context::Context;
use crate::failure::Failure;

/// Options of `rename`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name or id
    container: String,
    /// The name from now on
    new_name: String,
}

/// Renames a container.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    engine.containers().rename(&args.container, &args.new_name).await?;
    Ok(0)
}
