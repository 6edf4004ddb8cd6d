//! `container prune`: removes containers that do not run.

use longshore::Bytes;

use super::{filter, say};
use crate::context::Context;
use crate::failure::Failure;
use crate::options::{self, Pair};

/// Options of `container prune`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only those that match: until, label, label!
    #[arg(long, value_name = "KEY=VALUE", value_parser = options::pair)]
    filter: Vec<Pair>,
    /// As Docker's, which asks first; this client never does
    #[arg(short, long)]
    force: bool,
}

/// Prunes this process' containers, and what dead ones have left.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let _ = args.force;
    let engine = context.engine().await?;
    let pruned = engine.containers().prune(filter(&args.filter)).await?;
    for id in &pruned.removed {
        say(id)?;
    }
    say(&format!(
        "Total reclaimed space: {}",
        Bytes::new(pruned.reclaimed_bytes)
    ))?;
    Ok(0)
}
