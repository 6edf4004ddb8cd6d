//! What killed processes left among the volumes: what counts is recorded again, the rest goes.

use std::collections::HashSet;

use super::files::Other;
use super::local::Shared;
use super::record::{Note, Record};
use crate::error::Result;
use crate::sys::blocking::blocking;
use crate::types::{OwnerId, VolumeName};

impl Shared {
    /// Removes half-made directories, and records volumes that are whole and have no record (their database was lost, or
    /// their process killed just before); how many there were of both.
    pub(crate) async fn sweep(&self) -> Result<(usize, usize)> {
        let files = self.files.clone();
        let (there, others) = blocking(move || files.list()).await?;
        let rows = self.parts.store.call(|store| store.volumes()).await?;
        let known: HashSet<VolumeName> = rows.into_iter().map(|row| row.name).collect();
        let (mut removed, mut adopted) = (0, 0);
        for (name, other) in others {
            if let Other::Work(owner) = other
                && !self.lives(&owner).await?
            {
                self.clear_work(&name, &known).await?;
                removed += 1;
            }
        }
        for name in there.iter().filter(|name| known.contains(*name)) {
            removed += usize::from(self.clear_filling(name).await?);
        }
        for name in there.into_iter().filter(|name| !known.contains(name)) {
            match self.settle_stray(&name).await? {
                Some(true) => adopted += 1,
                Some(false) => removed += 1,
                None => {}
            }
        }
        Ok((removed, adopted))
    }

    /// What a killed process was about to fill a volume with; whether there was any, and nobody is at it.
    async fn clear_filling(&self, name: &VolumeName) -> Result<bool> {
        let (locks, key, files, name) = (
            self.parts.locks.clone(),
            Self::key(name),
            self.files.clone(),
            name.clone(),
        );
        blocking(move || match locks.try_lock(&key)? {
            Some(_held) => files.clear_filling(&name),
            None => Ok(false),
        })
        .await
    }

    async fn lives(&self, owner: &str) -> Result<bool> {
        let Ok(owner) = owner.parse::<OwnerId>() else {
            return Ok(false);
        };
        if owner == self.parts.owner {
            return Ok(true);
        }
        let owners = self.parts.owners.clone();
        blocking(move || owners.is_alive(&owner)).await
    }

    /// Put aside by a process that died before its record went: it is there still.
    async fn clear_work(&self, name: &str, known: &HashSet<VolumeName>) -> Result<()> {
        let (files, name, known) = (self.files.clone(), name.to_owned(), known.clone());
        blocking(move || {
            if let Some(volume) = files.aside(&name)?
                && known.contains(&volume)
                && !files.is_there(&volume)
            {
                return files.put_back(&files.at(&name), &volume);
            }
            files.delete(&files.at(&name))
        })
        .await
    }

    /// A directory without a record: whether it was recorded or removed; `None` if somebody is at it.
    async fn settle_stray(&self, name: &VolumeName) -> Result<Option<bool>> {
        let locks = self.parts.locks.clone();
        let key = Self::key(name);
        let Some(_held) = blocking(move || locks.try_lock(&key)).await? else {
            return Ok(None);
        };
        match self.read(name).await {
            Ok(_) => return Ok(None),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        let (files, wanted) = (self.files.clone(), name.clone());
        match blocking(move || files.note(&wanted)).await? {
            Some(note) if note.owner.is_none() => {
                let row = recorded(note).to_row()?;
                self.parts
                    .store
                    .call(move |store| store.insert_volume(&row, None))
                    .await?;
                Ok(Some(true))
            }
            // Of a bound container that is being made, or was by a process that is dead.
            Some(Note { owner: Some(owner), .. }) if self.lives(&owner).await? => Ok(None),
            _ => {
                let (files, name) = (self.files.clone(), name.clone());
                blocking(move || files.remove(&name)).await?;
                Ok(Some(false))
            }
        }
    }

    /// What is wrong with the volumes, for the audit: names with words.
    pub(crate) async fn findings(&self) -> Result<Vec<(String, String)>> {
        let files = self.files.clone();
        let (there, others) = blocking(move || files.list()).await?;
        let rows = self.parts.store.call(|store| store.volumes()).await?;
        let mut found = Vec::new();
        for row in rows {
            let record = Record::from_row(row)?;
            if self.is_dead(&record).await? {
                found.push((
                    record.name.to_string(),
                    "its owner is dead; reconcile removes it".to_owned(),
                ));
            } else if !there.contains(&record.name) {
                found.push((record.name.to_string(), "its directory is missing".to_owned()));
            } else if record.owner.is_some() && self.info(&record).await?.users.is_empty() {
                found.push((
                    record.name.to_string(),
                    "it is anonymous, and no container has it".to_owned(),
                ));
            }
        }
        for name in there {
            if self.read(&name).await.is_err() && !self.is_begun(&name).await? {
                found.push((name.to_string(), "it has no record; reconcile settles that".to_owned()));
            }
        }
        for (name, other) in others {
            match other {
                Other::Work(owner) if self.lives(&owner).await? => {}
                Other::Work(_) => found.push((name, "who was at it is dead; reconcile removes it".to_owned())),
                Other::Foreign => found.push((name, "no volume can be called that".to_owned())),
            }
        }
        Ok(found)
    }

    /// Whether a living process may be making it.
    async fn is_begun(&self, name: &VolumeName) -> Result<bool> {
        let (files, wanted) = (self.files.clone(), name.clone());
        match blocking(move || files.note(&wanted)).await? {
            Some(Note { owner: Some(owner), .. }) => self.lives(&owner).await,
            _ => {
                let (locks, key) = (self.parts.locks.clone(), Self::key(name));
                Ok(blocking(move || locks.try_lock(&key)).await?.is_none())
            }
        }
    }
}

fn recorded(note: Note) -> Record {
    Record {
        name: note.name,
        owner: None,
        created_ns: note.created_ns,
        body: note.body,
    }
}
