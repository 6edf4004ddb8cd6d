//! `cp`: files between a container and this host, as an archive between two paths or over a standard stream.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use futures_util::StreamExt as _;
use longshore::containers::CopyInOptions;
use longshore::types::reader_stream;
use longshore::{Container, Engine};

use crate::context::Context;
use crate::failure::Failure;
use crate::transfer;

/// Options of `cp`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Give everything to the container's user
    #[arg(short, long)]
    archive: bool,
    /// Say nothing
    #[arg(short, long)]
    quiet: bool,
    /// CONTAINER:PATH, a path of this host, or - for a tar on stdin
    #[arg(value_name = "SOURCE")]
    source: String,
    /// CONTAINER:PATH, a path of this host, or - for a tar on stdout
    #[arg(value_name = "TARGET")]
    target: String,
}

/// Copies one way or the other.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let _ = args.quiet;
    let engine = context.engine().await?;
    match (in_container(&args.source), in_container(&args.target)) {
        (Some((name, path)), None) => out(&engine.container(name).await?, path, &args.target).await?,
        (None, Some((name, path))) => into(&engine, name, path, &args).await?,
        (Some(_), Some(_)) => return Err(Failure::ours("copying between containers is not supported")),
        (None, None) => return Err(Failure::ours("one of both must be CONTAINER:PATH")),
    }
    Ok(0)
}

/// Splits `CONTAINER:PATH`. A path of this host with a colon is written with a slash before it, as with Docker.
fn in_container(text: &str) -> Option<(&str, &str)> {
    if text == "-" || text.starts_with('/') || text.starts_with('.') {
        return None;
    }
    text.split_once(':')
}

async fn out(container: &Container, path: &str, target: &str) -> Result<(), Failure> {
    let copied = container.copy_out(path).await?;
    if target == "-" {
        return transfer::write_out(copied.archive).await;
    }
    let plan = Place::of(
        Path::new(target),
        &copied.stat.name,
        copied.stat.is_dir(),
        path.ends_with("/."),
    )?;
    let mut archive = copied.archive;
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let unpacking = std::thread::spawn(move || unpack(Pipe::new(receiver), &plan));
    while let Some(piece) = archive.next().await {
        if sender.send(piece?).await.is_err() {
            break;
        }
    }
    drop(sender);
    let done = tokio::task::spawn_blocking(move || unpacking.join());
    let done = done.await.map_err(io::Error::other)?;
    Ok(done.unwrap_or_else(|_| Err(io::Error::other("unpacking panicked")))?)
}

/// Where what is copied goes: a directory, and the name that its top gets there.
struct Place {
    dir: PathBuf,
    /// In the place of the archive's own first name.
    name: Option<PathBuf>,
}

impl Place {
    /// Docker's rules. Source: its reference of `docker cp`.
    fn of(target: &Path, name: &str, is_dir: bool, content: bool) -> Result<Self, Failure> {
        let within = Self {
            dir: target.to_owned(),
            name: (!content).then(|| PathBuf::from(name)),
        };
        if target.is_dir() {
            return Ok(within);
        }
        let above = match target.parent() {
            Some(above) if !above.as_os_str().is_empty() => above,
            _ => Path::new("."),
        };
        if !above.is_dir() {
            return Err(Failure::ours(format!("no such directory: {}", above.display())));
        }
        if is_dir && target.exists() {
            return Err(Failure::ours("cannot copy a directory onto a file"));
        }
        if !is_dir && target.as_os_str().to_string_lossy().ends_with('/') {
            return Err(Failure::ours(format!("no such directory: {}", target.display())));
        }
        if content {
            std::fs::create_dir(target)?;
            return Ok(within);
        }
        Ok(Self {
            dir: above.to_owned(),
            name: target.file_name().map(PathBuf::from),
        })
    }
}

/// Writes an archive out; a name in it that leads elsewhere is refused.
fn unpack(pipe: Pipe, place: &Place) -> io::Result<()> {
    let mut archive = tar::Archive::new(pipe);
    archive.set_preserve_permissions(true);
    archive.set_overwrite(true);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let mut parts = path.components().filter(|part| *part != Component::CurDir);
        if place.name.is_some() {
            parts.next();
        }
        let below: PathBuf = parts.collect();
        if below.components().any(|part| !matches!(part, Component::Normal(_))) {
            return Err(io::Error::other(format!(
                "a path that leads elsewhere: {}",
                path.display()
            )));
        }
        let to = place
            .dir
            .join(place.name.as_deref().unwrap_or(Path::new("")))
            .join(below);
        let inside = to.parent().map(Path::canonicalize).transpose()?;
        let home = place.dir.canonicalize()?;
        if to != place.dir && !inside.is_some_and(|inside| inside.starts_with(&home)) {
            return Err(io::Error::other(format!(
                "a link that leads elsewhere: {}",
                path.display()
            )));
        }
        if entry.header().entry_type().is_hard_link() {
            let link = entry.link_name()?.map(|link| link.into_owned()).unwrap_or_default();
            let link: PathBuf = link.components().skip(usize::from(place.name.is_some())).collect();
            let from = place
                .dir
                .join(place.name.as_deref().unwrap_or(Path::new("")))
                .join(link);
            let _ = std::fs::remove_file(&to);
            std::fs::hard_link(from, &to)?;
            continue;
        }
        entry.unpack(&to)?;
    }
    Ok(())
}

async fn into(engine: &Engine, name: &str, path: &str, args: &Args) -> Result<(), Failure> {
    let container = engine.container(name).await?;
    let options = CopyInOptions::new().keep_kinds(true).own_by_user(args.archive);
    if args.source == "-" {
        let archive = transfer::read(None)?;
        return Ok(container.copy_in(path, archive, options).await?);
    }
    let source = PathBuf::from(&args.source);
    let content = args.source.ends_with("/.");
    let found = std::fs::symlink_metadata(&source)?;
    let there = container.stat_path(path).await;
    let is_dir = match &there {
        Ok(there) => {
            there.is_dir() || there.link_target.is_some() && container.stat_path(&format!("{path}/")).await.is_ok()
        }
        Err(error) if error.is_not_found() => false,
        Err(_) => there.map(|_| false)?,
    };
    let own = source.canonicalize()?;
    let own = own.file_name().map(PathBuf::from).unwrap_or_default();
    let (dir, top) = match (is_dir, content) {
        (true, true) => (path.to_owned(), PathBuf::new()),
        (true, false) => (path.to_owned(), own),
        (false, _) => {
            let full = Path::new("/").join(path.trim_start_matches('/'));
            let above = full.parent().unwrap_or(Path::new("/")).display().to_string();
            (above, full.file_name().map(PathBuf::from).unwrap_or_default())
        }
    };
    if !is_dir && !found.is_dir() && path.ends_with('/') {
        return Err(Failure::ours(format!("no such directory in the container: {path}")));
    }
    let (reader, writer) = std::io::pipe()?;
    let packing = std::thread::spawn(move || pack(&source, &top, writer));
    let archive = reader_stream(reader)?;
    let copied = container.copy_in(&dir, archive, options).await;
    let packed = packing
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("packing panicked")));
    copied?;
    Ok(packed?)
}

/// Writes a file or a tree as an archive, under a name.
fn pack(source: &Path, top: &Path, out: impl io::Write) -> io::Result<()> {
    let mut archive = tar::Builder::new(io::BufWriter::new(out));
    archive.follow_symlinks(false);
    let found = std::fs::symlink_metadata(source)?;
    if found.is_dir() {
        let top = if top.as_os_str().is_empty() {
            Path::new(".")
        } else {
            top
        };
        archive.append_dir_all(top, source)?;
    } else if found.is_symlink() {
        archive.append_path_with_name(source, top)?;
    } else {
        archive.append_file(top, &mut File::open(source)?)?;
    }
    io::Write::flush(&mut archive.into_inner()?)
}

/// Pieces as a reader.
struct Pipe {
    pieces: tokio::sync::mpsc::Receiver<bytes::Bytes>,
    piece: bytes::Bytes,
}

impl Pipe {
    fn new(pieces: tokio::sync::mpsc::Receiver<bytes::Bytes>) -> Self {
        Self {
            pieces,
            piece: bytes::Bytes::new(),
        }
    }
}

impl Read for Pipe {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let part = self.piece.split_to(self.piece.len().min(out.len()));
        out[..part.len()].copy_from_slice(&part);
        Ok(part.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g6_which_side_is_the_container() {
        assert_eq!(in_container("web:/etc/x"), Some(("web", "/etc/x")));
        for host in ["/a:b", "./a:b", "-", "file"] {
            assert_eq!(in_container(host), None, "{host}");
        }
    }
}
