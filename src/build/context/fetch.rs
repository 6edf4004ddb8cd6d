//! Files that are elsewhere: URLs and repositories, as `ADD` and contexts name them.

use super::{Services, Tree};
use crate::error::{Error, Result};
#[cfg(feature = "registry")]
use crate::error::{ErrorKind, ObjectKind};
use crate::types::{ByteStream, Digest};

/// What is taken from a URL.
#[cfg(feature = "registry")]
const BYTES: u64 = 512 << 30;
/// A file whose URL has no name. Source: BuildKit, `convert_copy.go`.
const UNNAMED: &str = "__unnamed__";
/// The shortest beginning of a commit's id that says which.
const COMMIT_DIGITS: usize = 7;

/// A repository, and what of it is wanted. Source: BuildKit, `dfgitutil.ParseGitRef`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(not(feature = "registry"), allow(dead_code, reason = "for the client"))]
pub(crate) struct Repository {
    /// Where it is, without what is wanted of it.
    pub(crate) remote: String,
    /// A branch, a tag or a commit; else what the repository shows first.
    pub(crate) reference: Option<String>,
    /// A directory of it; empty for the whole.
    pub(crate) directory: String,
    /// The commit that it must be, or the beginning of its id.
    pub(crate) commit: Option<String>,
    pub(crate) keep_git_dir: Option<bool>,
    pub(crate) submodules: Option<bool>,
}

/// A file that was downloaded.
#[derive(Debug)]
#[cfg_attr(not(feature = "registry"), allow(dead_code, reason = "for the client"))]
pub(crate) struct Downloaded {
    /// A tree that has it alone.
    pub(crate) tree: Tree,
    pub(crate) name: String,
}

/// Whether a source of `ADD` is elsewhere.
pub(crate) fn is_remote(source: &str) -> bool {
    source.starts_with("http://") || source.starts_with("https://") || matches!(repository(source), Ok(Some(_)))
}

/// The repository that a source of `ADD` names, if it names one.
///
/// # Errors
/// `InvalidArgument` for a repository with a query that says nothing known.
pub(crate) fn repository(source: &str) -> Result<Option<Repository>> {
    if let Some((scheme, rest)) = source.split_once("://") {
        if !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Ok(None);
        }
        let (address, query, fragment) = pieces(rest);
        let is_web = matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https");
        let is_other = matches!(scheme.to_ascii_lowercase().as_str(), "ssh" | "git");
        if !(is_other || is_web && address.contains('/') && address.ends_with(".git")) {
            return Ok(None);
        }
        return Repository::of(format!("{scheme}://{address}"), query, fragment).map(Some);
    }
    let (address, query, fragment) = pieces(source);
    match is_scp_like(address) {
        true => Repository::of(address.to_owned(), query, fragment).map(Some),
        false => Ok(None),
    }
}

/// The same for a context: there every address is one of a repository, and `github.com/` needs no scheme.
///
/// # Errors
/// Those of [`repository`].
pub(crate) fn repository_of_context(source: &str) -> Result<Option<Repository>> {
    if let Some(found) = repository(source)? {
        return Ok(Some(found));
    }
    let whole = match source.split_once("://") {
        Some(("http" | "https", _)) => source.to_owned(),
        None if source.starts_with("github.com/") => format!("https://{source}"),
        _ => return Ok(None),
    };
    let (address, query, fragment) = pieces(&whole);
    Repository::of(address.to_owned(), query, fragment).map(Some)
}

/// An address without its query and its fragment, and these.
fn pieces(text: &str) -> (&str, Option<&str>, Option<&str>) {
    let (rest, fragment) = match text.split_once('#') {
        Some((rest, fragment)) => (rest, Some(fragment)),
        None => (text, None),
    };
    match rest.split_once('?') {
        Some((address, query)) => (address, Some(query), fragment),
        None => (rest, None, fragment),
    }
}

/// `user@host:path`.
fn is_scp_like(text: &str) -> bool {
    let word = |text: &str, more: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    let Some((user, rest)) = text.split_once('@') else {
        return false;
    };
    let Some((host, _)) = rest.split_once(':') else {
        return false;
    };
    word(user, "-_") && word(host, "-.")
}

impl Repository {
    fn of(remote: String, query: Option<&str>, fragment: Option<&str>) -> Result<Self> {
        let (reference, directory) = fragment
            .unwrap_or_default()
            .split_once(':')
            .unwrap_or((fragment.unwrap_or_default(), ""));
        let mut out = Self {
            remote,
            reference: Some(decoded(reference)).filter(|reference| !reference.is_empty()),
            directory: cleaned(&decoded(directory)),
            ..Self::default()
        };
        for part in query.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            out.take(key, &decoded(value))?;
        }
        Ok(out)
    }

    fn take(&mut self, key: &str, value: &str) -> Result<()> {
        let bad = |what: &str| Error::invalid(format!("the repository's address has {what}: {key}={value}"));
        let flag = || match value {
            "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            _ => Err(bad("a flag that is neither true nor false")),
        };
        match key {
            "keep-git-dir" => self.keep_git_dir = Some(flag()?),
            "submodules" => self.submodules = Some(flag()?),
            "fetch-by-commit" => drop(flag()?),
            _ if value.is_empty() => return Err(bad("a query without a value")),
            "mtime" if matches!(value, "checkout" | "commit") => {}
            "ref" => self.point_at(value)?,
            "tag" => self.point_at(&with_prefix("refs/tags/", value))?,
            "branch" => self.point_at(&with_prefix("refs/heads/", value))?,
            "subdir" if self.directory.is_empty() => self.directory = cleaned(value),
            "subdir" if self.directory == cleaned(value) => {}
            "checksum" | "commit" => {
                check_commit(value)?;
                self.commit = Some(value.to_ascii_lowercase());
            }
            _ => return Err(bad("a query that is not known")),
        }
        Ok(())
    }

    fn point_at(&mut self, reference: &str) -> Result<()> {
        match &self.reference {
            Some(other) if other != reference => {
                let message = format!("the repository's address names two references: {other} and {reference}");
                Err(Error::invalid(message))
            }
            _ => {
                self.reference = Some(reference.to_owned());
                Ok(())
            }
        }
    }

    /// With what flags of `ADD` say.
    ///
    /// # Errors
    /// `InvalidArgument` where they say something else than the address.
    pub(crate) fn with_flags(mut self, keep_git_dir: Option<bool>, checksum: Option<&str>) -> Result<Self> {
        match (keep_git_dir, self.keep_git_dir) {
            (Some(flag), Some(own)) if flag != own => {
                return Err(Error::invalid(
                    "--keep-git-dir says something else than the repository's address",
                ));
            }
            (flag, own) => self.keep_git_dir = own.or(flag),
        }
        if let Some(checksum) = checksum {
            let checksum = checksum.to_ascii_lowercase();
            if self.commit.as_ref().is_some_and(|own| *own != checksum) {
                return Err(Error::invalid(
                    "--checksum says something else than the repository's address",
                ));
            }
            self.commit = Some(checksum);
        }
        Ok(self)
    }
}

fn with_prefix(prefix: &str, name: &str) -> String {
    match name.starts_with(prefix) {
        true => name.to_owned(),
        false => format!("{prefix}{name}"),
    }
}

/// A directory without `.` and `..`, and without slashes around it.
fn cleaned(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// `%41` is `A`; what is no such escape stays.
fn decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let Some((byte, rest)) = bytes.split_first() {
        let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (byte, escaped) {
            (b'%', Some(escaped)) => {
                out.push(escaped);
                bytes = &rest[2..];
            }
            _ => {
                out.push(*byte);
                bytes = rest;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Whether `--checksum` can be what a source has.
///
/// # Errors
/// `InvalidArgument`.
pub(crate) fn check_checksum(checksum: &str, source: &str) -> Result<()> {
    match repository(source)? {
        Some(_) => check_commit(checksum),
        None => checksum.parse::<Digest>().map(drop),
    }
}

fn check_commit(commit: &str) -> Result<()> {
    let digits = commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    if digits && (COMMIT_DIGITS..=64).contains(&commit.len()) {
        return Ok(());
    }
    let message =
        format!("invalid checksum: {commit:?} is no commit of a repository (at least {COMMIT_DIGITS} hex digits)");
    Err(Error::invalid(message))
}

/// The name that a URL's file gets.
fn name_of(url: &str) -> Result<String> {
    let (address, ..) = pieces(url);
    let path = address.split_once("://").map_or(address, |(_, rest)| rest);
    let path = path.split_once('/').map_or("", |(_, path)| path);
    let path = decoded(path);
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    match name {
        "" | "." => Ok(UNNAMED.to_owned()),
        name if name == ".." || name.contains('\0') || name.len() > 255 => {
            let message = format!("the name of the file at {url:?} can be no file's: give one as the destination");
            Err(Error::invalid(message))
        }
        name => Ok(name.to_owned()),
    }
}

/// Downloads a file.
///
/// # Errors
/// What the server says; `DigestMismatch` where it is not what the checksum says; `NoSpace`, `Os`; `Unsupported` without the
/// feature `registry`.
///
/// # Cancel safety
/// What was received is in the directory of the build.
#[cfg(feature = "registry")]
pub(crate) async fn download(url: &str, checksum: Option<&str>, services: &Services) -> Result<Downloaded> {
    let name = name_of(url)?;
    let wanted: Option<Digest> = checksum.map(str::parse).transpose()?;
    let fetched = services.client().await?.request(url, &[], None).await?;
    let modified = modified(&fetched.headers);
    let (tree, digest, path) = services.spool(fetched.body, BYTES).await?;
    if let Some(wanted) = wanted.filter(|wanted| *wanted != digest) {
        let message = format!("what is at the URL is {digest}, and --checksum says {wanted}");
        return Err(Error::new(ErrorKind::DigestMismatch, message).with_object(ObjectKind::Option, "checksum"));
    }
    crate::sys::blocking::blocking(move || set_time(&path, modified)).await?;
    Ok(Downloaded { tree, name })
}

/// See the feature `registry`.
#[cfg(not(feature = "registry"))]
pub(crate) async fn download(url: &str, _: Option<&str>, _: &Services) -> Result<Downloaded> {
    name_of(url)?;
    Err(no_client())
}

/// The bytes at a URL.
///
/// # Errors
/// What the server says; `Unsupported` without the feature `registry`.
#[cfg(feature = "registry")]
pub(crate) async fn stream(url: &str, services: &Services) -> Result<ByteStream> {
    Ok(services.client().await?.request(url, &[], None).await?.body)
}

/// See the feature `registry`.
#[cfg(not(feature = "registry"))]
pub(crate) async fn stream(_: &str, _: &Services) -> Result<ByteStream> {
    Err(no_client())
}

#[cfg(not(feature = "registry"))]
fn no_client() -> Error {
    Error::unsupported("reading URLs", "the crate's feature \"registry\"")
}

/// When a file was changed, as its server says: in seconds, zero if it says nothing. Source: RFC 9110, section 8.8.2.
#[cfg(feature = "registry")]
fn modified(headers: &reqwest::header::HeaderMap) -> i64 {
    use time::format_description::well_known::Rfc2822;
    let text = headers
        .get(reqwest::header::LAST_MODIFIED)
        .and_then(|text| text.to_str().ok());
    let date = text.and_then(|text| time::OffsetDateTime::parse(&text.replace("GMT", "+0000"), &Rfc2822).ok());
    date.map_or(0, time::OffsetDateTime::unix_timestamp)
}

#[cfg(feature = "registry")]
fn set_time(path: &std::path::Path, seconds: i64) -> Result<()> {
    let time = nix::sys::time::TimeSpec::new(seconds, 0);
    let follow = nix::sys::stat::UtimensatFlags::NoFollowSymlink;
    nix::sys::stat::utimensat(nix::fcntl::AT_FDCWD, path, &time, &time, follow).map_err(|e| Error::os("utimensat", e))
}

/// The files of a repository.
///
/// # Errors
/// Those of the server; `Unsupported` without the feature `registry`.
#[cfg(feature = "registry")]
pub(crate) async fn clone(repository: &Repository, services: &Services) -> Result<Tree> {
    super::git::clone(repository, services).await
}

/// See the feature `registry`.
#[cfg(not(feature = "registry"))]
pub(crate) async fn clone(_: &Repository, _: &Services) -> Result<Tree> {
    Err(no_client())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f4_files_of_urls_have_the_names_of_their_paths() {
        for (url, name) in [
            ("https://h/a/b.tar.gz", "b.tar.gz"),
            ("https://h/a/b?x=/y#z", "b"),
            ("https://h/a%20b", "a b"),
            ("https://h/a%2Fb", "b"),
            ("https://h/a/", "a"),
            ("https://h/", UNNAMED),
            ("https://h", UNNAMED),
            ("https://h/%zz", "%zz"),
        ] {
            assert_eq!(name_of(url).unwrap(), name, "{url}");
        }
        for bad in ["https://h/..", "https://h/%2e%2e", "https://h/a%00b"] {
            assert!(name_of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn f4_f18_repositories_are_told_from_files_and_urls() {
        let of = |text: &str| repository(text).unwrap();
        let whole = of("https://h/o/r.git#v1:a/../b").unwrap();
        assert_eq!(
            (whole.remote.as_str(), whole.directory.as_str()),
            ("https://h/o/r.git", "b")
        );
        assert_eq!(whole.reference.as_deref(), Some("v1"));
        let query = of("https://h/r.git?branch=main&subdir=x&keep-git-dir&commit=ABCDEF0").unwrap();
        assert_eq!(query.reference.as_deref(), Some("refs/heads/main"));
        assert_eq!((query.directory.as_str(), query.keep_git_dir), ("x", Some(true)));
        assert_eq!(query.commit.as_deref(), Some("abcdef0"));
        assert!(
            of("git@github.com:o/r.git#main").is_some() && of("ssh://git@h/r").is_some() && of("git://h/r").is_some()
        );
        for none in [
            "a/b.git",
            "./a",
            "https://h/a.tar",
            "https://h.git",
            "ftp://h/r.git",
            "github.com/o/r",
            "a@b",
            "a b@c:d",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
        assert!(repository("https://h/r.git?what=1").is_err() && repository("https://h/r.git?ref=a&ref=b").is_err());
        assert!(repository("https://h/r.git?tag=").is_err() && repository("https://h/r.git?submodules=maybe").is_err());
        let context = repository_of_context("github.com/o/r").unwrap().unwrap();
        assert_eq!(context.remote, "https://github.com/o/r");
        assert!(is_remote("https://h/x") && is_remote("git@h:r") && !is_remote("x.git"));
    }

    #[test]
    fn f4_flags_and_address_must_agree() {
        let of = || {
            repository("https://h/r.git?keep-git-dir=false&commit=abcdef0")
                .unwrap()
                .unwrap()
        };
        assert!(of().with_flags(Some(true), None).is_err() && of().with_flags(None, Some("abcdef1")).is_err());
        assert_eq!(
            of().with_flags(None, Some("ABCDEF0")).unwrap().keep_git_dir,
            Some(false)
        );
        assert!(
            check_checksum("abc", "https://h/r.git").is_err() && check_checksum("abcdef0", "https://h/r.git").is_ok()
        );
        assert!(check_checksum("sha256:0", "https://h/r").is_err());
        let digest = Digest::of(b"").to_string();
        assert!(check_checksum(&digest, "https://h/r").is_ok());
    }
}
