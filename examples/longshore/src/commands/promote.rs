//! `promote`: makes a container outlive the program that runs it.

use crate::context::Context;
use crate::failure::Failure;

/// Options of `promote`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name or id
    container: String,
}

/// Makes a container that runs, and would end with the program that has started it, a detached one.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    engine.containers().promote(&args.container).await?;
    println!("{}", args.container);
    Ok(0)
}
