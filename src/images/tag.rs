//! `tag`: points a name at an image.

use super::local::LocalImages;
use super::lookup::find;
use crate::error::{Error, Result};
use crate::types::{Outcome, Reference};

impl LocalImages {
    pub(super) async fn tag_named(&self, image: &str, name: &Reference) -> Result<Outcome> {
        if name.tag().is_none() || name.digest().is_some() {
            return Err(Error::invalid(format!(
                "cannot tag an image as {name}: a name with a tag and without a digest is needed"
            )));
        }
        let (image, target) = (image.to_owned(), name.clone());
        let (id, outcome, freed) = self
            .parts
            .store
            .call(move |store| {
                let found = find(store, &image)?;
                let id = found.record.id;
                let (outcome, freed) = match &found.name {
                    // All platforms come along.
                    Some(name) => store.tag_like(&target, name)?,
                    None => store.tag_as(&target, &id, None)?,
                };
                Ok((id, outcome, freed))
            })
            .await?;
        self.remove_unused(freed).await?;
        if outcome == Outcome::Done {
            self.tell("tag", id, Some(name)).await;
        }
        Ok(outcome)
    }
}
