//! `import`: makes an image of the tar of a root file system.

use std::path::{Path, PathBuf};

use longshore::{Platform, Reference};

use super::say;
use crate::context::Context;
use crate::failure::Failure;
use crate::transfer;

/// Options of `import`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A Dockerfile instruction for the image's config
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// A remark in its history
    #[arg(short, long, default_value = "")]
    message: String,
    /// What it runs on, say linux/arm64
    #[arg(long)]
    platform: Option<Platform>,
    /// A tar, plain or compressed; - for stdin
    file: PathBuf,
    /// The image's name
    name: Option<Reference>,
}

/// Imports an image, and prints its id.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let file = (args.file != Path::new("-")).then_some(args.file.as_path());
    let archive = transfer::read(file).map_err(|error| Failure::ours(error.to_string()))?;
    let engine = context.engine().await?;
    let mut import = engine.import(archive).message(args.message);
    for change in args.change {
        import = import.change(change);
    }
    if let Some(name) = args.name {
        import = import.name(name);
    }
    if let Some(platform) = args.platform {
        import = import.platform(platform);
    }
    let image = import.await?;
    say(&image.id().to_string())?;
    Ok(0)
}
