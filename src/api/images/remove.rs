//! `DELETE images/{name}`.

use serde_json::{Value, json};

use super::super::call::Call;
use super::super::error::Failure;
use super::super::reply;
use super::super::router::Answer;
use crate::images::{RemoveImageOptions, Removed};

pub(super) async fn remove(call: Call) -> Answer {
    if call.query.get("platforms").is_some() {
        return Err(Failure::option(
            "platforms",
            "a version of longshore that removes single platforms",
        ));
    }
    let options = RemoveImageOptions::default().force(call.query.flag("force"));
    let removed = call.engine.images().remove(call.name(), options).await?;
    Ok(reply::ok(&Value::Array(removed.iter().map(body).collect())))
}

/// A line of what is gone.
pub(super) fn body(removed: &Removed) -> Value {
    match removed {
        Removed::Untagged(name) => json!({"Untagged": name.familiar()}),
        Removed::Deleted(id) => json!({"Deleted": id.to_string()}),
        Removed::DeletedLayer(chain) => json!({"Deleted": chain.to_string()}),
    }
}
