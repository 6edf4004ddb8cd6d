//! `stop`: asks containers to end, and kills those that do not in time.

use std::time::Duration;

use longshore::{Signal, StopOptions};

use super::each;
use crate::context::Context;
use crate::failure::Failure;

/// How a container is stopped.
#[derive(Debug, clap::Args)]
pub struct StopArgs {
    /// Seconds to wait before the kill [default: the container's, else 10]
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS")]
    time: Option<u64>,
    /// What to send first [default: the container's, else TERM]
    #[arg(short, long)]
    signal: Option<Signal>,
}

impl StopArgs {
    /// As the engine takes them.
    pub fn options(&self) -> StopOptions {
        StopOptions {
            signal: self.signal,
            timeout: self.time.map(Duration::from_secs),
        }
    }
}

/// Options of `stop`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    stop: StopArgs,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Stops containers.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let options = args.stop.options();
    each(&args.containers, async |name| {
        engine.containers().stop(name, options).await.map(drop)
    })
    .await
}
