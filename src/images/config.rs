//! The config of an image: what it runs, and which layers it has. Pure.
//!
//! Reads both OCI's and Docker's, which differ in what may be null or left out. Tolerant about what is only shown, strict
//! about what is acted on. Source: OCI image-spec 1.1, config.md; Docker image spec 1.3.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::types::{ChainId, DiffId, Digest, Platform};

/// More layers than the kernel stacks (`OVL_MAX_STACK` of overlayfs).
pub const MAX_LAYERS: usize = 500;

/// An image's config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ImageConfig {
    /// When it was built (RFC 3339), as it says itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who built it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Processor, in Go's words.
    pub architecture: String,
    /// Variant of the processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Operating system.
    pub os: String,
    /// What containers of it run, unless told otherwise.
    #[serde(default, deserialize_with = "or_default")]
    pub config: RunConfig,
    /// Its layers.
    pub rootfs: RootFs,
    /// How it was built, oldest step first.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<HistoryEntry>,
    /// Which steps of a build made which of its layers, where it was built with an inline cache.
    #[serde(
        default,
        rename = "dev.longshore.build.cache",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) build_cache: Option<serde_json::Value>,
}

/// Layers by the digests of their tars.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// `layers`; nothing else was ever defined.
    #[serde(rename = "type")]
    pub kind: String,
    /// The layers, the lowest first.
    #[serde(default, deserialize_with = "or_default")]
    pub diff_ids: Vec<DiffId>,
}

/// What containers of an image run, unless told otherwise. `None` where the image does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[non_exhaustive]
pub struct RunConfig {
    /// User, `name`, `uid`, `name:group`, `uid:gid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Ports it listens on, `80/tcp`.
    #[serde(
        deserialize_with = "keys",
        serialize_with = "as_keys",
        skip_serializing_if = "Option::is_none"
    )]
    pub exposed_ports: Option<Vec<String>>,
    /// Environment, `NAME=value`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// Program and first arguments.
    #[serde(deserialize_with = "one_or_many", skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Arguments, or program and arguments where there is no entrypoint.
    #[serde(deserialize_with = "one_or_many", skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Directories that get a volume.
    #[serde(
        deserialize_with = "keys",
        serialize_with = "as_keys",
        skip_serializing_if = "Option::is_none"
    )]
    pub volumes: Option<Vec<String>>,
    /// Working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Signal that asks it to stop, `SIGTERM` or a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Instructions for images that are built on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_build: Option<Vec<String>>,
    /// How to see whether it is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
    /// What a shell-form command is run with.
    #[serde(deserialize_with = "one_or_many", skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
}

/// How to see whether a container is well. Docker's, not part of the OCI specification.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[non_exhaustive]
pub struct HealthConfig {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", "…"]`.
    #[serde(deserialize_with = "or_default")]
    pub test: Vec<String>,
    /// Nanoseconds between probes; 0 is the default.
    #[serde(rename = "Interval")]
    pub interval_ns: i64,
    /// Nanoseconds a probe may take; 0 is the default.
    #[serde(rename = "Timeout")]
    pub timeout_ns: i64,
    /// Nanoseconds in which failures do not count; 0 is the default.
    #[serde(rename = "StartPeriod")]
    pub start_period_ns: i64,
    /// Nanoseconds between probes within the start period; 0 is the default.
    #[serde(rename = "StartInterval")]
    pub start_interval_ns: i64,
    /// Failures in a row that count; 0 is the default.
    pub retries: i64,
}

/// A step of an image's making.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct HistoryEntry {
    /// When (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// What was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// A remark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether the step made no layer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

impl ImageConfig {
    /// Reads a config.
    ///
    /// # Errors
    /// `InvalidArgument` for one that cannot be used, saying why.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let config: Self =
            serde_json::from_slice(bytes).map_err(|error| bad("it is not an image's config").with_source(error))?;
        config.check()?;
        Ok(config)
    }

    /// What the image runs on.
    pub fn platform(&self) -> Platform {
        let variant = self.variant.clone().filter(|variant| !variant.is_empty());
        Platform {
            os: self.os.clone(),
            architecture: self.architecture.clone(),
            variant,
        }
    }

    /// The name of the whole stack of layers; none for an image without layers.
    pub fn chain(&self) -> Option<ChainId> {
        self.rootfs
            .diff_ids
            .iter()
            .fold(None, |parent, layer| Some(Digest::chain(parent.as_ref(), layer)))
    }

    fn check(&self) -> Result<()> {
        let word = |text: &str| {
            !text.is_empty() && text.len() < 64 && !text.contains(|c: char| c.is_whitespace() || c.is_control())
        };
        if !word(&self.os) || !word(&self.architecture) {
            return Err(bad("it does not say what it runs on"));
        }
        if self.rootfs.kind != "layers" {
            return Err(bad("its root file system is not made of layers"));
        }
        if self.rootfs.diff_ids.len() > MAX_LAYERS {
            return Err(bad("it has too many layers"));
        }
        self.config.check()
    }
}

impl RunConfig {
    /// What reaches execve(2) as a C string cannot hold a NUL.
    fn check(&self) -> Result<()> {
        let lists = [&self.env, &self.entrypoint, &self.cmd, &self.shell];
        let texts = [&self.user, &self.working_dir, &self.stop_signal];
        let mut all = lists.into_iter().flatten().flatten().chain(texts.into_iter().flatten());
        if all.any(|text| text.contains('\0')) {
            return Err(bad("a text in it has a NUL character"));
        }
        Ok(())
    }
}

fn bad(why: &str) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        format!("the image's config is unusable: {why}"),
    )
    .with_object(ObjectKind::Image, "config")
}

/// Go writes an empty list or map as null.
fn or_default<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Docker once wrote a single string for a list of one.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        One(String),
        Many(Vec<String>),
    }
    Ok(Option::deserialize(deserializer)?.map(|either| match either {
        Either::One(text) => vec![text],
        Either::Many(list) => list,
    }))
}

/// A Go set: a map whose values are empty.
fn keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    let map: Option<BTreeMap<String, serde::de::IgnoredAny>> = Option::deserialize(deserializer)?;
    Ok(map.map(|map| map.into_keys().collect()))
}

fn as_keys<S: serde::Serializer>(list: &Option<Vec<String>>, serializer: S) -> Result<S::Ok, S::Error> {
    let empty = serde_json::Map::new();
    serializer.collect_map(list.iter().flatten().map(|key| (key, &empty)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minimal(config: &str) -> String {
        format!(
            r#"{{"architecture":"amd64","os":"linux","config":{config},"rootfs":{{"type":"layers","diff_ids":[]}}}}"#
        )
    }

    #[test]
    fn reads_what_docker_writes() {
        let text = r#"{"architecture":"arm64","variant":"v8","os":"linux","docker_version":"20.10","container_config":{"Hostname":"x"},
            "created":"2024-01-01T00:00:00Z",
            "config":{"Hostname":"","User":"app","AttachStdin":false,"ExposedPorts":{"80/tcp":{},"53/udp":{}},"Env":["PATH=/bin","A"],
              "Cmd":["sh"],"Entrypoint":null,"Image":"sha256:x","Volumes":{"/data":{}},"WorkingDir":"/w","OnBuild":null,"Labels":{"a":"b"},
              "StopSignal":"SIGINT","Shell":["/bin/bash","-c"],"Healthcheck":{"Test":["CMD","true"],"Interval":5000000000,"Retries":3}},
            "rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]},
            "history":[{"created_by":"ADD","empty_layer":true},{}]}"#;
        let config = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(config.platform().to_string(), "linux/arm64/v8");
        assert_eq!(config.chain(), Some(Digest::of(b"")));
        let run = &config.config;
        assert_eq!(
            (
                run.user.as_deref(),
                run.working_dir.as_deref(),
                run.stop_signal.as_deref()
            ),
            (Some("app"), Some("/w"), Some("SIGINT"))
        );
        assert_eq!(
            (run.entrypoint.as_ref(), run.cmd.as_deref()),
            (None, Some(&["sh".to_owned()][..]))
        );
        assert_eq!(
            run.exposed_ports.as_deref(),
            Some(&["53/udp".to_owned(), "80/tcp".to_owned()][..])
        );
        assert_eq!(run.healthcheck.as_ref().unwrap().interval_ns, 5_000_000_000);
        assert_eq!(config.history.len(), 2);
        let again = ImageConfig::parse(&serde_json::to_vec(&config).unwrap()).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn nulls_and_strings_are_taken() {
        let all_null = r#"{"User":null,"ExposedPorts":null,"Env":null,"Cmd":null,"Volumes":null,"Labels":null,"Healthcheck":null}"#;
        assert_eq!(
            ImageConfig::parse(minimal(all_null).as_bytes()).unwrap().config,
            RunConfig::default()
        );
        assert_eq!(ImageConfig::parse(minimal("null").as_bytes()).unwrap().chain(), None);
        let one = ImageConfig::parse(minimal(r#"{"Cmd":"sh","Entrypoint":[]}"#).as_bytes())
            .unwrap()
            .config;
        assert_eq!((one.cmd, one.entrypoint), (Some(vec!["sh".to_owned()]), Some(vec![])));
    }

    #[test]
    fn what_is_acted_on_must_be_right() {
        let bad = [
            "".to_owned(),
            "{}".to_owned(),
            "[]".to_owned(),
            minimal(r#"{"Cmd":7}"#),
            minimal(r#"{"Cmd":["a\u0000b"]}"#),
            minimal(r#"{"Env":["A=\u0000"]}"#),
            minimal("{}").replace("layers", "blocks"),
            minimal("{}").replace("linux", ""),
            minimal("{}").replace("amd64", "a\\nb"),
            minimal("{}").replace("[]", r#"["md5:x"]"#),
        ];
        for text in bad {
            assert_eq!(
                ImageConfig::parse(text.as_bytes()).unwrap_err().kind(),
                &ErrorKind::InvalidArgument,
                "{text}"
            );
        }
    }
}
