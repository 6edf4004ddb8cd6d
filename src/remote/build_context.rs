//! The context of a build on its way to an engine elsewhere: a tar, or the address of one.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use tokio::sync::oneshot;

use crate::build::context::{self, ContextSource, Opened, Services, Tree};
use crate::build::copy::{self, Files, Times};
use crate::build::plan::CopyAction;
use crate::build::spec::Recipe;
use crate::error::{Error, Result};
use crate::images::ByteStream;
use crate::sys::blocking::blocking;
use crate::types::reader_stream;

/// The name of a Dockerfile that is not in the context. It is ignored, so that no instruction sees it.
const OWN: &str = ".longshore.Dockerfile";
/// What is left out with it. BuildKit and longshore read ignore files of one Dockerfile.
const OWN_IGNORE: &str = ".longshore.Dockerfile.dockerignore";
/// A Dockerfile is no longer.
const MAX_TEXT: usize = 4 << 20;
/// Where a tar says that it is one.
const USTAR: std::ops::Range<usize> = 257..262;

/// What is sent.
pub(super) struct Sent {
    /// The body; nothing where the other end fetches it.
    pub(super) body: Option<ByteStream>,
    /// An address that the other end fetches.
    pub(super) address: Option<String>,
    /// The Dockerfile's path in it.
    pub(super) dockerfile: Option<String>,
}

/// Makes a body of a context and a recipe.
///
/// # Errors
/// `NotFound`, `InvalidArgument`, `Denied` of the context; `Unsupported` for what cannot be sent.
pub(super) async fn sent(source: ContextSource, recipe: &Recipe, ignore: Option<String>) -> Result<Sent> {
    if ignore.is_some() && !matches!(source, ContextSource::Directory(_)) {
        let needs = "an engine in this process, or a directory as the context: what is sent is left as it is";
        return Err(Error::unsupported("an ignore file that is not in the context", needs));
    }
    let elsewhere = match recipe {
        Recipe::File(_) => None,
        Recipe::Text(text) => Some(text.clone()),
        Recipe::Stages(_) => {
            let needs = "an engine in this process, or a Dockerfile: the Engine API has no words for steps";
            return Err(Error::unsupported("steps made in Rust elsewhere", needs));
        }
    };
    let named = match recipe {
        Recipe::File(name) => name.clone(),
        _ => None,
    };
    let body = |body: ByteStream, dockerfile: Option<String>| Sent {
        body: Some(body),
        address: None,
        dockerfile,
    };
    match (source, elsewhere) {
        (ContextSource::Directory(path), text) => directory(path, named, text, ignore).await,
        (ContextSource::Dockerfile(text), None) | (ContextSource::Empty, Some(text)) => {
            Ok(body(alone(text.as_bytes())?, Some(OWN.to_owned())))
        }
        (ContextSource::Tar(stream), None) => Ok(body(stream, named)),
        (ContextSource::Stream(stream), None) => match archive_or_text(stream).await? {
            Either::Archive(stream) => Ok(body(stream, named)),
            Either::Text(text) => Ok(body(alone(&text)?, Some(OWN.to_owned()))),
        },
        (ContextSource::Url(url) | ContextSource::Git(url), None) => Ok(Sent {
            body: None,
            address: Some(url),
            dockerfile: named,
        }),
        (ContextSource::Image(_) | ContextSource::Layout(..), _) => {
            Err(Error::invalid("the context of a build is files: an image is none"))
        }
        (ContextSource::Empty, None) => Err(Error::invalid("there is no Dockerfile: give its text")),
        (_, Some(_)) => {
            let needs = "an engine in this process, or a directory as the context";
            Err(Error::unsupported(
                "a Dockerfile beside a context that is a stream or an address",
                needs,
            ))
        }
    }
}

/// A tar of nothing but a Dockerfile.
fn alone(text: &[u8]) -> Result<ByteStream> {
    let mut tar = Vec::new();
    entry(&mut tar, OWN, text)?;
    entry(&mut tar, OWN_IGNORE, b"*\n")?;
    tar.extend_from_slice(&[0; 1024]);
    Ok(stream::iter([Ok(Bytes::from(tar))]).boxed())
}

/// A directory without what its ignore file leaves out, and with the Dockerfile in any case.
async fn directory(path: PathBuf, named: Option<String>, text: Option<String>, ignore: Option<String>) -> Result<Sent> {
    // Nothing is fetched for a directory, so nothing is put anywhere.
    let services = Services::new(PathBuf::new());
    let Opened::Context(mut context) = context::open(ContextSource::Directory(path), &services).await? else {
        return Err(Error::internal("a directory that is no context"));
    };
    let (context, name, head) = blocking(move || {
        let mut head = Vec::new();
        let name = match text {
            Some(text) => {
                context.set_ignore(None)?;
                entry(&mut head, OWN, text.as_bytes())?;
                entry(&mut head, OWN_IGNORE, format!("{OWN}\n{OWN_IGNORE}\n").as_bytes())?;
                OWN.to_owned()
            }
            None => {
                let (name, text) = context.dockerfile(named.as_deref())?;
                entry(&mut head, name.trim_start_matches('/'), &text)?;
                name
            }
        };
        if let Some(ignore) = ignore {
            context.set_ignore_text(&ignore)?;
        }
        Ok((context, name, head))
    })
    .await?;
    Ok(Sent {
        body: Some(tar_of(context.tree(), head, &services).await?),
        address: None,
        dockerfile: Some(name),
    })
}

/// The files of a tree behind some entries, as they are read.
async fn tar_of(tree: Tree, head: Vec<u8>, services: &Services) -> Result<ByteStream> {
    let all = Files::Copy(CopyAction::new(["."], "/"));
    let gathered = copy::gather(all, Some(tree), services).await?;
    let (read, write) = io::pipe().map_err(|error| Error::os("make a pipe", error))?;
    let (ended, end) = oneshot::channel();
    std::thread::Builder::new()
        .name("longshore-context".into())
        .spawn(move || {
            let mut out = BufWriter::with_capacity(1 << 18, write);
            let failed = |error| Error::os("send the build context", error);
            let written = out.write_all(&head).map_err(failed);
            let written = written.and_then(|()| gathered.write(None, Times::Real, &mut out).map(drop));
            // Told before the pipe is closed, whose end says that it was.
            let _ = ended.send(written.and_then(|()| out.flush().map_err(failed)));
        })
        .map_err(|error| Error::os("start a thread for a build context", error))?;
    let file = std::fs::File::from(std::os::fd::OwnedFd::from(read));
    let ended = stream::once(async move {
        match end.await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(Err(error)),
            Err(_) => Some(Err(Error::internal("reading a build context ended early"))),
        }
    });
    Ok(reader_stream(file)?
        .chain(ended.filter_map(|end| async { end }))
        .boxed())
}

enum Either {
    Archive(ByteStream),
    Text(Vec<u8>),
}

/// What a stream is, by its first bytes.
async fn archive_or_text(mut from: ByteStream) -> Result<Either> {
    let mut head = BytesMut::new();
    while head.len() < USTAR.end {
        match from.next().await {
            Some(piece) => head.extend_from_slice(&piece?),
            None => break,
        }
    }
    let packed = [
        &[0x1f, 0x8b][..],
        &[0x28, 0xb5, 0x2f, 0xfd],
        &[0xfd, b'7', b'z', b'X', b'Z'],
        b"BZh",
    ];
    let is_tar = head.get(USTAR).is_some_and(|magic| magic == b"ustar");
    if is_tar || packed.iter().any(|magic| head.starts_with(magic)) {
        let first = stream::iter([Ok(head.freeze())]);
        return Ok(Either::Archive(first.chain(from).boxed()));
    }
    while let Some(piece) = from.next().await {
        head.extend_from_slice(&piece?);
        if head.len() > MAX_TEXT {
            return Err(Error::invalid("the Dockerfile is longer than 4 MiB"));
        }
    }
    Ok(Either::Text(head.to_vec()))
}

/// Adds a file of root's.
fn entry(tar: &mut Vec<u8>, path: &str, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(bytes.len() as u64);
    let mut builder = tar::Builder::new(Vec::new());
    builder
        .append_data(&mut header, path, bytes)
        .map_err(|error| Error::os("write a tar", error))?;
    // Without its end: more follows.
    let written = builder.get_ref();
    tar.extend_from_slice(written);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::io::Read as _;

    use super::*;

    async fn files(sent: Sent) -> BTreeMap<String, String> {
        let mut body = sent.body.unwrap();
        let mut bytes = Vec::new();
        while let Some(piece) = body.next().await {
            bytes.extend_from_slice(&piece.unwrap());
        }
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut found = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            found.insert(entry.path().unwrap().to_string_lossy().into_owned(), text);
        }
        found
    }

    #[tokio::test]
    async fn f18_a_directory_is_sent_without_what_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("Dockerfile", "FROM x"),
            ("kept", "1"),
            ("left/out", "2"),
            (".dockerignore", "left\nDockerfile\n"),
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let source = || ContextSource::Directory(dir.path().to_owned());
        let sent_file = sent(source(), &Recipe::File(None), None).await.unwrap();
        assert_eq!(sent_file.dockerfile.as_deref(), Some("Dockerfile"));
        let names: Vec<String> = files(sent_file).await.into_keys().collect();
        assert_eq!(names, [".dockerignore", "Dockerfile", "kept"]);
        let text = sent(source(), &Recipe::Text("FROM y".into()), None).await.unwrap();
        let all = files(text).await;
        assert_eq!(all[OWN], "FROM y");
        assert!(all[OWN_IGNORE].contains(OWN) && all.contains_key("kept") && !all.contains_key("left/out"));
        // An ignore file from elsewhere holds instead of the one that is there.
        let text = sent(source(), &Recipe::Text("FROM y".into()), Some("kept".into())).await;
        let all = files(text.unwrap()).await;
        assert!(
            !all.contains_key("kept") && all.contains_key("left/out"),
            "{:?}",
            all.keys()
        );
    }

    #[tokio::test]
    async fn f18_a_stream_is_an_archive_or_a_dockerfile() {
        let stream = |bytes: &[u8]| -> ByteStream {
            let pieces: Vec<_> = bytes.chunks(3).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
            stream::iter(pieces).boxed()
        };
        let of = |bytes: &[u8]| ContextSource::Stream(stream(bytes));
        let text = sent(of(b"FROM x"), &Recipe::File(None), None).await.unwrap();
        assert_eq!(files(text).await[OWN], "FROM x");
        let mut tar = Vec::new();
        entry(&mut tar, "Dockerfile", b"FROM z").unwrap();
        let archive = sent(of(&tar), &Recipe::File(None), None).await.unwrap();
        assert_eq!(archive.dockerfile, None);
        assert_eq!(files(archive).await["Dockerfile"], "FROM z");
        let steps = Recipe::Stages(vec![crate::build::MadeStage::new("x", |stage| stage)]);
        assert!(
            sent(ContextSource::Empty, &steps, None)
                .await
                .err()
                .unwrap()
                .is_unsupported()
        );
    }
}
