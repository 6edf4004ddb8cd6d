//! `images/get`, `images/{name}/get` and `images/load`.

use hyper::StatusCode;
use hyper::header::HeaderValue;
use serde_json::json;

use super::super::call::Call;
use super::super::error::Failure;
use super::super::fold;
use super::super::jsonl;
use super::super::query::Query;
use super::super::reply::{self, Body};
use super::super::router::Answer;
use crate::images::ArchiveFormat;
use crate::progress::Progress;
use crate::types::{Platform, Reference};

pub(super) async fn save_one(call: Call) -> Answer {
    let name = call.name().to_owned();
    save(&call, vec![name]).await
}

pub(super) async fn save_many(call: Call) -> Answer {
    // One option may name several, and there may be several options.
    let names = call.query.all("names").flat_map(|names| names.split(','));
    let names: Vec<String> = names.filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if names.is_empty() {
        return Err(Failure::bad("no image was named: names is missing"));
    }
    save(&call, names).await
}

async fn save(call: &Call, names: Vec<String>) -> Answer {
    let platform = platform(&call.query)?;
    let archive = call
        .engine
        .images()
        .save(&names, platform, ArchiveFormat::Docker)
        .await?;
    let kind = HeaderValue::from_static("application/x-tar");
    Ok(reply::typed(StatusCode::OK, kind, Body::stream(archive)))
}

/// `linux/amd64`, or since 1.48 the same in JSON.
pub(super) fn platform(query: &Query) -> Result<Option<Platform>, Failure> {
    query.get("platform").map(platform_of).transpose()
}

/// A platform in either form.
pub(in crate::api) fn platform_of(text: &str) -> Result<Platform, Failure> {
    if !text.starts_with('{') {
        return Ok(text.parse()?);
    }
    let read = serde_json::from_slice(text.as_bytes()).and_then(fold::read::<Platform>);
    read.map_err(|error| Failure::bad(format!("invalid platform: {error}")))
}

pub(super) async fn load(mut call: Call) -> Answer {
    let platform = platform(&call.query)?;
    let (archive, engine) = (call.stream(), call.engine.clone());
    jsonl::progress(move |lines| async move {
        for image in engine.images().load(archive, platform, Progress::default()).await? {
            for name in &image.tags {
                lines.put(&json!({"stream": format!("Loaded image: {}\n", name.familiar())}));
            }
            if image.tags.is_empty() {
                lines.put(&json!({"stream": format!("Loaded image ID: {}\n", image.id)}));
            }
        }
        Ok(())
    })
    .await
}

/// A name in a query that may be none.
pub(in crate::api) fn reference(query: &Query, name: &str, tag: Option<&str>) -> Result<Option<Reference>, Failure> {
    query.get(name).map(|text| super::tag::named(text, tag)).transpose()
}
