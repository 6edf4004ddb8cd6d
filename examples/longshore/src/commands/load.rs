//! `load`: takes images from an archive.

use std::path::PathBuf;

use longshore::Platform;

use super::say;
use crate::context::Context;
use crate::failure::Failure;
use crate::transfer;

/// Options of `load`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Read from a file instead of stdin
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Platform to load, say linux/arm64
    #[arg(long)]
    platform: Option<Platform>,
    /// Print nothing but what was loaded
    #[arg(short, long)]
    quiet: bool,
}

/// Loads images, and says which.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let archive = transfer::read(args.input.as_deref()).map_err(|error| Failure::ours(error.to_string()))?;
    let engine = context.engine().await?;
    let mut load = engine.load(archive);
    if let Some(platform) = args.platform {
        load = load.platform(platform);
    }
    for image in load.await? {
        for name in &image.tags {
            say(&format!("Loaded image: {}", name.familiar()))?;
        }
        if image.tags.is_empty() {
            say(&format!("Loaded image ID: {}", image.id))?;
        }
    }
    Ok(0)
}
