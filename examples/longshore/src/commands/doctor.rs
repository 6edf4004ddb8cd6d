//! `system doctor`: reads everything that images stand on, and repairs it.

use longshore::Engine;
use longshore::system::Finding;

use super::say;
use crate::context::Context;
use crate::failure::Failure;

/// Options of `system doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Repair what is damaged or missing; what can be neither repaired nor fetched is removed
    #[arg(long)]
    fix: bool,
}

/// Prints what was found. The code is 1 where something is left that is damaged.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    if args.fix {
        for line in Engine::repair(context.root()?)? {
            say(&format!("repaired: {line}"))?;
        }
    }
    let engine = context.engine().await?;
    let found = engine.doctor(args.fix).await?;
    let line = |how: &str, finding: &Finding| say(&format!("{how}: {finding}"));
    found
        .repaired
        .iter()
        .try_for_each(|finding| line("repaired", finding))?;
    found.left.iter().try_for_each(|finding| line("damaged", finding))?;
    if found.is_healthy() {
        say("Everything is whole.")?;
    }
    Ok(u8::from(!found.left.is_empty()))
}
