//! `push`: sends an image to a registry.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use longshore::{Digest, Platform, ProgressEvent, Reference};

use super::say;
use crate::context::Context;
use crate::failure::Failure;

/// Options of `push`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Platform to push, say linux/arm64
    #[arg(long)]
    platform: Option<Platform>,
    /// Print the name alone
    #[arg(short, long)]
    quiet: bool,
    /// The image's name, which says where it goes
    #[arg(value_name = "NAME")]
    name: Reference,
    /// Where to instead: a name in a registry, oci:DIR[:NAME], docker-archive:FILE[:NAME]
    #[arg(value_name = "DESTINATION")]
    to: Option<String>,
}

/// Pushes an image.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let name = args.name;
    if let Some(place) = args.to.as_ref().filter(|_| !args.quiet) {
        say(&format!("The push goes to {place}"))?;
    } else if !args.quiet {
        say(&format!(
            "The push refers to repository [{}/{}]",
            name.host(),
            name.repository()
        ))?;
    }
    let sent: Mutex<BTreeMap<Digest, u64>> = Mutex::default();
    let quiet = args.quiet;
    let mut push = engine.push(name.to_string()).progress(move |event| {
        if !quiet && let Some(line) = line(&mut sent.lock().unwrap_or_else(PoisonError::into_inner), &event) {
            // A push goes on where nobody listens any more.
            let _ = say(&line);
        }
    });
    if let Some(place) = args.to {
        push = push.to(place);
    }
    if let Some(platform) = args.platform {
        push = push.platform(platform);
    }
    let pushed = push.await?;
    if args.quiet {
        say(&name.familiar())?;
        return Ok(0);
    }
    let (tag, manifest) = (name.tag().unwrap_or("latest"), pushed.manifest);
    say(&format!("{tag}: digest: {} size: {}", manifest.digest, manifest.size))?;
    Ok(0)
}

/// Docker's words, once for each blob.
fn line(sent: &mut BTreeMap<Digest, u64>, event: &ProgressEvent) -> Option<String> {
    match event {
        ProgressEvent::Exists { digest, .. } => Some(format!("{}: Layer already exists", digest.short())),
        ProgressEvent::Uploaded { digest, bytes, size } => {
            let all = sent.entry(*digest).or_default();
            *all += bytes;
            (*all == *size).then(|| format!("{}: Pushed", digest.short()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_told_of_when_it_is_whole() {
        let mut sent = BTreeMap::new();
        let digest = Digest::of(b"x");
        let part = ProgressEvent::Uploaded {
            digest,
            bytes: 5,
            size: 10,
        };
        assert_eq!(line(&mut sent, &part), None);
        assert_eq!(line(&mut sent, &part), Some(format!("{}: Pushed", digest.short())));
    }
}
