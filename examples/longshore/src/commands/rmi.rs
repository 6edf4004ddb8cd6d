//! `rmi`: removes images.

use longshore::Platform;
use longshore::images::{RemoveImageOptions, Removed};

use super::say;
use crate::context::Context;
use crate::failure::Failure;

/// Options of `rmi`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Take all its names away, even while a container uses it
    #[arg(short, long)]
    force: bool,
    /// Leave what the name stands for on other platforms
    #[arg(long)]
    platform: Option<Platform>,
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

/// Removes images, and says what went.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let mut code = 0;
    for name in &args.images {
        let mut options = RemoveImageOptions::default().force(args.force);
        options.platform.clone_from(&args.platform);
        match engine.images().remove(name, options).await {
            Ok(removed) => removed.iter().try_for_each(|one| say(&line(one)))?,
            Err(error) => {
                code = 1;
                eprintln!("longshore: {}", error.report());
            }
        }
    }
    Ok(code)
}

/// Docker's words.
fn line(removed: &Removed) -> String {
    match removed {
        Removed::Untagged(name) => format!("Untagged: {}", name.familiar()),
        Removed::Deleted(id) | Removed::DeletedLayer(id) => format!("Deleted: {id}"),
        other => format!("{other:?}"),
    }
}
