//! `restart`: stops containers, if they run, and starts them.

use super::each;
use super::stop::StopArgs;
use crate::context::Context;
use crate::failure::Failure;

/// Options of `restart`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    stop: StopArgs,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Restarts containers.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let options = args.stop.options();
    each(&args.containers, async |name| {
        engine.containers().restart(name, options).await
    })
    .await
}
