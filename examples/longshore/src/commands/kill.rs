//! `kill`: sends a signal to containers.

use longshore::Signal;

use super::each;
use crate::context::Context;
use crate::failure::Failure;

/// Options of `kill`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to send
    #[arg(short, long, default_value_t = Signal::KILL)]
    signal: Signal,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Sends a signal to containers.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    each(&args.containers, async |name| {
        engine.containers().kill(name, args.signal).await
    })
    .await
}
