//! From what went wrong on the wire to the crate's errors.

use std::error::Error as StdError;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use oci_distribution::errors::{OciEnvelope, OciErrorCode};
use reqwest::{Response, StatusCode};

use super::retry::retry_after;
use crate::error::{Error, ErrorKind, ObjectKind};

/// How much of an error's body is read, in bytes.
const MAX_BODY: usize = 16 << 10;
/// How much of a registry's own words is passed on, in characters.
const MAX_WORDS: usize = 300;

/// What a request is about, for messages.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) kind: ObjectKind,
    pub(super) name: String,
}

impl Subject {
    pub(super) fn error(&self, kind: ErrorKind, message: String) -> Error {
        Error::new(kind, message).with_object(self.kind, self.name.clone())
    }
}

/// The error of a response that is not a success. Reads a bounded part of its body.
pub(super) async fn refused(response: Response, subject: &Subject, signed_in: bool) -> Error {
    let status = response.status();
    let asked = retry_after(response.headers(), SystemTime::now());
    let words = words(response).await;
    of_status(status, asked, words.as_ref(), subject, signed_in)
}

fn of_status(
    status: StatusCode,
    asked: Option<Duration>,
    words: Option<&Words>,
    subject: &Subject,
    signed_in: bool,
) -> Error {
    let name = &subject.name;
    let said = words.map(|words| format!(": {}", words.text)).unwrap_or_default();
    if status == StatusCode::TOO_MANY_REQUESTS || words.is_some_and(|words| words.rate_limited) {
        let retry_at = asked.map(|wait| SystemTime::now() + wait);
        return subject.error(
            ErrorKind::RateLimited { retry_at },
            format!("the registry limits requests for {name}{said}"),
        );
    }
    match status {
        StatusCode::NOT_FOUND => subject.error(ErrorKind::NotFound, format!("{name} not found{said}")),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => denied(subject, &said, signed_in),
        status => subject.error(
            ErrorKind::Unavailable,
            format!("the registry answered {status} for {name}{said}"),
        ),
    }
}

/// Registries do not tell "not there" from "not for you", so neither can this.
fn denied(subject: &Subject, said: &str, signed_in: bool) -> Error {
    let remedy = if signed_in {
        "it does not exist, or the credentials given do not allow it"
    } else {
        "it does not exist, or needs credentials, and none were given"
    };
    subject.error(
        ErrorKind::Denied,
        format!("access to {} denied{said} ({remedy})", subject.name),
    )
}

/// The error of a request without a response, or of a body that broke off.
pub(super) fn broken(error: reqwest::Error, subject: &Subject, stall: Duration) -> Error {
    // An address after a redirect may carry a signature that is as good as a password.
    let error = error.without_url();
    let name = &subject.name;
    if let Some(why) = untrusted(&error) {
        let message = format!(
            "the certificate of the registry is not trusted for {name}: {why} (add its authority to the options)"
        );
        return subject.error(ErrorKind::Denied, message).with_source(error);
    }
    if error.is_timeout() && !error.is_connect() {
        let message = format!(
            "the registry sent nothing for {} s while reading {name}",
            stall.as_secs_f32()
        );
        return subject.error(ErrorKind::Timeout, message).with_source(error);
    }
    let kind = if error.is_timeout() {
        ErrorKind::Timeout
    } else {
        ErrorKind::Unavailable
    };
    let message = if error.is_connect() {
        format!("cannot connect to the registry of {name}")
    } else {
        format!("the connection to the registry broke while reading {name}")
    };
    subject.error(kind, message).with_source(error)
}

/// Whether asking again may help at once: the connection was there and broke.
pub(super) fn is_reset(error: &reqwest::Error) -> bool {
    !error.is_connect() && !error.is_timeout() && !error.is_builder() && !error.is_redirect()
}

/// Why a certificate was refused, if that is what happened.
pub(super) fn untrusted(error: &reqwest::Error) -> Option<String> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(why) = certificate_error(error) {
            return Some(why);
        }
        next = error.source();
    }
    None
}

/// An I/O error hides what it wraps from `source()`, and is itself wrapped in others.
fn certificate_error(error: &(dyn StdError + 'static)) -> Option<String> {
    if let Some(rustls::Error::InvalidCertificate(why)) = error.downcast_ref() {
        return Some(why.to_string());
    }
    certificate_error(error.downcast_ref::<std::io::Error>()?.get_ref()?)
}

struct Words {
    text: String,
    rate_limited: bool,
}

async fn words(response: Response) -> Option<Words> {
    let mut body = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(Ok(chunk)) = stream.next().await {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_BODY {
            return None;
        }
    }
    let envelope: OciEnvelope = serde_json::from_slice(&body).ok()?;
    let first = envelope.errors.into_iter().next()?;
    Some(Words {
        text: printable(&first.message),
        rate_limited: first.code == OciErrorCode::Toomanyrequests,
    })
}

/// A stranger's words, without what could drive a terminal.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, asked: Option<u64>) -> Error {
        let subject = Subject {
            kind: ObjectKind::Image,
            name: "example.com/app:1".into(),
        };
        let status = StatusCode::from_u16(status).unwrap();
        of_status(status, asked.map(Duration::from_secs), None, &subject, false)
    }

    #[test]
    fn each_status_has_its_kind_and_names_the_image() {
        assert_eq!(of(404, None).kind(), &ErrorKind::NotFound);
        assert_eq!(of(401, None).kind(), &ErrorKind::Denied);
        assert_eq!(of(403, None).kind(), &ErrorKind::Denied);
        assert_eq!(of(500, None).kind(), &ErrorKind::Unavailable);
        assert!(matches!(
            of(429, Some(5)).kind(),
            ErrorKind::RateLimited { retry_at: Some(_) }
        ));
        for status in [400, 401, 403, 404, 429, 503] {
            assert!(of(status, None).to_string().contains("example.com/app:1"), "{status}");
        }
    }

    #[test]
    fn a_registry_s_words_cannot_drive_a_terminal() {
        assert_eq!(printable("a\x1b[31mb\r\n"), "a[31mb");
        assert_eq!(printable(&"é".repeat(1000)).chars().count(), MAX_WORDS);
    }
}
