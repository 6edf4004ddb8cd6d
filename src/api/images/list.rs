//! `images/json`.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::super::call::Call;
use super::super::fields::{self, Shape};
use super::super::filters;
use super::super::reply;
use super::super::router::Answer;
use super::super::times;
use crate::images::ImageSummary;
use crate::types::Reference;

/// Docker's number for what nobody asked to be counted.
const NOT_COUNTED: i64 = -1;

pub(super) async fn list(call: Call) -> Answer {
    let mut filter = filters::read(&call.query)?;
    // An option of its own before 1.25.
    if let Some(pattern) = call.query.get("filter") {
        filter = filter.with("reference", pattern);
    }
    let found = call.engine.images().list(filter).await?;
    let mut lines = Vec::new();
    for image in &found {
        let labels = match call.engine.images().inspect(&image.id.to_string()).await {
            Ok(info) => info.config.config.labels.unwrap_or_default(),
            // Removed meanwhile.
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error.into()),
        };
        let mut value = summary(image, &labels);
        fields::fit(Shape::ImageSummary, call.version, &mut value);
        lines.push(value);
    }
    Ok(reply::ok(&Value::Array(lines)))
}

/// The union of all versions' lines.
pub(in crate::api) fn summary(image: &ImageSummary, labels: &BTreeMap<String, String>) -> Value {
    let familiar = |names: &[Reference]| names.iter().map(Reference::familiar).collect::<Vec<_>>();
    json!({
        "Id": image.id.to_string(),
        "ParentId": "",
        "RepoTags": familiar(&image.tags),
        "RepoDigests": familiar(&image.digests),
        "Created": created(image),
        "Size": image.size_bytes,
        "SharedSize": NOT_COUNTED,
        "VirtualSize": image.size_bytes,
        "Labels": labels,
        "Containers": NOT_COUNTED,
    })
}

fn created(image: &ImageSummary) -> i64 {
    let built = image
        .created
        .as_deref()
        .and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    built.map_or_else(
        || i64::try_from(times::unix(image.pulled_at)).unwrap_or(0),
        |at| at.unix_timestamp(),
    )
}
