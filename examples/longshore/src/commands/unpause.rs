//! `unpause`: lets paused containers go on.

use super::each;
use crate::context::Context;
use crate::failure::Failure;

/// Options of `unpause`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Lets containers go on.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    each(&args.containers, async |name| engine.containers().unpause(name).await).await
}
