//! `tag`: gives an image another name.

use longshore::Reference;

use crate::context::Context;
use crate::failure::Failure;

/// Options of `tag`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// An image by name or id
    source: String,
    /// Its further name
    target: Reference,
}

/// Tags an image.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    engine.images().tag(&args.source, &args.target).await?;
    Ok(0)
}
