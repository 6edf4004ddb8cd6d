//! `images/json`.

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::super::call::Call;
use super::super::error::Failure;
use super::super::fields::{self, Shape};
use super::super::filters;
use super::super::reply;
use super::super::router::Answer;
use super::super::times;
use super::super::version::ApiVersion;
use super::manifests;
use crate::containers::{ContainerSummary, ListOptions};
use crate::error::ErrorKind;
use crate::images::{ImageInfo, ImageSummary};
use crate::system::ImageUsage;
use crate::types::{ContainerId, Filter, ImageId, Reference};

/// Docker's number for what nobody asked to be counted.
const NOT_COUNTED: i64 = -1;

pub(super) async fn list(call: Call) -> Answer {
    let mut filter = filters::read(&call.query)?;
    // An option of its own before 1.25.
    if let Some(pattern) = call.query.get("filter") {
        filter = filter.with("reference", pattern);
    }
    // Older versions ignore what they do not know.
    let asked = |name: &str, since: u16| call.version.at_least(since) && call.query.flag(name);
    let with_manifests = asked("manifests", 47);
    if asked("identity", 54) && !with_manifests {
        return Err(Failure::bad("conflicting options: identity requires manifests=1"));
    }
    let usage = match asked("shared-size", 42) {
        true => call.engine.system().disk_usage().await?.images,
        false => Vec::new(),
    };
    let containers = containers(&call).await?;
    let found = call.engine.images().list(filter).await?;
    let mut lines = Vec::new();
    for image in &found {
        let Some(info) = known(&call, &image.id).await? else {
            continue;
        };
        let mut value = summary(image, Some(&info));
        if let Some(counted) = usage.iter().find(|counted| counted.id == image.id) {
            value["SharedSize"] = json!(counted.shared_bytes);
        }
        let users = containers.as_deref().map(|all| users(all, &image.id));
        if let Some(users) = users.as_ref().filter(|_| call.version.at_least(51)) {
            value["Containers"] = json!(users.len());
        }
        if with_manifests {
            value["Manifests"] = manifests::of(&call, &info, containers.as_deref().unwrap_or_default()).await?;
        }
        lines.push(in_version(value, call.version));
    }
    Ok(reply::ok(&Value::Array(lines)))
}

/// An image, if it was not removed meanwhile.
pub(in crate::api) async fn known(call: &Call, id: &ImageId) -> Result<Option<ImageInfo>, Failure> {
    match call.engine.images().inspect(&id.to_string()).await {
        Ok(info) => Ok(Some(info)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// All containers; none of an engine that has images alone.
pub(super) async fn containers(call: &Call) -> Result<Option<Vec<ContainerSummary>>, Failure> {
    let everything = ListOptions {
        all: true,
        filter: Filter::new(),
    };
    match call.engine.containers().list(everything).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), ErrorKind::Unsupported { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The containers of an image.
pub(super) fn users(containers: &[ContainerSummary], image: &ImageId) -> Vec<ContainerId> {
    let of = containers.iter().filter(|container| container.image_id == *image);
    of.map(|container| container.id.clone()).collect()
}

/// What a version shows of a line.
fn in_version(mut value: Value, version: ApiVersion) -> Value {
    let nameless = |key: &str| value[key].as_array().is_some_and(Vec::is_empty);
    // Docker's words for no name at all, before 1.43.
    if !version.at_least(43) && nameless("RepoTags") && nameless("RepoDigests") {
        value["RepoTags"] = json!(["<none>:<none>"]);
        value["RepoDigests"] = json!(["<none>@<none>"]);
    }
    fields::fit(Shape::ImageSummary, version, &mut value);
    value
}

/// The union of all versions' lines.
pub(in crate::api) fn summary(image: &ImageSummary, info: Option<&ImageInfo>) -> Value {
    let familiar = |names: &[Reference]| names.iter().map(Reference::familiar).collect::<Vec<_>>();
    // A map even where the image has none: strict clients take no null here, and dockerd of today sends a map too.
    let labels = info
        .and_then(|info| info.config.config.labels.clone())
        .unwrap_or_default();
    let mut value = json!({
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
    });
    if let Some(info) = info {
        value["Descriptor"] = manifests::descriptor(&info.manifest);
    }
    value
}

/// What was counted of an image on disk.
pub(in crate::api) fn add_usage(value: &mut Value, counted: &ImageUsage) {
    value["SharedSize"] = json!(counted.shared_bytes);
    value["Containers"] = json!(counted.containers);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p48_an_image_without_a_name_in_the_words_of_its_version() {
        let line = |tags: Value, minor| {
            let value = json!({"RepoTags": tags, "RepoDigests": []});
            in_version(value, ApiVersion::new(minor))
        };
        assert_eq!(line(json!([]), 42)["RepoTags"][0], "<none>:<none>");
        assert_eq!(line(json!([]), 42)["RepoDigests"][0], "<none>@<none>");
        assert_eq!(line(json!([]), 43)["RepoTags"], json!([]));
        assert_eq!(line(json!(["a:1"]), 42)["RepoDigests"], json!([]));
    }
}
