//! `pause`: stops the processes of containers where they are, until `unpause`.

use super::each;
use crate::context::Context;
use crate::failure::Failure;

/// Options of `pause`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Pauses containers.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    each(&args.containers, async |name| engine.containers().pause(name).await).await
}
