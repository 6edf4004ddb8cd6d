//! `manifest`: indexes of images of several platforms.

use std::collections::BTreeMap;

use longshore::images::{ImageDocument, IndexEntry, IndexRequest, ListedManifest, RemoveImageOptions};
use longshore::{Engine, Error, ErrorKind, Platform, Reference};

use super::say;
use crate::context::Context;
use crate::failure::Failure;
use crate::options::{self, Pair};

/// Options of `manifest create`.
#[derive(Debug, clap::Args)]
pub struct Create {
    /// Add to an index of that name, if there is one
    #[arg(short, long)]
    amend: bool,
    /// Note on the whole
    #[arg(long, value_name = "KEY=VALUE", value_parser = options::pair)]
    annotation: Vec<Pair>,
    /// The index's name
    #[arg(value_name = "INDEX")]
    name: Reference,
    /// Images that are here, each for another platform
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

/// Options of `manifest annotate`.
#[derive(Debug, clap::Args)]
pub struct Annotate {
    /// Operating system
    #[arg(long)]
    os: Option<String>,
    /// Processor
    #[arg(long)]
    arch: Option<String>,
    /// Variant of the processor
    #[arg(long)]
    variant: Option<String>,
    /// Note beside the image
    #[arg(long, value_name = "KEY=VALUE", value_parser = options::pair)]
    annotation: Vec<Pair>,
    /// The index's name
    #[arg(value_name = "INDEX")]
    name: Reference,
    /// The image in it: a name, an id, or the digest of its manifest
    #[arg(value_name = "IMAGE")]
    image: String,
}

/// Options of `manifest inspect`.
#[derive(Debug, clap::Args)]
pub struct Inspect {
    /// Names or ids
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

/// Options of `manifest rm`.
#[derive(Debug, clap::Args)]
pub struct Rm {
    /// The indexes' names
    #[arg(value_name = "INDEX", required = true)]
    names: Vec<String>,
}

/// Makes an index of images.
pub async fn create(context: &Context, args: Create) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let mut entries: Vec<IndexEntry> = Vec::new();
    if args.amend {
        match engine.images().document(&args.name.to_string()).await {
            Ok(document) => entries = known(&document)?,
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    entries.extend(args.images.into_iter().map(IndexEntry::new));
    let mut request = IndexRequest::new(args.name.clone(), entries);
    request.annotations = pairs(&args.annotation);
    engine.images().make_index(request).await?;
    say(&format!("Created manifest list {}", args.name.familiar()))?;
    Ok(0)
}

/// Says something else of an image of an index.
pub async fn annotate(context: &Context, args: Annotate) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let document = engine.images().document(&args.name.to_string()).await?;
    let wanted = position(&engine, &document, &args.image).await?;
    let mut entries = known(&document)?;
    if let (Some(entry), Some(listed)) = (entries.get_mut(wanted), document.manifests.get(wanted)) {
        entry.platform = changed(&args, listed);
        entry.annotations.extend(pairs(&args.annotation));
    }
    let mut request = IndexRequest::new(args.name, entries);
    request.annotations = annotations(&document);
    engine.images().make_index(request).await?;
    Ok(0)
}

/// Prints an index, or an image's manifest, as it is.
pub async fn inspect(context: &Context, args: Inspect) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    for name in &args.names {
        let document = engine.images().document(name).await?;
        let value: serde_json::Value = serde_json::from_slice(&document.bytes)
            .map_err(|error| Failure::ours(format!("the manifest of {name} is no JSON: {error}")))?;
        say(&format!("{value:#}"))?;
    }
    Ok(0)
}

/// Takes the names of indexes away. Their images stay under the names that they had before.
pub async fn rm(context: &Context, args: Rm) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    for name in &args.names {
        engine.images().remove(name, RemoveImageOptions::default()).await?;
        say(&format!("Deleted manifest list {name}"))?;
    }
    Ok(0)
}

fn pairs(pairs: &[Pair]) -> BTreeMap<String, String> {
    let whole = |(key, value): &Pair| (key.clone(), value.clone().unwrap_or_default());
    pairs.iter().map(whole).collect()
}

/// The entries of an index as they were given.
fn known(document: &ImageDocument) -> longshore::Result<Vec<IndexEntry>> {
    let entry = |listed: &ListedManifest| {
        let digest = listed.descriptor.digest;
        let missing = || {
            let message = format!("the image of the manifest {digest} is not here: pull it first");
            Error::new(ErrorKind::NotFound, message)
        };
        let mut entry = IndexEntry::new(listed.image.ok_or_else(missing)?.to_string());
        entry.platform.clone_from(&listed.descriptor.platform);
        entry.annotations.clone_from(&listed.descriptor.annotations);
        Ok(entry)
    };
    document.manifests.iter().map(entry).collect()
}

/// Notes on the whole.
fn annotations(document: &ImageDocument) -> BTreeMap<String, String> {
    let value: serde_json::Value = serde_json::from_slice(&document.bytes).unwrap_or_default();
    serde_json::from_value(value["annotations"].clone()).unwrap_or_default()
}

async fn position(engine: &Engine, document: &ImageDocument, text: &str) -> longshore::Result<usize> {
    let manifests = &document.manifests;
    if let Some(at) = manifests
        .iter()
        .position(|one| one.descriptor.digest.to_string() == text)
    {
        return Ok(at);
    }
    let image = engine.images().inspect(text).await?;
    let at = manifests.iter().position(|one| one.image == Some(image.id));
    at.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("{text} is not in this index")))
}

fn changed(args: &Annotate, listed: &ListedManifest) -> Option<Platform> {
    let mut platform = listed.descriptor.platform.clone().unwrap_or_else(Platform::host);
    let whole = args.os.is_some() || args.arch.is_some() || args.variant.is_some();
    if let Some(os) = &args.os {
        platform.os.clone_from(os);
    }
    if let Some(arch) = &args.arch {
        platform.architecture.clone_from(arch);
        // The variant was that of the other processor.
        platform.variant = None;
    }
    if let Some(variant) = &args.variant {
        platform.variant = Some(variant.clone());
    }
    (whole || listed.descriptor.platform.is_some()).then_some(platform)
}
