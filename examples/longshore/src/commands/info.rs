//! `info`: what this engine is, and what this host offers.

use longshore::{Engine, Filter, ListOptions};

use super::say;
use crate::context::Context;
use crate::failure::Failure;

/// Options of `info`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Prints the engine's choices and the probe's table.
pub async fn run(context: &Context, _args: Args) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let info = engine.info()?;
    let containers = engine
        .list(ListOptions {
            all: true,
            filter: Filter::new(),
        })
        .await?;
    let images = engine.list_images(Filter::new()).await?;
    say(&format!("Version: {}", env!("CARGO_PKG_VERSION")))?;
    say(&format!("Root: {}", info.root.display()))?;
    say(&format!(
        "Storage driver: {} ({})",
        info.storage_driver, info.storage_reason
    ))?;
    say(&format!("Containers: {}", containers.len()))?;
    say(&format!("Images: {}", images.len()))?;
    say("\nThis host:")?;
    for line in Engine::probe().to_string().lines() {
        say(&format!("  {line}"))?;
    }
    Ok(0)
}
