//! `export`: writes all that a container's root file system shows into an archive.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use crate::context::Context;
use crate::failure::Failure;
use crate::transfer;

/// Options of `export`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write to a file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Name or id
    container: String,
}

/// Exports a container.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    if args.output.is_none() && io::stdout().is_terminal() {
        return Err(Failure::ours(
            "an archive is nothing for a terminal: use --output, or redirect stdout",
        ));
    }
    let engine = context.engine().await?;
    let archive = engine.containers().export(&args.container).await?;
    match args.output {
        Some(path) => transfer::write_file(archive, &path).await?,
        None => transfer::write_out(archive).await?,
    }
    Ok(0)
}
