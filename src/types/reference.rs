//! Image references, normalised as Docker does.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Digest;
use crate::error::Error;

/// A reference to an image in a registry, fully qualified: host, repository, and a tag, a digest or both.
///
/// `busybox` means `docker.io/library/busybox:latest`; [`Reference::familiar`] gives the short form back.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// The registry's host, with its port if it has one.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The repository's path, `library/busybox`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; a reference with neither tag nor digest has `latest`.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, where the reference pins one.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The reference with a digest in place of its tag.
    #[must_use]
    pub fn pinned(&self, digest: &Digest) -> Self {
        Self {
            tag: None,
            digest: Some(*digest),
            ..self.clone()
        }
    }

    /// The reference with this tag alone.
    ///
    /// # Errors
    /// `InvalidArgument` for text that is no tag.
    pub fn tagged(&self, tag: &str) -> Result<Self, Error> {
        format!("{}/{}:{tag}", self.host(), self.repository()).parse()
    }

    /// The short form that Docker shows: `busybox:latest`, `example.com/app@sha256:…`. It parses to the same reference.
    pub fn familiar(&self) -> String {
        let tag = self.tag().map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = self.digest.map(|digest| format!("@{digest}")).unwrap_or_default();
        format!("{}{tag}{digest}", self.familiar_repository())
    }

    /// The short form without tag and digest, Docker's REPOSITORY column.
    pub fn familiar_repository(&self) -> String {
        let (host, repository) = (self.host(), self.repository());
        if host != DEFAULT_HOST {
            return format!("{host}/{repository}");
        }
        if let Some(name) = repository.strip_prefix("library/")
            && !name.contains('/')
        {
            return name.to_owned();
        }
        match repository.split_once('/') {
            // Without its host it would read as one of a host of that name.
            Some((first, _)) if is_host(first) => format!("{host}/{repository}"),
            _ => repository.to_owned(),
        }
    }
}

/// More than the longest reference with host, repository, tag and digest.
const MAX_TEXT: usize = 1024;

/// The registry of names without a host.
const DEFAULT_HOST: &str = "docker.io";

/// As it was called once.
const LEGACY_HOST: &str = "index.docker.io";

/// Whether the part before the first slash names a host. Source: `splitDockerDomain` of the distribution project's
/// reference package, where an upper-case letter makes a host too, since no repository may have one.
fn is_host(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.bytes().any(|b| b.is_ascii_uppercase())
}

/// Longest repository. Source: `RepositoryNameTotalLengthMax` of the distribution project's reference package.
const MAX_REPOSITORY: usize = 255;

/// Longest tag. Source: OCI distribution-spec 1.1, "Pulling manifests".
const MAX_TAG: usize = 128;

/// The host and the repository of a name without tag and digest; `None` if it is malformed. Source of the grammar and of
/// what is added: the distribution project's reference package, `regexp.go` and `normalize.go`. A parser by hand, since the
/// expression alone takes 25 ms and 20 MB to compile, more than a container takes to run.
fn host_and_repository(name: &str) -> Option<(String, String)> {
    let (host, path) = match name.split_once('/') {
        Some((first, rest)) if is_host(first) => (first, rest),
        _ => (DEFAULT_HOST, name),
    };
    let well_formed = (is_domain(host) || is_component(host)) && path.split('/').all(is_component);
    if !well_formed {
        return None;
    }
    let host = if host == LEGACY_HOST { DEFAULT_HOST } else { host };
    let official = host == DEFAULT_HOST && !path.contains('/');
    let repository = if official {
        format!("library/{path}")
    } else {
        path.to_owned()
    };
    Some((host.to_owned(), repository))
}

/// `a.b-c.com`, `localhost`, with a port or without.
fn is_domain(text: &str) -> bool {
    let (name, port) = text.split_once(':').unwrap_or((text, "0"));
    let is_label = |label: &str| {
        let inner = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        inner && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    name.split('.').all(is_label) && !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())
}

/// A part of a repository's path: lower-case letters and digits, between which there may be one dot, one or two underscores,
/// or any number of dashes.
fn is_component(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_separator = |text: &str| matches!(text, "." | "_" | "__") || text.bytes().all(|b| b == b'-');
    text.starts_with(is_word) && text.ends_with(is_word) && text.split(is_word).all(is_separator)
}

fn is_tag(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let inner = text.bytes().all(|b| is_word(b) || matches!(b, b'.' | b'-'));
    inner && text.len() <= MAX_TAG && text.bytes().next().is_some_and(is_word)
}

/// Splits a tag off, which no slash follows: then it would be a host's port.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (text, None),
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |why: &str| Error::invalid(format!("invalid reference {text:?}: {why}"));
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad("64 hex digits are an image id, not a name"));
        }
        if text.len() > MAX_TEXT {
            return Err(Error::invalid(format!(
                "invalid reference: more than {MAX_TEXT} characters"
            )));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let (name, tag) = split_tag(rest);
        let Some((host, repository)) = host_and_repository(name).filter(|_| tag.is_none_or(is_tag)) else {
            return Err(bad("invalid reference format"));
        };
        if repository.len() > MAX_REPOSITORY {
            return Err(bad(&format!(
                "a repository's name has at most {MAX_REPOSITORY} characters"
            )));
        }
        let digest = digest.map(str::parse).transpose();
        let digest = digest.map_err(|_: Error| bad("its digest is not sha256: and 64 lower-case hex digits"))?;
        let tag = tag.or(digest.is_none().then_some("latest")).map(str::to_owned);
        Ok(Self {
            host,
            repository,
            tag,
            digest,
        })
    }
}

impl TryFrom<String> for Reference {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ImageSource {
    /// A registry.
    Registry(Reference),
    /// An OCI image layout on disk, `oci:DIR` or `oci:DIR:NAME`. The directory ends at the first colon, since a name may
    /// have one too; for a directory with a colon make this value by hand. Source: OCI image-spec 1.1, image-layout.md.
    OciLayout {
        /// The layout's directory.
        dir: PathBuf,
        /// The `org.opencontainers.image.ref.name` to take; without one the layout must hold one image.
        name: Option<String>,
    },
    /// An archive on disk, as `docker save` writes it: `docker-archive:FILE` or `docker-archive:FILE:NAME`. An OCI layout in
    /// a tar is read as well, plain or compressed. The file ends at the first colon, as a layout's directory does.
    /// Source: containers-transports(5).
    DockerArchive {
        /// The archive.
        file: PathBuf,
        /// The image to take; without one the archive must hold one image.
        name: Option<Reference>,
    },
}

impl ImageSource {
    /// Whether a text names a source on disk, such as `oci:DIR`, and not one in a registry.
    pub fn is_on_disk(text: &str) -> bool {
        text.parse().is_ok_and(|source| !matches!(source, Self::Registry(_)))
    }
}

impl FromStr for ImageSource {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some(rest) = text.strip_prefix("oci:") {
            let (dir, name) = path_and_name(rest)
                .ok_or_else(|| Error::invalid(format!("invalid OCI layout {text:?} (oci:DIR or oci:DIR:NAME)")))?;
            let name = name.map(Into::into);
            return Ok(Self::OciLayout { dir, name });
        }
        if let Some(rest) = text.strip_prefix("docker-archive:") {
            let (file, name) = path_and_name(rest).ok_or_else(|| {
                Error::invalid(format!(
                    "invalid archive {text:?} (docker-archive:FILE or docker-archive:FILE:NAME)"
                ))
            })?;
            let name = name.map(str::parse).transpose()?;
            return Ok(Self::DockerArchive { file, name });
        }
        Ok(Self::Registry(text.parse()?))
    }
}

/// `PATH` or `PATH:NAME`, neither of them empty.
fn path_and_name(text: &str) -> Option<(PathBuf, Option<&str>)> {
    let (path, name) = match text.split_once(':') {
        Some((path, name)) => (path, Some(name)),
        None => (text, None),
    };
    (!path.is_empty() && name != Some("")).then(|| (path.into(), name))
}

impl fmt::Display for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => reference.fmt(f),
            Self::OciLayout { dir, name: None } => write!(f, "oci:{}", dir.display()),
            Self::OciLayout { dir, name: Some(name) } => write!(f, "oci:{}:{name}", dir.display()),
            Self::DockerArchive { file, name: None } => write!(f, "docker-archive:{}", file.display()),
            Self::DockerArchive { file, name: Some(name) } => {
                write!(f, "docker-archive:{}:{}", file.display(), name.familiar())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// Text, host, repository, tag, short form. After the tables of the distribution project's reference package.
    const TABLE: &[(&str, &str, &str, Option<&str>, &str)] = &[
        (
            "busybox",
            "docker.io",
            "library/busybox",
            Some("latest"),
            "busybox:latest",
        ),
        (
            "busybox:1.36",
            "docker.io",
            "library/busybox",
            Some("1.36"),
            "busybox:1.36",
        ),
        (
            "library/busybox",
            "docker.io",
            "library/busybox",
            Some("latest"),
            "busybox:latest",
        ),
        (
            "docker.io/busybox",
            "docker.io",
            "library/busybox",
            Some("latest"),
            "busybox:latest",
        ),
        (
            "index.docker.io/busybox",
            "docker.io",
            "library/busybox",
            Some("latest"),
            "busybox:latest",
        ),
        (
            "docker.io/library/busybox:latest",
            "docker.io",
            "library/busybox",
            Some("latest"),
            "busybox:latest",
        ),
        ("user/app", "docker.io", "user/app", Some("latest"), "user/app:latest"),
        (
            "library/a/b",
            "docker.io",
            "library/a/b",
            Some("latest"),
            "library/a/b:latest",
        ),
        (
            "docker.io/user.name/app",
            "docker.io",
            "user.name/app",
            Some("latest"),
            "docker.io/user.name/app:latest",
        ),
        (
            "localhost/app",
            "localhost",
            "app",
            Some("latest"),
            "localhost/app:latest",
        ),
        (
            "localhost:5000/app:Tag_1.x-y",
            "localhost:5000",
            "app",
            Some("Tag_1.x-y"),
            "localhost:5000/app:Tag_1.x-y",
        ),
        (
            "127.0.0.1:5000/a/b/c",
            "127.0.0.1:5000",
            "a/b/c",
            Some("latest"),
            "127.0.0.1:5000/a/b/c:latest",
        ),
        (
            "example.com/library/app",
            "example.com",
            "library/app",
            Some("latest"),
            "example.com/library/app:latest",
        ),
        (
            "test:5000/app",
            "test:5000",
            "app",
            Some("latest"),
            "test:5000/app:latest",
        ),
        ("test:5000", "docker.io", "library/test", Some("5000"), "test:5000"),
        (
            "test.com:tag",
            "docker.io",
            "library/test.com",
            Some("tag"),
            "test.com:tag",
        ),
        (
            "Uppercase/lower",
            "Uppercase",
            "lower",
            Some("latest"),
            "Uppercase/lower:latest",
        ),
        (
            "a__b/c-d.e_f--g",
            "docker.io",
            "a__b/c-d.e_f--g",
            Some("latest"),
            "a__b/c-d.e_f--g:latest",
        ),
    ];

    #[test]
    fn docker_s_normalisation() {
        for (text, host, repository, tag, familiar) in TABLE {
            let parsed: Reference = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(
                (parsed.host(), parsed.repository(), parsed.tag()),
                (*host, *repository, *tag),
                "{text}"
            );
            assert_eq!(parsed.familiar(), *familiar, "{text}");
            assert_eq!(parsed.to_string().parse::<Reference>().unwrap(), parsed, "{text}");
        }
    }

    #[test]
    fn digests_pin() {
        let both: Reference = format!("busybox:1@sha256:{HEX}").parse().unwrap();
        assert_eq!((both.tag(), both.digest()), (Some("1"), Some(empty())));
        let alone: Reference = format!("example.com/a@sha256:{HEX}").parse().unwrap();
        assert_eq!((alone.tag(), alone.digest()), (None, Some(empty())));
        assert_eq!(both.pinned(&empty()).familiar(), format!("busybox@sha256:{HEX}"));
        assert_eq!(alone.tagged("2").unwrap().to_string(), "example.com/a:2");
        assert!(alone.tagged("no tag").is_err());
    }

    fn empty() -> Digest {
        format!("sha256:{HEX}").parse().unwrap()
    }

    #[test]
    fn hostile_and_wrong_names_are_refused() {
        let long = "a".repeat(300);
        let tag = format!("a:{}", "b".repeat(129));
        let huge = "a/".repeat(1 << 20);
        let upper = format!("a@sha256:{}", HEX.to_uppercase());
        let short = format!("a@sha256:{}", &HEX[..63]);
        let other = format!("a@sha512:{HEX}{HEX}");
        let bad = [
            "",
            " ",
            ":",
            "@",
            "/",
            ":tag",
            "@sha256:",
            "a:",
            "a@",
            "a b",
            "a/",
            "/a",
            "//a",
            "a//b",
            "a:b:c",
            "..",
            ".",
            "../a",
            "a/../b",
            "a/./b",
            "-a",
            "a-",
            "_a",
            "a_",
            "a..b",
            "a___b",
            "A",
            "Repo:tag",
            "lower/Upper",
            "Host/Upper",
            "example.com/Upper",
            "a\n",
            "a\0b",
            "a\nb",
            "a:t\n",
            "é",
            "a/é",
            "a:é",
            "http://example.com/a",
            "user@example.com/a",
            "example.com:port/a",
            "example.com:/a",
            "-host.com/a",
            "a?b",
            "a#b",
            "a%2e",
            "$(id)",
            "a;b",
            HEX,
            &long,
            &tag,
            &huge,
            &upper,
            &short,
            &other,
        ];
        for text in bad {
            let error = text
                .parse::<Reference>()
                .err()
                .unwrap_or_else(|| panic!("{text:?} was taken"));
            assert_eq!(error.kind(), &crate::ErrorKind::InvalidArgument, "{text:?}");
        }
    }

    #[test]
    fn layouts_are_sources_too() {
        let layout = |dir: &str, name: Option<&str>| ImageSource::OciLayout {
            dir: dir.into(),
            name: name.map(Into::into),
        };
        assert_eq!("oci:/tmp/x".parse::<ImageSource>().unwrap(), layout("/tmp/x", None));
        assert_eq!(
            "oci:/tmp/x:app".parse::<ImageSource>().unwrap(),
            layout("/tmp/x", Some("app"))
        );
        let named = "oci:a:example.com:5000/b/c:1".parse::<ImageSource>().unwrap();
        assert_eq!(named, layout("a", Some("example.com:5000/b/c:1")));
        let archive = "docker-archive:/tmp/x.tar:example.com:5000/b:1";
        let ImageSource::DockerArchive { file, name: Some(name) } = archive.parse().unwrap() else {
            panic!("{archive} is an archive");
        };
        assert_eq!(
            (file.to_str(), name.to_string().as_str()),
            (Some("/tmp/x.tar"), "example.com:5000/b:1")
        );
        for on_disk in ["docker-archive:x.tar", archive, "oci:x"] {
            assert_eq!(on_disk.parse::<ImageSource>().unwrap().to_string(), on_disk);
            assert!(ImageSource::is_on_disk(on_disk));
        }
        assert!(!ImageSource::is_on_disk("busybox") && !ImageSource::is_on_disk("oci:"));
        for bad in [
            "oci:",
            "oci::x",
            "oci:/tmp/x:",
            "docker-archive:",
            "docker-archive:x:",
            "docker-archive:x:UPPER",
        ] {
            assert!(bad.parse::<ImageSource>().is_err(), "{bad}");
        }
        assert_eq!(
            "busybox".parse::<ImageSource>().unwrap().to_string(),
            "docker.io/library/busybox:latest"
        );
    }

    /// Theirs leaves an upper-case first part in the repository.
    fn as_ours(theirs: &oci_spec::distribution::Reference) -> Reference {
        let (mut host, mut repository) = (theirs.registry().to_owned(), theirs.repository().to_owned());
        if let Some((first, rest)) = theirs.repository().split_once('/')
            && first.bytes().any(|b| b.is_ascii_uppercase())
        {
            (host, repository) = (first.to_owned(), rest.to_owned());
        }
        Reference {
            host,
            repository,
            tag: theirs.tag().map(str::to_owned),
            digest: theirs.digest().map(|digest| digest.parse().unwrap()),
        }
    }

    proptest! {
        #[test]
        fn what_parses_comes_back(text in "[a-zA-Z0-9./:@_-]{1,40}") {
            if let Ok(parsed) = text.parse::<Reference>() {
                prop_assert_eq!(parsed.to_string().parse::<Reference>().unwrap(), parsed.clone());
                prop_assert_eq!(parsed.familiar().parse::<Reference>().unwrap(), parsed);
            }
        }

        #[test]
        fn it_reads_what_the_published_expression_reads(
            parts in prop::collection::vec("(localhost|docker\\.io|index\\.docker\\.io|library|[a-zA-Z]|[a-z0-9]{1,3}|[./:@_-]|--|__|:[0-9]{1,2}/)", 0..9),
            digest in prop::option::of("sha256:[a-f0-9]{64}"),
        ) {
            let text = parts.concat() + &digest.map(|digest| format!("@{digest}")).unwrap_or_default();
            let theirs = text.parse::<oci_spec::distribution::Reference>();
            match (text.parse::<Reference>(), theirs) {
                (Err(_), Err(_)) => {}
                (Ok(ours), Ok(theirs)) => prop_assert_eq!(ours, as_ours(&theirs)),
                (ours, theirs) => prop_assert!(false, "{text}: {ours:?}, and {theirs:?}"),
            }
        }
    }
}
