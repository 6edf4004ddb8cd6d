//! Network drivers of an embedder's own, written from outside: one that makes a pair of links in the container's network, and keeps
//! what it has in a directory, so that what it was not asked to take back can be seen.

use std::fs;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use longshore::conformance::networks;
use longshore::networks::{
    Addressing, EndpointContext, Joined, NetworkContext, NetworkDriver, NetworkSandbox, NetworkSpec,
};
use longshore::types::{EndpointSpec, Port};
use longshore::{ContainerSpec, Engine, Error, ErrorKind, NetworkMode, Outcome, Result as Done, api};
use serde_json::json;

use crate::frame::{Check, Stop, block_on};
use crate::networking::longshore;
use crate::support::embedder::{Embedder, Role};
use crate::support::image;
use crate::support::patience::{until, until_now};
use crate::support::root::TempRoot;
use crate::support::scratch;
use crate::support::world::{FORCE, World, source, text};
use crate::tests;

tests! { "drivers":
    kernel [
        k8_nothing_is_left_of_an_engine_that_is_killed,
    ]
    kernel_async [
        k8_a_driver_passes_the_suite,
        k8_a_driver_that_gives_addresses_passes_the_suite,
        k8_our_own_pass_the_suite,
        k8_a_driver_is_told_what_was_asked_for,
        k8_a_driver_that_fails_leaves_nothing,
        k8_a_driver_that_hangs_or_lies_leaves_nothing,
        k8_what_cannot_be_taken_back_is_taken_back_later,
        k8_drivers_that_cannot_be,
        k8_over_the_api,
    ]
}

pub const ROLES: &[(&str, Role)] = &[("drivers-killed", |arguments| killed(arguments))];

/// What a driver does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mischief {
    Fails,
    Hangs,
    Panics,
    /// It says that it was done.
    Lies,
}

#[derive(Debug)]
struct Pairs {
    dir: PathBuf,
    addressing: Addressing,
    /// How long it is waited for where it hangs.
    patience: Duration,
    mischief: Mutex<Option<(&'static str, Mischief)>>,
    told: Mutex<Vec<(NetworkContext, EndpointContext)>>,
}

impl Pairs {
    fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            addressing: Addressing::Engine,
            patience: Duration::from_millis(300),
            mischief: Mutex::default(),
            told: Mutex::default(),
        }
    }

    fn with_addresses(dir: &Path) -> Self {
        Self {
            addressing: Addressing::Driver,
            ..Self::new(dir)
        }
    }

    /// Does a verb wrong from now on.
    fn misbehave(&self, verb: &'static str, how: Mischief) {
        *self.mischief.lock().expect("nobody panics with it") = Some((verb, how));
    }

    fn behave(&self) {
        *self.mischief.lock().expect("nobody panics with it") = None;
    }

    /// Whether it is to go on.
    async fn wrong(&self, verb: &str) -> Done<bool> {
        let how = *self.mischief.lock().unwrap_or_else(PoisonError::into_inner);
        match how.filter(|(about, _)| *about == verb) {
            None => Ok(true),
            Some((_, Mischief::Lies)) => Ok(false),
            Some((_, Mischief::Fails)) => Err(Error::new(ErrorKind::Unavailable, "no pairs today")),
            Some((_, Mischief::Panics)) => panic!("a driver panics on purpose"),
            Some((_, Mischief::Hangs)) => std::future::pending().await,
        }
    }

    fn network(&self, network: &NetworkContext) -> PathBuf {
        self.dir.join(network.id.as_str())
    }

    /// What it has: networks, and places in them.
    fn left(&self) -> Vec<String> {
        left(&self.dir)
    }
}

fn left(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for network in fs::read_dir(dir).into_iter().flatten().flatten() {
        found.push(network.file_name().to_string_lossy().into_owned());
        let places = fs::read_dir(network.path()).into_iter().flatten().flatten();
        found.extend(places.map(|place| place.file_name().to_string_lossy().into_owned()));
    }
    found
}

fn io(error: std::io::Error) -> Error {
    Error::os("keep what a driver has", error)
}

#[async_trait]
impl NetworkDriver for Pairs {
    fn addressing(&self) -> Addressing {
        self.addressing
    }

    fn limit(&self) -> Duration {
        match self.mischief.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some((_, Mischief::Hangs)) => self.patience,
            _ => Duration::from_secs(30),
        }
    }

    async fn create(&self, network: &NetworkContext) -> Done<Outcome> {
        if network.spec.options.contains_key("bad") {
            return Err(Error::invalid("pairs have no option bad"));
        }
        assert!(network.dir.is_dir(), "a directory of its own");
        let there = self.network(network).is_dir();
        fs::create_dir_all(self.network(network)).map_err(io)?;
        self.wrong("create").await?;
        Ok(if there { Outcome::Already } else { Outcome::Done })
    }

    async fn remove(&self, network: &NetworkContext) -> Done<()> {
        if self.wrong("remove").await? {
            match fs::remove_dir(self.network(network)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
                _ => {}
            }
        }
        Ok(())
    }

    async fn join(
        &self,
        network: &NetworkContext,
        endpoint: &EndpointContext,
        sandbox: &NetworkSandbox,
    ) -> Done<Joined> {
        fs::write(self.network(network).join(&endpoint.id), "").map_err(io)?;
        self.told
            .lock()
            .expect("nobody panics with it")
            .push((network.clone(), endpoint.clone()));
        if !self.wrong("join").await? {
            return Ok(Joined::default());
        }
        let socket = Netlink(sandbox.socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?);
        socket.ask(NEWLINK, CREATE, &pair(&endpoint.interface))?;
        let peer = socket.ask(GETLINK, 0, &named(&format!("p{}", endpoint.interface)))?;
        socket.ask(NEWLINK, 0, &up(peer))?;
        if self.addressing == Addressing::Engine {
            return Ok(Joined::default());
        }
        // What its name ends with: one, two, three.
        let used = fs::read_dir(self.network(network)).map_err(io)?.count();
        let address = [10, 213, 0, u8::try_from(used).unwrap_or(u8::MAX)];
        let index = socket.ask(GETLINK, 0, &named(&endpoint.interface))?;
        socket.ask(NEWADDR, CREATE, &addressed(index, address))?;
        socket.ask(NEWLINK, 0, &up(index))?;
        Ok(Joined::default().address(address.into(), 24))
    }

    async fn leave(
        &self,
        network: &NetworkContext,
        endpoint: &EndpointContext,
        _sandbox: Option<&NetworkSandbox>,
    ) -> Done<()> {
        if self.wrong("leave").await? {
            match fs::remove_file(self.network(network).join(&endpoint.id)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
                _ => {}
            }
        }
        Ok(())
    }
}

const NEWLINK: u16 = 16;
const GETLINK: u16 = 18;
const NEWADDR: u16 = 20;
const CREATE: u16 = 0x400 | 0x200;

/// A socket for rtnetlink(7) in a container's network.
struct Netlink(OwnedFd);

impl Netlink {
    /// Sends a message, and waits for the answer: the number of the link that it is about, if it tells of one.
    fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> Done<u32> {
        let acknowledged = if kind == GETLINK { 0 } else { 4 };
        let mut message = Vec::new();
        message.extend((16 + body.len() as u32).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((flags | 1 | acknowledged).to_ne_bytes());
        message.extend([1, 0, 0, 0, 0, 0, 0, 0]);
        message.extend(body);
        let os = |errno: nix::errno::Errno| Error::os("talk to the kernel", errno);
        let fd = self.0.as_raw_fd();
        nix::sys::socket::send(fd, &message, nix::sys::socket::MsgFlags::empty()).map_err(os)?;
        let mut answer = [0u8; 8192];
        let len = nix::sys::socket::recv(fd, &mut answer, nix::sys::socket::MsgFlags::empty()).map_err(os)?;
        let word = |at: usize| i32::from_ne_bytes(*answer[at..].first_chunk().expect("a whole answer"));
        assert!(len >= 20, "an answer");
        match u16::from_ne_bytes([answer[4], answer[5]]) {
            2 if word(16) != 0 => Err(Error::os("make a pair", nix::errno::Errno::from_raw(-word(16)))),
            2 => Ok(0),
            _ => Ok(word(20).unsigned_abs()),
        }
    }
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn named(name: &str) -> Vec<u8> {
    [vec![0; 16], attribute(3, &[name.as_bytes(), b"\0"].concat())].concat()
}

/// A pair of links, both in the container's network.
fn pair(name: &str) -> Vec<u8> {
    let peer = named(&format!("p{name}"));
    let kind = attribute(1, b"veth\0");
    let data = attribute(2, &attribute(1, &peer));
    [named(name), attribute(18, &[kind, data].concat())].concat()
}

fn addressed(index: u32, address: [u8; 4]) -> Vec<u8> {
    let head = [vec![2, 24, 0, 0], index.to_ne_bytes().to_vec()].concat();
    [head, attribute(2, &address), attribute(1, &address)].concat()
}

fn up(index: u32) -> Vec<u8> {
    let mut head = vec![0; 16];
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    head[8..12].copy_from_slice(&1u32.to_ne_bytes());
    head[12..16].copy_from_slice(&1u32.to_ne_bytes());
    head
}

/// An engine with the driver `pairs`.
struct Scene {
    engine: Engine,
    image: String,
    driver: Arc<Pairs>,
    /// Of the driver.
    _dir: tempfile::TempDir,
    root: TempRoot,
}

impl Scene {
    async fn new() -> Result<Self, Stop> {
        let dir = scratch::fresh("pairs");
        let driver = Pairs::new(dir.path());
        Self::with(dir, driver).await
    }

    async fn with(dir: tempfile::TempDir, driver: Pairs) -> Result<Self, Stop> {
        let (root, driver) = (TempRoot::new(), Arc::new(driver));
        let engine = open(root.path(), Arc::clone(&driver)).await?;
        let image = engine.pull(source(image::shared()?)).await?.id().to_string();
        Ok(Self {
            engine,
            image,
            driver,
            _dir: dir,
            root,
        })
    }

    fn sleeper(&self, network: &str) -> ContainerSpec {
        ContainerSpec::image(&self.image)
            .command(["sleep", "1000"])
            .network(NetworkMode::Named(network.to_owned()))
    }

    async fn create(&self, name: &str) -> Check {
        let spec = NetworkSpec::of_driver("pairs", name);
        self.engine.networks().create(spec).await?;
        Ok(())
    }

    /// Neither the engine nor the driver has anything.
    async fn is_bare(&self) -> Check {
        assert_eq!(self.driver.left(), Vec::<String>::new());
        let networks = self.engine.networks().list().await?;
        assert!(networks.iter().all(longshore::networks::NetworkInfo::is_predefined));
        let found = self.engine.audit().await?;
        assert!(found.is_clean(), "{found:?}");
        Ok(())
    }
}

async fn open(root: &Path, driver: Arc<Pairs>) -> Done<Engine> {
    Engine::builder(root).with_network_driver("pairs", driver).open().await
}

async fn k8_a_driver_passes_the_suite() -> Check {
    let scene = Scene::new().await?;
    let make = |name: &str| NetworkSpec::of_driver("pairs", name).driver_option("colour", "red");
    networks::Networks::new(&scene.engine, &scene.image, &make)
        .without_peers()
        .run()
        .await;
    scene.is_bare().await
}

async fn k8_a_driver_that_gives_addresses_passes_the_suite() -> Check {
    let dir = scratch::fresh("pairs");
    let driver = Pairs::with_addresses(dir.path());
    let scene = Scene::with(dir, driver).await?;
    let make = |name: &str| NetworkSpec::of_driver("pairs", name);
    networks::Networks::new(&scene.engine, &scene.image, &make)
        .without_peers()
        .without_chosen_addresses()
        .run()
        .await;
    scene.is_bare().await
}

async fn k8_our_own_pass_the_suite() -> Check {
    let world = World::alone().await?;
    let image = world.image.id().to_string();
    networks::none(&world.engine, &image).await;
    let bridge = |name: &str| NetworkSpec::bridge(name);
    networks::Networks::new(&world.engine, &image, &bridge).run().await;
    // Without a parent it needs nothing of the host's but the kernel's driver.
    let made = world.engine.networks().create(NetworkSpec::macvlan("probe", "")).await;
    made?;
    let sleeper = world
        .spec()
        .command(["true"])
        .network(NetworkMode::Named("probe".into()));
    let first = world.engine.run(sleeper).output().await;
    world.engine.networks().remove("probe").await?;
    match first {
        Err(error) if error.is_unsupported() => println!("no macvlan here: {}", error.report()),
        first => {
            first?;
            let macvlan = |name: &str| NetworkSpec::macvlan(name, "");
            networks::Networks::new(&world.engine, &image, &macvlan).run().await;
        }
    }
    Ok(())
}

async fn k8_a_driver_is_told_what_was_asked_for() -> Check {
    let scene = Scene::new().await?;
    let spec = NetworkSpec::of_driver("pairs", "told")
        .driver_option("colour", "red")
        .subnet("10.215.0.0/24".parse()?)
        .mtu_bytes(1400)
        .ipv6(true);
    scene.engine.networks().create(spec).await?;
    let place = EndpointSpec {
        ipv4: Some([10, 215, 0, 77].into()),
        mac: Some("02:42:aa:bb:cc:dd".into()),
        options: [("shade".to_owned(), "dark".to_owned())].into(),
        ..EndpointSpec::default()
    };
    let spec = scene.sleeper("told").name("teller").endpoint("told", place);
    let container = scene.engine.run(spec).await?;
    let (network, endpoint) = scene.driver.told.lock().expect("nobody panics with it")[0].clone();
    assert_eq!(
        (network.name.as_str(), network.spec.options["colour"].as_str()),
        ("told", "red")
    );
    assert_eq!(
        (endpoint.container_name.as_str(), endpoint.interface.as_str()),
        ("teller", "eth0")
    );
    assert_eq!(endpoint.requested, [IpAddr::from([10, 215, 0, 77])]);
    assert_eq!(endpoint.addresses[0].address, IpAddr::from([10, 215, 0, 77]));
    assert!(endpoint.addresses[1].address.is_ipv6() && endpoint.gateway_v6.is_some());
    assert_eq!(endpoint.gateway, Some([10, 215, 0, 1].into()));
    assert_eq!(endpoint.mac, Some([0x02, 0x42, 0xaa, 0xbb, 0xcc, 0xdd]));
    assert_eq!(endpoint.options["shade"], "dark");
    // And the engine did the rest.
    let shown = container
        .exec(longshore::ExecSpec::new([
            "sh",
            "-c",
            "ip addr show eth0; ip route; ip -6 route",
        ]))
        .output()
        .await?;
    let shown = text(&shown.stdout);
    for wanted in [
        "mtu 1400",
        "02:42:aa:bb:cc:dd",
        "10.215.0.77/24",
        "default via 10.215.0.1",
    ] {
        assert!(shown.contains(wanted), "{wanted} in {shown}");
    }
    // Such options are for such drivers.
    scene.engine.networks().create(NetworkSpec::bridge("plain")).await?;
    let place = EndpointSpec {
        options: [("shade".to_owned(), "dark".to_owned())].into(),
        ..EndpointSpec::default()
    };
    let refused = scene
        .engine
        .run(scene.sleeper("plain").endpoint("plain", place))
        .await
        .expect_err("a bridge takes none");
    assert!(refused.is_unsupported(), "{}", refused.report());
    // Nothing is published by way of it.
    let published = scene.sleeper("told").publish(Port::tcp(80), 0);
    let refused = scene.engine.run(published).await.expect_err("no bridge");
    assert!(refused.is_unsupported(), "{}", refused.report());
    container.remove(FORCE).await?;
    for name in ["told", "plain"] {
        scene.engine.networks().remove(name).await?;
    }
    scene.is_bare().await
}

async fn k8_a_driver_that_fails_leaves_nothing() -> Check {
    let scene = Scene::new().await?;
    let bad = NetworkSpec::of_driver("pairs", "bad").driver_option("bad", "1");
    let refused = scene.engine.networks().create(bad).await.expect_err("a bad option");
    assert_eq!(refused.kind(), &ErrorKind::InvalidArgument, "{}", refused.report());
    scene.driver.misbehave("create", Mischief::Fails);
    let spec = NetworkSpec::of_driver("pairs", "failed");
    let refused = scene.engine.networks().create(spec).await.expect_err("it fails");
    assert_eq!(refused.kind(), &ErrorKind::Unavailable);
    assert!(
        refused.report().contains("no pairs today") && refused.report().contains("pairs"),
        "{}",
        refused.report()
    );
    scene.driver.behave();
    scene.is_bare().await?;
    scene.create("there").await?;
    scene.driver.misbehave("join", Mischief::Fails);
    let refused = scene.engine.run(scene.sleeper("there")).await.expect_err("it fails");
    assert!(refused.report().contains("no pairs today"), "{}", refused.report());
    scene.driver.behave();
    assert_eq!(
        scene.driver.left().len(),
        1,
        "a place is left: {:?}",
        scene.driver.left()
    );
    scene.driver.misbehave("remove", Mischief::Fails);
    scene.engine.networks().remove("there").await.expect_err("it fails");
    scene.engine.networks().inspect("there").await?;
    scene.driver.behave();
    assert_eq!(scene.engine.networks().remove("there").await?, Outcome::Done);
    scene.is_bare().await
}

async fn k8_a_driver_that_hangs_or_lies_leaves_nothing() -> Check {
    let scene = Scene::new().await?;
    for (how, kind) in [
        (Mischief::Hangs, ErrorKind::Timeout),
        (Mischief::Panics, ErrorKind::Unavailable),
    ] {
        scene.driver.misbehave("create", how);
        let spec = NetworkSpec::of_driver("pairs", "never");
        let refused = scene.engine.networks().create(spec).await.expect_err("it cannot be");
        assert_eq!(refused.kind(), &kind, "{how:?}: {}", refused.report());
        scene.is_bare().await?;
    }
    scene.driver.behave();
    scene.create("there").await?;
    for (how, kind) in [
        (Mischief::Hangs, ErrorKind::Timeout),
        (Mischief::Panics, ErrorKind::Unavailable),
        (Mischief::Lies, ErrorKind::Unavailable),
    ] {
        scene.driver.misbehave("join", how);
        let refused = scene
            .engine
            .run(scene.sleeper("there"))
            .await
            .expect_err("it cannot be");
        assert_eq!(refused.kind(), &kind, "{how:?}: {}", refused.report());
        assert_eq!(scene.driver.left().len(), 1, "{how:?}: a place is left");
    }
    scene.driver.behave();
    let container = scene.engine.run(scene.sleeper("there")).await?;
    container.remove(FORCE).await?;
    scene.engine.networks().remove("there").await?;
    scene.is_bare().await
}

async fn k8_what_cannot_be_taken_back_is_taken_back_later() -> Check {
    let scene = Scene::new().await?;
    for name in ["there", "beside"] {
        scene.create(name).await?;
    }
    let container = scene.engine.run(scene.sleeper("there")).await?;
    let (containers, id) = (scene.engine.containers(), container.id().to_string());
    containers.connect(&id, "beside", EndpointSpec::default()).await?;
    scene.driver.misbehave("leave", Mischief::Fails);
    containers.disconnect(&id, "beside").await?;
    let links = container
        .exec(longshore::ExecSpec::new(["ls", "/sys/class/net"]))
        .output()
        .await?;
    assert!(
        !text(&links.stdout).contains("eth1"),
        "the container is out in any case"
    );
    container.remove(FORCE).await?;
    assert_eq!(scene.driver.left().len(), 4, "{:?}", scene.driver.left());
    let refused = scene
        .engine
        .networks()
        .remove("beside")
        .await
        .expect_err("it is not free");
    assert!(refused.report().contains("no pairs today"), "{}", refused.report());
    scene.driver.behave();
    for name in ["there", "beside"] {
        assert_eq!(scene.engine.networks().remove(name).await?, Outcome::Done);
    }
    scene.is_bare().await
}

async fn k8_drivers_that_cannot_be() -> Check {
    let scene = Scene::new().await?;
    let unknown = NetworkSpec::of_driver("weave", "unknown");
    let refused = scene
        .engine
        .networks()
        .create(unknown)
        .await
        .expect_err("nobody knows it");
    assert_eq!(refused.kind(), &ErrorKind::NotFound);
    let words = refused.report();
    assert!(
        words.contains("weave") && words.contains("bridge, ipvlan, macvlan, pairs"),
        "{words}"
    );
    for name in ["bridge", "host", "", "a/b", "overlay"] {
        let (root, driver) = (TempRoot::new(), Arc::new(Pairs::new(root_of(&scene))));
        let opened = Engine::builder(root.path())
            .with_network_driver(name, driver)
            .open()
            .await;
        assert_eq!(
            opened.expect_err("no name").kind(),
            &ErrorKind::InvalidArgument,
            "{name:?}"
        );
    }
    // An engine that does not know the driver tells of the network, and can do nothing with it.
    let spec = NetworkSpec::of_driver("pairs", "kept").persistent(true);
    scene.engine.networks().create(spec).await?;
    let other = Engine::open(scene.root.path()).await?;
    assert_eq!(other.networks().inspect("kept").await?.driver, "pairs");
    let words = other
        .networks()
        .remove("kept")
        .await
        .expect_err("nobody knows it")
        .report();
    assert!(words.contains("with_network_driver"), "{words}");
    let refused = other.run(scene.sleeper("kept")).await.expect_err("nobody knows it");
    assert!(refused.is_not_found(), "{}", refused.report());
    other.close().await;
    scene.engine.networks().remove("kept").await?;
    scene.is_bare().await
}

fn root_of(scene: &Scene) -> &Path {
    scene.driver.dir.as_path()
}

/// A root, the driver's directory, an image, and where it stops: with a container that runs, or in the middle of a call.
fn killed(arguments: &[String]) -> i32 {
    let done: Check = block_on(async {
        // Nobody but the kill ends what hangs here.
        let driver = Arc::new(Pairs {
            patience: Duration::from_secs(600),
            ..Pairs::new(Path::new(&arguments[1]))
        });
        let engine = open(Path::new(&arguments[0]), Arc::clone(&driver)).await?;
        let image = engine.pull(&arguments[2]).await?.id().to_string();
        let spec = || NetworkSpec::of_driver("pairs", "bound");
        let sleeper = ContainerSpec::image(&image)
            .command(["sleep", "1000"])
            .network(NetworkMode::Named("bound".into()));
        let busy = match arguments[3].as_str() {
            "create" => {
                *driver.mischief.lock().expect("nobody panics with it") = Some(("create", Mischief::Hangs));
                engine.networks().create(spec()).await.map(drop)
            }
            "join" => {
                engine.networks().create(spec()).await?;
                *driver.mischief.lock().expect("nobody panics with it") = Some(("join", Mischief::Hangs));
                engine.run(sleeper).await.map(drop)
            }
            _ => {
                engine.networks().create(spec()).await?;
                let kept = NetworkSpec::of_driver("pairs", "kept").persistent(true);
                engine.networks().create(kept).await?;
                let container = engine.run(sleeper.endpoint("kept", EndpointSpec::default())).await?;
                println!("up");
                container.wait().await.map(drop)
            }
        };
        busy?;
        Ok(())
    });
    i32::from(done.is_err())
}

fn k8_nothing_is_left_of_an_engine_that_is_killed() -> Check {
    for place in ["create", "join", "up"] {
        let dir = scratch::fresh("pairs");
        let root = scratch::fresh("root");
        let (at, had) = (root.path().display().to_string(), dir.path().display().to_string());
        let image = source(image::shared()?);
        let mut other = Embedder::start("drivers-killed", &[&at, &had, &image, place])?;
        let enough = match place {
            "create" => 1,
            "join" => 2,
            _ => {
                assert_eq!(other.line(Duration::from_secs(60))?, "up");
                4
            }
        };
        until_now(place, || Ok(left(dir.path()).len() >= enough))?;
        other.kill()?;
        let cleared: Check = block_on(async {
            let driver = Arc::new(Pairs::new(dir.path()));
            let engine = open(root.path(), Arc::clone(&driver)).await?;
            // What was to survive does, bare; nothing else.
            let kept = usize::from(place == "up");
            until(place, async || Ok(driver.left().len() == kept)).await?;
            let found = engine.networks().list().await?;
            let names: Vec<_> = found
                .iter()
                .filter(|one| !one.is_predefined())
                .map(|one| one.name.as_str())
                .collect();
            assert_eq!(names.len(), kept, "{place}: {names:?}");
            for name in names {
                engine.networks().remove(name).await?;
            }
            assert_eq!(driver.left(), Vec::<String>::new(), "{place}");
            let audit = engine.audit().await?;
            assert!(audit.is_clean(), "{place}: {audit:?}");
            engine.close().await;
            Ok(())
        });
        cleared?;
    }
    Ok(())
}

async fn k8_over_the_api() -> Check {
    let scene = Scene::new().await?;
    let socket = scene.root.path().join("d.sock");
    let server = api::Server::new(scene.engine.clone())
        .unix(&socket, api::Mode(0o600))
        .bind()
        .await?;
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve_until(async {
        let _ = ended.await;
    }));
    let host = format!("unix://{}", socket.display());
    let far = Engine::connect(host.clone()).await?;
    let spec = NetworkSpec::of_driver("pairs", "far").driver_option("colour", "red");
    far.networks().create(spec).await?;
    let shown = far.networks().inspect("far").await?;
    assert_eq!(
        (shown.driver.as_str(), shown.spec.options["colour"].as_str()),
        ("pairs", "red")
    );
    let client = async |words: &'static [&'static str]| {
        let host = host.clone();
        let ran = tokio::task::spawn_blocking(move || longshore(&["--host", &host], words));
        ran.await.expect("nobody panics there")
    };
    let made = client(&["network", "create", "-d", "pairs", "-o", "colour=blue", "near"]).await?;
    assert!(made.is_ok(), "{made:?}");
    let shown = client(&["network", "inspect", "near"]).await?.unwrap_or_default();
    let shown: serde_json::Value = serde_json::from_str(&shown)?;
    assert_eq!(
        (&shown[0]["Driver"], &shown[0]["Options"]),
        (&json!("pairs"), &json!({"colour": "blue"}))
    );
    let refused = client(&["network", "create", "-d", "weave", "never"])
        .await?
        .unwrap_err();
    assert!(
        refused.contains("weave") && refused.contains("macvlan, pairs"),
        "{refused}"
    );
    let place = EndpointSpec {
        options: [("shade".to_owned(), "dark".to_owned())].into(),
        ..EndpointSpec::default()
    };
    let container = far.run(scene.sleeper("far").endpoint("far", place)).await?;
    let told = scene.driver.told.lock().expect("nobody panics with it")[0].1.clone();
    assert_eq!(told.options["shade"], "dark");
    container.remove(FORCE).await?;
    for name in ["far", "near"] {
        far.networks().remove(name).await?;
    }
    drop(end);
    let _ = serving.await;
    scene.is_bare().await
}
