//! Whole answers at 1.41, 1.44 and the newest, over an engine of fixed values, against what is kept in `golden/`: a change of
//! any field, value or order of elements is a change for clients, and shows as a change of these files. To write them anew,
//! run the test with `LONGSHORE_WRITE_GOLDEN` set, and read the difference.
//!
//! That they are what Docker would answer is shown apart: every field of theirs is one that dockerd answers with in the same
//! place, as `tests/clients/recorded` has it, or a known difference with a reason.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::*;
use crate::containers::{ContainerExit, ContainerInfo, ContainerSpec, ContainerState, HealthCheck, NetworkMode};
use crate::error::ErrorKind;
use crate::events::{Event, EventItem, EventKind, EventStream};
use crate::images::{ImageInfo, ImageManager, ImageSummary};
use crate::networks::{AddressPool, NetworkInfo, NetworkManager, NetworkMember, Subnet};
use crate::system::{ContainerCounts, EventQuery};
use crate::types::{ContainerId, Descriptor, Digest, Endpoint, ExitStatus, Filter, ImageId, MediaType, Platform};

/// An engine in which nothing ever changes.
#[derive(Debug)]
struct Still;

fn moment() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn container_id() -> ContainerId {
    "c".repeat(64).parse().unwrap()
}

fn image_id() -> ImageId {
    format!("sha256:{}", "a".repeat(64)).parse().unwrap()
}

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

#[async_trait]
impl ContainerManager for Still {
    async fn list(&self, options: ListOptions) -> Result<Vec<ContainerSummary>> {
        if let Some(key) = options.filter.keys().find(|key| *key != "label") {
            return Err(Error::invalid(format!("there is no filter {key:?}")));
        }
        Ok(vec![ContainerSummary {
            id: container_id(),
            name: "web".into(),
            image: "busybox".into(),
            image_id: image_id(),
            command: vec!["sh".into(), "-c".into(), "exit 3".into()],
            created: moment(),
            state: ContainerState::Exited,
            status: "Exited (3) 2 seconds ago".into(),
            labels: BTreeMap::from([("a".into(), "b".into())]),
            network: NetworkMode::None,
            endpoints: Vec::new(),
            ports: Vec::new(),
            binds: Vec::new(),
            mounts: Vec::new(),
            health: None,
        }])
    }

    async fn inspect(&self, name: &str) -> Result<ContainerInfo> {
        if name != "web" {
            return Err(Error::not_found(ObjectKind::Container, name));
        }
        Ok(ContainerInfo {
            id: container_id(),
            name: "web".into(),
            image_id: image_id(),
            spec: ContainerSpec::image("busybox")
                .command(["sh", "-c", "exit 3"])
                .env("A", "b"),
            mounts: Vec::new(),
            command: vec!["sh".into(), "-c".into(), "exit 3".into()],
            labels: BTreeMap::from([("a".into(), "b".into())]),
            endpoints: Vec::new(),
            ports: Vec::new(),
            exposed: Vec::new(),
            state: ContainerState::Exited,
            pid: None,
            created: moment(),
            started: Some(moment() + Duration::from_millis(1)),
            finished: Some(moment() + Duration::from_secs(1)),
            exit: Some(ContainerExit {
                status: ExitStatus::exited(3),
                oom_killed: Some(false),
            }),
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
        })
    }

    async fn start(&self, name: &str) -> Result<Outcome> {
        let error = Error::new(ErrorKind::Conflict, "it is being removed");
        Err(error.with_object(ObjectKind::Container, name))
    }
}

#[async_trait]
impl ImageManager for Still {
    async fn list(&self, _filter: Filter) -> Result<Vec<ImageSummary>> {
        Ok(vec![ImageSummary {
            id: image_id(),
            tags: vec!["busybox:1".parse()?],
            digests: Vec::new(),
            platform: amd64(),
            created: Some("2023-11-14T22:13:20Z".into()),
            size_bytes: 7_000_000,
            pulled_at: moment(),
            lent_by: None,
        }])
    }

    async fn inspect(&self, name: &str) -> Result<ImageInfo> {
        if name != "busybox" && name != image_id().to_string() {
            return Err(Error::not_found(ObjectKind::Image, name));
        }
        let config = r#"{"architecture":"amd64","os":"linux","created":"2023-11-14T22:13:20Z","config":{"Cmd":["sh"],
            "Env":["PATH=/bin"],"Labels":{"x":"y"}},"rootfs":{"type":"layers","diff_ids":[]}}"#;
        Ok(ImageInfo {
            id: image_id(),
            tags: vec!["busybox:1".parse()?],
            digests: Vec::new(),
            manifest: Descriptor {
                media_type: MediaType("application/vnd.oci.image.manifest.v1+json".into()),
                digest: Digest::of(b"x"),
                size: 500,
                platform: None,
                annotations: BTreeMap::new(),
            },
            platform: amd64(),
            config: serde_json::from_str(config).unwrap(),
            chain: None,
            layers: Vec::new(),
            size_bytes: 7_000_000,
            pulled_at: moment(),
        })
    }
}

#[async_trait]
impl SystemManager for Still {
    async fn info(&self) -> Result<SystemInfo> {
        Ok(SystemInfo {
            id: "an-id".into(),
            name: "a-host".into(),
            version: "9.9".into(),
            root: Some("/var/lib/longshore".into()),
            storage_driver: "overlayfs".into(),
            storage_reason: "the kernel has it".into(),
            log_driver: "json-file".into(),
            cgroup_driver: "native".into(),
            cgroup_version: "2".into(),
            runtime: "native".into(),
            containers: ContainerCounts {
                stopped: 1,
                ..ContainerCounts::default()
            },
            images: 1,
            kernel_version: "6.18".into(),
            operating_system: "Debian GNU/Linux 12 (bookworm)".into(),
            architecture: "x86_64".into(),
            cpus: 2,
            memory_bytes: 8 << 30,
            ..SystemInfo::default()
        })
    }

    async fn events(&self, _query: EventQuery) -> Result<EventStream> {
        let event = |kind, action: &str, id: String| Event {
            time_ns: 1_700_000_000_000_000_005,
            ..Event::now(kind, action, id)
                .with("image", "busybox")
                .with("name", "web")
        };
        let events = [
            event(EventKind::Container, "start", container_id().as_str().to_owned()),
            event(EventKind::Image, "pull", image_id().to_string()),
        ];
        Ok(Box::pin(futures_util::stream::iter(
            events.map(|event| Ok(EventItem::Event(event))),
        )))
    }
}

#[async_trait]
impl NetworkManager for Still {
    async fn list(&self) -> Result<Vec<NetworkInfo>> {
        Ok(vec![network(), NetworkInfo::of("none", "null")])
    }

    async fn inspect(&self, name: &str) -> Result<NetworkInfo> {
        match name {
            "shop" => Ok(network()),
            _ => Err(Error::not_found(ObjectKind::Network, name)),
        }
    }
}

fn network() -> NetworkInfo {
    let subnet: Subnet = "10.0.5.0/24".parse().unwrap();
    let mut network = NetworkInfo::of("shop", "bridge");
    network.id = Some("cd".repeat(32).parse().unwrap());
    network.created = Some(moment());
    network.spec.labels = [("a".to_owned(), "b".to_owned())].into();
    network.spec.pools = vec![AddressPool {
        subnet: Some(subnet),
        gateway: Some("10.0.5.1".parse().unwrap()),
        range: None,
    }];
    network.in_use = vec![(subnet, 2)];
    network.containers = vec![NetworkMember {
        id: container_id(),
        name: "web".into(),
        endpoint: Endpoint {
            network: "shop".into(),
            network_id: "cd".repeat(32),
            id: "ef".repeat(32),
            interface: "eth0".into(),
            mac: "02:42:0a:00:05:02".into(),
            ipv4: Some(("10.0.5.2".parse().unwrap(), 24)),
            ipv6: None,
            gateway: Some("10.0.5.1".parse().unwrap()),
            gateway_v6: None,
            names: vec!["web".into()],
            aliases: Vec::new(),
        },
    }];
    network
}

fn still() -> Engine {
    let still = Arc::new(Still);
    Engine::from_managers(
        Managers::default()
            .containers(still.clone())
            .images(still.clone())
            .networks(still.clone())
            .system(still),
    )
}

const ASKED: &[(&str, &str)] = &[
    ("GET", "version"),
    ("GET", "info"),
    ("GET", "containers/json?all=1"),
    ("GET", "containers/web/json"),
    ("GET", "images/json"),
    ("GET", "images/busybox/json"),
    ("GET", "networks"),
    ("GET", "networks/shop"),
    ("GET", "networks/nope"),
    ("GET", "events?until=1700000001"),
    ("GET", "containers/nope/json"),
    ("GET", "images/nope/json"),
    ("POST", "containers/web/start"),
    ("POST", "containers/create"),
    ("POST", "containers/web/pause"),
    ("GET", "containers/json?filters=%5B"),
    ("GET", "containers/json?filters=%7B%22colour%22%3A%5B%22red%22%5D%7D"),
    ("GET", "swarm"),
    ("GET", "nowhere"),
];

/// Code and body; a body of several lines as a list of them.
async fn answer(version: &str, method: &str, path: &str) -> Value {
    let (mut client, server) = tokio::io::duplex(64 << 10);
    tokio::spawn(async move {
        let connection = hyper::server::conn::http1::Builder::new();
        let _ = connection.serve_connection(TokioIo::new(server), router(still())).await;
    });
    // Version 1.0 of HTTP has no chunks.
    let request = format!("{method} /v{version}/{path} HTTP/1.0\r\nContent-Type: application/json\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).await.unwrap();
    let (code, _, body) = split(&bytes);
    let mut lines: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &mut lines {
        // The one value that is the host's.
        if line.get("SystemTime").is_some() {
            line["SystemTime"] = json!("now");
        }
    }
    let body = if lines.len() == 1 {
        lines.remove(0)
    } else {
        Value::Array(lines)
    };
    json!({"code": code, "body": body})
}

#[tokio::test]
async fn p48_whole_answers_are_what_they_were() {
    for (version, kept) in [
        ("1.41", include_str!("golden/1.41.json")),
        ("1.44", include_str!("golden/1.44.json")),
        ("1.56", include_str!("golden/1.56.json")),
    ] {
        let mut answers = serde_json::Map::new();
        for (method, path) in ASKED {
            answers.insert(format!("{method} {path}"), answer(version, method, path).await);
        }
        let answers = Value::Object(answers);
        if std::env::var_os("LONGSHORE_WRITE_GOLDEN").is_some() {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/api/tests/golden/{version}.json"));
            std::fs::write(path, format!("{answers:#}\n")).unwrap();
            continue;
        }
        let kept: Value = serde_json::from_str(kept).unwrap();
        for (asked, answer) in answers.as_object().unwrap() {
            assert_eq!(answer, &kept[asked], "{version} {asked}");
        }
        assert_eq!(answers.as_object().unwrap().len(), kept.as_object().unwrap().len());
    }
}

/// What is recorded of a step, or known to differ: paths of fields.
fn paths_of<'a>(text: &'a str, step: &str) -> Vec<&'a str> {
    let lines = text.lines().skip_while(|line| line.strip_prefix("## ") != Some(step));
    let lines = lines.skip(1).take_while(|line| !line.starts_with("## "));
    // Known differences begin with a sign; those that only dockerd has are none of ours.
    let ours = lines.filter(|line| !line.starts_with(['-', '#']));
    ours.filter_map(|line| line.trim_start_matches('+').split_once(": ").map(|(path, _)| path))
        .collect()
}

/// Paths of fields, as `tests/clients/rest.py` writes them: the names in maps, and places in lists, do not count.
fn paths(value: &Value, at: &str, out: &mut BTreeSet<String>) {
    const MAPS: [&str; 6] = ["Labels", "Networks", "Ports", "Runtimes", "IndexConfigs", "Config"];
    match value {
        Value::Object(object) => {
            let last = at.trim_end_matches("[]").rsplit('.').next().unwrap_or_default();
            // A `Config` is a map only in `LogConfig`.
            let map = MAPS.contains(&last) && (last != "Config" || at.ends_with("LogConfig.Config"));
            for (name, inner) in object {
                let path = match (map, at) {
                    (true, at) => format!("{at}{{}}"),
                    (false, "") => name.clone(),
                    (false, at) => format!("{at}.{name}"),
                };
                paths(inner, &path, out);
                // What a map holds is the golden engine's.
                if !map {
                    out.insert(path);
                }
            }
        }
        Value::Array(all) => all.iter().for_each(|inner| paths(inner, &format!("{at}[]"), out)),
        _ => {}
    }
}

#[test]
fn p48_golden_answers_have_the_fields_that_dockerd_has() {
    let recorded = include_str!("../../../tests/clients/recorded/shapes.txt");
    let known = include_str!("../../../tests/clients/known/shapes.txt");
    let steps = [
        ("GET version", "version"),
        ("GET info", "info"),
        ("GET containers/json?all=1", "list"),
        ("GET containers/web/json", "inspect, exited"),
        ("GET images/json", "images"),
        ("GET images/busybox/json", "image"),
    ];
    let mut strangers = Vec::new();
    for (version, golden) in [
        ("1.44", include_str!("golden/1.44.json")),
        ("1.56", include_str!("golden/1.56.json")),
    ] {
        let golden: Value = serde_json::from_str(golden).unwrap();
        for (asked, step) in steps {
            let step = format!("{version} {step}");
            let theirs = [paths_of(recorded, &step), paths_of(known, &step)].concat();
            assert!(theirs.len() > 10, "{step} is recorded");
            let mut ours = BTreeSet::new();
            paths(&golden[asked]["body"], "", &mut ours);
            // The image that was recorded has no labels, and since 1.52 an image without them has no such field.
            let left_out = |path: &str| step == "1.56 image" && path == "Config.Labels";
            let missing = ours
                .iter()
                .filter(|path| !theirs.contains(&path.as_str()) && !left_out(path));
            strangers.extend(missing.map(|path| format!("{step}: {path}")));
        }
    }
    assert!(strangers.is_empty(), "{strangers:#?}");
}
