//! Archives between files or standard streams and the engine.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use futures_util::StreamExt as _;
use longshore::images::ByteStream;
use longshore::types::reader_stream;

/// A file's bytes, or those of stdin.
pub fn read(path: Option<&Path>) -> io::Result<ByteStream> {
    let stream = match path {
        Some(path) => reader_stream(File::open(path)?),
        None => reader_stream(io::stdin()),
    };
    stream.map_err(io::Error::other)
}

/// Writes an archive to stdout.
pub async fn write_out(mut archive: ByteStream) -> Result<(), crate::failure::Failure> {
    while let Some(piece) = archive.next().await {
        io::stdout().lock().write_all(&piece?)?;
    }
    Ok(io::stdout().lock().flush()?)
}

/// Writes an archive to a file, which is there whole or not at all.
pub async fn write_file(mut archive: ByteStream, path: &Path) -> Result<(), crate::failure::Failure> {
    let part = PartFile::create(path)?;
    while let Some(piece) = archive.next().await {
        (&part.file).write_all(&piece?)?;
    }
    Ok(part.finish(path)?)
}

/// A file under another name until it is whole.
struct PartFile {
    file: File,
    path: PathBuf,
    whole: bool,
}

impl PartFile {
    fn create(target: &Path) -> io::Result<Self> {
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let path = target.with_file_name(name);
        let file = File::create_new(&path)?;
        Ok(Self {
            file,
            path,
            whole: false,
        })
    }

    fn finish(mut self, target: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, target)?;
        self.whole = true;
        Ok(())
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if !self.whole {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
