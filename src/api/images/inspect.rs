//! `images/{name}/json`.

use serde_json::{Value, json};

use super::super::call::Call;
use super::super::error::Failure;
use super::super::fields::{self, Shape};
use super::super::reply;
use super::super::router::Answer;
use super::super::times;
use super::{archive, list, manifests};
use crate::error::{Error, ObjectKind};
use crate::images::{ImageInfo, RunConfig};
use crate::types::{Platform, Reference};

pub(super) async fn inspect(call: Call) -> Answer {
    // Older versions ignore what they do not know.
    let with_manifests = call.version.at_least(48) && call.query.flag("manifests");
    let platform = match call.version.at_least(49) {
        true => archive::platform(&call.query)?,
        false => None,
    };
    if with_manifests && platform.is_some() {
        let message = "conflicting options: manifests and platform options cannot both be set";
        return Err(Failure::bad(message));
    }
    let image = match platform {
        None => call.engine.images().inspect(call.name()).await?,
        Some(platform) => for_platform(&call, &platform).await?,
    };
    let driver = call.engine.system().info().await.map(|info| info.storage_driver);
    let mut value = body(&image, &driver.unwrap_or_default());
    if with_manifests {
        let containers = list::containers(&call).await?.unwrap_or_default();
        value["Manifests"] = manifests::of(&call, &image, &containers).await?;
    }
    // Nobody says when it was made: Go's time without a value, and since 1.44 nothing.
    if image.config.created.is_none()
        && call.version.at_least(44)
        && let Value::Object(value) = &mut value
    {
        value.remove("Created");
    }
    fields::fit(Shape::Image, call.version, &mut value);
    Ok(reply::ok(&value))
}

/// What the name stands for on a platform.
pub(super) async fn for_platform(call: &Call, platform: &Platform) -> Result<ImageInfo, Failure> {
    let all = call.engine.images().variants(call.name()).await?;
    let fit = all.into_iter().find(|image| platform.accepts(&image.platform));
    fit.ok_or_else(|| other_platform(call.name(), platform))
}

/// It is here, but not for that.
fn other_platform(name: &str, platform: &Platform) -> Failure {
    let message =
        format!("image with reference {name} was found but does not provide the specified platform ({platform})");
    Failure::from(Error::not_found(ObjectKind::Image, name)).say(message)
}

/// The union of all versions' shapes.
pub(in crate::api) fn body(image: &ImageInfo, storage: &str) -> Value {
    let familiar = |names: &[Reference]| names.iter().map(Reference::familiar).collect::<Vec<_>>();
    let config = &image.config;
    let mut value = json!({
        "Id": image.id.to_string(),
        "RepoTags": familiar(&image.tags),
        "RepoDigests": familiar(&image.digests),
        "Parent": "",
        "Comment": config.history.last().and_then(|step| step.comment.clone()).unwrap_or_default(),
        "Created": config.created.as_deref().unwrap_or(times::NEVER),
        "Container": "",
        "ContainerConfig": run_config(&RunConfig::default()),
        "DockerVersion": "",
        "Author": config.author.as_deref().unwrap_or_default(),
        "Config": run_config(&config.config),
        "Architecture": config.architecture,
        "Os": config.os,
        "Size": image.size_bytes,
        "VirtualSize": image.size_bytes,
        "GraphDriver": {"Name": storage, "Data": null},
        "RootFS": {"Type": "layers", "Layers": config.rootfs.diff_ids},
        "Metadata": {"LastTagTime": times::NEVER},
        "Descriptor": manifests::descriptor(&image.manifest),
    });
    if let Some(variant) = &config.variant {
        value["Variant"] = json!(variant);
    }
    value
}

/// What containers of it run. Fields of a container's config that an image has not are there, empty, before 1.50: `fields` takes them away.
fn run_config(config: &RunConfig) -> Value {
    let set = |names: &Vec<String>| {
        let pairs = names.iter().map(|name| (name.clone(), json!({})));
        Value::Object(pairs.collect())
    };
    let mut value = json!({
        "Hostname": "", "Domainname": "", "AttachStdin": false, "AttachStdout": false, "AttachStderr": false,
        "Tty": false, "OpenStdin": false, "StdinOnce": false, "Image": "",
        "User": config.user.as_deref().unwrap_or_default(),
        "Env": config.env,
        "Cmd": config.cmd,
        "Volumes": config.volumes.as_ref().map(set),
        "WorkingDir": config.working_dir.as_deref().unwrap_or_default(),
        "Entrypoint": config.entrypoint,
        "OnBuild": config.on_build,
        "Labels": config.labels,
    });
    let optional = [
        ("ExposedPorts", config.exposed_ports.as_ref().map(set)),
        ("StopSignal", config.stop_signal.as_ref().map(|signal| json!(signal))),
        ("Shell", config.shell.as_ref().map(|words| json!(words))),
        ("Healthcheck", config.healthcheck.as_ref().map(|health| json!(health))),
    ];
    for (name, found) in optional {
        if let Some(found) = found {
            value[name] = found;
        }
    }
    value
}
