//! Lists over HTTP, page by page: tags, repositories, referrers. And whether the credentials hold.

use futures_util::StreamExt;
use reqwest::header::{ACCEPT, HeaderName, LINK};
use reqwest::{Method, Response, Url};
use serde::Deserialize;

use super::HttpRegistry;
use super::endpoint::{self, same_server};
use super::exchange::{Ask, Failed, Payload};
use super::fail::Subject;
use super::referrers;
use super::retry::Retry;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::registry::{Referrer, Registry};
use crate::types::{Descriptor, Digest};

/// The largest page that is read, in bytes.
const MAX_PAGE: usize = 4 << 20;
/// More pages than any list has.
const MAX_PAGES: usize = 10_000;
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

#[derive(Deserialize)]
struct Tags {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Repositories {
    #[serde(default)]
    repositories: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<serde_json::Value>,
}

pub(super) async fn tags(registry: &HttpRegistry, repository: &str) -> Result<Vec<String>> {
    let url = endpoint::tags(registry.transport.base().await?, repository)?;
    let name = format!("{}/{repository}", registry.host);
    let scope = super::pull_scope(repository);
    let pages = pages(registry, url, &scope, &subject(name), None).await?;
    let mut out = Vec::new();
    for page in pages {
        let page: Tags = parse(&page, &registry.host)?;
        out.extend(page.tags.unwrap_or_default());
    }
    Ok(out)
}

pub(super) async fn repositories(registry: &HttpRegistry) -> Result<Vec<String>> {
    let base = registry.transport.base().await?;
    let url = base
        .join("_catalog")
        .map_err(|error| Error::internal("an address without a path").with_source(error))?;
    let pages = pages(
        registry,
        url,
        "registry:catalog:*",
        &subject(registry.host.clone()),
        None,
    )
    .await?;
    let mut out = Vec::new();
    for page in pages {
        let page: Repositories = parse(&page, &registry.host)?;
        out.extend(page.repositories.unwrap_or_default());
    }
    Ok(out)
}

pub(super) async fn referrers_of(registry: &HttpRegistry, repository: &str, of: &Digest) -> Result<Vec<Referrer>> {
    let url = endpoint::referrers(registry.transport.base().await?, repository, of)?;
    let scope = super::pull_scope(repository);
    let subject = subject(format!("{}/{repository}@{of}", registry.host));
    match pages(registry, url, &scope, &subject, Some(INDEX)).await {
        Ok(pages) => {
            let mut out = Vec::new();
            for page in pages {
                out.extend(entries(&page, &registry.host)?);
            }
            Ok(out)
        }
        Err(failed) if failed.error.is_not_found() => by_tag(registry, repository, of).await,
        Err(failed) => Err(failed.into()),
    }
}

/// Where the registry does not keep referrers. Source: OCI distribution-spec 1.1, "Referrers Tag Schema".
async fn by_tag(registry: &HttpRegistry, repository: &str, of: &Digest) -> Result<Vec<Referrer>> {
    match registry.manifest(repository, &referrers::tag_of(of)).await {
        Ok(index) => entries(&index.bytes, &registry.host),
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The registry's root answers whoever is signed in.
pub(super) async fn check_login(registry: &HttpRegistry) -> Result<()> {
    let subject = subject(registry.host.clone());
    let ask = Ask {
        method: Method::GET,
        url: registry.transport.base().await?.clone(),
        scope: "",
        headers: &[],
        body: Payload::None,
        subject: &subject,
        retry: true,
    };
    registry.transport.exchange(&ask).await?;
    Ok(())
}

/// All pages of a list. Source: OCI distribution-spec 1.1, "Listing Tags"; RFC 5988.
async fn pages(
    registry: &HttpRegistry,
    first: Url,
    scope: &str,
    subject: &Subject,
    accept: Option<&str>,
) -> Result<Vec<Vec<u8>>, Failed> {
    let headers: Vec<(HeaderName, String)> = accept.map(|accept| (ACCEPT, accept.to_owned())).into_iter().collect();
    let mut pages = Vec::new();
    let mut next = Some(first);
    while let Some(url) = next {
        if pages.len() >= MAX_PAGES {
            let message = format!("the list of {} has no end", subject.name);
            return Err(subject.error(ErrorKind::Unavailable, message).into());
        }
        let ask = Ask {
            method: Method::GET,
            url,
            scope,
            headers: &headers,
            body: Payload::None,
            subject,
            retry: true,
        };
        let (page, link) = page(registry, &ask, subject).await?;
        next = link.and_then(|link| ask.url.join(&link).ok());
        // Another server's list is none of this one's, and must not see the sign-in.
        next = next.filter(|next| same_server(next, &ask.url) && *next != ask.url);
        pages.push(page);
    }
    Ok(pages)
}

/// A page as a whole, and the address of the next.
async fn page(registry: &HttpRegistry, ask: &Ask<'_>, subject: &Subject) -> Result<(Vec<u8>, Option<String>), Failed> {
    let mut retry = Retry::new(registry.transport.options());
    loop {
        let response = registry.transport.exchange(ask).await?;
        let link = link(&response);
        match body(registry, response, subject).await {
            Ok(page) => return Ok((page, link)),
            Err(failed) => failed.again(&mut retry).await?,
        }
    }
}

/// The address in `Link: <…>; rel="next"`.
fn link(response: &Response) -> Option<String> {
    let text = response.headers().get(LINK)?.to_str().ok()?;
    next_link(text).map(str::to_owned)
}

fn next_link(text: &str) -> Option<&str> {
    let (address, rest) = text.trim_start().strip_prefix('<')?.split_once('>')?;
    rest.replace('"', "").contains("rel=next").then_some(address)
}

async fn body(registry: &HttpRegistry, response: Response, subject: &Subject) -> Result<Vec<u8>, Failed> {
    let stall = registry.transport.options().stall_timeout;
    let mut bytes = Vec::new();
    let mut stream = response.bytes_stream();
    loop {
        let piece = tokio::time::timeout(stall, stream.next()).await.map_err(|_| {
            let message = format!(
                "the registry sent nothing for {} s while reading {}",
                stall.as_secs_f32(),
                subject.name
            );
            subject.error(ErrorKind::Timeout, message)
        })?;
        let Some(piece) = piece else { return Ok(bytes) };
        bytes.extend_from_slice(&piece.map_err(|error| Failed::broken_off(error, subject, stall))?);
        if bytes.len() > MAX_PAGE {
            let message = format!("a page of the list of {} is far too long", subject.name);
            return Err(subject.error(ErrorKind::Unavailable, message).into());
        }
    }
}

fn entries(bytes: &[u8], host: &str) -> Result<Vec<Referrer>> {
    let index: Index = parse(bytes, host)?;
    let entry = |value: serde_json::Value| {
        let artifact_type = value
            .get("artifactType")
            .and_then(|text| text.as_str())
            .map(str::to_owned);
        let descriptor: Descriptor = serde_json::from_value(value).ok()?;
        Some(Referrer {
            descriptor,
            artifact_type,
        })
    };
    Ok(index.manifests.into_iter().filter_map(entry).collect())
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8], host: &str) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        Error::new(
            ErrorKind::Unavailable,
            format!("the registry {host} sent a list that makes no sense"),
        )
        .with_object(ObjectKind::Registry, host.to_owned())
        .with_source(error)
    })
}

fn subject(name: String) -> Subject {
    Subject {
        kind: ObjectKind::Registry,
        name,
    }
}

#[cfg(test)]
mod tests {
    use super::next_link;

    #[test]
    fn finds_the_next_page() {
        assert_eq!(
            next_link(r#"</v2/a/tags/list?last=x&n=2>; rel="next""#),
            Some("/v2/a/tags/list?last=x&n=2")
        );
        assert_eq!(next_link("<x>; rel=next"), Some("x"));
        for other in ["", "x; rel=next", "<x>; rel=prev", "<x"] {
            assert_eq!(next_link(other), None, "{other:?}");
        }
    }
}
