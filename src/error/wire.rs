//! An error in JSON, of which a process elsewhere makes the same error again.

use std::io;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{Error, ErrorKind, ObjectKind};

/// Every kind of object, by its word.
const OBJECTS: [ObjectKind; 17] = [
    ObjectKind::Image,
    ObjectKind::Container,
    ObjectKind::Exec,
    ObjectKind::Network,
    ObjectKind::Volume,
    ObjectKind::Blob,
    ObjectKind::Layer,
    ObjectKind::Snapshot,
    ObjectKind::Manifest,
    ObjectKind::Registry,
    ObjectKind::Root,
    ObjectKind::User,
    ObjectKind::Command,
    ObjectKind::Cgroup,
    ObjectKind::Option,
    ObjectKind::Backend,
    ObjectKind::CdiDevice,
];

/// All that can be said of it.
#[cfg_attr(not(feature = "engine"), allow(dead_code, reason = "for the engine in this process"))]
pub(crate) fn detail(error: &Error) -> Value {
    let mut detail = json!({"kind": error.kind().as_str(), "text": error.report()});
    if let Some((kind, name)) = error.object() {
        detail["object"] = json!({"kind": kind.as_str(), "name": name});
    }
    if let Some(step) = error.step() {
        detail["step"] = json!(step);
    }
    if let Some(errno) = error.errno() {
        detail["errno"] = json!(errno);
    }
    match error.kind() {
        ErrorKind::Unsupported { needs } => detail["needs"] = json!(needs),
        ErrorKind::RateLimited { retry_at: Some(at) } => {
            detail["retry_at"] = json!(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
        }
        _ => {}
    }
    detail
}

/// The error that was told; `text` where that does not say what happened. `None`: its kind is of a newer version.
pub(crate) fn of_detail(detail: &Value, text: &str) -> Option<Error> {
    let kind = kind(detail)?;
    let text = detail["text"].as_str().unwrap_or(text).to_owned();
    let mut error = Error::new(kind, text);
    let object = &detail["object"];
    if let (Some(kind), Some(name)) = (object["kind"].as_str().and_then(object_kind), object["name"].as_str()) {
        error = error.with_object(kind, name);
    }
    if let Some(step) = detail["step"].as_str() {
        error = error.with_step(step.to_owned());
    }
    if let Some(errno) = detail["errno"].as_i64().and_then(|errno| i32::try_from(errno).ok()) {
        error = error.with_source(io::Error::from_raw_os_error(errno));
    }
    Some(error)
}

fn kind(detail: &Value) -> Option<ErrorKind> {
    let needs = || detail["needs"].as_str().unwrap_or_default().to_owned();
    let retry_at = || UNIX_EPOCH.checked_add(Duration::from_secs(detail["retry_at"].as_u64()?));
    Some(match detail["kind"].as_str()? {
        "not_found" => ErrorKind::NotFound,
        "conflict" => ErrorKind::Conflict,
        "invalid_argument" => ErrorKind::InvalidArgument,
        "invalid_state" => ErrorKind::InvalidState,
        "denied" => ErrorKind::Denied,
        "unsupported" => ErrorKind::Unsupported { needs: needs() },
        "rate_limited" => ErrorKind::RateLimited { retry_at: retry_at() },
        "unavailable" => ErrorKind::Unavailable,
        "digest_mismatch" => ErrorKind::DigestMismatch,
        "unsafe_archive" => ErrorKind::UnsafeArchive,
        "timeout" => ErrorKind::Timeout,
        "cancelled" => ErrorKind::Cancelled,
        "no_space" => ErrorKind::NoSpace,
        "ipam_exhausted" => ErrorKind::IpamExhausted,
        "read_only" => ErrorKind::ReadOnly,
        "command_not_found" => ErrorKind::CommandNotFound,
        "command_not_executable" => ErrorKind::CommandNotExecutable,
        "build_failed" => ErrorKind::BuildFailed,
        "corrupt" => ErrorKind::Corrupt,
        "newer_version" => ErrorKind::NewerVersion,
        "os" => ErrorKind::Os,
        "internal" => ErrorKind::Internal,
        _ => return None,
    })
}

fn object_kind(word: &str) -> Option<ObjectKind> {
    OBJECTS.into_iter().find(|kind| kind.as_str() == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a7_what_is_told_comes_back() {
        let all = [
            ErrorKind::NotFound,
            ErrorKind::Conflict,
            ErrorKind::InvalidArgument,
            ErrorKind::InvalidState,
            ErrorKind::Denied,
            ErrorKind::Unsupported { needs: "more".into() },
            ErrorKind::RateLimited {
                retry_at: UNIX_EPOCH.checked_add(Duration::from_secs(7)),
            },
            ErrorKind::RateLimited { retry_at: None },
            ErrorKind::Unavailable,
            ErrorKind::DigestMismatch,
            ErrorKind::UnsafeArchive,
            ErrorKind::Timeout,
            ErrorKind::Cancelled,
            ErrorKind::NoSpace,
            ErrorKind::IpamExhausted,
            ErrorKind::ReadOnly,
            ErrorKind::CommandNotFound,
            ErrorKind::CommandNotExecutable,
            ErrorKind::BuildFailed,
            ErrorKind::Corrupt,
            ErrorKind::NewerVersion,
            ErrorKind::Os,
            ErrorKind::Internal,
        ];
        for kind in all {
            let error = of_detail(&detail(&Error::new(kind.clone(), "ours")), "theirs").unwrap();
            assert_eq!((error.kind(), error.to_string().as_str()), (&kind, "ours"));
        }
        for object in OBJECTS {
            let told = Error::os("look", io::Error::from_raw_os_error(libc::ENOENT)).with_object(object, "x");
            let error = of_detail(&detail(&told), "theirs").unwrap();
            assert_eq!(error.object(), Some((object, "x")));
            assert_eq!((error.errno(), error.step()), (Some(libc::ENOENT), Some("look")));
        }
        assert!(of_detail(&json!({"kind": "of tomorrow"}), "text").is_none());
        assert_eq!(of_detail(&json!({"kind": "os"}), "text").unwrap().to_string(), "text");
    }
}
