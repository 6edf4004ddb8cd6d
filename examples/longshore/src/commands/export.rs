//! `export`: writes all that a container's root file system shows into an archive.

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use longshore::images::ByteStream;

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
    no_terminal(args.output.as_deref())?;
    let engine = context.engine().await?;
    let archive = engine.containers().export(&args.container).await?;
    write(archive, args.output.as_deref()).await
}

/// Before anything is begun.
pub fn no_terminal(output: Option<&Path>) -> Result<(), Failure> {
    if output.is_none() && io::stdout().is_terminal() {
        return Err(Failure::ours(
            "an archive is nothing for a terminal: use --output, or redirect stdout",
        ));
    }
    Ok(())
}

/// Writes an archive to where it is wanted.
pub async fn write(archive: ByteStream, output: Option<&Path>) -> Result<u8, Failure> {
    match output {
        Some(path) => transfer::write_file(archive, path).await?,
        None => transfer::write_out(archive).await?,
    }
    Ok(0)
}
