//! `image prune`: removes images that nobody uses.

use longshore::Bytes;
use longshore::images::Removed;

use super::{agreed, filter, say};
use crate::context::Context;
use crate::failure::Failure;
use crate::options::{self, Pair};

/// Options of `image prune`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// All that no container uses, not only those without a name
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only those that match: until=, label=, label!=
    #[arg(long, value_name = "KEY=VALUE", value_parser = options::pair)]
    filter: Vec<Pair>,
}

/// Removes images, and says what that gave back.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let which = if args.all {
        "all images without at least one container associated to them"
    } else {
        "all dangling images"
    };
    if !args.force && !agreed(&format!("This will remove {which}."))? {
        return Ok(0);
    }
    let engine = context.engine().await?;
    let mut filter = filter(&args.filter);
    if args.all {
        filter = filter.with("dangling", "false");
    }
    let pruned = engine.prune_images(filter).await?;
    if !pruned.removed.is_empty() {
        say("Deleted Images:")?;
        pruned.removed.iter().try_for_each(|one| say(&line(one)))?;
        say("")?;
    }
    say(&format!(
        "Total reclaimed space: {}",
        Bytes::new(pruned.reclaimed_bytes).human()
    ))?;
    Ok(0)
}

/// Docker's words.
pub(super) fn line(removed: &Removed) -> String {
    match removed {
        Removed::Untagged(name) => format!("untagged: {}", name.familiar()),
        Removed::Deleted(id) | Removed::DeletedLayer(id) => format!("deleted: {id}"),
        other => format!("{other:?}"),
    }
}
