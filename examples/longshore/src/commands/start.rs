//! `start`: starts containers, from a checkpoint if one is named.

use std::path::PathBuf;

use super::say;
use crate::context::Context;
use crate::failure::Failure;

/// Options of `start`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Go on from this checkpoint
    #[arg(long, value_name = "CHECKPOINT")]
    checkpoint: Option<String>,
    /// Where checkpoints are kept
    #[arg(long, value_name = "DIR", requires = "checkpoint")]
    checkpoint_dir: Option<PathBuf>,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Starts containers and prints what they were called by.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    if args.checkpoint.is_some() && args.containers.len() > 1 {
        return Err(Failure::ours(
            "you cannot start and restore multiple containers at once",
        ));
    }
    let engine = context.engine().await?;
    for container in &args.containers {
        let directory = args.checkpoint_dir.clone();
        match &args.checkpoint {
            Some(checkpoint) => engine.containers().restore(container, checkpoint, directory).await?,
            None => engine.containers().start(container).await?,
        };
        say(container)?;
    }
    Ok(0)
}
