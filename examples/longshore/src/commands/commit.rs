//! `commit`: makes an image of a container, with what it changed.

use longshore::Reference;
use longshore::containers::CommitOptions;

use super::say;
use crate::context::Context;
use crate::failure::Failure;

/// Options of `commit`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Who made it, say "Ann <ann@example.org>"
    #[arg(short, long, default_value = "")]
    author: String,
    /// A Dockerfile instruction for the image's config
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// A remark in its history
    #[arg(short, long, default_value = "")]
    message: String,
    /// Whether a running container stands still while it is read
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true",
        default_missing_value = "true", action = clap::ArgAction::Set)]
    pause: bool,
    /// Let a running container go on while it is read
    #[arg(long)]
    no_pause: bool,
    /// Name or id
    container: String,
    /// The image's name
    name: Option<Reference>,
}

/// Commits a container, and prints the image's id.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let mut options = CommitOptions::new()
        .author(args.author)
        .message(args.message)
        .pause(args.pause && !args.no_pause);
    for change in args.change {
        options = options.change(change);
    }
    if let Some(name) = args.name {
        options = options.name(name);
    }
    let engine = context.engine().await?;
    let image = engine.containers().commit(&args.container, options).await?;
    say(&image.to_string())?;
    Ok(0)
}
