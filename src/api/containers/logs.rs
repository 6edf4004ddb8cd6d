//! `logs`.

use std::time::SystemTime;

use bytes::Bytes;
use futures_util::StreamExt as _;
use hyper::StatusCode;

use super::super::call::Call;
use super::super::error::Failure;
use super::super::frame::frame;
use super::super::hijack;
use super::super::query::Query;
use super::super::reply::{self, Body};
use super::super::router::Answer;
use super::super::times;
use crate::error::ErrorKind;
use crate::logs::{LogEntries, LogQuery};

pub(super) async fn logs(call: Call) -> Answer {
    let query = read(&call.query)?;
    let info = call.engine.containers().inspect(call.name()).await?;
    let entries = call.engine.containers().logs(info.id.as_str(), query).await?;
    let kind = hijack::content_type(call.version, info.spec.tty);
    Ok(reply::typed(StatusCode::OK, kind, body(entries, info.spec.tty)))
}

/// What a container has written so far, for an `attach` that wants no more.
pub(super) async fn so_far(call: &mut Call, tty: bool, stdout: bool, stderr: bool) -> Answer {
    let query = LogQuery {
        stdout,
        stderr,
        ..LogQuery::default()
    };
    let entries = call.engine.containers().logs(call.name(), query).await?;
    let kind = hijack::content_type(call.version, tty);
    Ok(reply::typed(StatusCode::OK, kind, body(entries, tty)))
}

fn read(query: &Query) -> Result<LogQuery, Failure> {
    let (stdout, stderr) = (query.flag("stdout"), query.flag("stderr"));
    if !stdout && !stderr {
        return Err(Failure::bad("Bad parameters: you must choose at least one stream"));
    }
    Ok(LogQuery {
        stdout,
        stderr,
        // 0 is no limit, as is no value.
        since_ns: time(query, "since")?.filter(|at| *at != 0),
        until_ns: time(query, "until")?.filter(|at| *at != 0),
        // What is no number means all of them, "all" too. Source: moby, `daemon/logs.go`.
        tail: query.get("tail").and_then(|lines| lines.parse().ok()),
        follow: query.flag("follow"),
        timestamps: query.flag("timestamps"),
        details: query.flag("details"),
    })
}

/// A point in time of a query, in nanoseconds since the epoch.
pub(in crate::api) fn time(query: &Query, name: &str) -> Result<Option<i64>, Failure> {
    let Some(text) = query.get(name) else { return Ok(None) };
    let at = times::parse(text, SystemTime::now());
    let bad = || Failure::bad(format!("invalid value for {name:?}: {text:?} is no point in time"));
    at.map(Some).ok_or_else(bad)
}

fn body(entries: LogEntries, tty: bool) -> Body {
    Body::stream(entries.filter_map(move |entry| {
        let bytes: Option<Result<Bytes, _>> = match entry {
            Ok(entry) if tty => Some(Ok(entry.bytes)),
            Ok(entry) => Some(Ok(frame(entry.stream, &entry.bytes))),
            // The log was rotated away under a slow reader, and goes on behind the gap.
            Err(error) if *error.kind() == ErrorKind::Unavailable => None,
            Err(error) => Some(Err(error)),
        };
        async move { bytes }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_in_docker_s_words() {
        let of = |text: &str| read(&Query::parse(text));
        let query = of("stdout=1&follow=True&tail=all&since=0&until=12.5&timestamps=1&details=1").unwrap();
        assert!(query.stdout && !query.stderr && query.follow && query.timestamps && query.details);
        assert_eq!(
            (query.tail, query.since_ns, query.until_ns),
            (None, None, Some(12_500_000_000))
        );
        assert_eq!(of("stderr=1&tail=7").unwrap().tail, Some(7));
        assert_eq!(of("follow=1").unwrap_err().status, 400);
        assert_eq!(of("stdout=1&since=yesterday").unwrap_err().status, 400);
    }
}
