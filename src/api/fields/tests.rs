//! Shapes at 1.41, 1.44 and the newest, against the names that the API's description publishes for each (`published.json`:
//! names of fields, two levels deep, taken from Docker's descriptions of the API).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use super::*;
use crate::api::{containers, exec, images, system};
use crate::containers::{
    ContainerInfo, ContainerSpec, ContainerState, ContainerSummary, ExecInfo, ExecSpec, HealthCheck, NetworkMode,
};
use crate::events::{Event, EventKind};
use crate::images::{ImageInfo, ImageSummary};
use crate::system::SystemInfo;
use crate::types::{ContainerId, Descriptor, Digest, ImageId, MediaType, Platform};

type Published = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

fn published() -> Published {
    serde_json::from_str(include_str!("published.json")).unwrap()
}

fn container() -> ContainerInfo {
    ContainerInfo {
        id: ContainerId::random(),
        name: "web".into(),
        image_id: image_id(),
        spec: ContainerSpec::image("busybox").command(["true"]),
        mounts: Vec::new(),
        command: vec!["true".into()],
        labels: BTreeMap::new(),
        state: ContainerState::Created,
        pid: None,
        created: UNIX_EPOCH,
        started: None,
        finished: None,
        exit: None,
        error: None,
        restart_count: 0,
        health: None,
        health_check: HealthCheck::default(),
        log_path: None,
        ownership: "direct".into(),
        uid_map: Vec::new(),
        gid_map: Vec::new(),
        warnings: Vec::new(),
        execs: Vec::new(),
    }
}

fn image_id() -> ImageId {
    format!("sha256:{}", "a".repeat(64)).parse().unwrap()
}

fn summary() -> ContainerSummary {
    ContainerSummary {
        id: ContainerId::random(),
        name: "web".into(),
        image: "busybox".into(),
        image_id: image_id(),
        command: vec!["true".into()],
        created: UNIX_EPOCH,
        state: ContainerState::Created,
        status: "Created".into(),
        labels: BTreeMap::new(),
        network: NetworkMode::None,
        binds: Vec::new(),
        mounts: Vec::new(),
        health: None,
    }
}

fn image_summary() -> ImageSummary {
    ImageSummary {
        id: image_id(),
        tags: vec!["busybox".parse().unwrap()],
        digests: Vec::new(),
        platform: Platform::host(),
        created: Some("2024-01-01T00:00:00Z".into()),
        size_bytes: 7,
        pulled_at: UNIX_EPOCH,
        lent_by: None,
    }
}

fn image() -> ImageInfo {
    let config =
        r#"{"architecture":"amd64","os":"linux","config":{"Cmd":["sh"]},"rootfs":{"type":"layers","diff_ids":[]}}"#;
    ImageInfo {
        id: image_id(),
        tags: vec!["busybox".parse().unwrap()],
        digests: Vec::new(),
        manifest: Descriptor {
            media_type: MediaType("application/vnd.oci.image.manifest.v1+json".into()),
            digest: Digest::of(b"x"),
            size: 1,
            platform: None,
            annotations: BTreeMap::new(),
        },
        platform: Platform::host(),
        config: serde_json::from_str(config).unwrap(),
        chain: None,
        layers: Vec::new(),
        size_bytes: 7,
        pulled_at: UNIX_EPOCH,
    }
}

fn exec_info() -> ExecInfo {
    ExecInfo {
        id: "e".into(),
        container: ContainerId::random(),
        spec: ExecSpec::new(["true"]),
        running: false,
        pid: None,
        status: None,
    }
}

/// Names of fields, two levels deep.
fn names(value: &Value) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    let Value::Object(object) = value else { return out };
    for (name, inner) in object {
        out.insert(name.clone());
        // Maps by name have no fixed names.
        let map = ["Labels", "Networks", "Attributes", "Runtimes", "Ports"].contains(&name.as_str());
        if let (Value::Object(inner), false) = (inner, map) {
            out.extend(inner.keys().map(|inner| format!("{name}.{inner}")));
        }
    }
    out
}

fn shapes() -> Vec<(&'static str, Option<Shape>, Value)> {
    let event = Event::now(EventKind::Container, "start", "c").with("image", "busybox");
    vec![
        ("Version", None, system::version_body(&SystemInfo::default())),
        (
            "Info",
            Some(Shape::Info),
            system::info_body(&SystemInfo::default(), SystemTime::now()),
        ),
        (
            "Container",
            Some(Shape::Container),
            containers::inspect_body(&container(), None, "overlayfs"),
        ),
        (
            "ContainerSummary",
            Some(Shape::ContainerSummary),
            containers::summary(&summary()),
        ),
        ("Image", Some(Shape::Image), images::inspect_body(&image(), "overlayfs")),
        (
            "ImageSummary",
            Some(Shape::ImageSummary),
            images::summary(&image_summary(), None),
        ),
        ("Event", None, system::event_body(&event, ApiVersion::MAX)),
        ("Exec", None, exec::body(&exec_info())),
    ]
}

#[test]
fn p48_no_version_gets_a_field_that_it_does_not_have() {
    let published = published();
    let mut strangers = Vec::new();
    for (name, shape, whole) in shapes() {
        for (version, known) in &published[name] {
            let mut value = whole.clone();
            let minor = version.trim_start_matches("1.").parse().unwrap();
            if let Some(shape) = shape {
                fit(shape, ApiVersion::new(minor), &mut value);
            }
            for field in names(&value).difference(known) {
                strangers.push(format!("{version} {name}.{field}"));
            }
        }
    }
    assert!(strangers.is_empty(), "{strangers:#?}");
}

#[test]
fn p48_fields_that_old_clients_read_are_there_for_them() {
    let at = |minor, shape, value: &Value| {
        let mut value = value.clone();
        fit(shape, ApiVersion::new(minor), &mut value);
        value
    };
    let all = containers::inspect_body(&container(), None, "overlayfs");
    assert!(at(41, Shape::Container, &all)["NetworkSettings"]["IPAddress"].is_string());
    assert!(
        at(56, Shape::Container, &all)["NetworkSettings"]
            .get("IPAddress")
            .is_none()
    );
    let image = images::summary(&image_summary(), None);
    assert_eq!(at(41, Shape::ImageSummary, &image)["VirtualSize"], 7);
    assert!(at(44, Shape::ImageSummary, &image).get("VirtualSize").is_none());
    let event = Event::now(EventKind::Container, "start", "c").with("image", "busybox");
    assert_eq!(system::event_body(&event, ApiVersion::new(44))["from"], "busybox");
    assert!(system::event_body(&event, ApiVersion::MAX).get("from").is_none());
}
