//! From the host in a reference to the addresses to try, in order. Pure.

use reqwest::Url;

use super::options::PlainHttp;
use crate::error::{Error, ObjectKind, Result};
use crate::registry::ManifestKey;
use crate::types::Digest;

/// Registries whose API lives under another name than the one in references.
const ALIASES: &[(&str, &str)] = &[("docker.io", "registry-1.docker.io")];

/// The base addresses (`https://host/v2/`) to try for a host, first choice first.
pub(super) fn candidates(host: &str, plain: PlainHttp) -> Result<Vec<Url>> {
    let name = ALIASES
        .iter()
        .find(|(alias, _)| *alias == host)
        .map_or(host, |(_, name)| name);
    let tls = base("https", name)?;
    match plain {
        PlainHttp::Never => Ok(vec![tls]),
        PlainHttp::Always => Ok(vec![base("http", name)?]),
        PlainHttp::Loopback if is_loopback(&tls) => Ok(vec![tls, base("http", name)?]),
        PlainHttp::Loopback => Ok(vec![tls]),
    }
}

/// The address of a manifest.
pub(super) fn manifest(base: &Url, repository: &str, key: &ManifestKey) -> Result<Url> {
    match key {
        ManifestKey::Tag(tag) if !is_tag(tag) => Err(Error::invalid(format!("invalid tag: {tag:?}"))),
        ManifestKey::Tag(tag) => below(base, repository, &["manifests", tag]),
        ManifestKey::Digest(digest) => below(base, repository, &["manifests", &digest.to_string()]),
    }
}

/// The address of a blob.
pub(super) fn blob(base: &Url, repository: &str, digest: &Digest) -> Result<Url> {
    below(base, repository, &["blobs", &digest.to_string()])
}

/// Where uploads to a repository begin.
pub(super) fn uploads(base: &Url, repository: &str) -> Result<Url> {
    below(base, repository, &["blobs", "uploads", ""])
}

/// The address of the list of a repository's tags.
pub(super) fn tags(base: &Url, repository: &str) -> Result<Url> {
    below(base, repository, &["tags", "list"])
}

/// The address of the list of what refers to a manifest.
pub(super) fn referrers(base: &Url, repository: &str, subject: &Digest) -> Result<Url> {
    below(base, repository, &["referrers", &subject.to_string()])
}

/// Whether an address stays on this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else {
        return false;
    };
    if host.eq_ignore_ascii_case("localhost") {
        return true;
    }
    host.trim_matches(['[', ']'])
        .parse::<std::net::IpAddr>()
        .is_ok_and(|ip| ip.is_loopback())
}

/// Whether two addresses are the same server.
pub(super) fn same_server(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme() && a.host_str() == b.host_str() && a.port_or_known_default() == b.port_or_known_default()
}

fn base(scheme: &str, host: &str) -> Result<Url> {
    let bad = || Error::invalid(format!("invalid registry host: {host:?}")).with_object(ObjectKind::Registry, host);
    let url = Url::parse(&format!("{scheme}://{host}/v2/")).map_err(|error| bad().with_source(error))?;
    let plain =
        url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    if !plain || url.path() != "/v2/" || url.host_str().is_none_or(str::is_empty) {
        return Err(bad());
    }
    Ok(url)
}

fn below(base: &Url, repository: &str, rest: &[&str]) -> Result<Url> {
    if !is_repository(repository) {
        return Err(Error::invalid(format!("invalid repository: {repository:?}")));
    }
    let mut url = base.clone();
    match url.path_segments_mut() {
        Ok(mut path) => path.pop_if_empty().extend(repository.split('/')).extend(rest),
        Err(()) => return Err(Error::internal("a registry address without a path")),
    };
    Ok(url)
}

fn is_repository(text: &str) -> bool {
    let component = |part: &str| {
        let end = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let inner = part
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'));
        inner && end(part.as_bytes().first()) && end(part.as_bytes().last())
    };
    text.len() <= 255 && text.split('/').all(component)
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let first = text.bytes().next().is_some_and(word);
    first && text.len() <= 128 && text.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(host: &str, plain: PlainHttp) -> Vec<String> {
        candidates(host, plain).unwrap().into_iter().map(String::from).collect()
    }

    #[test]
    fn tls_first_and_plain_on_loopback_only() {
        assert_eq!(urls("example.com", PlainHttp::Loopback), ["https://example.com/v2/"]);
        assert_eq!(
            urls("example.com:5000", PlainHttp::Always),
            ["http://example.com:5000/v2/"]
        );
        for host in ["127.0.0.1:5000", "127.9.9.9:5000", "localhost:5000", "[::1]:5000"] {
            assert_eq!(
                urls(host, PlainHttp::Loopback),
                [format!("https://{host}/v2/"), format!("http://{host}/v2/")]
            );
            assert_eq!(urls(host, PlainHttp::Never).len(), 1);
        }
        assert_eq!(urls("localhost.example.com", PlainHttp::Loopback).len(), 1);
    }

    #[test]
    fn the_default_registry_has_an_alias() {
        assert_eq!(
            urls("docker.io", PlainHttp::Loopback),
            ["https://registry-1.docker.io/v2/"]
        );
    }

    #[test]
    fn hosts_that_are_more_than_hosts_are_refused() {
        for host in [
            "",
            "user@host",
            "user:pw@host",
            "host/path",
            "host?q",
            "host#f",
            "host:99999",
            "a b",
            "host\\x",
            "[::1",
        ] {
            assert!(candidates(host, PlainHttp::Always).is_err(), "{host:?}");
        }
    }

    #[test]
    fn paths_cannot_leave_the_repository() {
        let base = &candidates("example.com", PlainHttp::Never).unwrap()[0];
        let tag = ManifestKey::Tag("1.0".into());
        assert_eq!(
            manifest(base, "library/app", &tag).unwrap().as_str(),
            "https://example.com/v2/library/app/manifests/1.0"
        );
        for repository in ["", "..", "a/../b", "a//b", "/a", "a/", "A", "a?b", "a%2fb", "a\n"] {
            assert!(manifest(base, repository, &tag).is_err(), "{repository:?}");
        }
        for bad in ["", "..", "-x", "a/b", "a b", &"a".repeat(129)] {
            assert!(manifest(base, "app", &ManifestKey::Tag(bad.into())).is_err(), "{bad:?}");
        }
    }
}
