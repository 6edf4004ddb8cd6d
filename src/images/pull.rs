//! `pull`: fetches an image and unpacks it.
//!
//! Everything that is fetched is leased before it is looked for, so that a removal beside the pull cannot take it away in
//! between.

use std::collections::HashSet;
use std::sync::Arc;

use super::install::Arrival;
use super::local::LocalImages;
use super::lookup::by_name_for;
use super::origin::{Chosen, Origin};
use super::{ImageInfo, Pull, PullRequest};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::progress::{Progress, ProgressEvent};
use crate::store::{ImageRecord, Lease, Node, NodeKind};
use crate::types::{ImageSource, Platform, Reference};

impl LocalImages {
    pub(super) async fn pull_and_tell(&self, request: PullRequest, progress: Progress) -> Result<ImageInfo> {
        let mut ending = Ending::new(&progress);
        let result = self.pull_unless_here(&request, &progress).await;
        ending.tell(match &result {
            Ok(info) => ProgressEvent::Done { image: info.id },
            Err(error) => ProgressEvent::Failed {
                message: error.report(),
            },
        });
        result
    }

    async fn pull_unless_here(&self, request: &PullRequest, progress: &Progress) -> Result<ImageInfo> {
        if let ImageSource::Registry(reference) = &request.source
            && matches!(request.policy, Pull::Missing | Pull::Never)
        {
            self.bring(&reference.to_string()).await?;
            if let Some(record) = self.here(reference, request.platform.as_ref()).await? {
                return self.info_of(record).await;
            }
            if request.policy == Pull::Never {
                return Err(not_here(reference, request.platform.as_ref()));
            }
        }
        let fetched = self.ask_and_fetch(request, progress).await;
        match (fetched, &request.source) {
            (Err(error), ImageSource::Registry(reference))
                if request.policy == Pull::Newer && is_out_of_reach(&error) =>
            {
                let here = self.here(reference, request.platform.as_ref()).await?;
                tracing::info!(image = %reference, error = %error, "no news of an image; taking the one that is here");
                self.info_of(here.ok_or(error)?).await
            }
            (fetched, _) => fetched,
        }
    }

    async fn ask_and_fetch(&self, request: &PullRequest, progress: &Progress) -> Result<ImageInfo> {
        if let ImageSource::DockerArchive { file, name } = &request.source {
            let platform = request.platform.as_ref();
            return self.pull_archive(file, name.as_ref(), platform, progress).await;
        }
        let origin = Origin::open(request, self.parts.registries.as_ref()).await?;
        self.fetch(&origin, request.platform.as_ref(), progress).await
    }

    /// The image of that name, if it is here for the platform.
    async fn here(&self, name: &Reference, platform: Option<&Platform>) -> Result<Option<ImageRecord>> {
        let (name, platform) = (name.clone(), platform.cloned());
        self.parts
            .store
            .call(move |store| by_name_for(store, &name, platform.as_ref()))
            .await
    }

    async fn fetch(&self, origin: &Origin, platform: Option<&Platform>, progress: &Progress) -> Result<ImageInfo> {
        let mut chosen = origin.choose(&platform.cloned().unwrap_or_else(Platform::host)).await?;
        if origin.names.is_empty() {
            // Nobody would stand for it.
            chosen.index = None;
        }
        let owner = self.parts.owner.clone();
        let lease = Arc::new(self.parts.store.call(move |store| store.lease(&owner)).await?);
        let mut held = blobs_of(&chosen);
        held.extend(chosen.index.iter().map(|index| Node::blob(&index.descriptor.digest)));
        let arrival = Arrival {
            chosen: &chosen,
            source: origin.blobs(),
            offers: None,
            fresh: None,
            names: &origin.names,
            shown: &origin.shown,
            platform,
            action: "pull",
        };
        let result = self.install(&arrival, &lease, &mut held, progress).await;
        let left = match &result {
            Ok(info) => unneeded(held, info, &chosen),
            Err(error) if is_final(error) => held,
            Err(_) => Vec::new(),
        };
        if let Err(error) = self.let_go(lease, left).await {
            // The image is here, or the pull has failed for a reason that says more: whoever clears up next has this too.
            tracing::warn!(error = error.report(), "what a pull held could not be let go");
        }
        result
    }

    async fn let_go(&self, lease: Arc<Lease>, unused: Vec<Node>) -> Result<()> {
        if let Ok(lease) = Arc::try_unwrap(lease) {
            self.parts.store.call(move |_| lease.release()).await?;
        }
        self.remove_unused(unused).await.map(drop)
    }
}

/// What was held and is not needed, since the image was here with other blobs.
fn unneeded(mut held: Vec<Node>, info: &ImageInfo, chosen: &Chosen) -> Vec<Node> {
    let blobs = [&info.manifest.digest, &info.id]
        .into_iter()
        .chain(info.layers.iter().map(|layer| &layer.descriptor.digest))
        .chain(chosen.index.iter().map(|index| &index.descriptor.digest));
    let needed: HashSet<Node> = blobs.map(Node::blob).collect();
    held.retain(|node| node.kind == NodeKind::Blob && !needed.contains(node));
    held
}

pub(super) fn blobs_of(chosen: &Chosen) -> Vec<Node> {
    let descriptors = [&chosen.blob.descriptor, &chosen.manifest.config]
        .into_iter()
        .chain(&chosen.manifest.layers);
    descriptors.map(|descriptor| Node::blob(&descriptor.digest)).collect()
}

fn not_here(reference: &Reference, platform: Option<&Platform>) -> Error {
    let name = reference.familiar();
    let platform = platform.map(|platform| format!(" for {platform}")).unwrap_or_default();
    let message = format!("the image {name} is not here{platform}, and the pull policy is never");
    Error::new(ErrorKind::NotFound, message).with_object(ObjectKind::Image, name)
}

/// Whether the registry could not be asked.
fn is_out_of_reach(error: &Error) -> bool {
    use ErrorKind::{RateLimited, Timeout, Unavailable};
    matches!(error.kind(), Unavailable | Timeout | RateLimited { .. })
}

/// Whether trying again cannot help, so that what was fetched is of no use.
fn is_final(error: &Error) -> bool {
    use ErrorKind::{DigestMismatch, InvalidArgument, NotFound, UnsafeArchive, Unsupported};
    matches!(
        error.kind(),
        DigestMismatch | InvalidArgument | NotFound | UnsafeArchive | Unsupported { .. }
    )
}

/// Sees to it that progress ends with one event, even where the pull is dropped.
pub(super) struct Ending {
    progress: Option<Progress>,
}

impl Ending {
    pub(super) fn new(progress: &Progress) -> Self {
        Self {
            progress: Some(progress.clone()),
        }
    }

    pub(super) fn tell(&mut self, event: ProgressEvent) {
        if let Some(progress) = self.progress.take() {
            progress.report(event);
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.tell(ProgressEvent::Failed {
            message: "cancelled".to_owned(),
        });
    }
}
