//! Asks a server for one commit of a repository, with those of its submodules.

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};

use super::Id;
use super::checkout::{self, Submodule};
use super::ssh;
use super::wire::{self, Packet, Packets};
use crate::build::context::fetch::Repository;
use crate::build::context::services::Waiting;
use crate::build::context::{Services, Tree};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::registry::http::plain::Posted;
use crate::sys::blocking::blocking;
use crate::types::ByteStream;

/// Bytes of a pack.
pub(super) const PACK: u64 = 16 << 30;
/// Bytes of an answer that is no pack.
pub(super) const ANSWER: usize = 64 << 20;
/// Bytes of a reference's name.
const NAME: usize = 1000;
/// Repositories that one may bring with it.
const SUBMODULES: usize = 200;
/// Repositories within each other.
const DEPTH: usize = 8;

/// The files of a repository.
///
/// # Errors
/// `NotFound` for a repository or a reference that is not there; `Denied`, `Unavailable`; `DigestMismatch` where it is not
/// the commit that was asked for; `Unsupported`; `UnsafeArchive`; `NoSpace`, `Os`.
///
/// # Cancel safety
/// What was received is in the directory of the build, and goes with it.
pub(in crate::build::context) async fn clone(repository: &Repository, services: &Services) -> Result<Tree> {
    let directory = services.fresh("repository");
    let submodules = one(repository, services, &directory).await?;
    let mut left: VecDeque<(Repository, PathBuf, usize)> = VecDeque::new();
    let wanted = repository.submodules != Some(false);
    left.extend(
        submodules
            .into_iter()
            .filter(|_| wanted)
            .map(|sub| inner(sub, &directory, repository, 1)),
    );
    let mut count = left.len();
    while let Some((sub, place, depth)) = left.pop_front() {
        if count > SUBMODULES || depth > DEPTH {
            let message =
                format!("a repository with more than {SUBMODULES} submodules, or with {DEPTH} within each other");
            return Err(Error::invalid(message));
        }
        let more = one(&sub, services, &place).await.map_err(|error| {
            let name = place.strip_prefix(&directory).unwrap_or(&place).display().to_string();
            error.context(format!("read the submodule {name}"))
        })?;
        count += more.len();
        left.extend(more.into_iter().map(|below| inner(below, &place, &sub, depth + 1)));
    }
    blocking(move || Tree::open(&directory)).await
}

/// A submodule as a repository, and where it goes.
fn inner(sub: Submodule, directory: &Path, outer: &Repository, depth: usize) -> (Repository, PathBuf, usize) {
    let repository = Repository {
        remote: checkout::resolve(&outer.remote, &sub.address),
        commit: Some(sub.commit.to_string()),
        reference: Some(sub.commit.to_string()),
        ..Repository::default()
    };
    (repository, directory.join(sub.path), depth)
}

/// One repository without its submodules, which are returned.
async fn one(repository: &Repository, services: &Services, directory: &Path) -> Result<Vec<Submodule>> {
    let remote = repository.remote.trim_end_matches('/').to_owned();
    let (commit, pack) = if ssh::is_ssh(&remote) {
        ssh::fetch(repository, services).await?
    } else if remote.starts_with("http://") || remote.starts_with("https://") {
        let commit = commit_of(repository, &remote, services).await?;
        check_wanted(&commit.0, repository)?;
        let pack = fetch(&commit.0, &remote, services).await?;
        (commit, pack)
    } else {
        return Err(Error::unsupported(
            "reading this repository",
            "an address of HTTP(S) or SSH: longshore speaks no other protocol of git's, and runs no helper of it",
        ));
    };
    let (wanted, directory) = (repository.clone(), directory.to_owned());
    let waiting = Waiting::default();
    let stop = waiting.flag();
    let submodules = blocking(move || {
        let file = File::open(&pack).map_err(|e| Error::os("read the repository's pack", e))?;
        let submodules = checkout::checkout(file, &commit, &wanted, &directory, stop);
        let _ = std::fs::remove_file(&pack);
        submodules
    });
    let submodules = submodules.await;
    drop(waiting);
    submodules
}

/// The commit that is wanted, and the name of its reference.
async fn commit_of(repository: &Repository, remote: &str, services: &Services) -> Result<(Id, Option<String>)> {
    let wanted = repository.reference.as_deref();
    check_reference(wanted)?;
    let address = format!("{remote}/info/refs?service=git-upload-pack");
    let client = services.client().await?;
    let answer = client
        .request(&address, &[version()], None)
        .await
        .map_err(|error| named(error, remote))?;
    let kind = answer.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if !kind.is_some_and(|kind| kind.starts_with("application/x-git-upload-pack-advertisement")) {
        // It only shows files, or is no repository at all.
        wire::check_advertisement(&[])?;
    }
    wire::check_advertisement(&gathered(answer.body).await?)?;
    if let Some(id) = wanted.and_then(|wanted| wanted.parse().ok()) {
        return Ok((id, None));
    }
    let lines = gathered(post(remote, wire::list_references(wanted), services).await?).await?;
    let found = wire::choose(&lines, wanted)?;
    found
        .map(|(id, name)| (id, Some(name)))
        .ok_or_else(|| no_reference(wanted, remote))
}

/// Whether a reference can have that name.
pub(super) fn check_reference(wanted: Option<&str>) -> Result<()> {
    if wanted.is_some_and(|wanted| wanted.len() > NAME || wanted.contains(|c: char| c.is_control() || c == ' ')) {
        let message = format!("the name of a reference has a blank, or more than {NAME} bytes");
        return Err(Error::invalid(message));
    }
    Ok(())
}

/// Whether it is the commit that has to be.
pub(super) fn check_wanted(commit: &Id, repository: &Repository) -> Result<()> {
    match &repository.commit {
        Some(wanted) if !commit.to_string().starts_with(wanted.as_str()) => {
            let message = format!("the repository's commit is {commit}, and {wanted} was asked for");
            Err(Error::new(ErrorKind::DigestMismatch, message).with_object(ObjectKind::Option, "checksum"))
        }
        _ => Ok(()),
    }
}

pub(super) fn no_reference(wanted: Option<&str>, remote: &str) -> Error {
    let name = wanted.unwrap_or("HEAD");
    let message = format!(
        "the repository {} has no branch, tag or reference {name:?}",
        shown(remote)
    );
    Error::new(ErrorKind::NotFound, message).with_object(ObjectKind::Option, name)
}

fn version() -> (HeaderName, HeaderValue) {
    (
        HeaderName::from_static("git-protocol"),
        HeaderValue::from_static("version=2"),
    )
}

async fn post(remote: &str, body: Vec<u8>, services: &Services) -> Result<ByteStream> {
    let address = format!("{remote}/git-upload-pack");
    let posted = Posted {
        kind: "application/x-git-upload-pack-request",
        accept: "application/x-git-upload-pack-result",
        body: body.into(),
    };
    let client = services.client().await?;
    Ok(client.request(&address, &[version()], Some(&posted)).await?.body)
}

/// All lines of a short answer.
async fn gathered(mut body: ByteStream) -> Result<Vec<Bytes>> {
    let (mut packets, mut lines, mut size) = (Packets::default(), Vec::new(), 0);
    while let Some(piece) = body.next().await {
        let piece = piece?;
        size += piece.len();
        if size > ANSWER {
            return Err(wire::unexpected("it is too long"));
        }
        packets.push(&piece);
        loop {
            match packets.next() {
                Ok(Some(Packet::Data(line))) => lines.push(line),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => return Err(error),
            }
        }
    }
    match packets.is_empty() {
        true => Ok(lines),
        false => Err(wire::unexpected("it ends early")),
    }
}

/// Receives the pack with a commit into a file.
async fn fetch(commit: &Id, remote: &str, services: &Services) -> Result<PathBuf> {
    let body = post(remote, wire::fetch(commit), services).await?;
    let state = (body, Packets::default(), false);
    let pack = stream::try_unfold(state, |(mut body, mut packets, mut in_pack)| async move {
        loop {
            match packets.next()? {
                Some(Packet::Data(line)) if !in_pack => in_pack = line.trim_ascii() == b"packfile",
                Some(Packet::Data(line)) => match line.split_first() {
                    Some((1, _)) => return Ok(Some((line.slice(1..), (body, packets, in_pack)))),
                    Some((3, words)) => return Err(wire::said(words)),
                    _ => {}
                },
                Some(_) => {}
                None => match body.next().await {
                    Some(piece) => packets.push(&piece?),
                    None if in_pack && packets.is_empty() => return Ok(None),
                    None => return Err(wire::unexpected("it ends before the pack does")),
                },
            }
        }
    });
    let (_, _, path) = services.spool(pack.boxed(), PACK).await?;
    Ok(path)
}

/// A server that knows of no such repository says so of a file of it.
fn named(error: Error, remote: &str) -> Error {
    match error.is_not_found() {
        true => error.context(format!("there is no repository at {}", shown(remote))),
        false => error,
    }
}

/// An address without a password.
pub(super) fn shown(remote: &str) -> String {
    match remote.split_once("://") {
        Some((scheme, rest)) => format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, host)| host)),
        None => remote.to_owned(),
    }
}
