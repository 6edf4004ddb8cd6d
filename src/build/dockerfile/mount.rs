//! `RUN --mount=type=…,…`. Variables may be in the values, so a flag becomes a mount when these are known.

use super::Word;
use super::csv;
use super::fault::{Fault, Parsed};
use super::span::Span;
use crate::build::suggest;

/// A `--mount` flag with its variables.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MountFlag {
    /// Its fields: `key=value`, or a key alone. Keys are in small letters.
    pub fields: Vec<(String, Option<String>)>,
    /// The flag.
    pub span: Span,
}

/// What kind of mount it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MountKind {
    /// Files of the context, a stage or an image.
    #[default]
    Bind,
    /// A directory that builds share.
    Cache,
    /// Memory.
    Tmpfs,
    /// A secret of whoever builds, as a file or a variable.
    Secret,
    /// An SSH agent's socket.
    Ssh,
}

/// How builds share a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheSharing {
    /// At the same time.
    Shared,
    /// Each build has one of its own while it runs.
    Private,
    /// One after the other.
    Locked,
}

/// A mount of `RUN`, its variables put in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mount {
    /// What kind it is.
    pub kind: MountKind,
    /// A stage, an image or a named context; else the context.
    pub from: Option<String>,
    /// A path in there; for a secret, its name.
    pub source: Option<String>,
    /// Where it is mounted.
    pub target: Option<String>,
    /// Whether it can be written to.
    pub read_only: bool,
    /// The name of a cache, a secret or an agent.
    pub id: Option<String>,
    /// How builds share a cache.
    pub sharing: Option<CacheSharing>,
    /// Whether the step fails where the secret or the agent is missing.
    pub required: bool,
    /// The variable for a secret; an empty name is that of the secret.
    pub env: Option<String>,
    /// How big a tmpfs may become.
    pub size_bytes: Option<u64>,
    /// Permissions.
    pub mode: Option<u32>,
    /// The owner.
    pub uid: Option<u32>,
    /// The owner's group.
    pub gid: Option<u32>,
}

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "required",
    "size",
    "id",
    "sharing",
    "mode",
    "uid",
    "gid",
    "env",
];
/// Keys that say something without a value.
const SWITCHES: [&str; 5] = ["readonly", "ro", "readwrite", "rw", "required"];

const KINDS: [(&str, MountKind); 5] = [
    ("bind", MountKind::Bind),
    ("cache", MountKind::Cache),
    ("tmpfs", MountKind::Tmpfs),
    ("secret", MountKind::Secret),
    ("ssh", MountKind::Ssh),
];

const SHARING: [(&str, CacheSharing); 3] = [
    ("shared", CacheSharing::Shared),
    ("private", CacheSharing::Private),
    ("locked", CacheSharing::Locked),
];

impl MountFlag {
    /// Reads a flag's value. One without variables is checked as a whole.
    pub(crate) fn parse(value: &Word) -> Parsed<Self> {
        let fields = csv::fields(value)?;
        let flag = Self {
            fields: fields.iter().map(|field| field_of(field)).collect(),
            span: value.span,
        };
        for (key, value) in &flag.fields {
            flag.check(key, value.as_deref())?;
        }
        let variable = flag
            .fields
            .iter()
            .any(|(_, value)| value.as_ref().is_some_and(|value| value.contains('$')));
        if !variable {
            flag.resolve(|value| Ok(value.to_owned()))?;
        }
        Ok(flag)
    }

    fn check(&self, key: &str, value: Option<&str>) -> Parsed<()> {
        if !KEYS.contains(&key) {
            let nearest = suggest::nearest(key, KEYS);
            return Err(self
                .fault(
                    format!("unknown key {key:?} of --mount"),
                    format!("one of {}", KEYS.join(", ")),
                )
                .suggesting(nearest));
        }
        if value.is_none() && !SWITCHES.contains(&key) {
            return Err(self.fault(format!("{key:?} of --mount has no value"), format!("{key}=value")));
        }
        let named = value.is_some_and(|value| value.find('$').is_some_and(|at| at + 1 < value.len()));
        if key == "from" && named {
            let expected = "the name of a stage; FROM can have variables";
            return Err(self.fault("from of --mount cannot have variables", expected));
        }
        Ok(())
    }

    fn fault(&self, problem: impl Into<String>, expected: impl Into<String>) -> Fault {
        Fault::new(self.span, problem, expected)
    }

    /// The value of a field that needs no variables.
    pub fn constant(&self, name: &str) -> Option<&str> {
        let mut named = self.fields.iter().rev().filter(|(key, _)| key == name);
        named.next().and_then(|(_, value)| value.as_deref())
    }

    /// The mount, with variables put in.
    pub(crate) fn resolve(&self, mut expand: impl FnMut(&str) -> Parsed<String>) -> Parsed<Mount> {
        let mut mount = Mount::default();
        let mut read_only = None;
        for (key, value) in &self.fields {
            let value = value.as_deref().map(&mut expand).transpose()?;
            let truth = || value.as_deref().map_or(Ok(true), |value| self.truth(key, value));
            let text = value.clone().unwrap_or_default();
            match key.as_str() {
                "type" => mount.kind = self.choice(key, &text, &KINDS)?,
                "from" => mount.from = Some(text),
                "source" | "src" => mount.source = Some(text),
                "target" | "dst" | "destination" => mount.target = Some(text),
                "readonly" | "ro" => read_only = Some(truth()?),
                "readwrite" | "rw" => read_only = Some(!truth()?),
                "required" => mount.required = self.of(&mount, key, &[MountKind::Secret, MountKind::Ssh], truth()?)?,
                "size" => mount.size_bytes = Some(self.of(&mount, key, &[MountKind::Tmpfs], self.size(&text)?)?),
                "id" => mount.id = Some(text),
                "sharing" => mount.sharing = Some(self.choice(key, &text, &SHARING)?),
                "mode" => mount.mode = Some(self.number(key, &text, 8)?),
                "uid" => mount.uid = Some(self.number(key, &text, 10)?),
                "gid" => mount.gid = Some(self.number(key, &text, 10)?),
                _ => mount.env = Some(text),
            }
        }
        mount.read_only = read_only.unwrap_or(!matches!(mount.kind, MountKind::Cache | MountKind::Tmpfs));
        self.agree(&mount)?;
        Ok(mount)
    }

    /// A value that only some kinds have; `type` comes before it.
    fn of<T>(&self, mount: &Mount, key: &str, kinds: &[MountKind], value: T) -> Parsed<T> {
        if kinds.contains(&mount.kind) {
            return Ok(value);
        }
        let names: Vec<&str> = kinds.iter().map(|kind| name_of(*kind)).collect();
        let problem = format!("{key:?} is not for mounts of type {}", name_of(mount.kind));
        Err(self.fault(problem, format!("{key} after type={}", names.join(" or type="))))
    }

    fn truth(&self, key: &str, value: &str) -> Parsed<bool> {
        match value {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            _ => Err(self.fault(
                format!("{key} cannot be {value:?}"),
                format!("{key}=true or {key}=false"),
            )),
        }
    }

    fn choice<T: std::marker::Copy>(&self, key: &str, value: &str, choices: &[(&str, T)]) -> Parsed<T> {
        let lower = value.to_ascii_lowercase();
        let chosen = choices.iter().find(|(name, _)| *name == lower);
        chosen.map(|(_, choice)| *choice).ok_or_else(|| {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            let nearest = suggest::nearest(value, names.iter().copied());
            self.fault(
                format!("{key} cannot be {value:?}"),
                format!("one of {}", names.join(", ")),
            )
            .suggesting(nearest)
        })
    }

    fn number(&self, key: &str, value: &str, base: u32) -> Parsed<u32> {
        let digits = value.chars().all(|c| c.is_digit(base));
        let number = u32::from_str_radix(value, base).ok().filter(|_| digits);
        let kind = if base == 8 { "an octal number" } else { "a number" };
        number.ok_or_else(|| self.fault(format!("{key} cannot be {value:?}"), kind))
    }

    fn size(&self, value: &str) -> Parsed<u64> {
        super::units::bytes(value).ok_or_else(|| self.fault(format!("size cannot be {value:?}"), "a size, 64m or 1g"))
    }

    /// What the fields say together.
    fn agree(&self, mount: &Mount) -> Parsed<()> {
        agree(mount).map_err(|(problem, expected)| self.fault(problem, expected))
    }
}

/// What the fields of a mount say together; an error is what is wrong, and what would be right.
pub(crate) fn agree(mount: &Mount) -> Result<(), (String, String)> {
    let kind = name_of(mount.kind);
    let owned = matches!(mount.kind, MountKind::Secret | MountKind::Ssh | MountKind::Cache);
    for (key, given) in [("mode", mount.mode), ("uid", mount.uid), ("gid", mount.gid)] {
        if given.is_some() && !owned {
            let expected = format!("{key} for mounts of type secret, ssh or cache");
            return Err((format!("{key} is not for mounts of type {kind}"), expected));
        }
    }
    if mount.sharing.is_some() && mount.kind != MountKind::Cache {
        let expected = "sharing for mounts of type cache".to_owned();
        return Err((format!("sharing is not for mounts of type {kind}"), expected));
    }
    if mount.kind == MountKind::Secret {
        return agree_of_secret(mount).map_err(|(problem, expected)| (problem.to_owned(), expected.to_owned()));
    }
    Ok(())
}

fn agree_of_secret(mount: &Mount) -> Result<(), (&'static str, &'static str)> {
    let given = |value: &Option<String>| value.as_ref().is_some_and(|value| !value.is_empty());
    if given(&mount.from) {
        return Err(("a secret has no from", "id=NAME"));
    }
    if given(&mount.source) && given(&mount.id) {
        return Err(("a secret has both source and id", "one of them"));
    }
    if !given(&mount.source) && !given(&mount.target) && !given(&mount.id) {
        return Err(("a secret without a name", "id=NAME or target=PATH"));
    }
    Ok(())
}

fn name_of(kind: MountKind) -> &'static str {
    KINDS
        .iter()
        .find(|(_, of)| *of == kind)
        .map_or("bind", |(name, _)| name)
}

fn field_of(field: &str) -> (String, Option<String>) {
    match field.split_once('=') {
        Some((key, value)) => (key.to_ascii_lowercase(), Some(value.to_owned())),
        None => (field.to_ascii_lowercase(), None),
    }
}
