//! `audit`: compares what is recorded with what is really there, on disk and in the kernel.
//!
//! What the dead left is cleared away first, as any verb that met it would: it says how much that was. What remains then is
//! what nobody clears away by himself. Where the clearing fails, its remains are found.
//!
//! Others work on the same root meanwhile, and between two system calls of a verb things look strayed that are not. So what
//! is found is looked for again, for longer than any verb takes to go on and than a helper takes to clean up after its
//! owner: only what stays exactly as it is counts. What belongs to a live owner is not reported.

mod disk;
mod kernel;
mod records;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::Reconciled;
use super::local::Parts;
use crate::containers::{Record, nobody_of};
use crate::error::Result;
use crate::storage::files::blocking;
use crate::types::OwnerId;

/// How often what was found is looked for again, and after how long each. Together longer than a helper's clean-up.
const LOOKS: usize = 11;
const PAUSE: Duration = Duration::from_millis(200);

/// What [`Engine::audit`](crate::Engine::audit) found that should not be there. Empty is good.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Audit {
    /// Each thing that is left over, or missing.
    pub findings: Vec<Finding>,
    /// What dead owners had left: it was cleared away before the look.
    pub cleared: Reconciled,
}

impl Audit {
    /// Whether nothing is left over.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

/// A thing that is left over, or missing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Finding {
    /// What sort of thing it is.
    pub kind: FindingKind,
    /// Its id, name or path.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
}

/// What sort of thing was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// An owner of containers: the directory of an engine.
    Owner,
    /// The record of a container.
    Container,
    /// The record of an image.
    Image,
    /// A layer: a container's writable one, or one that was being unpacked.
    Layer,
    /// A volume: its record or its directory.
    Volume,
    /// A directory or a file below the root.
    File,
    /// The file of a lock.
    Lock,
    /// A cgroup.
    Cgroup,
    /// A mount.
    Mount,
    /// A process.
    Process,
    /// A bridge, a link or a rule of a network.
    Network,
}

impl FindingKind {
    /// The word in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Container => "container",
            Self::Image => "image",
            Self::Layer => "layer",
            Self::Volume => "volume",
            Self::File => "file",
            Self::Lock => "lock",
            Self::Cgroup => "cgroup",
            Self::Mount => "mount",
            Self::Process => "process",
            Self::Network => "network",
        }
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Finding {
    pub(super) fn new(kind: FindingKind, object: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            kind,
            object: object.into(),
            what: what.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.kind, self.object, self.what)
    }
}

/// What is recorded, and who lives.
struct Facts {
    root: PathBuf,
    /// Every owner, and whether it lives.
    owners: HashMap<OwnerId, bool>,
    containers: Vec<Record>,
    /// Keys of snapshots that are written to.
    active: Vec<String>,
}

impl Facts {
    fn lives(&self, owner: &OwnerId) -> bool {
        self.owners.get(owner).copied().unwrap_or(false)
    }

    /// Whether a container's things are nobody else's to judge.
    fn is_kept(&self, record: &Record) -> bool {
        record.owner.as_ref().is_none_or(|owner| self.lives(owner))
    }

    fn container(&self, id: &str) -> Option<&Record> {
        self.containers.iter().find(|record| record.id.as_str() == id)
    }
}

impl Parts {
    pub(super) async fn audit(&self) -> Result<Audit> {
        let mut cleared = self.clear_quietly().await;
        let mut findings = self.look().await?;
        for _ in 0..LOOKS {
            if findings.is_empty() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            // Who was on its way out before may be dead by now.
            cleared.add(self.clear_quietly().await);
            let again: HashSet<Finding> = self.look().await?.into_iter().collect();
            findings.retain(|finding| again.contains(finding));
        }
        Ok(Audit { findings, cleared })
    }

    async fn clear_quietly(&self) -> Reconciled {
        self.clear_remains().await.unwrap_or_else(|error| {
            tracing::warn!(error = error.report(), "remains of dead owners could not be removed");
            Reconciled::default()
        })
    }

    /// One look: what seems to be wrong at this moment.
    async fn look(&self) -> Result<Vec<Finding>> {
        let facts = self.facts().await?;
        let cgroups = self.cgroups.owner_directories();
        let mut findings = blocking(move || {
            let mut findings = records::findings(&facts);
            findings.extend(disk::findings(&facts)?);
            findings.extend(kernel::findings(&facts, &cgroups));
            Ok(findings)
        })
        .await?;
        #[cfg(feature = "network")]
        {
            let networks = self.networks.clone();
            let lost = blocking(move || networks.audit()).await?;
            let found = |(object, what)| Finding::new(FindingKind::Network, object, what);
            findings.extend(lost.into_iter().map(found));
        }
        findings.extend(self.incomplete_images().await?);
        let volumes = self.volumes.0.findings().await?.into_iter();
        findings.extend(volumes.map(|(name, what)| Finding::new(FindingKind::Volume, name, what)));
        Ok(findings)
    }

    async fn facts(&self) -> Result<Facts> {
        let active = self.snapshotter.active().await?;
        let rows = self.store.call(|store| store.containers()).await?;
        let mut containers = Vec::new();
        for row in rows {
            containers.extend(self.containers.0.settled(Record::from_row(row)?).await?);
        }
        let (owners, root) = (self.owners.clone(), self.root.path().to_owned());
        let of = root.clone();
        let owners = blocking(move || {
            let alive = |id: OwnerId| owners.is_alive(&id).map(|alive| (id, alive));
            let mut owners = owners
                .list()?
                .into_iter()
                .map(alive)
                .collect::<Result<HashMap<_, _>>>()?;
            // In whose name the cgroups of detached containers are: always there.
            owners.insert(nobody_of(&of)?, true);
            Ok(owners)
        })
        .await?;
        Ok(Facts {
            root,
            owners,
            containers,
            active,
        })
    }

    /// Images that are listed must be complete.
    async fn incomplete_images(&self) -> Result<Vec<Finding>> {
        use crate::storage::content::ContentStore as _;
        let lacks = |image: String, what: String| Finding::new(FindingKind::Image, image, what);
        let mut findings = Vec::new();
        for entry in self.store.call(|store| store.images()).await? {
            let record = entry.record;
            let layers = record.layers.iter().map(|layer| &layer.descriptor);
            for blob in [&record.manifest, &record.config].into_iter().chain(layers) {
                if self.content.info(&blob.digest).await?.is_none() {
                    findings.push(lacks(record.id.short(), format!("its blob {} is missing", blob.digest)));
                }
            }
            for chain in record.chain_ids() {
                if !self.snapshotter.exists(&chain).await? {
                    findings.push(lacks(
                        record.id.short(),
                        format!("its layer {chain} is missing or was lost with the power; reconcile unpacks it anew"),
                    ));
                }
            }
        }
        Ok(findings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_reads_as_a_sentence() {
        let finding = Finding::new(FindingKind::Lock, "k.x", "nobody holds it");
        assert_eq!(finding.to_string(), "lock k.x: nobody holds it");
    }
}
