//! `images`: lists images.

use longshore::{Bytes, ImageSummary};

use super::{filter, say};
use crate::context::Context;
use crate::failure::Failure;
use crate::human;
use crate::options::{self, Pair};
use crate::table::Table;

const NONE: &str = "<none>";

/// Options of `images`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print ids alone
    #[arg(short, long)]
    quiet: bool,
    /// Only those that match
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = options::pair)]
    filter: Vec<Pair>,
    /// Cut nothing short
    #[arg(long)]
    no_trunc: bool,
}

/// Lists images: a row per name.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let found = engine.list_images(filter(&args.filter)).await?;
    if args.quiet {
        found.iter().try_for_each(|image| say(&id(image, args.no_trunc)))?;
        return Ok(0);
    }
    let mut table = Table::new(["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]);
    for image in &found {
        rows(image, args.no_trunc).into_iter().for_each(|row| table.row(row));
    }
    table.print()?;
    Ok(0)
}

fn id(image: &ImageSummary, whole: bool) -> String {
    if whole { image.id.to_string() } else { image.id.short() }
}

fn rows(image: &ImageSummary, whole: bool) -> Vec<[String; 5]> {
    let row = |repository: String, tag: String| {
        let created = image.created.map_or_else(|| "N/A".into(), human::ago);
        [repository, tag, id(image, whole), created, Bytes::new(image.size).human()]
    };
    if image.names.is_empty() {
        return vec![row(NONE.into(), NONE.into())];
    }
    let tag = |name: &longshore::Reference| name.tag().unwrap_or(NONE).to_owned();
    image.names.iter().map(|name| row(name.familiar_repository(), tag(name))).collect()
}
