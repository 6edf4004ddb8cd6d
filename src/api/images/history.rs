//! `images/{name}/history`.

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::super::call::Call;
use super::super::reply;
use super::super::router::Answer;
use super::{archive, inspect};
use crate::images::HistoryLine;
use crate::types::Reference;

pub(super) async fn history(call: Call) -> Answer {
    let platform = match call.version.at_least(48) {
        true => archive::platform(&call.query)?,
        false => None,
    };
    let image = match platform {
        None => call.name().to_owned(),
        Some(platform) => inspect::for_platform(&call, &platform).await?.id.to_string(),
    };
    let lines = call.engine.images().history(&image).await?;
    Ok(reply::ok(&Value::Array(lines.iter().map(body).collect())))
}

fn body(line: &HistoryLine) -> Value {
    let created = line
        .created
        .as_deref()
        .and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    let tags: Vec<String> = line.tags.iter().map(Reference::familiar).collect();
    json!({
        // Docker's word for a step whose image nobody kept.
        "Id": line.id.as_ref().map_or_else(|| "<missing>".to_owned(), ToString::to_string),
        "Created": created.map_or(0, OffsetDateTime::unix_timestamp),
        "CreatedBy": line.created_by,
        "Tags": if tags.is_empty() { Value::Null } else { json!(tags) },
        "Size": line.size_bytes,
        "Comment": line.comment,
    })
}
