//! `audit`: compares what is recorded with what is really there.

use std::collections::HashSet;

use super::local::Parts;
use crate::error::Result;
use crate::storage::files::blocking;

/// What [`Engine::audit`](crate::Engine::audit) found that should not be there. Empty is good.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Audit {
    /// Each thing that is left over, in words.
    pub findings: Vec<String>,
}

impl Audit {
    /// Whether nothing is left over.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

impl Parts {
    /// Compares what is recorded with what is on disk.
    pub(super) async fn audit(&self) -> Result<Audit> {
        let mut findings = Vec::new();
        let owners = self.owners.clone();
        for id in blocking(move || owners.dead()).await? {
            findings.push(format!("owner {} is dead and not cleared", id.short()));
        }
        let rows = self.store.call(|store| store.containers()).await?;
        let known: HashSet<String> = rows.iter().map(|row| row.id.to_string()).collect();
        for key in self.snapshotter.active().await? {
            let container = key.strip_prefix("c-");
            if container.is_some_and(|id| !known.contains(id)) {
                findings.push(format!("writable layer {key} belongs to no container"));
            }
        }
        findings.extend(self.containers.0.stray_directories(&known)?);
        findings.extend(self.incomplete_images().await?);
        Ok(Audit { findings })
    }

    /// Images that are listed must be complete.
    async fn incomplete_images(&self) -> Result<Vec<String>> {
        use crate::storage::content::ContentStore as _;
        let mut findings = Vec::new();
        for entry in self.store.call(|store| store.images()).await? {
            let record = entry.record;
            for blob in [&record.manifest, &record.config]
                .into_iter()
                .chain(record.layers.iter().map(|layer| &layer.descriptor))
            {
                if self.content.info(&blob.digest).await?.is_none() {
                    findings.push(format!("image {} lacks blob {}", record.id.short(), blob.digest));
                }
            }
            for chain in record.chain_ids() {
                if !self.snapshotter.exists(&chain).await? {
                    findings.push(format!("image {} lacks layer {chain}", record.id.short()));
                }
            }
        }
        Ok(findings)
    }
}
