//! Networks of CNI plugins: Debian's (`containernetworking-plugins`), and scripts that misbehave. What needs a host is in a network
//! namespace of the test's, which is the host's for the engine and for the plugins.

use std::fs;
use std::io::Read as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use longshore::conformance::networks::Networks;
use longshore::networks::{CniNetworks, NetworkSpec};
use longshore::types::{EndpointSpec, Port};
use longshore::{Container, ContainerSpec, Engine, ErrorKind, ExecSpec, NetworkMode, Outcome};
use serde_json::{Value, json};

use crate::frame::{Check, Stop, block_on, fail, skip};
use crate::support::embedder::{Embedder, Role};
use crate::support::patience::{until, until_now};
use crate::support::root::TempRoot;
use crate::support::world::{FORCE, source, text};
use crate::support::{image, is_root, names_in, program, scratch, warnings};
use crate::tests;

tests! { "cni":
    kernel [
        k8_plugins_pass_the_suite,
        k8_plugins_publish_ports_and_give_chosen_addresses,
        k8_plugins_take_back_what_a_killed_engine_left,
        k8_plugins_that_misbehave_leave_nothing,
    ]
    kernel_async [
        k8_networks_of_plugins_that_cannot_be,
    ]
}

pub const ROLES: &[(&str, Role)] = &[
    ("cni-suite", |arguments| role(arguments, suite)),
    ("cni-ports", |arguments| role(arguments, ports)),
    ("cni-killed", |arguments| role(arguments, killed)),
    ("cni-holder", |arguments| role(arguments, holder)),
    ("cni-misbehaving", |arguments| role(arguments, misbehaving)),
];

/// Where Debian has them.
const PLUGINS: &str = "/usr/lib/cni";
const LONG: Duration = Duration::from_secs(60);

/// What a role works with.
struct Host {
    engine: Engine,
    image: String,
    dir: PathBuf,
    arguments: Vec<String>,
}

fn open_on(arguments: &[String]) -> impl Future<Output = Result<Host, Stop>> {
    let arguments = arguments.to_vec();
    async move {
        let dir = PathBuf::from(&arguments[2]);
        let cni = CniNetworks::new(dir.join("lists"), dir.join("scripts"))
            .programs(PLUGINS)
            .deadline(Duration::from_secs(20));
        let engine = Engine::builder(&arguments[0])
            .with_network_driver("cni", Arc::new(cni))
            .open()
            .await?;
        let image = engine.pull(&arguments[1]).await?.id().to_string();
        Ok(Host {
            engine,
            image,
            dir,
            arguments,
        })
    }
}

fn role<F: AsyncFnOnce(&Host) -> Check>(arguments: &[String], work: F) -> i32 {
    warnings::collect();
    let done: Check = block_on(async {
        let host = open_on(arguments).await?;
        work(&host).await?;
        host.engine.close().await;
        Ok(())
    });
    match done {
        Ok(()) => println!("ok"),
        Err(Stop::Skip(why)) => println!("skip: {}", why.replace('\n', " ")),
        Err(Stop::Fail(why)) => println!("{}", why.replace('\n', " ")),
    }
    0
}

/// Runs a role in a network namespace of its own, as root, with the plugins at hand that it needs.
fn on_a_host(role: &str, needed: &[&str]) -> Check {
    if !is_root() {
        return skip("CNI plugins are root's");
    }
    if let Some(missing) = needed.iter().find(|name| !Path::new(PLUGINS).join(name).is_file()) {
        return skip(format!(
            "the CNI plugin {missing} is not installed (containernetworking-plugins)"
        ));
    }
    program("ip")?;
    let (root, dir) = (scratch::fresh("root"), scratch::fresh("cni"));
    for below in ["lists", "scripts", "leases"] {
        fs::create_dir(dir.path().join(below))?;
    }
    let (place, image) = (root.path().display().to_string(), source(image::shared()?));
    let role = Embedder::start_under(
        &["unshare", "--net"],
        role,
        &[&place, &image, &dir.path().display().to_string()],
    )?;
    match role.line(Duration::from_secs(200))?.as_str() {
        "ok" => Ok(()),
        said => match said.strip_prefix("skip: ") {
            Some(why) => skip(why),
            None => fail(said),
        },
    }
}

fn k8_plugins_pass_the_suite() -> Check {
    on_a_host("cni-suite", &["bridge", "host-local", "loopback"])
}

fn k8_plugins_publish_ports_and_give_chosen_addresses() -> Check {
    program("iptables")?;
    on_a_host("cni-ports", &["bridge", "host-local", "portmap"])
}

fn k8_plugins_take_back_what_a_killed_engine_left() -> Check {
    on_a_host("cni-killed", &["bridge", "host-local"])
}

fn k8_plugins_that_misbehave_leave_nothing() -> Check {
    on_a_host("cni-misbehaving", &[])
}

fn command(words: &str) -> Result<String, Stop> {
    let mut words = words.split(' ');
    let name = words.next().unwrap_or_default();
    let output = Command::new(program(name)?).args(words).output()?;
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => fail(format!("{name}: {output:?}")),
    }
}

impl Host {
    /// A bridge of the host's with addresses by host-local, and more plugins behind it.
    fn list(&self, name: &str, more: &[Value]) -> Check {
        let mut plugins = vec![json!({
            "type": "bridge", "bridge": "cni0", "isGateway": true, "capabilities": {"ips": true, "mac": true},
            "ipam": {
                "type": "host-local", "dataDir": self.dir.join("leases"),
                "ranges": [[{"subnet": "10.217.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}],
            },
        })];
        plugins.extend(more.iter().cloned());
        // portmap 1.1 looks for rules of IPv6 wherever ip6tables is, and finds a container with ports of IPv4 alone wrong.
        let has_ports = more.iter().any(|plugin| plugin["type"] == "portmap");
        let list = json!({"cniVersion": "1.0.0", "name": name, "plugins": plugins, "disableCheck": has_ports});
        self.write(name, list)
    }

    fn write(&self, name: &str, list: Value) -> Check {
        fs::write(
            self.dir.join("lists").join(format!("{name}.conflist")),
            list.to_string(),
        )?;
        Ok(())
    }

    /// Addresses that host-local has given away.
    fn leases(&self, name: &str) -> Vec<String> {
        let mut names = names_in(&self.dir.join("leases").join(name));
        names.retain(|name| name.starts_with("10."));
        names
    }

    fn sleeper(&self, network: &str) -> ContainerSpec {
        ContainerSpec::image(&self.image)
            .command(["sleep", "1000"])
            .network(NetworkMode::Named(network.to_owned()))
    }

    async fn create(&self, name: &str) -> Check {
        self.engine
            .networks()
            .create(NetworkSpec::of_driver("cni", name))
            .await?;
        Ok(())
    }
}

async fn sh(container: &Container, script: &str) -> Result<String, Stop> {
    let output = container.exec(ExecSpec::new(["sh", "-c", script])).output().await?;
    if !output.status.success() {
        return fail(format!("{script}: {output:?}"));
    }
    Ok(text(&output.stdout))
}

async fn suite(host: &Host) -> Check {
    command("ip link set lo up")?;
    host.list("mynet", &[json!({"type": "loopback"})])?;
    let make = |name: &str| NetworkSpec::of_driver("cni", name).driver_option("conflist", "mynet");
    // Who chooses an address that is taken hears of it in the plugin's words.
    Networks::new(&host.engine, &host.image, &make)
        .without_chosen_addresses()
        .run()
        .await;
    assert_eq!(host.leases("mynet"), Vec::<String>::new());
    Ok(())
}

async fn ports(host: &Host) -> Check {
    command("ip link set lo up")?;
    if let Err(Stop::Fail(why)) = command("iptables -t nat -S") {
        return skip(format!("no iptables here: {why}"));
    }
    host.list(
        "web",
        &[json!({"type": "portmap", "capabilities": {"portMappings": true}, "snat": true})],
    )?;
    host.list("plain", &[])?;
    for name in ["web", "plain"] {
        host.create(name).await?;
    }
    let chosen = EndpointSpec {
        ipv4: Some([10, 217, 0, 77].into()),
        mac: Some("02:42:aa:bb:cc:dd".into()),
        ..EndpointSpec::default()
    };
    let spec = host
        .sleeper("web")
        .command(["sh", "-c", "while true; do echo hello | nc -l -p 80; done"])
        .endpoint("web", chosen)
        .publish(Port::tcp(80), 0);
    let container = host.engine.run(spec).await?;
    let info = container.inspect().await?;
    let place = &info.endpoints[0];
    assert_eq!(
        (place.ipv4, place.mac.as_str()),
        (Some(([10, 217, 0, 77].into(), 24)), "02:42:aa:bb:cc:dd")
    );
    assert_eq!(place.gateway, Some([10, 217, 0, 1].into()));
    let seen = sh(
        &container,
        "ip -o addr show dev eth0; ip route; cat /sys/class/net/eth0/address",
    )
    .await?;
    for wanted in ["10.217.0.77/24", "default via 10.217.0.1", "02:42:aa:bb:cc:dd"] {
        assert!(seen.contains(wanted), "{wanted} in {seen}");
    }
    let port = info.ports.first().expect("it is published").host_port;
    answers(port)?;
    // Nobody else gets the port meanwhile.
    let taken = host.sleeper("web").publish(Port::tcp(80), port);
    let refused = host.engine.run(taken).await.expect_err("the port is taken");
    assert!(refused.is_conflict(), "{}", refused.report());
    let audit = host.engine.audit().await?;
    assert!(audit.is_clean(), "{audit:?} {:?}", warnings::take());
    container.remove(FORCE).await?;
    let rules = command("iptables -t nat -S")?;
    assert!(!rules.contains("10.217.0.77"), "rules are left: {rules}");
    let again = host
        .engine
        .run(host.sleeper("web").publish(Port::tcp(80), port))
        .await?;
    again.remove(FORCE).await?;
    // A list that cannot do it says so.
    let refused = host.engine.run(host.sleeper("plain").publish(Port::tcp(80), 0)).await;
    assert!(refused.expect_err("no portmap").is_unsupported());
    for name in ["web", "plain"] {
        assert_eq!(host.engine.networks().remove(name).await?, Outcome::Done);
        assert_eq!(host.leases(name), Vec::<String>::new());
    }
    Ok(())
}

/// From the host's loopback, in the role's own thread: nothing of the engine takes part.
fn answers(port: u16) -> Check {
    until_now("somebody answers at the published port", || {
        let said = TcpStream::connect(("127.0.0.1", port)).and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            let mut said = String::new();
            stream.read_to_string(&mut said).map(|_| said)
        });
        Ok(said.is_ok_and(|said| said == "hello\n"))
    })
}

async fn holder(host: &Host) -> Check {
    host.create("mynet").await?;
    let _one = host.engine.run(host.sleeper("mynet")).await?;
    let _other = host.engine.run(host.sleeper("mynet")).await?;
    println!("up");
    std::thread::sleep(Duration::from_secs(600));
    Ok(())
}

async fn killed(host: &Host) -> Check {
    host.list("mynet", &[])?;
    let arguments: Vec<&str> = host.arguments.iter().map(String::as_str).collect();
    let mut other = Embedder::start("cni-holder", &arguments)?;
    assert_eq!(other.line(LONG)?, "up");
    assert_eq!(host.leases("mynet").len(), 2);
    other.kill()?;
    until("the addresses and links are free again", async || {
        host.engine.reconcile().await?;
        // The kernel takes links away a moment after the last of their namespace.
        Ok(host.leases("mynet").is_empty() && !command("ip -o link")?.contains("veth"))
    })
    .await?;
    assert!(host.engine.audit().await?.is_clean());
    Ok(())
}

/// A plugin that does what the list's field `does` says, and notes what it is asked.
const SCRIPT: &str = r#"#!/bin/sh
read -r config
echo "$CNI_COMMAND" >> DIR/asked
case "$config" in
  *'"does":"hang '"$CNI_COMMAND"'"'*) sleep 1000;;
  *'"does":"fail '"$CNI_COMMAND"'"'*) echo '{"cniVersion": "1.0.0", "code": 11, "msg": "not now"}'; exit 1;;
  *'"does":"babble '"$CNI_COMMAND"'"'*) echo '{"cniVersion": "9"}'; exit 0;;
  *'"does":"flood '"$CNI_COMMAND"'"'*) yes; exit 0;;
esac
if [ "$CNI_COMMAND" = ADD ]; then echo '{"cniVersion": "1.0.0"}'; fi
"#;

async fn misbehaving(host: &Host) -> Check {
    let script = host.dir.join("scripts/script");
    fs::write(&script, SCRIPT.replace("DIR", &host.dir.display().to_string()))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let cni = CniNetworks::new(host.dir.join("lists"), host.dir.join("scripts")).deadline(Duration::from_secs(2));
    let _scratch = scratch::enter();
    let root = TempRoot::new();
    let engine = Engine::builder(root.path())
        .with_network_driver("cni", Arc::new(cni))
        .open()
        .await?;
    let image = engine.pull(&host.arguments[1]).await?.id().to_string();
    let sleeper = |network: &str| {
        let spec = ContainerSpec::image(&image).command(["sleep", "1000"]);
        spec.network(NetworkMode::Named(network.to_owned()))
    };
    let make = async |name: &str, does: &str| -> Check {
        host.write(
            name,
            json!({"cniVersion": "1.0.0", "name": name, "plugins": [{"type": "script", "does": does}]}),
        )?;
        engine.networks().create(NetworkSpec::of_driver("cni", name)).await?;
        let _ = fs::remove_file(host.dir.join("asked"));
        Ok(())
    };
    let asked = || fs::read_to_string(host.dir.join("asked")).unwrap_or_default();
    for (name, does, kind) in [
        ("hangs", "hang ADD", ErrorKind::Timeout),
        ("fails", "fail ADD", ErrorKind::Unavailable),
        ("babbles", "babble ADD", ErrorKind::Unavailable),
        ("floods", "flood ADD", ErrorKind::Unavailable),
        // It says that it has made a link.
        ("lies", "nothing", ErrorKind::Unavailable),
    ] {
        make(name, does).await?;
        let refused = engine.run(sleeper(name)).await.expect_err("it cannot be");
        assert_eq!(refused.kind(), &kind, "{does}: {}", refused.report());
        assert_eq!(asked(), "ADD\nDEL\n", "{does}");
        assert_eq!(engine.networks().remove(name).await?, Outcome::Done);
    }
    // What cannot be taken back is asked for again.
    make("stays", "fail DEL").await?;
    engine.run(sleeper("stays")).await.expect_err("there is no link");
    assert_eq!(asked(), "ADD\nDEL\n");
    let refused = engine.networks().remove("stays").await.expect_err("it does not leave");
    assert!(refused.report().contains("not now"), "{}", refused.report());
    assert_eq!(asked(), "ADD\nDEL\nDEL\n");
    fs::write(&script, "#!/bin/sh\nexit 0\n")?;
    assert_eq!(engine.networks().remove("stays").await?, Outcome::Done);
    assert!(engine.audit().await?.is_clean());
    engine.close().await;
    Ok(())
}

async fn k8_networks_of_plugins_that_cannot_be() -> Check {
    let (dir, root) = (scratch::fresh("cni"), TempRoot::new());
    let lists = dir.path();
    fs::write(
        lists.join("one.conflist"),
        r#"{"cniVersion": "1.0.0", "name": "one", "plugins": [{"type": "no-such-plugin"}]}"#,
    )?;
    fs::write(
        lists.join("two.conflist"),
        r#"{"cniVersion": "1.0.0", "name": "two", "plugins": []}"#,
    )?;
    let cni = CniNetworks::new(lists, PLUGINS);
    let engine = Engine::builder(root.path())
        .with_network_driver("cni", Arc::new(cni))
        .open()
        .await?;
    let refused = async |spec: NetworkSpec| engine.networks().create(spec).await.expect_err("it cannot be");
    let error = refused(NetworkSpec::of_driver("cni", "one")).await;
    match error.kind() {
        ErrorKind::Unsupported { needs } if is_root() => assert!(needs.contains("no-such-plugin"), "{needs}"),
        ErrorKind::Unsupported { needs } => assert!(needs.starts_with("root"), "{needs}"),
        _ => return fail(error.report()),
    }
    if is_root() {
        let error = refused(NetworkSpec::of_driver("cni", "two")).await;
        assert_eq!(error.kind(), &ErrorKind::InvalidArgument, "{}", error.report());
        let error = refused(NetworkSpec::of_driver("cni", "three")).await;
        assert!(
            error.is_not_found() && error.report().contains("one, two"),
            "{}",
            error.report()
        );
        let error = refused(NetworkSpec::of_driver("cni", "one").internal(true)).await;
        assert!(error.is_unsupported(), "{}", error.report());
    }
    let left = engine.networks().list().await?;
    assert!(
        left.iter().all(longshore::networks::NetworkInfo::is_predefined),
        "a network was left"
    );
    engine.close().await;
    Ok(())
}
