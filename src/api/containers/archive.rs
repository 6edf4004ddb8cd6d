//! `containers/{id}/archive`: files in and out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use hyper::header::HeaderValue;
use serde_json::json;

use super::super::call::Call;
use super::super::error::Failure;
use super::super::reply::{self, Body, Reply};
use super::super::router::Answer;
use super::super::times;
use crate::containers::{CopyInOptions, PathStat};
use crate::error::{Error, ErrorKind, ObjectKind};

const STAT: &str = "x-docker-container-path-stat";

pub(super) async fn stat(call: Call) -> Answer {
    let path = path(&call)?;
    let stat = call.engine.containers().stat_path(call.name(), &path).await;
    let stat = stat.map_err(|error| failure(&call, &path, error))?;
    with_stat(reply::empty(StatusCode::OK), &stat)
}

pub(super) async fn get(call: Call) -> Answer {
    let path = path(&call)?;
    let copied = call.engine.containers().copy_out(call.name(), &path).await;
    let copied = copied.map_err(|error| failure(&call, &path, error))?;
    let kind = HeaderValue::from_static("application/x-tar");
    let reply = reply::typed(StatusCode::OK, kind, Body::stream(copied.archive));
    with_stat(reply, &copied.stat)
}

pub(super) async fn put(mut call: Call) -> Answer {
    let path = path(&call)?;
    let options = CopyInOptions::new()
        .keep_kinds(call.query.flag("noOverwriteDirNonDir"))
        .own_by_user(call.query.flag("copyUIDGID"));
    let archive = call.stream();
    let copied = call
        .engine
        .containers()
        .copy_in(call.name(), &path, archive, options)
        .await;
    copied.map_err(|error| failure(&call, &path, error))?;
    Ok(reply::empty(StatusCode::OK))
}

fn path(call: &Call) -> Result<String, Failure> {
    let path = call.query.get("path").map(str::to_owned);
    path.ok_or_else(|| Failure::bad("bad parameter: 'path' cannot be empty"))
}

/// Docker's words and codes. Source: moby, `daemon/archive.go`.
fn failure(call: &Call, path: &str, error: Error) -> Failure {
    let of_path = matches!(error.object(), Some((ObjectKind::Option, _)));
    match error.kind() {
        ErrorKind::NotFound if of_path => {
            let message = format!("Could not find the file {path} in container {}", call.name());
            Failure::from(error).say(message)
        }
        ErrorKind::ReadOnly => Failure::from(error)
            .say("container rootfs is marked read-only")
            .status(StatusCode::FORBIDDEN),
        _ => error.into(),
    }
}

fn with_stat(mut reply: Reply, stat: &PathStat) -> Answer {
    let text = json!({
        "name": stat.name,
        "size": stat.size,
        "mode": go_mode(stat.mode),
        "mtime": times::rfc3339(stat.modified),
        "linkTarget": stat.link_target.as_deref().unwrap_or_default(),
    });
    let value = HeaderValue::from_str(&STANDARD.encode(text.to_string()));
    let value = value.map_err(|_| Failure::from(Error::internal("base64 that is no header")))?;
    reply.headers_mut().insert(STAT, value);
    Ok(reply)
}

/// Type and permissions as Go's `os.FileMode` has them. Source: Go, `io/fs`, `FileMode`.
fn go_mode(mode: u32) -> u32 {
    const KINDS: [(u32, u32); 6] = [
        (0o040_000, 1 << 31),
        (0o120_000, 1 << 27),
        (0o060_000, 1 << 26),
        (0o020_000, 1 << 26 | 1 << 21),
        (0o010_000, 1 << 25),
        (0o140_000, 1 << 24),
    ];
    const SPECIAL: [(u32, u32); 3] = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
    let kind = KINDS.iter().find(|(kind, _)| mode & 0o170_000 == *kind);
    let special = SPECIAL.iter().filter(|(bit, _)| mode & bit != 0).map(|(_, go)| go);
    mode & 0o777 | kind.map_or(0, |(_, go)| *go) | special.sum::<u32>()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn g6_modes_as_go_has_them() {
        for (unix, go) in [
            (0o100_644, 0o644),
            (0o040_755, 1 << 31 | 0o755),
            (0o041_777, 1 << 31 | 1 << 20 | 0o777),
            (0o120_777, 1 << 27 | 0o777),
            (0o104_755, 1 << 23 | 0o755),
            (0o020_600, 1 << 26 | 1 << 21 | 0o600),
        ] {
            assert_eq!(go_mode(unix), go, "{unix:o}");
        }
        let own = std::fs::metadata("/").unwrap();
        assert_eq!(go_mode(own.mode()) >> 31, 1);
    }
}
