//! `save`: writes images into an archive.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use longshore::Platform;
use longshore::images::ArchiveFormat;

use crate::context::Context;
use crate::failure::Failure;
use crate::transfer;

/// Options of `save`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write to a file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Platform to save, say linux/arm64
    #[arg(long)]
    platform: Option<Platform>,
    /// Leave out what only Docker reads
    #[arg(long)]
    oci: bool,
    /// Names or ids; a repository without a tag means all its tags
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

/// Saves images.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    if args.output.is_none() && io::stdout().is_terminal() {
        return Err(Failure::ours(
            "an archive is nothing for a terminal: use --output, or redirect stdout",
        ));
    }
    let engine = context.engine().await?;
    let mut save = engine.save(args.images);
    if let Some(platform) = args.platform {
        save = save.platform(platform);
    }
    if args.oci {
        save = save.format(ArchiveFormat::Oci);
    }
    let archive = save.await?;
    match args.output {
        Some(path) => transfer::write_file(archive, &path).await?,
        None => transfer::write_out(archive).await?,
    }
    Ok(0)
}
