//! `images/prune`.

use serde_json::{Value, json};

use super::super::call::Call;
use super::super::filters;
use super::super::reply;
use super::super::router::Answer;

pub(super) async fn prune(call: Call) -> Answer {
    let pruned = call.engine.images().prune(filters::read(&call.query)?).await?;
    let removed: Vec<Value> = pruned.removed.iter().map(super::remove::body).collect();
    Ok(reply::ok(&json!({
        "ImagesDeleted": if removed.is_empty() { Value::Null } else { Value::Array(removed) },
        "SpaceReclaimed": pruned.reclaimed_bytes,
    })))
}
