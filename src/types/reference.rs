//! Image references, normalised as Docker does.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use oci_spec::distribution::Reference as OciReference;
use serde::{Deserialize, Serialize};

use super::Digest;
use crate::error::Error;

/// A reference to an image in a registry, fully qualified: host, repository, and a tag, a digest or both.
///
/// `busybox` means `docker.io/library/busybox:latest`; [`Reference::familiar`] gives the short form back.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference(OciReference);

impl Reference {
    /// The registry's host, with its port if it has one.
    pub fn host(&self) -> &str {
        self.0.registry()
    }

    /// The repository's path, `library/busybox`.
    pub fn repository(&self) -> &str {
        self.0.repository()
    }

    /// The tag; a reference with neither tag nor digest has `latest`.
    pub fn tag(&self) -> Option<&str> {
        self.0.tag()
    }

    /// The digest, where the reference pins one.
    pub fn digest(&self) -> Option<Digest> {
        self.0.digest().and_then(|digest| digest.parse().ok())
    }

    /// The reference with a digest in place of its tag.
    #[must_use]
    pub fn pinned(&self, digest: &Digest) -> Self {
        Self(OciReference::with_digest(
            self.host().into(),
            self.repository().into(),
            digest.to_string(),
        ))
    }

    /// The short form that Docker shows: `busybox:latest`, `example.com/app@sha256:…`.
    pub fn familiar(&self) -> String {
        let text = self.to_string();
        let short = text.strip_prefix("docker.io/").unwrap_or(&text);
        short.strip_prefix("library/").unwrap_or(short).to_owned()
    }

    /// The short form without tag and digest, Docker's REPOSITORY column.
    pub fn familiar_repository(&self) -> String {
        let name = format!("{}/{}", self.host(), self.repository());
        let short = name.strip_prefix("docker.io/").unwrap_or(&name);
        short.strip_prefix("library/").unwrap_or(short).to_owned()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |why: &str| Error::invalid(format!("invalid reference {text:?}: {why}"));
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad("64 hex digits are an image id, not a name"));
        }
        let parsed: OciReference = text.parse().map_err(|error| bad(&format!("{error}")))?;
        if parsed
            .digest()
            .is_some_and(|digest| digest.parse::<Digest>().is_err())
        {
            return Err(bad("only sha256 digests are supported"));
        }
        Ok(Self(parsed))
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
    /// An OCI image layout on disk, `oci:DIR` or `oci:DIR:TAG`. Source: OCI image-spec 1.1, image-layout.md.
    OciLayout {
        /// The layout's directory.
        dir: PathBuf,
        /// The `org.opencontainers.image.ref.name` to take; without one the layout must hold one image.
        name: Option<String>,
    },
}

impl FromStr for ImageSource {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let Some(rest) = text.strip_prefix("oci:") else {
            return Ok(Self::Registry(text.parse()?));
        };
        let (dir, name) = match rest.rsplit_once(':') {
            Some((dir, name)) if !name.contains('/') => (dir, Some(name)),
            _ => (rest, None),
        };
        if dir.is_empty() || name == Some("") {
            return Err(Error::invalid(format!(
                "invalid OCI layout {text:?} (oci:DIR or oci:DIR:TAG)"
            )));
        }
        Ok(Self::OciLayout {
            dir: dir.into(),
            name: name.map(Into::into),
        })
    }
}

impl fmt::Display for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => reference.fmt(f),
            Self::OciLayout { dir, name: None } => write!(f, "oci:{}", dir.display()),
            Self::OciLayout {
                dir,
                name: Some(name),
            } => write!(f, "oci:{}:{name}", dir.display()),
        }
    }
}
