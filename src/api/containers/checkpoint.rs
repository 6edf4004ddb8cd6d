//! Checkpoints: made, listed, removed. A start from one is in `start`.

use std::path::PathBuf;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::call::Call;
use super::super::reply;
use super::super::router::Answer;
use crate::containers::CheckpointOptions;

/// Source: moby, `api/types/checkpoint/options.go`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    #[serde(rename = "CheckpointID")]
    name: String,
    #[serde(rename = "CheckpointDir")]
    directory: Option<String>,
    /// Whether the container ends by it.
    #[serde(rename = "Exit")]
    exit: bool,
}

/// The directory that is asked for: none, if it is empty.
pub(super) fn directory(text: Option<&str>) -> Option<PathBuf> {
    text.filter(|text| !text.is_empty()).map(PathBuf::from)
}

pub(super) async fn create(mut call: Call) -> Answer {
    let asked: Asked = call.json().await?.unwrap_or_default();
    let options = CheckpointOptions {
        directory: directory(asked.directory.as_deref()),
        leave_running: !asked.exit,
    };
    let containers = call.engine.containers();
    containers.checkpoint(call.name(), &asked.name, options).await?;
    Ok(reply::empty(StatusCode::CREATED))
}

pub(super) async fn list(call: Call) -> Answer {
    let directory = directory(call.query.get("dir"));
    let names = call.engine.containers().checkpoints(call.name(), directory).await?;
    let list: Vec<Value> = names.into_iter().map(|name| json!({"Name": name})).collect();
    Ok(reply::ok(&Value::Array(list)))
}

pub(super) async fn remove(call: Call) -> Answer {
    let directory = directory(call.query.get("dir"));
    let checkpoint = call.parts.get(1).map_or("", String::as_str);
    let containers = call.engine.containers();
    containers.remove_checkpoint(call.name(), checkpoint, directory).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}
