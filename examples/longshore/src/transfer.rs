//! Archives between files or standard streams and the engine.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use futures_util::{StreamExt as _, stream};
use longshore::Error;
use longshore::images::ByteStream;

/// How much is read at a time.
const CHUNK: usize = 1 << 20;

/// A file's bytes, or those of stdin. They are read on a thread of their own: a pipe may be slow, and the engine must not
/// wait for it.
pub fn read(path: Option<&Path>) -> io::Result<ByteStream> {
    match path {
        Some(path) => read_from(Box::new(File::open(path)?)),
        None => read_from(Box::new(io::stdin())),
    }
}

/// The bytes of any reader.
pub fn read_from(mut source: Box<dyn Read + Send>) -> io::Result<ByteStream> {
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    std::thread::Builder::new().name("archive".into()).spawn(move || {
        loop {
            let mut piece = Vec::with_capacity(CHUNK);
            let read = source.by_ref().take(CHUNK as u64).read_to_end(&mut piece);
            let (next, last) = match read {
                Ok(0) => return,
                Ok(_) => (Ok(piece.into()), false),
                Err(error) => (Err(Error::os("read the archive", error)), true),
            };
            if sender.blocking_send(next).is_err() || last {
                return;
            }
        }
    })?;
    let next = |mut receiver: tokio::sync::mpsc::Receiver<_>| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    };
    Ok(stream::unfold(receiver, next).boxed())
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
