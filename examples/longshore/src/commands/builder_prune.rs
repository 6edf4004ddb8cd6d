//! `builder prune`: forgets steps of earlier builds.

use std::time::{Duration, SystemTime};

use longshore::Bytes;
use longshore::build::PruneCache;

use super::say;
use crate::context::Context;
use crate::failure::Failure;
use crate::options;

/// Options of `builder prune`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Keep what was used last, as much of it as fits
    #[arg(long, visible_alias = "reserved-space", value_name = "BYTES")]
    keep_storage: Option<Bytes>,
    /// Only what was not used for so long, say 24h
    #[arg(long, value_name = "DURATION", value_parser = options::duration)]
    unused_for: Option<Duration>,
    /// Also steps whose layers an image has
    #[arg(short, long)]
    all: bool,
    /// Accepted for Docker's sake: nothing is asked
    #[arg(short, long)]
    force: bool,
}

/// Prunes, and prints the keys of the steps and what was freed.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let _ = args.force;
    let mut options = PruneCache::all();
    if !args.all {
        options = options.unshared();
    }
    if let Some(bytes) = args.keep_storage {
        options = options.keep(bytes);
    }
    if let Some(since) = args.unused_for.and_then(|length| SystemTime::now().checked_sub(length)) {
        options = options.unused_since(since);
    }
    let engine = context.engine().await?;
    let pruned = engine.builds().prune(options).await?;
    for step in &pruned.steps {
        say(&step.hex())?;
    }
    for mount in &pruned.mounts {
        say(mount)?;
    }
    say(&format!("Total: {}", Bytes::new(pruned.freed_bytes).human()))?;
    Ok(0)
}
