//! What a container's log says of the container beside each line, in Docker's words: the options `labels`, `labels-regex`, `env`,
//! `env-regex` and `tag`. Pure.
//!
//! Source: moby, `daemon/logger/loginfo.go` (which of them), `loggerutils/log_tag.go` (the tag), and Go's `encoding/json`.

use std::collections::BTreeMap;

use regex_lite::Regex;

use super::json::escape;
use super::options::bad;
use super::{LogSubject, LogTarget};
use crate::error::{Error, ErrorKind, ObjectKind, Result};

/// The longest that is written beside a line: with the longest piece of one, it is still a line that is read.
const MOST: usize = 64 << 10;

/// Digits of an id that stand for it.
const SHORT: usize = 12;

/// The attributes that were asked for.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    labels: Chosen,
    env: Chosen,
    tag: Vec<Part>,
}

/// Names, and an expression for more of them.
#[derive(Debug, Default)]
struct Chosen {
    names: Vec<String>,
    expression: Option<Regex>,
}

/// A part of a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(Field),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Id,
    FullId,
    Name,
    ImageId,
    ImageFullId,
    ImageName,
    Command,
    DaemonName,
}

/// Docker's fields of a tag; each of its drivers has these.
const FIELDS: [(&str, Field); 8] = [
    (".ID", Field::Id),
    (".FullID", Field::FullId),
    (".Name", Field::Name),
    (".ImageID", Field::ImageId),
    (".ImageFullID", Field::ImageFullId),
    (".ImageName", Field::ImageName),
    (".Command", Field::Command),
    (".DaemonName", Field::DaemonName),
];

impl Attributes {
    /// Takes its own out of a container's options; the rest is for others.
    ///
    /// # Errors
    /// `InvalidArgument` for an expression that is none, and a tag that cannot be made.
    pub(super) fn split(options: &BTreeMap<String, String>) -> Result<(Self, BTreeMap<String, String>)> {
        let (mut own, mut rest) = (Self::default(), BTreeMap::new());
        for (key, value) in options {
            match key.as_str() {
                "labels" => own.labels.names = names(value),
                "labels-regex" => own.labels.expression = expression(key, value)?,
                "env" => own.env.names = names(value),
                "env-regex" => own.env.expression = expression(key, value)?,
                "tag" => own.tag = tag(value)?,
                _ => drop(rest.insert(key.clone(), value.clone())),
            }
        }
        Ok((own, rest))
    }

    /// Whether none were asked for.
    pub(super) fn is_none(&self) -> bool {
        self.labels.is_none() && self.env.is_none() && self.tag.is_empty()
    }

    /// What stands beside each line of a container, as JSON; empty where there is nothing to say.
    ///
    /// # Errors
    /// `InvalidArgument` for more than a line can have beside it.
    pub(super) fn of(&self, target: &LogTarget) -> Result<Vec<u8>> {
        let subject = &target.subject;
        let mut all: BTreeMap<&str, &str> = BTreeMap::new();
        let labels = subject
            .labels
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        all.extend(labels.filter(|(name, _)| self.labels.has(name)));
        let env = subject.env.iter().filter_map(|pair| pair.split_once('='));
        all.extend(env.filter(|(name, _)| self.env.has(name)));
        let tag: String = self.tag.iter().map(|part| part.of(target, subject)).collect();
        if !tag.is_empty() {
            all.insert("tag", &tag);
        }
        let encoded = encoded(&all);
        if encoded.len() > MOST {
            let message = format!(
                "the labels and variables that the log is to have beside each line are {} bytes, and {MOST} are the most",
                encoded.len()
            );
            let error = Error::new(ErrorKind::InvalidArgument, message);
            return Err(error.with_object(ObjectKind::Option, "labels"));
        }
        Ok(encoded)
    }
}

impl Chosen {
    fn is_none(&self) -> bool {
        self.names.is_empty() && self.expression.is_none()
    }

    fn has(&self, name: &str) -> bool {
        let fits = |expression: &Regex| expression.is_match(name);
        self.names.iter().any(|known| known == name) || self.expression.as_ref().is_some_and(fits)
    }
}

impl Part {
    fn of(&self, target: &LogTarget, subject: &LogSubject) -> String {
        let field = match self {
            Self::Text(text) => return text.clone(),
            Self::Field(field) => field,
        };
        match field {
            Field::Id => target.id.short().to_owned(),
            Field::FullId => target.id.to_string(),
            Field::Name => subject.name.clone(),
            // Docker counts the algorithm's name, too.
            Field::ImageId => subject.image_id.chars().take(SHORT).collect(),
            Field::ImageFullId => subject.image_id.clone(),
            Field::ImageName => subject.image.clone(),
            Field::Command => subject.command.join(" "),
            Field::DaemonName => "longshore".to_owned(),
        }
    }
}

fn names(value: &str) -> Vec<String> {
    value
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

fn expression(key: &str, value: &str) -> Result<Option<Regex>> {
    if value.is_empty() {
        return Ok(None);
    }
    let expression = Regex::new(value).map_err(|error| bad(key, value).with_source(error))?;
    Ok(Some(expression))
}

/// A tag is text with fields in it, as Go's templates write them.
fn tag(value: &str) -> Result<Vec<Part>> {
    let (mut parts, mut rest) = (Vec::new(), value);
    while let Some((text, field)) = rest.split_once("{{") {
        if !text.is_empty() {
            parts.push(Part::Text(text.to_owned()));
        }
        let (name, after) = field.split_once("}}").ok_or_else(|| bad("tag", value))?;
        let known = FIELDS.iter().find(|(known, _)| *known == name.trim());
        let (_, field) = known.ok_or_else(|| {
            let known: Vec<String> = FIELDS.iter().map(|(known, _)| format!("{{{{{known}}}}}")).collect();
            let message = format!(
                "the tag {value:?} has what is no field of it; there are {}",
                known.join(", ")
            );
            Error::invalid(message).with_object(ObjectKind::Option, "tag")
        })?;
        parts.push(Part::Field(*field));
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    Ok(parts)
}

/// As Go encodes a map of strings: by name, and with its escapes for HTML.
fn encoded(all: &BTreeMap<&str, &str>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in all {
        out.push(if out.is_empty() { b'{' } else { b',' });
        quote(name, &mut out);
        out.push(b':');
        quote(value, &mut out);
    }
    if !out.is_empty() {
        out.push(b'}');
    }
    out
}

/// Three characters have letters here that have numbers in the text of a line. Source: Go 1.22, `encoding/json`, `appendString`.
fn quote(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for piece in text.split_inclusive(['\t', '\u{8}', '\u{c}']) {
        let letter = match piece.as_bytes().last() {
            Some(b'\t') => b't',
            Some(8) => b'b',
            Some(12) => b'f',
            _ => {
                escape(piece.as_bytes(), out);
                continue;
            }
        };
        escape(&piece.as_bytes()[..piece.len() - 1], out);
        out.extend_from_slice(&[b'\\', letter]);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::ContainerId;

    fn target() -> LogTarget {
        let labels = [("app.name", "w<e>b"), ("app.tier", "front"), ("other", "x")];
        let subject = LogSubject {
            name: "web".into(),
            image: "nginx:1".into(),
            image_id: "sha256:0123456789abcdef".into(),
            command: vec!["nginx".into(), "-g".into()],
            labels: labels.map(|(name, value)| (name.into(), value.into())).into(),
            env: ["PATH=/bin", "APP=1=2", "EMPTY=", "ODD"].map(str::to_owned).into(),
        };
        LogTarget {
            id: "a".repeat(64).parse::<ContainerId>().unwrap(),
            dir: "/".into(),
            options: BTreeMap::new(),
            subject,
        }
    }

    fn of(options: &[(&str, &str)]) -> String {
        let options = options
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let (own, rest) = Attributes::split(&options).unwrap();
        assert!(rest.is_empty());
        String::from_utf8(own.of(&target()).unwrap()).unwrap()
    }

    #[test]
    fn h19_attributes_are_docker_s() {
        assert_eq!(of(&[]), "");
        assert_eq!(of(&[("labels", "nothere"), ("env", ""), ("env-regex", "")]), "");
        assert_eq!(
            of(&[("labels", "other,app.name,nothere")]),
            r#"{"app.name":"w\u003ce\u003eb","other":"x"}"#
        );
        assert_eq!(of(&[("env", "APP,EMPTY,ODD")]), r#"{"APP":"1=2","EMPTY":""}"#);
        assert_eq!(
            of(&[("labels-regex", "^app\\."), ("env-regex", "^(PATH|NO)$")]),
            r#"{"PATH":"/bin","app.name":"w\u003ce\u003eb","app.tier":"front"}"#
        );
        assert_eq!(
            of(&[("tag", "{{.Name}}/{{ .ID }} {{.ImageID}} {{.ImageName}}!")]),
            r#"{"tag":"web/aaaaaaaaaaaa sha256:01234 nginx:1!"}"#
        );
        assert_eq!(of(&[("tag", "{{.Command}}")]), r#"{"tag":"nginx -g"}"#);
        assert_eq!(of(&[("tag", "plain")]), r#"{"tag":"plain"}"#);
    }

    #[test]
    fn h19_attributes_that_cannot_be() {
        let split = |key: &str, value: &str| Attributes::split(&[(key.to_owned(), value.to_owned())].into());
        for (key, value) in [
            ("labels-regex", "("),
            ("env-regex", "["),
            ("tag", "{{.Nope}}"),
            ("tag", "{{.ID"),
            ("tag", "{{upper .Name}}"),
        ] {
            let error = split(key, value).unwrap_err();
            assert_eq!(error.object(), Some((ObjectKind::Option, key)), "{value}");
        }
        let (own, _) = split("env", "LONG").unwrap();
        let mut long = target();
        long.subject.env = vec![format!("LONG={}", "x".repeat(MOST))];
        assert_eq!(own.of(&long).unwrap_err().kind(), &ErrorKind::InvalidArgument);
    }

    proptest! {
        #[test]
        fn attributes_are_json(name: String, value: String) {
            let all = BTreeMap::from([(name.as_str(), value.as_str())]);
            let read: BTreeMap<String, String> = serde_json::from_slice(&encoded(&all)).unwrap();
            prop_assert_eq!(read.get(&name), Some(&value));
        }

        #[test]
        fn tags_never_panic(text: String) {
            let _ = tag(&text);
        }
    }
}
