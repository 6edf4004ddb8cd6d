//! `images`: lists images.

use longshore::images::ImageSummary;
use longshore::{Bytes, Reference};

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
    if found.iter().any(|image| image.lent_by.is_some()) {
        return with_origin(&found, args.no_trunc);
    }
    let mut table = Table::new(["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]);
    for image in &found {
        rows(image, args.no_trunc).into_iter().for_each(|row| table.row(row));
    }
    table.print()?;
    Ok(0)
}

/// As podman shows what is in additional stores.
fn with_origin(found: &[ImageSummary], whole: bool) -> Result<u8, Failure> {
    let mut table = Table::new(["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "R/O"]);
    for image in found {
        for [repository, tag, id, created, size] in rows(image, whole) {
            table.row([repository, tag, id, created, size, image.lent_by.is_some().to_string()]);
        }
    }
    table.print()?;
    Ok(0)
}

fn id(image: &ImageSummary, whole: bool) -> String {
    if whole { image.id.to_string() } else { image.id.short() }
}

/// A row per name. An image with digests alone shows each repository once, one without names none.
fn rows(image: &ImageSummary, whole: bool) -> Vec<[String; 5]> {
    let row = |repository: String, tag: &str| {
        let created = human::ago_of(image.created.as_deref());
        [
            repository,
            tag.to_owned(),
            id(image, whole),
            created,
            Bytes::new(image.size_bytes).human(),
        ]
    };
    let names = if image.tags.is_empty() {
        &image.digests
    } else {
        &image.tags
    };
    if names.is_empty() {
        return vec![row(NONE.into(), NONE)];
    }
    let of_name = |name: &Reference| {
        row(
            name.familiar_repository(),
            name.tag().filter(|_| name.digest().is_none()).unwrap_or(NONE),
        )
    };
    names.iter().map(of_name).collect()
}
