//! The end of a build: what was made goes to where it was asked for.
//!
//! What goes elsewhere comes first, and the engine's own image after it, so that one that is listed has all outputs but its
//! push.

use std::sync::Arc;

use super::Work;
use super::stage::Stage;
use crate::build::output::{BuildOutput, BuiltImage};
use crate::error::{Error, Result};
use crate::images::ImageConfig;
use crate::images::making::Making;
use crate::images::making_out::Unlisted;
use crate::progress::Progress;
use crate::types::{Descriptor, ImageId, Reference};

/// What was made for a platform.
struct Product<'a> {
    work: &'a Work<'a>,
    stage: &'a Stage,
    config: ImageConfig,
    id: ImageId,
}

/// Writes all outputs, and tells what the images are and what stands for all of them.
pub(super) async fn finish(
    works: &[Work<'_>],
    stages: &[Arc<Stage>],
    names: &[Reference],
) -> Result<(Vec<BuiltImage>, Option<Descriptor>)> {
    let mut products = Vec::with_capacity(works.len());
    for (work, stage) in works.iter().zip(stages) {
        let config = work.config(stage)?;
        let id = Making::id_of(&config)?;
        products.push(Product {
            work,
            stage,
            config,
            id,
        });
    }
    check_distinct(&products)?;
    let Some(work) = works.first() else {
        return Err(Error::internal("a build for no platform"));
    };
    let outputs = match work.spec.outputs.as_slice() {
        [] => &[BuildOutput::Image],
        asked => asked,
    };
    let mut descriptor = None;
    for output in outputs.iter().filter(|output| !output.is_listed()) {
        let written = work.cancel.or(elsewhere(&products, output, names)).await?;
        descriptor = descriptor.or(written);
    }
    work.cancel.or(work.share_cache(stages)).await?;
    work.cancel.check()?;
    if outputs.iter().any(BuildOutput::is_listed) {
        let push = outputs.contains(&BuildOutput::Push);
        descriptor = listed(&products, names, push).await?;
        for name in names.iter().filter(|_| push) {
            let credentials = work.spec.credentials.get(name.host()).cloned();
            let sent = work.making.push(name, credentials, work.part_of_progress());
            let sent = work.cancel.or(sent).await;
            descriptor = Some(sent.map_err(|error| error.context(format!("push {}", name.familiar())))?);
        }
    }
    let images = products.iter().map(|product| BuiltImage {
        platform: product.stage.platform.clone(),
        id: product.id,
    });
    Ok((images.collect(), descriptor))
}

/// An index tells images by their platforms.
fn check_distinct(products: &[Product<'_>]) -> Result<()> {
    for (number, product) in products.iter().enumerate() {
        let platform = &product.stage.platform;
        let same = |other: &Product<'_>| other.stage.platform == *platform;
        if let Some(other) = products[..number].iter().find(|other| same(other)) {
            let (one, other) = (&product.work.spec.plan.platform, &other.work.spec.plan.platform);
            return Err(Error::invalid(format!(
                "the images for {other} and for {one} are both for {platform}: leave --platform of the last FROM away"
            )));
        }
    }
    Ok(())
}

/// An output that the engine does not list.
async fn elsewhere(products: &[Product<'_>], output: &BuildOutput, names: &[Reference]) -> Result<Option<Descriptor>> {
    let Some(making) = products.first().map(|product| product.work.making) else {
        return Ok(None);
    };
    match output {
        BuildOutput::Layout(dir) => Ok(Some(making.layout(&unlisted(products).await?, names, dir).await?)),
        BuildOutput::Archive(file, format) => {
            let images = unlisted(products).await?;
            Ok(Some(making.archive(&images, names, file, *format).await?))
        }
        _ => {
            for product in products {
                product.work.export(product.stage, output).await?;
            }
            Ok(None)
        }
    }
}

async fn unlisted(products: &[Product<'_>]) -> Result<Vec<Unlisted>> {
    let mut images = Vec::with_capacity(products.len());
    for Product {
        work, stage, config, ..
    } in products
    {
        images.push(work.making.unlisted(config, &stage.layers).await?);
    }
    Ok(images)
}

/// The engine's own images. One has the names, of several their index has them.
async fn listed(products: &[Product<'_>], names: &[Reference], push: bool) -> Result<Option<Descriptor>> {
    let several = products.len() > 1;
    let mut manifest = None;
    for Product {
        work, stage, config, ..
    } in products
    {
        let own = if several { Vec::new() } else { names.to_vec() };
        let progress = Progress::default();
        let image = match push {
            true => {
                let packed = work.cancel.or(work.making.packed(&stage.layers)).await?;
                work.making.image(config, &packed, own, &progress).await?
            }
            false => work.making.image(config, &stage.layers, own, &progress).await?,
        };
        manifest = Some(image.manifest);
    }
    let ids: Vec<ImageId> = products.iter().map(|product| product.id).collect();
    match (products.first(), several, names.is_empty()) {
        (Some(product), true, false) => product.work.making.index(names, &ids).await.map(Some),
        (_, true, true) => Ok(None),
        _ => Ok(manifest),
    }
}
