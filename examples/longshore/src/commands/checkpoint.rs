//! `checkpoint`: containers' processes, written down.

use std::path::PathBuf;

use longshore::CheckpointOptions;

use super::say;
use crate::context::Context;
use crate::failure::Failure;

/// Options of `checkpoint create`.
#[derive(Debug, clap::Args)]
pub struct Create {
    /// Where checkpoints are kept
    #[arg(long, value_name = "DIR")]
    checkpoint_dir: Option<PathBuf>,
    /// Leave the container running
    #[arg(long)]
    leave_running: bool,
    /// Name or id
    container: String,
    /// The checkpoint's name
    checkpoint: String,
}

/// Options of `checkpoint ls`.
#[derive(Debug, clap::Args)]
pub struct Ls {
    /// Where checkpoints are kept
    #[arg(long, value_name = "DIR")]
    checkpoint_dir: Option<PathBuf>,
    /// Name or id
    container: String,
}

/// Options of `checkpoint rm`.
#[derive(Debug, clap::Args)]
pub struct Rm {
    /// Where checkpoints are kept
    #[arg(long, value_name = "DIR")]
    checkpoint_dir: Option<PathBuf>,
    /// Name or id
    container: String,
    /// The checkpoint's name
    checkpoint: String,
}

/// Writes a container's processes down, and prints the checkpoint's name.
pub async fn create(context: &Context, args: Create) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let options = CheckpointOptions {
        directory: args.checkpoint_dir,
        leave_running: args.leave_running,
    };
    let containers = engine.containers();
    containers
        .checkpoint(&args.container, &args.checkpoint, options)
        .await?;
    say(&args.checkpoint)?;
    Ok(0)
}

/// Prints the names of checkpoints.
pub async fn ls(context: &Context, args: Ls) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    say("CHECKPOINT NAME")?;
    for name in engine
        .containers()
        .checkpoints(&args.container, args.checkpoint_dir)
        .await?
    {
        say(&name)?;
    }
    Ok(0)
}

/// Removes a checkpoint.
pub async fn rm(context: &Context, args: Rm) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let containers = engine.containers();
    containers
        .remove_checkpoint(&args.container, &args.checkpoint, args.checkpoint_dir)
        .await?;
    Ok(0)
}
