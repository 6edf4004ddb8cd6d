//! `pull`: downloads an image.

use longshore::types::ImageSource;
use longshore::{Platform, Pull};

use super::say;
use crate::context::Context;
use crate::failure::Failure;
use crate::pull_view::{PullView, Target};

/// Options of `pull`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Platform to take, say linux/arm64
    #[arg(long)]
    platform: Option<Platform>,
    /// Print the name alone
    #[arg(short, long)]
    quiet: bool,
    /// busybox, host/repository:tag, host/repository@sha256:…, or oci:DIR[:TAG]
    #[arg(value_name = "IMAGE")]
    source: String,
}

/// Pulls an image.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let source: ImageSource = args.source.parse()?;
    let engine = context.engine().await?;
    if !args.quiet {
        announce(&args.source, &source)?;
    }
    let before = engine.image(&args.source).await.ok().map(|image| *image.id());
    let view = PullView::new(Target::Stdout, args.quiet);
    let mut pull = engine.pull(&args.source).policy(Pull::Always).progress(view.reporter());
    if let Some(platform) = args.platform {
        pull = pull.platform(platform);
    }
    let image = pull.await;
    view.finish();
    let image = image?;
    if !args.quiet {
        if let Some(manifest) = view.manifest() {
            say(&format!("Digest: {manifest}"))?;
        }
        let news = if before.as_ref() == Some(image.id()) {
            "Image is up to date for"
        } else {
            "Downloaded newer image for"
        };
        say(&format!("Status: {news} {}", short(&source)))?;
    }
    say(&source.to_string())?;
    Ok(0)
}

/// Docker's first lines.
fn announce(given: &str, source: &ImageSource) -> Result<(), Failure> {
    match source {
        ImageSource::Registry(reference) => {
            let version = match (reference.tag(), reference.digest()) {
                (_, Some(digest)) => digest.to_string(),
                (Some(tag), None) => tag.to_owned(),
                (None, None) => "latest".to_owned(),
            };
            if version == "latest" && !given.ends_with(":latest") {
                say("Using default tag: latest")?;
            }
            Ok(say(&format!("{version}: Pulling from {}", reference.repository()))?)
        }
        other => Ok(say(&format!("Pulling from {other}"))?),
    }
}

fn short(source: &ImageSource) -> String {
    match source {
        ImageSource::Registry(reference) => reference.familiar(),
        other => other.to_string(),
    }
}
