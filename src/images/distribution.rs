//! `distribution`: what a registry holds under a name. Nothing is kept.

use super::local::LocalImages;
use super::origin::Origin;
use super::{Distribution, PullRequest};
use crate::error::Result;
use crate::registry::Credentials;
use crate::types::{ImageSource, Reference};

impl LocalImages {
    pub(super) async fn distribution_of(&self, image: &Reference, credentials: Credentials) -> Result<Distribution> {
        let mut request = PullRequest::new(ImageSource::Registry(image.clone()));
        request.credentials = Some(credentials);
        let origin = Origin::open(&request, self.parts.registries.as_ref()).await?;
        origin.distribution().await
    }
}
