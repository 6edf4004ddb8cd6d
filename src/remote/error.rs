//! Errors as they were at the other end: from our own part of an answer where there is one, else from Docker's codes and
//! words.

use serde_json::Value;

use crate::error::wire::of_detail;
use crate::error::{Error, ErrorKind, ObjectKind};

/// The error of an answer with a code.
pub(super) fn of_answer(code: u16, body: &[u8]) -> Error {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let parsed = parsed.unwrap_or_default();
    let text = match parsed["message"].as_str() {
        Some(message) => message.to_owned(),
        None => String::from_utf8_lossy(body).trim().to_owned(),
    };
    of_detail(&parsed["longshore"], &text).unwrap_or_else(|| of_words(code, text))
}

/// The error that a line of progress tells of; `None` for any other line.
pub(super) fn of_line(line: &Value) -> Option<Error> {
    let detail = &line["errorDetail"];
    let text = detail["message"]
        .as_str()
        .or_else(|| line["error"].as_str())?
        .to_owned();
    let code = detail["code"].as_u64().and_then(|code| u16::try_from(code).ok());
    Some(of_detail(&line["longshore"], &text).unwrap_or_else(|| of_words(code.unwrap_or(500), text)))
}

/// What is not what the API says.
pub(super) fn nonsense(what: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("the endpoint answered what cannot be understood: {what}"),
    )
}

/// What dockerd means: its words first, since one code says many things. Source: what dockerd 20.10 and 29 answer.
fn of_words(code: u16, text: String) -> Error {
    let kind = kind_of_words(&text.to_lowercase()).unwrap_or_else(|| kind_of_code(code));
    let object = if kind == ErrorKind::NotFound {
        object_of(&text)
    } else {
        None
    };
    let text = if text.is_empty() {
        format!("the endpoint answered {code}")
    } else {
        text
    };
    let error = Error::new(kind, text);
    match object {
        Some((kind, name)) => error.with_object(kind, name),
        None => error,
    }
}

fn kind_of_words(text: &str) -> Option<ErrorKind> {
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let starts_a_program = has(&["exec:", "oci runtime", "failed to create task", "runc"]);
    Some(match () {
        () if has(&["executable file not found"]) => ErrorKind::CommandNotFound,
        () if starts_a_program && has(&["no such file or directory"]) => ErrorKind::CommandNotFound,
        () if starts_a_program && has(&["permission denied", "is a directory"]) => ErrorKind::CommandNotExecutable,
        () if has(&["no space left on device", "disk quota exceeded"]) => ErrorKind::NoSpace,
        () if has(&["toomanyrequests", "too many requests"]) => ErrorKind::RateLimited { retry_at: None },
        () if has(&["pull access denied", "unauthorized", "denied: requested access"]) => ErrorKind::Denied,
        () if has(&[
            "manifest unknown",
            "no such container",
            "no such image",
            "no such exec",
            "no such volume",
        ]) =>
        {
            ErrorKind::NotFound
        }
        () if has(&["unable to find user", "unable to find group"]) => ErrorKind::NotFound,
        () if has(&["you cannot remove", "is already in use"]) => ErrorKind::Conflict,
        () if has(&["is not running", "is paused", "is not paused", "is already paused"]) => ErrorKind::InvalidState,
        () if has(&["connection refused", "no such host", "i/o timeout"]) => ErrorKind::Unavailable,
        () => return None,
    })
}

fn kind_of_code(code: u16) -> ErrorKind {
    match code {
        400 | 406 | 413 | 415 => ErrorKind::InvalidArgument,
        401 | 403 => ErrorKind::Denied,
        404 => ErrorKind::NotFound,
        408 | 504 => ErrorKind::Timeout,
        409 => ErrorKind::Conflict,
        429 => ErrorKind::RateLimited { retry_at: None },
        405 | 501 => ErrorKind::Unsupported {
            needs: "an endpoint that has this verb".to_owned(),
        },
        _ => ErrorKind::Unavailable,
    }
}

/// What was not found.
fn object_of(text: &str) -> Option<(ObjectKind, String)> {
    let before = [
        ("No such container: ", ObjectKind::Container),
        ("No such image: ", ObjectKind::Image),
        ("No such exec instance: ", ObjectKind::Exec),
        ("unable to find user ", ObjectKind::User),
        ("unable to find group ", ObjectKind::User),
        ("manifest for ", ObjectKind::Image),
    ];
    for (words, kind) in before {
        if let Some((_, rest)) = text.split_once(words) {
            // A reference has colons; what follows a user's name begins with one.
            let name = rest.split_whitespace().next()?;
            return Some((kind, name.trim_end_matches(':').to_owned()));
        }
    }
    let network = text.strip_prefix("network ")?.strip_suffix(" not found")?;
    Some((ObjectKind::Network, network.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use serde_json::json;

    use super::*;

    #[test]
    fn a7_every_kind_comes_back() {
        let all = [
            ErrorKind::NotFound,
            ErrorKind::Conflict,
            ErrorKind::InvalidArgument,
            ErrorKind::InvalidState,
            ErrorKind::Denied,
            ErrorKind::Unsupported { needs: "more".into() },
            ErrorKind::RateLimited {
                retry_at: Some(UNIX_EPOCH + Duration::from_secs(7)),
            },
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
            ErrorKind::Corrupt,
            ErrorKind::NewerVersion,
            ErrorKind::Os,
            ErrorKind::Internal,
        ];
        for kind in all {
            let detail = json!({"kind": kind.as_str(), "text": "ours", "needs": "more", "retry_at": 7});
            let body = json!({"message": "Docker's", "longshore": detail}).to_string();
            let error = of_answer(500, body.as_bytes());
            assert_eq!((error.kind(), error.to_string().as_str()), (&kind, "ours"));
        }
        let object = json!({"kind": "image", "name": "x"});
        let detail = json!({"kind": "not_found", "object": object, "errno": 2, "step": "s"});
        let error = of_answer(404, json!({"message": "m", "longshore": detail}).to_string().as_bytes());
        assert_eq!(error.object(), Some((ObjectKind::Image, "x")));
        assert_eq!((error.errno(), error.step()), (Some(2), Some("s")));
    }

    #[test]
    fn a7_docker_s_codes_and_words() {
        let of = |code: u16, words: &str| of_answer(code, json!({"message": words}).to_string().as_bytes());
        for (code, words, kind) in [
            (404, "No such container: web", ErrorKind::NotFound),
            (
                409,
                "Conflict. The container name \"/a\" is already in use by container \"b\"",
                ErrorKind::Conflict,
            ),
            (409, "Container abc is not running", ErrorKind::InvalidState),
            (500, "Container abc is not running", ErrorKind::InvalidState),
            (
                409,
                "You cannot remove a running container abc. Stop the container",
                ErrorKind::Conflict,
            ),
            (
                400,
                "OCI runtime create failed: exec: \"nope\": executable file not found in $PATH: unknown",
                ErrorKind::CommandNotFound,
            ),
            (
                400,
                "failed to create task: exec: \"/etc\": permission denied",
                ErrorKind::CommandNotExecutable,
            ),
            (
                500,
                "unable to find user nosuch: no matching entries in passwd file",
                ErrorKind::NotFound,
            ),
            (
                404,
                "pull access denied for x, repository does not exist",
                ErrorKind::Denied,
            ),
            (
                500,
                "toomanyrequests: You have reached your pull rate limit",
                ErrorKind::RateLimited { retry_at: None },
            ),
            (400, "invalid condition: \"x\"", ErrorKind::InvalidArgument),
            (500, "something else", ErrorKind::Unavailable),
        ] {
            assert_eq!(of(code, words).kind(), &kind, "{code} {words}");
        }
        let missing = of(404, "No such image: a/b:latest");
        assert_eq!(missing.object(), Some((ObjectKind::Image, "a/b:latest")));
        let nobody = of(500, "unable to find user nosuch: no matching entries in passwd file");
        assert_eq!(nobody.object(), Some((ObjectKind::User, "nosuch")));
        assert_eq!(
            of(404, "network n not found").object(),
            Some((ObjectKind::Network, "n"))
        );
        assert_eq!(of_answer(502, b"<html>").kind(), &ErrorKind::Unavailable);
        assert!(of_answer(404, b"").to_string().contains("404"));
    }

    #[test]
    fn a_line_of_progress_that_is_an_error() {
        let line = json!({"errorDetail": {"code": 404, "message": "manifest unknown"}, "error": "manifest unknown"});
        assert!(of_line(&line).unwrap().is_not_found());
        assert!(of_line(&json!({"status": "Downloading"})).is_none());
    }
}
