//! `update`: changes the limits of containers, of running ones at once.

use longshore::RestartPolicy;

use super::each;
use crate::context::Context;
use crate::failure::Failure;
use crate::limits::LimitArgs;

/// Options of `update`. What is not given stays as it is.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    limits: LimitArgs,
    /// When to start them again: no, always, unless-stopped or on-failure[:RETRIES]
    #[arg(long, value_name = "POLICY")]
    restart: Option<RestartPolicy>,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Updates containers.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let limits = args.limits.limits();
    each(&args.containers, async |name| {
        if let Some(policy) = args.restart {
            engine.containers().set_restart(name, policy).await?;
        }
        let warnings = engine.containers().update(name, limits.clone()).await?;
        for warning in warnings {
            eprintln!("longshore: {warning}");
        }
        Ok(())
    })
    .await
}
