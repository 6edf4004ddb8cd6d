//! `wait`: waits until containers do not run, and prints their exit codes.

use longshore::WaitCondition;

use super::say;
use crate::context::Context;
use crate::failure::Failure;

/// Options of `wait`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Waits for containers, one after the other. All are registered for first.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let mut exits = Vec::new();
    for name in &args.containers {
        exits.push(engine.containers().wait(name, WaitCondition::NotRunning).await?);
    }
    for exit in exits {
        say(&exit.await?.status.code().to_string())?;
    }
    Ok(0)
}
