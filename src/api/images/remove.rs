//! `DELETE images/{name}`.

use serde_json::{Value, json};

use super::super::call::Call;
use super::super::reply;
use super::super::router::Answer;
use super::archive;
use crate::images::{RemoveImageOptions, Removed};

pub(super) async fn remove(call: Call) -> Answer {
    let options = RemoveImageOptions::default().force(call.query.flag("force"));
    let images = call.engine.images();
    let platforms = call.query.all("platforms").map(archive::platform_of);
    let platforms = platforms.collect::<Result<Vec<_>, _>>()?;
    let mut removed = Vec::new();
    for platform in &platforms {
        let options = options.clone().platform(platform.clone());
        removed.extend(images.remove(call.name(), options).await?);
    }
    if platforms.is_empty() {
        removed = images.remove(call.name(), options).await?;
    }
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
