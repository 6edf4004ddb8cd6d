//! The push half: existence checks, mounts, uploads that go on where they broke off, manifests.
//!
//! A blob goes in one PUT after the POST that begins its upload. Where that breaks off, the registry is asked how far it
//! got, and the rest follows in a PATCH; a registry that has forgotten gets the blob anew. Source: OCI distribution-spec
//! 1.1, "Pushing blobs".

use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderName, RANGE};
use reqwest::{Method, Response, StatusCode, Url};

use super::HttpRegistry;
use super::endpoint;
use super::exchange::{Ask, Failed, Payload, place};
use super::fail::Subject;
use super::referrers;
use super::retry::Retry;
use crate::error::{ObjectKind, Result};
use crate::registry::{ManifestBlob, ManifestKey, Upload};
use crate::types::{Descriptor, Digest};

const OCTETS: (HeaderName, &str) = (CONTENT_TYPE, "application/octet-stream");

pub(super) async fn has(registry: &HttpRegistry, repository: &str, descriptor: &Descriptor) -> Result<bool> {
    let subject = subject_of(registry, repository, &descriptor.digest);
    let scope = super::push_scope(repository);
    let ask = Ask {
        method: Method::HEAD,
        url: endpoint::blob(registry.transport.base().await?, repository, &descriptor.digest)?,
        scope: &scope,
        headers: &[],
        body: Payload::None,
        subject: &subject,
        retry: true,
    };
    match registry.transport.exchange(&ask).await {
        Ok(_) => Ok(true),
        Err(failed) if failed.error.is_not_found() => Ok(false),
        // A HEAD's answer may be a redirect's target that knows no HEAD; then the upload itself will tell.
        Err(failed) => Err(failed.into()),
    }
}

pub(super) async fn mount(
    registry: &HttpRegistry,
    repository: &str,
    descriptor: &Descriptor,
    from: &str,
) -> Result<bool> {
    let subject = subject_of(registry, repository, &descriptor.digest);
    let scope = format!("{} {}", super::push_scope(repository), super::pull_scope(from));
    let mut url = endpoint::uploads(registry.transport.base().await?, repository)?;
    url.query_pairs_mut()
        .append_pair("mount", &descriptor.digest.to_string())
        .append_pair("from", from);
    let ask = Ask {
        method: Method::POST,
        url,
        scope: &scope,
        headers: &[],
        body: Payload::None,
        subject: &subject,
        retry: true,
    };
    match registry.transport.exchange(&ask).await {
        Ok(response) if response.status() == StatusCode::CREATED => Ok(true),
        // The registry began an upload instead, which nobody needs.
        Ok(response) => {
            let place = place(&ask.url, &response, &subject);
            drop(response);
            if let Ok(url) = place {
                cancel(registry, repository, url, &subject).await;
            }
            Ok(false)
        }
        Err(failed) if failed.transient => Err(failed.into()),
        // The other repository may not be there any more, or not for us.
        Err(failed) => {
            tracing::debug!(error = %failed.error, from, "a blob could not be mounted");
            Ok(false)
        }
    }
}

pub(super) async fn send(
    registry: &HttpRegistry,
    repository: &str,
    descriptor: &Descriptor,
    upload: Upload,
) -> Result<()> {
    let job = Job {
        registry,
        repository,
        descriptor,
        upload,
        subject: subject_of(registry, repository, &descriptor.digest),
        scope: super::push_scope(repository),
    };
    let mut retry = Retry::new(registry.transport.options());
    let mut session = None;
    loop {
        let failed = match job.attempt(&mut session).await {
            Ok(()) => return Ok(()),
            Err(failed) => failed,
        };
        if !failed.transient {
            if let Some(Session { url, .. }) = session {
                cancel(registry, repository, url, &job.subject).await;
            }
            return Err(failed.into());
        }
        retry.again(failed.error, failed.asked).await?;
        session = match session.take() {
            Some(begun) => job.whereabouts(begun).await,
            None => None,
        };
    }
}

pub(super) async fn put_manifest(
    registry: &HttpRegistry,
    repository: &str,
    key: &ManifestKey,
    manifest: &ManifestBlob,
) -> Result<()> {
    let name = match key {
        ManifestKey::Tag(tag) => format!("{}/{repository}:{tag}", registry.host),
        ManifestKey::Digest(digest) => format!("{}/{repository}@{digest}", registry.host),
    };
    let subject = Subject {
        kind: ObjectKind::Image,
        name,
    };
    let scope = super::push_scope(repository);
    let ask = Ask {
        method: Method::PUT,
        url: endpoint::manifest(registry.transport.base().await?, repository, key)?,
        scope: &scope,
        headers: &[(CONTENT_TYPE, manifest.descriptor.media_type.0.clone())],
        body: Payload::Whole(&manifest.bytes),
        subject: &subject,
        retry: true,
    };
    let response = registry.transport.exchange(&ask).await?;
    match referrers::subject_in(manifest) {
        // The registry that names the subject keeps the list. Source: OCI distribution-spec 1.1, "Pushing Manifests with
        // Subject".
        Some(subject) if !response.headers().contains_key("oci-subject") => {
            referrers::add_to_tag(registry, repository, &subject, manifest).await
        }
        _ => Ok(()),
    }
}

/// An upload that the registry has begun.
struct Session {
    url: Url,
    /// How many bytes it has.
    offset: u64,
}

struct Job<'a> {
    registry: &'a HttpRegistry,
    repository: &'a str,
    descriptor: &'a Descriptor,
    upload: Upload,
    subject: Subject,
    scope: String,
}

impl Job<'_> {
    async fn attempt(&self, session: &mut Option<Session>) -> Result<(), Failed> {
        let at = match session {
            Some(begun) => begun,
            None => session.insert(self.begin().await?),
        };
        let chunk = self
            .registry
            .transport
            .options()
            .upload_chunk
            .filter(|chunk| *chunk > 0);
        let size = self.descriptor.size;
        if at.offset == 0 && chunk.is_none_or(|chunk| chunk >= size) {
            return self.finish(&at.url, Payload::Part(&self.upload, 0, size)).await;
        }
        while at.offset < size {
            let length = (size - at.offset).min(chunk.unwrap_or(u64::MAX));
            let response = self.patch(&at.url, at.offset, length).await?;
            at.url = place(&at.url, &response, &self.subject)?;
            at.offset += length;
        }
        self.finish(&at.url, Payload::None).await
    }

    async fn begin(&self) -> Result<Session, Failed> {
        let url = endpoint::uploads(self.registry.transport.base().await?, self.repository)?;
        let ask = self.ask(Method::POST, url, &[], Payload::None);
        let response = self.registry.transport.exchange(&ask).await?;
        let url = place(&ask.url, &response, &self.subject)?;
        Ok(Session { url, offset: 0 })
    }

    async fn patch(&self, url: &Url, offset: u64, length: u64) -> Result<Response, Failed> {
        let range = format!("{offset}-{}", offset + length.saturating_sub(1));
        let headers = [(OCTETS.0, OCTETS.1.to_owned()), (CONTENT_RANGE, range)];
        let body = Payload::Part(&self.upload, offset, length);
        let ask = self.ask(Method::PATCH, url.clone(), &headers, body);
        self.registry.transport.exchange(&ask).await
    }

    async fn finish(&self, url: &Url, body: Payload<'_>) -> Result<(), Failed> {
        let mut url = url.clone();
        url.query_pairs_mut()
            .append_pair("digest", &self.descriptor.digest.to_string());
        let headers = [(OCTETS.0, OCTETS.1.to_owned())];
        let ask = self.ask(Method::PUT, url, &headers, body);
        match self.registry.transport.exchange(&ask).await {
            Ok(_) => Ok(()),
            // The connection broke after the registry had everything, or somebody else has sent the blob meanwhile.
            Err(failed) if failed.transient && self.arrived().await => Ok(()),
            Err(failed) => Err(failed),
        }
    }

    async fn arrived(&self) -> bool {
        has(self.registry, self.repository, self.descriptor)
            .await
            .unwrap_or(false)
    }

    /// How far an upload got that broke off; none where the registry does not know, or does not tell.
    async fn whereabouts(&self, begun: Session) -> Option<Session> {
        let ask = self.ask(Method::GET, begun.url, &[], Payload::None);
        let response = self.registry.transport.exchange(&ask).await.ok()?;
        let last = response.headers().get(RANGE).and_then(|value| value.to_str().ok());
        let last: u64 = last.and_then(last_byte)?;
        // `0-0` is said of nothing and of one byte.
        if last == 0 || last >= self.descriptor.size {
            return None;
        }
        let url = place(&ask.url, &response, &self.subject).unwrap_or_else(|_| ask.url.clone());
        Some(Session { url, offset: last + 1 })
    }

    fn ask<'a>(&'a self, method: Method, url: Url, headers: &'a [(HeaderName, String)], body: Payload<'a>) -> Ask<'a> {
        Ask {
            method,
            url,
            scope: &self.scope,
            headers,
            body,
            subject: &self.subject,
            retry: false,
        }
    }
}

/// Tells the registry to forget an upload. It would by itself, after days.
async fn cancel(registry: &HttpRegistry, repository: &str, url: Url, subject: &Subject) {
    let scope = super::push_scope(repository);
    let ask = Ask {
        method: Method::DELETE,
        url,
        scope: &scope,
        headers: &[],
        body: Payload::None,
        subject,
        retry: false,
    };
    if let Err(failed) = registry.transport.exchange(&ask).await {
        tracing::debug!(error = %failed.error, "the registry keeps an upload that was given up");
    }
}

fn subject_of(registry: &HttpRegistry, repository: &str, digest: &Digest) -> Subject {
    Subject {
        kind: ObjectKind::Blob,
        name: format!("{}/{repository}@{digest}", registry.host),
    }
}

/// `0-99`, with or without `bytes=` before it.
fn last_byte(text: &str) -> Option<u64> {
    text.trim_start_matches("bytes=")
        .strip_prefix("0-")?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::last_byte;

    #[test]
    fn reads_what_registries_say_of_their_progress() {
        assert_eq!((last_byte("0-99"), last_byte("bytes=0-7")), (Some(99), Some(7)));
        for bad in ["", "0-", "1-9", "x", "0--1"] {
            assert_eq!(last_byte(bad), None, "{bad:?}");
        }
    }
}
