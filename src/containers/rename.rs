//! `rename`: another name, by which others on its networks find it at once; the host name inside stays.

use super::local::Shared;
use super::state::{Verb, decide};
use crate::error::{Error, ObjectKind, Result};
use crate::types::{ContainerName, Outcome};

impl Shared {
    pub(crate) async fn rename(&self, name: &str, new_name: &str) -> Result<()> {
        let new_name: ContainerName = new_name.parse()?;
        let record = self.find(name).await?;
        if let Some(elsewhere) = self.elsewhere(&record) {
            return elsewhere.rename(new_name.as_str()).await;
        }
        let slot = self.slot_of(&record);
        let _turn = self.turn(&record.id, &slot).await?;
        let mut record = self.read_in_turn(&record.id, &slot).await?;
        decide(&record.id, record.state, Verb::Rename)?;
        let old_name = std::mem::replace(&mut record.name, new_name.clone());
        // Docker's names have a slash here.
        let event = self.event(&record, "rename").with("oldName", format!("/{old_name}"));
        let id = record.id.clone();
        let renamed = self
            .parts
            .store
            .call(move |store| store.rename_container(&id, &new_name, Some(&event)))
            .await?;
        match renamed {
            Outcome::Done => self.rename_in_networks(&mut record, old_name.as_str()).await,
            Outcome::Already => Err(Error::invalid(format!("container {} has that name", record.id.short()))
                .with_object(ObjectKind::Container, old_name.as_str())),
        }
    }
}
