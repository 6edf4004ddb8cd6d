//! `changes` and `export`.

use hyper::StatusCode;
use hyper::header::HeaderValue;
use serde_json::{Value, json};

use super::super::call::Call;
use super::super::reply::{self, Body};
use super::super::router::Answer;
use crate::types::ChangeKind;

/// An empty list is `null`, as Go writes it; bytes that are no text become its sign for that.
pub(super) async fn changes(call: Call) -> Answer {
    let changes = call.engine.containers().diff(call.name()).await?;
    if changes.is_empty() {
        return Ok(reply::ok(&Value::Null));
    }
    let lines = changes.iter().map(|change| {
        let kind = match change.kind {
            ChangeKind::Modified => 0,
            ChangeKind::Added => 1,
            ChangeKind::Deleted => 2,
        };
        json!({"Path": change.path.to_string_lossy(), "Kind": kind})
    });
    Ok(reply::ok(&lines.collect()))
}

pub(super) async fn export(call: Call) -> Answer {
    let archive = call.engine.containers().export(call.name()).await?;
    let kind = HeaderValue::from_static("application/octet-stream");
    Ok(reply::typed(StatusCode::OK, kind, Body::stream(archive)))
}
