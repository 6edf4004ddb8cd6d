//! `events`: live, and with `since` what is still kept.

use futures_util::StreamExt as _;
use hyper::StatusCode;
use hyper::header::{ACCEPT, HeaderValue};
use serde_json::{Value, json};

use super::super::call::Call;
use super::super::containers::log_time;
use super::super::error::Failure;
use super::super::fields::{self, Shape};
use super::super::filters;
use super::super::reply::{self, Body};
use super::super::router::Answer;
use super::super::version::ApiVersion;
use crate::events::{Event, EventItem, EventKind};
use crate::system::EventQuery;
use crate::types::Filter;

/// Docker's word for the engine as the object of an event.
const DAEMON: &str = "daemon";

/// How lines are set apart, and what they are called. Source: API 1.52, `SystemEvents`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    JsonLines,
    NdJson,
    JsonSeq,
}

pub(super) async fn events(call: Call) -> Answer {
    let (since, until) = (log_time(&call.query, "since")?, log_time(&call.query, "until")?);
    if let (Some(since), Some(until)) = (since, until)
        && until < since
    {
        let said = |name| call.query.get(name).unwrap_or_default();
        let message = format!(
            "`since` time ({}) cannot be after `until` time ({})",
            said("since"),
            said("until")
        );
        return Err(Failure::bad(message));
    }
    let query = EventQuery {
        since_ns: since,
        until_ns: until,
        filter: ours(&filters::read(&call.query)?),
    };
    let version = call.version;
    let accepted = call
        .headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let form = form(accepted, version);
    let events = call.engine.system().events(query).await?;
    let lines = events.filter_map(move |item| {
        let line = match item {
            Ok(EventItem::Event(event)) => Some(Ok(form.line(&of(&event, version)))),
            Ok(EventItem::Lagged { missed }) => {
                tracing::warn!(missed, "a client that reads events was too slow");
                None
            }
            Err(error) => Some(Err(error)),
        };
        async move { line }
    });
    Ok(reply::typed(StatusCode::OK, form.content_type(), Body::stream(lines)))
}

/// What is asked for by name, or the version's own: lines since 1.52, and before that what was called JSON and is lines too.
fn form(accept: &str, version: ApiVersion) -> Form {
    let usual = if version.at_least(52) {
        Form::JsonLines
    } else {
        Form::Json
    };
    let wanted = accept
        .split(',')
        .map(|part| part.split(';').next().unwrap_or_default().trim());
    wanted
        .filter_map(|kind| match kind {
            "application/json-seq" => Some(Form::JsonSeq),
            "application/jsonl" => Some(Form::JsonLines),
            "application/x-ndjson" => Some(Form::NdJson),
            _ => None,
        })
        .next()
        .unwrap_or(usual)
}

impl Form {
    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Json => "application/json",
            Self::JsonLines => "application/jsonl",
            Self::NdJson => "application/x-ndjson",
            Self::JsonSeq => "application/json-seq",
        })
    }

    fn line(self, value: &Value) -> bytes::Bytes {
        let start = if self == Self::JsonSeq { "\u{1e}" } else { "" };
        format!("{start}{value}\n").into()
    }
}

/// Docker's filter in our words: its daemon is our engine. Keys that only Docker has match nothing there either, but for
/// `scope`, of which everything here is `local`.
fn ours(filter: &Filter) -> Filter {
    let mut out = Filter::new();
    for key in filter.keys() {
        let name = match key {
            DAEMON => "engine",
            "scope" if filter.values(key).iter().any(|scope| scope == "local") => continue,
            other => other,
        };
        for value in filter.values(key) {
            let value = if key == "type" && value == DAEMON {
                "engine"
            } else {
                value
            };
            out = out.with(name, value);
        }
    }
    out
}

/// An event in a version's shape.
pub(in crate::api) fn of(event: &Event, version: ApiVersion) -> Value {
    let mut value = body(event);
    fields::fit(Shape::Event, version, &mut value);
    value
}

fn body(event: &Event) -> Value {
    let kind = match event.kind {
        EventKind::Engine => DAEMON,
        kind => kind.as_str(),
    };
    let mut value = json!({
        "Type": kind,
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": event.attributes},
        "scope": "local",
        "time": event.time_ns.div_euclid(1_000_000_000),
        "timeNano": event.time_ns,
    });
    // Docker names the object of an image's event, by its id if it has no name any more.
    if event.kind == EventKind::Image && !event.id.is_empty() && !event.attributes.contains_key("name") {
        value["Actor"]["Attributes"]["name"] = json!(event.id);
    }
    // Only these two sorts ever had the old fields.
    if matches!(event.kind, EventKind::Container | EventKind::Image) {
        value["status"] = json!(event.action);
        if !event.id.is_empty() {
            value["id"] = json!(event.id);
        }
        if let Some(image) = event.attributes.get("image") {
            value["from"] = json!(image);
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_by_what_is_accepted() {
        let of = |accept, minor| form(accept, ApiVersion::new(minor));
        for any in ["", "*/*", "application/json"] {
            assert_eq!((of(any, 51), of(any, 52)), (Form::Json, Form::JsonLines), "{any}");
        }
        assert_eq!(of("application/json-seq, application/json;q=0.5", 52), Form::JsonSeq);
        assert_eq!(of("application/x-ndjson", 44), Form::NdJson);
        assert_eq!(of("application/jsonl", 44), Form::JsonLines);
        assert_eq!(&Form::JsonSeq.line(&json!(1))[..], b"\x1e1\n");
    }

    #[test]
    fn filters_in_our_words() {
        let asked = Filter::new()
            .with("type", "daemon")
            .with("scope", "local")
            .with("event", "die");
        assert_eq!(ours(&asked), Filter::new().with("type", "engine").with("event", "die"));
    }
}
