//! `rm`: removes containers.

use longshore::RemoveOptions;

use super::each;
use crate::context::Context;
use crate::failure::Failure;

/// Options of `rm`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Kill it first if it runs
    #[arg(short, long)]
    force: bool,
    /// Remove its anonymous volumes too; those of a bound container go in any case
    #[arg(short, long)]
    volumes: bool,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Removes containers.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let options = RemoveOptions {
        force: args.force,
        volumes: args.volumes,
    };
    each(&args.containers, async |name| {
        engine.containers().remove(name, options).await.map(drop)
    })
    .await
}
