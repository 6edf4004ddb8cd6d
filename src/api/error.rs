//! Errors in Docker's codes and words, made here alone from an error's kind and object.
//!
//! The body is Docker's `{"message": …}`; beside it stands our own part, from which a client of ours makes the same error
//! again:
//!
//! ```json
//! {"message": "No such container: web",
//!  "longshore": {"kind": "not_found", "object": {"kind": "container", "name": "web"}}}
//! ```
//!
//! | kind | status |
//! |---|---|
//! | `NotFound` | 404; of a user in the container, which is no path's, 500 as with Docker |
//! | `Conflict`, `InvalidState` | 409 |
//! | `InvalidArgument`, `CommandNotFound`, `CommandNotExecutable`, `Unsupported` options, `UnsafeArchive` | 400 |
//! | `Unsupported` verbs | 501 |
//! | `Denied` | 403 |
//! | `RateLimited` | 429 |
//! | `Unavailable` | 503 |
//! | `Timeout` | 504 |
//! | the rest | 500 |

use std::borrow::Cow;

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::error::wire::detail;
use crate::error::{Error, ErrorKind, ObjectKind};

/// An answer that is an error.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    pub(super) message: String,
    /// Our own part of the body.
    pub(super) detail: Value,
}

impl Failure {
    /// A failure that no manager knows of: a bad path, body, header.
    pub(super) fn new(status: StatusCode, kind: &ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        let message = message.into().into_owned();
        let mut detail = json!({"kind": kind.as_str(), "text": message});
        if let ErrorKind::Unsupported { needs } = kind {
            detail["needs"] = json!(needs);
        }
        Self {
            status,
            message,
            detail,
        }
    }

    /// What the client sent can never work.
    pub(super) fn bad(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, &ErrorKind::InvalidArgument, message)
    }

    /// An option that this engine does not have.
    pub(super) fn option(name: &str, needs: impl Into<String>) -> Self {
        Error::unsupported(name, needs)
            .with_object(ObjectKind::Option, name)
            .into()
    }

    /// The path leads nowhere.
    pub(super) fn no_page() -> Self {
        Self::new(StatusCode::NOT_FOUND, &ErrorKind::NotFound, "page not found")
    }

    /// Says it in other words.
    pub(super) fn say(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    /// Answers with another code.
    pub(super) fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// The body of the answer.
    pub(super) fn body(&self) -> Value {
        json!({"message": self.message, "longshore": self.detail})
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            status: status(&error),
            message: words(&error),
            detail: detail(&error),
        }
    }
}

fn status(error: &Error) -> StatusCode {
    let option = matches!(error.object(), Some((ObjectKind::Option, _)));
    let user = matches!(error.object(), Some((ObjectKind::User, _)));
    let device = matches!(error.object(), Some((ObjectKind::CdiDevice, _)));
    match error.kind() {
        // Of the start of a container that is there.
        ErrorKind::NotFound if user || device => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorKind::NotFound if no_image_can_have(error).is_some() => StatusCode::BAD_REQUEST,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Conflict | ErrorKind::InvalidState => StatusCode::CONFLICT,
        ErrorKind::InvalidArgument
        | ErrorKind::CommandNotFound
        | ErrorKind::CommandNotExecutable
        | ErrorKind::UnsafeArchive => StatusCode::BAD_REQUEST,
        ErrorKind::Unsupported { .. } if option => StatusCode::BAD_REQUEST,
        ErrorKind::Unsupported { .. } => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::Denied | ErrorKind::IpamExhausted => StatusCode::FORBIDDEN,
        ErrorKind::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Docker's words where clients look for them, and ours, with the whole chain, elsewhere.
fn words(error: &Error) -> String {
    let report = error.report();
    match (error.kind(), error.object()) {
        (ErrorKind::NotFound, Some((ObjectKind::Container, name))) => format!("No such container: {name}"),
        (ErrorKind::NotFound, Some((ObjectKind::Image, name))) => match no_image_can_have(error) {
            Some(why) => why,
            None => format!("No such image: {}", tagged(name)),
        },
        (ErrorKind::NotFound, Some((ObjectKind::Exec, name))) => format!("No such exec instance: {name}"),
        // The container is not on it.
        (ErrorKind::NotFound, Some((ObjectKind::Network, _))) if error.step() == Some("not connected") => report,
        (ErrorKind::NotFound, Some((ObjectKind::Network, name))) => format!("network {name} not found"),
        (ErrorKind::NotFound, Some((ObjectKind::User, name))) if report.contains("no such user") => {
            format!("unable to find user {name}: no matching entries in passwd file")
        }
        (ErrorKind::NotFound, Some((ObjectKind::User, name))) => {
            format!("unable to find group {name}: no matching entries in group file")
        }
        (ErrorKind::NotFound, Some((ObjectKind::CdiDevice, name))) => {
            format!("CDI device injection failed: unresolvable CDI devices {name}: {report}")
        }
        (ErrorKind::NotFound, Some((ObjectKind::Volume, name))) => format!("get {name}: no such volume"),
        (ErrorKind::Conflict, Some((ObjectKind::Volume, name))) if error.step() == Some("volume is in use") => {
            let users = report.split_once("by container ").map_or("", |(_, users)| users);
            format!("remove {name}: volume is in use - [{users}]")
        }
        // The client makes exit codes 127 and 126 of these words. Source: docker/cli, cli/command/container/run.go.
        (ErrorKind::CommandNotFound, _) if !report.contains("no such file or directory") => {
            format!("{report}: executable file not found in $PATH")
        }
        (ErrorKind::CommandNotExecutable, _) if !report.contains("permission denied") => {
            format!("{report}: permission denied")
        }
        _ => refusal(error).unwrap_or(report),
    }
}

/// Docker's words for a container in a state that a verb cannot work in. `None`: ours will do.
fn refusal(error: &Error) -> Option<String> {
    let (ObjectKind::Container, id) = error.object()? else {
        return None;
    };
    Some(match error.step()? {
        "not running" => format!("Container {id} is not running"),
        "running" => format!(
            "You cannot remove a running container {id}. Stop the container before attempting removal or force remove"
        ),
        "paused" if error.is_conflict() => format!(
            "You cannot remove a paused container {id}. Unpause and then stop the container before attempting removal or \
             force remove"
        ),
        "paused" => format!("Container {id} is paused, unpause the container before exec"),
        "restarting" if error.report().contains("remove") => format!(
            "You cannot remove a restarting container {id}. Stop the container before attempting removal or force remove"
        ),
        "restarting" => format!("Container {id} is restarting, wait until the container is running"),
        "not paused" => format!("Container {id} is not paused"),
        _ => return None,
    })
}

/// Why no image can have the name of the one that was not found; `None` where one could.
fn no_image_can_have(error: &Error) -> Option<String> {
    let (ObjectKind::Image, name) = error.object()? else {
        return None;
    };
    let shown = name.starts_with("sha256:") || name.parse::<crate::types::Reference>().is_ok();
    // A whole id is no name, and still of an image that may be there.
    let id = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    (!shown && !id).then(|| format!("invalid reference format: {name:?} is no name of an image"))
}

/// The name of an image with its tag, as Docker completes it. An id stays as it is.
fn tagged(name: &str) -> String {
    match name.parse::<crate::types::Reference>() {
        Ok(reference) if !name.starts_with("sha256:") => reference.familiar(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a7_docker_s_code_and_words_with_our_part_beside_them() {
        let failure: Failure = Error::not_found(ObjectKind::Container, "web").into();
        assert_eq!(failure.status, 404);
        assert_eq!(
            failure.body(),
            json!({
                "message": "No such container: web",
                "longshore": {
                    "kind": "not_found",
                    "text": "no such container: web",
                    "object": {"kind": "container", "name": "web"},
                },
            })
        );
    }

    #[test]
    fn b7_an_image_that_is_not_there_and_one_that_cannot_be() {
        let of = |name: &str| Failure::from(Error::not_found(ObjectKind::Image, name));
        assert_eq!(of("nothere").message, "No such image: nothere:latest");
        for there_may_be in ["nothere", "a/b:c", &"a".repeat(64), "sha256:abc"] {
            assert_eq!(of(there_may_be).status, 404, "{there_may_be}");
        }
        let never = of("BAD NAME");
        assert_eq!(never.status, 400);
        assert!(never.message.starts_with("invalid reference format"));
        assert_eq!(never.detail["kind"], "not_found");
    }

    #[test]
    fn a7_refusals_of_the_api_s_own_say_as_much_as_those_of_managers() {
        let body = Failure::bad("no body").body();
        assert_eq!(
            body["longshore"],
            json!({"kind": "invalid_argument", "text": "no body"})
        );
        let kind = ErrorKind::Unsupported { needs: "more".into() };
        let body = Failure::new(StatusCode::SERVICE_UNAVAILABLE, &kind, "none").body();
        assert_eq!(body["longshore"]["needs"], "more");
    }

    #[test]
    fn codes_by_kind() {
        let of = |kind| Failure::from(Error::new(kind, "x")).status.as_u16();
        assert_eq!(of(ErrorKind::Conflict), 409);
        assert_eq!(of(ErrorKind::InvalidArgument), 400);
        assert_eq!(of(ErrorKind::RateLimited { retry_at: None }), 429);
        assert_eq!(of(ErrorKind::NoSpace), 500);
        assert_eq!(Failure::from(Error::unsupported_verb("exec")).status, 501);
        assert_eq!(Failure::option("Privileged", "a build that has it").status, 400);
    }

    #[test]
    fn a_failed_start_says_what_the_client_looks_for() {
        let missing = Failure::from(Error::new(ErrorKind::CommandNotFound, "nope"));
        assert!(missing.message.contains("executable file not found"));
        let denied = Failure::from(Error::new(ErrorKind::CommandNotExecutable, "nope"));
        assert!(denied.message.contains("permission denied"));
        assert_eq!(missing.status, 400);
    }
}
