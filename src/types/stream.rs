//! Bytes as they come.

mod file;

use std::any::Any;
use std::fs::File;
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::mpsc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::mpsc as pieces;

use self::file::FileStream;
#[cfg(feature = "engine")]
pub(crate) use self::file::{Next, poll_here, poll_movable};
use crate::error::{Error, Result};

/// Bytes as they come, on any executor. An `Err` ends them.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send + 'static>>;

/// How much is read at once, and how many such pieces may wait for who takes them.
const PIECE: usize = 256 << 10;
const AHEAD: usize = 4;

/// What a blocking reader gives, a file or a pipe say, from where it stands to its end: for archives that are loaded, imported
/// or copied into a container. It is read ahead, a megabyte at most, by a thread that ends with the stream; a read that is
/// under way (of a pipe that says nothing, say) ends first. A plain [`File`] that is copied into a container or a volume needs
/// no such thread: it is read by the one that writes. An error of the reader ends the stream.
///
/// ```no_run
/// # async fn load(engine: longshore::Engine) -> longshore::Result<()> {
/// let file = std::fs::File::open("image.tar").map_err(|error| longshore::Error::os("open the archive", error))?;
/// engine.load(longshore::types::reader_stream(file)?).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// `Os` if no thread can be had.
pub fn reader_stream(source: impl Read + Send + 'static) -> Result<ByteStream> {
    let mut source = Some(source);
    let file = (&mut source as &mut dyn Any).downcast_mut::<Option<File>>();
    if let Some(file) = file.and_then(|file| file.take_if(|file| is_plain(file))) {
        return Ok(FileStream::of(file).boxed());
    }
    match source {
        Some(source) => read_ahead(source),
        None => Err(Error::internal("a reader that went away")),
    }
}

/// Whether reads of it come to an end by themselves.
fn is_plain(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.is_file())
}

fn read_ahead(source: impl Read + Send + 'static) -> Result<ByteStream> {
    let (sender, receiver) = pieces::channel(AHEAD);
    std::thread::Builder::new()
        .name("longshore-read".into())
        .spawn(move || read(source, &sender))
        .map_err(|error| Error::os("start a thread to read", error))?;
    let pieces = stream::try_unfold(receiver, |mut receiver| async move {
        match receiver.recv().await {
            Some(Piece::Bytes(bytes)) => Ok(Some((bytes, receiver))),
            Some(Piece::Failed(error)) => Err(Error::os("read what was given", error)),
            Some(Piece::End) => Ok(None),
            // What came must not pass for all of it.
            None => Err(Error::internal("reading what was given ended early")),
        }
    });
    Ok(pieces.boxed())
}

enum Piece {
    Bytes(Bytes),
    Failed(io::Error),
    End,
}

fn read(mut source: impl Read, sender: &pieces::Sender<Piece>) {
    let (spent, returned) = mpsc::channel();
    loop {
        let mut buffer = returned.try_recv().unwrap_or_else(|_| vec![0; PIECE]);
        let piece = match fill(&mut source, &mut buffer) {
            Ok(0) => Piece::End,
            Ok(length) => Piece::Bytes(Bytes::from_owner(Filled {
                buffer,
                length,
                spent: spent.clone(),
            })),
            Err(error) => Piece::Failed(error),
        };
        let was_last = !matches!(piece, Piece::Bytes(_));
        if sender.blocking_send(piece).is_err() || was_last {
            return;
        }
    }
}

/// As much as one read gives: a pipe is not waited for until it has filled a piece.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match source.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// A buffer that is used again once nobody has it: memory that is new to the process costs more than what is read into it.
struct Filled {
    buffer: Vec<u8>,
    length: usize,
    spent: mpsc::Sender<Vec<u8>>,
}

impl AsRef<[u8]> for Filled {
    fn as_ref(&self) -> &[u8] {
        self.buffer.get(..self.length).unwrap_or(&[])
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        // Whoever reads has ended otherwise.
        let _ = self.spent.send(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    async fn all(mut stream: ByteStream) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(piece) = stream.next().await {
            all.extend_from_slice(&piece.unwrap());
        }
        all
    }

    #[tokio::test]
    async fn a_file_comes_whole_and_its_pieces_may_be_kept() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
        file.write_all(&bytes).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        let kept: Vec<Bytes> = reader_stream(file.try_clone().unwrap())
            .unwrap()
            .map(|piece| piece.unwrap())
            .collect()
            .await;
        assert_eq!(kept.concat(), bytes);
        std::io::Seek::rewind(&mut file).unwrap();
        assert_eq!(all(reader_stream(file).unwrap()).await, bytes);
    }

    #[tokio::test]
    async fn a_failed_read_is_told_once() {
        // Of a directory the kernel reads nothing: EISDIR.
        let dir = tempfile::tempdir().unwrap();
        let mut stream = reader_stream(File::open(dir.path()).unwrap()).unwrap();
        let error = stream.next().await.unwrap().unwrap_err();
        assert_eq!(error.errno(), Some(21));
        assert!(stream.next().await.is_none());
    }
}
