//! `restart`: stops containers, if they run, and starts them.

use std::time::Duration;

use longshore::{Signal, StopOptions};

use super::each;
use crate::context::Context;
use crate::failure::Failure;

/// Options of `restart`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Seconds to wait before the kill [default: the container's, else 10]
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS")]
    time: Option<u64>,
    /// What to send first [default: the container's, else TERM]
    #[arg(short, long)]
    signal: Option<Signal>,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Restarts containers.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let options = StopOptions {
        signal: args.signal,
        timeout: args.time.map(Duration::from_secs),
    };
    each(&args.containers, async |name| {
        engine.containers().restart(name, options).await
    })
    .await
}
