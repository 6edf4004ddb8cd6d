//! `system prune`: removes everything that nobody uses.

use longshore::{Bytes, PruneAll, PrunedAll};

use super::{agreed, filter, image_prune, say};
use crate::context::Context;
use crate::failure::Failure;
use crate::options::{self, Pair};

/// Options of `system prune`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also images that have a name and no container, and all steps of builds
    #[arg(short, long)]
    all: bool,
    /// Also anonymous volumes
    #[arg(long)]
    volumes: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only what matches: until=, label=, label!=
    #[arg(long, value_name = "KEY=VALUE", value_parser = options::pair)]
    filter: Vec<Pair>,
}

/// Removes, and says what that gave back.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    if !args.force && !agreed(&warning(&args))? {
        return Ok(0);
    }
    let mut options = PruneAll::new().filter(filter(&args.filter));
    if args.all {
        options = options.all();
    }
    if args.volumes {
        options = options.volumes();
    }
    let engine = context.engine().await?;
    let pruned = engine.prune(options).await?;
    print(&pruned)?;
    Ok(0)
}

/// Docker's words.
fn warning(args: &Args) -> String {
    let mut sorts = vec![
        "all stopped containers",
        "all networks not used by at least one container",
    ];
    if args.volumes {
        sorts.push("all anonymous volumes not used by at least one container");
    }
    sorts.extend(match args.all {
        true => [
            "all images without at least one container associated to them",
            "all build cache",
        ],
        false => ["all dangling images", "unused build cache"],
    });
    sorts.iter().fold("This will remove:".to_owned(), |text, sort| {
        format!("{text}\n  - {sort}")
    })
}

fn print(pruned: &PrunedAll) -> Result<(), Failure> {
    section("Containers", pruned.containers.iter().cloned())?;
    section("Networks", pruned.networks.iter().cloned())?;
    section("Volumes", pruned.volumes.iter().cloned())?;
    section("Images", pruned.images.iter().map(image_prune::line))?;
    section("build cache objects", pruned.steps.iter().map(longshore::Digest::hex))?;
    say(&format!(
        "Total reclaimed space: {}",
        Bytes::new(pruned.reclaimed_bytes).human()
    ))?;
    Ok(())
}

fn section(title: &str, lines: impl ExactSizeIterator<Item = String>) -> Result<(), Failure> {
    if lines.len() == 0 {
        return Ok(());
    }
    say(&format!("Deleted {title}:"))?;
    for line in lines {
        say(&line)?;
    }
    say("")?;
    Ok(())
}
