//! `push` to `docker-archive:FILE`: an archive as `save` writes it, in a file that is whole or not there.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use futures_util::StreamExt as _;

use super::local::LocalImages;
use super::save::Saving;
use super::{ArchiveFormat, ByteStream, PushRequest, Pushed, lookup};
use crate::error::{Error, Result};
use crate::progress::{Progress, ProgressEvent};
use crate::storage::files::{blocking, random_name};
use crate::store::ImageRecord;
use crate::types::Reference;

impl LocalImages {
    pub(super) async fn push_archive(
        &self,
        request: &PushRequest,
        file: &Path,
        name: Option<&Reference>,
        progress: &Progress,
    ) -> Result<(Pushed, ImageRecord)> {
        let text = request.name.to_string();
        let platform = request.platform.clone();
        let saving = self.saving(&[text], platform, ArchiveFormat::Docker, name).await?;
        let Saving { tops, records, stream } = saving;
        let (Some(manifest), Some(record)) = (tops.into_iter().next(), records.into_iter().next()) else {
            return Err(lookup::missing(&request.name.familiar()));
        };
        progress.report(ProgressEvent::Resolved {
            manifest: manifest.digest,
            layers: record.layers.len(),
            total_bytes: 0,
        });
        write_file(stream, file).await?;
        self.tell("push", record.id, Some(&request.name)).await;
        Ok((Pushed { manifest }, record))
    }
}

/// Writes an archive to a file, which is there when it is whole.
pub(super) async fn write_file(mut stream: ByteStream, file: &Path) -> Result<()> {
    let place = file.to_owned();
    let mut target = blocking(move || Target::make(&place)).await?;
    while let Some(piece) = stream.next().await {
        let piece = piece?;
        target = blocking(move || target.add(&piece)).await?;
    }
    blocking(move || target.keep()).await
}

/// A file beside the one that it becomes; it goes unless it does.
#[derive(Debug)]
struct Target {
    file: File,
    temporary: PathBuf,
    place: PathBuf,
}

fn failed(error: std::io::Error) -> Error {
    Error::os("write the archive", error)
}

impl Target {
    fn make(place: &Path) -> Result<Self> {
        let mut name = place.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}", random_name(8)?));
        let temporary = place.with_file_name(name);
        Ok(Self {
            file: File::create_new(&temporary).map_err(failed)?,
            temporary,
            place: place.to_owned(),
        })
    }

    fn add(mut self, bytes: &[u8]) -> Result<Self> {
        self.file.write_all(bytes).map_err(failed)?;
        Ok(self)
    }

    fn keep(self) -> Result<()> {
        self.file.sync_data().map_err(failed)?;
        fs::rename(&self.temporary, &self.place).map_err(failed)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // Gone already where it was kept.
        let _ = fs::remove_file(&self.temporary);
    }
}
