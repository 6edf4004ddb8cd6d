//! The jobs about networks. Docker takes part with a dockerd of its own in a network namespace of its own, with bridges,
//! rules, its resolver and docker-proxy: `peers/networked.rs`.

pub mod load;
pub mod ours;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::host::Host;
use crate::jobs::once;
use crate::measure::{Contestant, Job, Run, timed};
use crate::peers::at_once;
use crate::peers::docker::docker_command;
use crate::peers::networked::IMAGE;
use crate::worker::Worker;

/// The network of users' on which containers serve.
pub const SERVED: &str = "served";
/// Who serves, and who asks for it.
pub const SERVER: &str = "server";
pub const CLIENT: &str = "client";

/// What goes over one connection.
const BYTES: usize = 1 << 30;
const CONNECTIONS: usize = 1000;
const QUESTIONS: usize = 2000;
/// Clients that ask at once where many do.
const ASKING: usize = 16;
const AT_ONCE: usize = 64;
const NETWORKS: usize = 1000;
/// Parts of a `HostConfig`.
const BRIDGED: &str = r#""NetworkMode":"bridge""#;
const PUBLISHED: &str = r#""NetworkMode":"bridge","PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":""}]}"#;
/// dockerd makes and removes about twenty in a second.
const NETWORKS_OF_DOCKER: usize = 20;

/// Where a container is.
pub struct Place {
    /// Its process, whose network namespace is its.
    pub pid: u32,
    /// Where it serves, as its neighbours see it.
    pub inside: SocketAddr,
    /// Where it serves, on the loopback of its engine's host.
    pub published: SocketAddr,
}

impl Place {
    /// As the worker writes it down.
    pub fn line(&self) -> String {
        format!("{} {} {}", self.pid, self.inside, self.published)
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        Some(Self {
            pid: words.next()?.parse().ok()?,
            inside: words.next()?.parse().ok()?,
            published: words.next()?.parse().ok()?,
        })
    }
}

/// Two containers of one engine: one serves, the other uses it, and so does a program of the host.
struct Pair {
    client: Worker,
    host: Worker,
    server: Place,
    _serving: Worker,
    /// The engine's process, where it is one of this benchmark's.
    _engine: Option<Worker>,
}

impl Pair {
    /// `host` is the process whose network is that of the engine's host.
    fn of(server: Place, client: &Place, host: u32, engine: Option<Worker>) -> Result<Self, String> {
        let mut serving = inside(server.pid)?;
        serving.tell("serve")?;
        Ok(Self {
            client: inside(client.pid)?,
            host: inside(host)?,
            server,
            _serving: serving,
            _engine: engine,
        })
    }

    fn ours(host: &Host, name: &str) -> Result<Self, String> {
        let dir = host.dir(&format!("ours-{name}"));
        let mut engine = engine(&dir)?;
        let mut served = |name: &str| {
            let file = dir.with_extension(name);
            let image = host.reference("busybox");
            engine.tell(&format!("served {name} {image} {}", file.display()))?;
            let line = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
            Place::parse(&line).ok_or_else(|| format!("{line:?} is no place"))
        };
        let (server, client) = (served(SERVER)?, served(CLIENT)?);
        Self::of(server, &client, std::process::id(), Some(engine))
    }

    fn docker(host: &Host) -> Result<Self, String> {
        let docker = host.networked()?;
        let (server, client) = (docker.served(SERVER)?, docker.served(CLIENT)?);
        Self::of(server, &client, docker.pid(), None)
    }

    /// From container to container.
    fn between(mut self, line: impl Fn(&Place) -> String + 'static) -> Run {
        Box::new(move || {
            // All of it is kept, not only what is used here.
            let pair = &mut self;
            pair.client.tell(&line(&pair.server))
        })
    }

    /// From a program of the host.
    fn by_host(mut self, line: impl Fn(&Place) -> String + 'static) -> Run {
        Box::new(move || {
            let pair = &mut self;
            pair.host.tell(&line(&pair.server))
        })
    }
}

fn engine(dir: &Path) -> Result<Worker, String> {
    Worker::start("ours", &[&dir.display().to_string(), "0"])
}

/// The load generator in the network namespace of a process.
fn inside(pid: u32) -> Result<Worker, String> {
    Worker::start("load", &[&format!("/proc/{pid}/ns/net")])
}

fn job(about: String, rounds: usize, contestants: Vec<Contestant>) -> Job {
    Job {
        about,
        rounds,
        pause: Duration::from_millis(200),
        contestants,
        between: Box::new(|| {}),
    }
}

pub fn throughput(host: &mut Host) -> Job {
    let line = |server: &Place| format!("send {} {BYTES}", server.inside);
    let contestants = vec![
        Contestant::maybe(
            "longshore",
            Pair::ours(host, "net-throughput").map(|pair| pair.between(line)),
        ),
        Contestant::maybe("docker", Pair::docker(host).map(|pair| pair.between(line))),
    ];
    job(
        "1 GiB over TCP from container to container on one network".to_owned(),
        7,
        contestants,
    )
}

pub fn published(host: &mut Host) -> Job {
    let line = |server: &Place| format!("send {} {BYTES}", server.published);
    let contestants = vec![
        Contestant::maybe(
            "longshore",
            Pair::ours(host, "net-published").map(|pair| pair.by_host(line)),
        ),
        Contestant::maybe("docker-proxy", Pair::docker(host).map(|pair| pair.by_host(line))),
    ];
    job(
        "1 GiB over TCP from the host's loopback to a published port".to_owned(),
        7,
        contestants,
    )
}

pub fn connections(host: &mut Host) -> Job {
    let line = |server: &Place| format!("connect {} {CONNECTIONS}", server.published);
    let contestants = vec![
        Contestant::maybe(
            "longshore",
            Pair::ours(host, "net-connections").map(|pair| pair.by_host(line)),
        ),
        Contestant::maybe("docker-proxy", Pair::docker(host).map(|pair| pair.by_host(line))),
    ];
    let about = format!("{CONNECTIONS} connections to a published port, four at once, a byte there and back on each");
    job(about, 7, contestants)
}

pub fn dns(host: &mut Host) -> Job {
    asked(host, "net-dns", 1)
}

pub fn dns_at_once(host: &mut Host) -> Job {
    asked(host, "net-dns-at-once", ASKING)
}

fn asked(host: &Host, name: &str, clients: usize) -> Job {
    let line = move |_: &Place| format!("ask {SERVER} {clients} {QUESTIONS}");
    let contestants = vec![
        Contestant::maybe("longshore", Pair::ours(host, name).map(|pair| pair.between(line))),
        Contestant::maybe("docker", Pair::docker(host).map(|pair| pair.between(line))),
    ];
    let about = format!("{QUESTIONS} questions of a container for a neighbour's address, {clients} at a time");
    job(about, 7, contestants)
}

/// A worker of ours that is told the same again and again.
fn told(host: &Host, name: &str, line: String) -> Result<Run, String> {
    let mut worker = engine(&host.dir(&format!("ours-{name}")))?;
    Ok(Box::new(move || worker.tell(&line)))
}

/// `docker run --rm` with options.
fn docker_run(host: &Host, options: &[&'static str]) -> Result<Run, String> {
    let socket = host.networked()?.socket.clone();
    let run = [&["run", "--rm"], options, &[IMAGE, "true"]].concat();
    Ok(once(Box::new(move |_| docker_command(&socket, &run))))
}

/// The same over the API, without a client's process.
fn docker_api(host: &Host, host_config: &'static str) -> Result<Run, String> {
    let api = host.networked()?.api();
    Ok(Box::new(move || timed(|| api.run(host_config))))
}

pub fn start(host: &mut Host) -> Job {
    let image = host.reference("busybox");
    let published = ["--network", "bridge", "--publish", "127.0.0.1::80"];
    let none = ["--network", "none"];
    let contestants = vec![
        Contestant::maybe(
            "longshore, with a port",
            told(host, "net-start", format!("start-published {image}")),
        ),
        Contestant::maybe(
            "longshore, none",
            told(host, "net-start-none", format!("start {image}")),
        ),
        Contestant::maybe("docker, with a port", docker_run(host, &published)),
        Contestant::maybe("docker, none", docker_run(host, &none)),
        Contestant::maybe("its API, with a port", docker_api(host, PUBLISHED)),
        Contestant::maybe("its API, none", docker_api(host, r#""NetworkMode":"none""#)),
    ];
    Job {
        about: "create to removed, `true` in busybox: on a bridge with a published port, and without a network"
            .to_owned(),
        rounds: 15,
        pause: Duration::from_millis(60),
        contestants,
        between: Box::new(|| {}),
    }
}

pub fn start_parallel(host: &mut Host) -> Job {
    let line = format!("parallel-bridged {AT_ONCE} {}", host.reference("busybox"));
    let docker = host.networked().map(|docker| -> Run {
        let socket = docker.socket.clone();
        Box::new(move || {
            at_once(AT_ONCE, |_| {
                let run = ["run", "--rm", "--network", "bridge", IMAGE, "true"];
                docker_command(&socket, &run)
            })
        })
    });
    let api = host.networked().map(|docker| -> Run {
        let api = docker.api();
        Box::new(move || api.run_at_once(AT_ONCE, BRIDGED))
    });
    let contestants = vec![
        Contestant::maybe("longshore", told(host, "net-start-parallel", line)),
        Contestant::maybe("docker run", docker),
        Contestant::maybe("dockerd's API", api),
    ];
    Job {
        about: format!("{AT_ONCE} containers with `true` on a bridge at once, until the last is removed"),
        rounds: 3,
        pause: Duration::from_millis(500),
        contestants,
        between: Box::new(|| {}),
    }
}

pub fn many(host: &mut Host) -> Job {
    let used = || -> Result<Run, String> {
        let dir = host.dir("ours-net-many-used");
        let mut worker = engine(&dir)?;
        let file = dir.with_extension(CLIENT);
        worker.tell(&format!(
            "served {CLIENT} {} {}",
            host.reference("busybox"),
            file.display()
        ))?;
        Ok(Box::new(move || {
            worker.tell(&format!("networks-used {CLIENT} {NETWORKS}"))
        }))
    };
    let docker = host.networked().map(|docker| -> Run {
        let api = docker.api();
        Box::new(move || api.make_and_remove(NETWORKS_OF_DOCKER))
    });
    let contestants = vec![
        Contestant::maybe("longshore, each used", used()),
        Contestant::maybe("longshore", told(host, "net-many", format!("networks {NETWORKS}"))),
        Contestant::maybe("docker", docker),
    ];
    let about = format!(
        "one of {NETWORKS} networks made and removed (docker: of {NETWORKS_OF_DOCKER}); a container was on each, so that it \
         had a bridge, or on none"
    );
    job(about, 3, contestants)
}
