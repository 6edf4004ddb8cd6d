//! `diff`: what a container changed of its image's files.

use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;

use crate::context::Context;
use crate::failure::Failure;

/// Options of `diff`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name or id
    container: String,
}

/// Prints a line for each change. Names come out as they are, as in Docker's client.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let changes = engine.containers().diff(&args.container).await?;
    let mut text = Vec::new();
    for change in changes {
        text.extend_from_slice(format!("{} ", change.kind.letter()).as_bytes());
        text.extend_from_slice(change.path.as_os_str().as_bytes());
        text.push(b'\n');
    }
    let written = io::stdout().lock().write_all(&text);
    written.map_err(|error| Failure::ours(error.to_string()))?;
    Ok(0)
}
