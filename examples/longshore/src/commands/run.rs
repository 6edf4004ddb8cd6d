//! `run`: pull if need be, create, start in the foreground, remove.

use std::io::IsTerminal as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use clap::ArgAction;
use longshore::containers::MountSpec;
use longshore::containers::{DetachKeys, Ulimit};
use longshore::types::ImageSource;
use longshore::types::{EndpointLink, EndpointSpec, Port, PortBinding};
use longshore::{
    Bytes, Container, ContainerSpec, Engine, NamespaceMode, NetworkMode, ObjectKind, Platform, Pull, RemoveOptions,
    RestartPolicy, Signal, Tmpfs,
};

use crate::care::CareArgs;
use crate::context::Context;
use crate::devices::DeviceArgs;
use crate::failure::Failure;
use crate::limits::LimitArgs;
use crate::options::{self, Pair, SecurityOption};
use crate::pull_view::{PullView, Target};
use crate::{session, terminal};

const USAGE: &str = "longshore run [OPTIONS] IMAGE [COMMAND] [ARG]...";

const AFTER_HELP: &str = "\
A container is bound to this client: it ends with it, whatever ends the client, and nothing of it stays behind, with or
without --rm. While it runs, `longshore ps`, `logs`, `inspect`, `stop` and `kill` reach it from other terminals.

Exit code: the container's; 125 if this client failed, 126 if the program cannot be executed, 127 if there is none.";

/// Options of `run`.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true, override_usage = USAGE, after_help = AFTER_HELP)]
pub struct Args {
    /// Remove the container when it has ended (a bound container always is)
    #[arg(long)]
    rm: bool,
    /// Pass stdin on
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Run in the background (with --host; not there yet without)
    #[arg(short, long)]
    detach: bool,
    /// Keys that leave its terminal, with --host [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<DetachKeys>,
    /// Set a variable; without a value, pass this client's on
    #[arg(short, long, value_name = "KEY[=VALUE]", value_parser = options::pair)]
    env: Vec<Pair>,
    /// Read variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<PathBuf>,
    /// User: name or uid, with :group if wanted
    #[arg(short, long)]
    user: Option<String>,
    /// Further groups, by name or number
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Program in place of the image's; "" for none
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Name of the container
    #[arg(long)]
    name: Option<String>,
    /// Host name
    #[arg(short, long, value_name = "NAME")]
    hostname: Option<String>,
    /// Domain name
    #[arg(long, value_name = "NAME")]
    domainname: Option<String>,
    /// Label
    #[arg(short, long, value_name = "KEY[=VALUE]", value_parser = options::pair)]
    label: Vec<Pair>,
    /// Annotation for the runtime
    #[arg(long, value_name = "KEY[=VALUE]", value_parser = options::pair)]
    annotation: Vec<Pair>,
    /// Cgroup in which its own is made: /NAME below the root of each hierarchy, NAME below the engine's
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
    /// Who starts it: native, runc, crun
    #[arg(long, value_name = "NAME")]
    runtime: Option<String>,
    /// Network: none, host, container:NAME, bridge or one that was made; the first is the one that the other options mean
    #[arg(long, visible_alias = "net", value_name = "NETWORK", value_parser = options::network)]
    network: Vec<NetworkMode>,
    /// Another name of the container in its network
    #[arg(long, visible_alias = "net-alias", value_name = "NAME")]
    network_alias: Vec<String>,
    /// Name of another container in its network, for this one alone
    #[arg(long, value_name = "CONTAINER[:ALIAS]")]
    link: Vec<EndpointLink>,
    /// Its address in its network
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// Its IPv6 address in its network
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<Ipv6Addr>,
    /// Its hardware address in its network
    #[arg(long, value_name = "ADDRESS")]
    mac_address: Option<String>,
    /// Publish a port: [[ADDRESS:]HOST:]CONTAINER[/PROTOCOL]
    #[arg(short, long, value_name = "PORT", value_parser = options::publish)]
    publish: Vec<Vec<PortBinding>>,
    /// Publish every exposed port at a free one of the host
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// Expose a port: PORT[/PROTOCOL]
    #[arg(long, value_name = "PORT")]
    expose: Vec<Port>,
    /// Resolver for what is not in its networks
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<IpAddr>,
    /// Domain in which short names are looked for
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Option of resolv.conf
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    dns_option: Vec<String>,
    /// A line for /etc/hosts: NAME:ADDRESS, where the address may be host-gateway
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<String>,
    /// Processes it sees: its own, or container:NAME
    #[arg(long, value_name = "MODE")]
    pid: Option<NamespaceMode>,
    /// IPC: private, shareable, host or container:NAME
    #[arg(long, value_name = "MODE")]
    ipc: Option<NamespaceMode>,
    /// Host name: its own, or that of the host
    #[arg(long, value_name = "MODE")]
    uts: Option<NamespaceMode>,
    /// What it takes for the root of the cgroups: private or host
    #[arg(long, value_name = "MODE")]
    cgroupns: Option<NamespaceMode>,
    /// Make the root file system read-only
    #[arg(long)]
    read_only: bool,
    /// Mount a directory or file of the host, or a volume: SRC:DST or NAME:DST, with :ro, :nocopy, :rslave if wanted
    #[arg(short, long, value_name = "[SRC:]DST[:OPTIONS]", value_parser = options::volume)]
    volume: Vec<MountSpec>,
    /// Mount something: type=bind|volume|tmpfs|image,source=…,target=…
    #[arg(long, value_name = "KEY=VALUE,…", value_parser = options::mount)]
    mount: Vec<MountSpec>,
    /// Take the volumes of another container: NAME or NAME:ro
    #[arg(long, value_name = "CONTAINER[:ro]")]
    volumes_from: Vec<String>,
    /// Mount a memory file system: /path[:size=64m,mode=1777,exec]
    #[arg(long, value_name = "PATH[:OPTIONS]", value_parser = options::tmpfs)]
    tmpfs: Vec<(PathBuf, Tmpfs)>,
    /// Size of /dev/shm [default: 64m]
    #[arg(long, value_name = "BYTES")]
    shm_size: Option<Bytes>,
    /// Limit what it may write to its own layer: size=BYTES
    #[arg(long, value_name = "KEY=VALUE", value_parser = options::storage_size)]
    storage_opt: Option<Bytes>,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    care: CareArgs,
    /// Start without limits that this host cannot set, with a warning, instead of failing
    #[arg(long)]
    best_effort_limits: bool,
    /// How readily the kernel kills it for memory, -1000 to 1000
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    oom_score_adj: Option<i32>,
    /// Keep it from next to nothing: all capabilities, no seccomp profile, the host's devices
    #[arg(long)]
    privileged: bool,
    /// Add a capability, or ALL
    #[arg(long, value_name = "NAME")]
    cap_add: Vec<String>,
    /// Take a capability away, or ALL
    #[arg(long, value_name = "NAME")]
    cap_drop: Vec<String>,
    /// seccomp=unconfined, seccomp=FILE or no-new-privileges
    #[arg(long, value_name = "OPTION", value_parser = options::security)]
    security_opt: Vec<SecurityOption>,
    /// Resource limit of its processes: NAME=SOFT[:HARD]
    #[arg(long, value_name = "LIMIT", value_parser = options::ulimit)]
    ulimit: Vec<Ulimit>,
    #[command(flatten)]
    devices: DeviceArgs,
    /// Put a small init in as pid 1
    #[arg(long)]
    init: bool,
    /// What stop sends
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<Signal>,
    /// Seconds that stop waits before it kills
    #[arg(long, value_name = "SECONDS")]
    stop_timeout: Option<u64>,
    /// When to pull the image
    #[arg(long, value_name = "WHEN", default_value = "missing", value_parser = ["always", "missing", "never"])]
    pull: String,
    /// Platform of the image, say linux/arm64
    #[arg(long)]
    platform: Option<Platform>,
    /// Say nothing about a pull
    #[arg(short, long)]
    quiet: bool,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// The image (a name, an id, oci:DIR[:TAG] or docker-archive:FILE[:NAME]), then the command to run in it; options end here
    #[arg(value_name = "IMAGE", required = true, trailing_var_arg = true, num_args = 1..)]
    words: Vec<String>,
}

/// Runs a container to its end. The exit code is the container's.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let elsewhere = context.is_elsewhere();
    refuse(&args, elsewhere)?;
    let mut spec = spec(&args)?;
    // A bound container goes with this client; one elsewhere stays, unless it is not to.
    spec.auto_remove = elsewhere && args.rm;
    let (tty, quiet, policy) = (args.tty, args.quiet, args.pull);
    let engine = context.engine().await.map_err(as_ours)?;
    let container = create(&engine, &mut spec, &policy, quiet).await.map_err(as_ours)?;
    for warning in container.warnings() {
        eprintln!("WARNING: {warning}");
    }
    if args.detach {
        container.start().await.map_err(|error| Failure::of_run(&error))?;
        println!("{}", container.id());
        return Ok(0);
    }
    let keys = (tty && elsewhere).then(|| args.detach_keys.unwrap_or_default());
    let restarts = spec.restart != RestartPolicy::No;
    let ended = session::run(&container, tty, keys, restarts).await;
    if !elsewhere {
        // A bound container would go with this process anyway. Removed here, it is gone before the shell's next prompt.
        match container.remove(RemoveOptions::force()).await {
            Err(error) if !error.is_not_found() => eprintln!("longshore: {}", error.report()),
            _ => {}
        }
    }
    match ended.map_err(as_ours)? {
        Some(status) => Ok(session::code(status)),
        None => session::left(),
    }
}

/// What cannot be done, before anything is done.
fn refuse(args: &Args, elsewhere: bool) -> Result<(), Failure> {
    if args.detach && !elsewhere {
        return Err(Failure::ours(
            "-d is not there yet: a container is bound to the process that runs it, which is this client, and would end with it; \
             run it in the foreground, or put the client in the background with &, or have a daemon run it with --host",
        ));
    }
    if args.tty && args.interactive && !args.detach && !std::io::stdin().is_terminal() {
        return Err(Failure::ours("the input device is not a TTY"));
    }
    Ok(())
}

/// Creates the container, pulling its image as the policy says.
async fn create(engine: &Engine, spec: &mut ContainerSpec, policy: &str, quiet: bool) -> Result<Container, Failure> {
    let on_disk = ImageSource::is_on_disk(&spec.image);
    if policy == "always" || (on_disk && policy != "never") {
        pull(engine, spec, quiet).await?;
    }
    match engine.create(spec.clone()).await {
        Err(error) if policy == "missing" && !on_disk && image_is_missing(&error) => {
            eprintln!("Unable to find image '{}' locally", spec.image);
            pull(engine, spec, quiet).await?;
            engine
                .create(spec.clone())
                .await
                .map_err(|error| Failure::of_run(&error))
        }
        other => other.map_err(|error| Failure::of_run(&error)),
    }
}

fn image_is_missing(error: &longshore::Error) -> bool {
    error.is_not_found() && error.object().is_some_and(|(kind, _)| kind == ObjectKind::Image)
}

/// Pulls the image. One from a layout or an archive may have no name, so that the container is made of its id.
async fn pull(engine: &Engine, spec: &mut ContainerSpec, quiet: bool) -> Result<(), Failure> {
    let view = PullView::new(Target::Stderr, quiet);
    let mut pull = engine.pull(&spec.image).policy(Pull::Always).progress(view.reporter());
    if let Some(platform) = &spec.platform {
        pull = pull.platform(platform.clone());
    }
    let image = pull.await;
    view.finish();
    let image = image.map_err(|error| Failure::of_run(&error))?;
    if ImageSource::is_on_disk(&spec.image) {
        spec.image = image.id().to_string();
    }
    Ok(())
}

/// What the options ask for.
fn spec(args: &Args) -> Result<ContainerSpec, Failure> {
    let mut words = args.words.iter().cloned();
    let mut spec = ContainerSpec::image(words.next().unwrap_or_default());
    let command: Vec<String> = words.collect();
    spec.command = (!command.is_empty()).then_some(command);
    spec.entrypoint = args
        .entrypoint
        .clone()
        .map(|program| if program.is_empty() { Vec::new() } else { vec![program] });
    spec.env = options::environment(&args.env_file, &args.env).map_err(Failure::ours)?;
    spec.working_dir = args.workdir.clone();
    spec.user = args.user.clone();
    spec.groups = args.group_add.clone();
    spec.name = args.name.clone();
    spec.hostname = args.hostname.clone();
    spec.domainname = args.domainname.clone();
    let pairs = |pairs: &[Pair]| {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| (key.clone(), value.clone().unwrap_or_default()))
            .collect()
    };
    spec.labels = pairs(&args.label);
    spec.annotations = pairs(&args.annotation);
    spec.cgroup_parent.clone_from(&args.cgroup_parent);
    spec.runtime.clone_from(&args.runtime);
    networks(args, &mut spec)?;
    let mode = |asked: &Option<NamespaceMode>| asked.clone().unwrap_or_default();
    (spec.pid_mode, spec.ipc_mode) = (mode(&args.pid), mode(&args.ipc));
    (spec.uts_mode, spec.cgroup_mode) = (mode(&args.uts), mode(&args.cgroupns));
    spec.tty = args.tty;
    spec.tty_size = args.tty.then(terminal::window_size).flatten();
    spec.open_stdin = args.interactive;
    spec.init = args.init;
    spec.stop_signal = args.stop_signal;
    spec.stop_timeout = args.stop_timeout.map(Duration::from_secs);
    spec.platform = args.platform.clone();
    args.care.apply(&mut spec);
    files(args, &mut spec);
    limits(args, &mut spec);
    args.devices.put(&mut spec);
    security(args, &mut spec);
    Ok(spec)
}

/// Its places in networks, and its ports.
fn networks(args: &Args, spec: &mut ContainerSpec) -> Result<(), Failure> {
    let needs_one = !args.publish.is_empty() || args.publish_all;
    spec.network = match args.network.first() {
        Some(first) => first.clone(),
        // As Docker's default; without a port, this client's is none.
        None if needs_one => NetworkMode::Named("bridge".into()),
        None => NetworkMode::None,
    };
    spec.ports = args.publish.concat();
    spec.publish_all = args.publish_all;
    spec.expose = args.expose.iter().copied().collect();
    spec.dns = args.dns.clone();
    spec.dns_search = args.dns_search.clone();
    spec.dns_options = args.dns_option.clone();
    spec.extra_hosts = args.add_host.clone();
    let first = EndpointSpec {
        aliases: args.network_alias.clone(),
        links: args.link.clone(),
        ipv4: args.ip,
        ipv6: args.ip6,
        mac: args.mac_address.clone(),
        ..EndpointSpec::default()
    };
    for (at, network) in args.network.iter().enumerate() {
        let (NetworkMode::Named(name), true) = (network, args.network.len() > 1 || first != EndpointSpec::default())
        else {
            continue;
        };
        let endpoint = if at == 0 {
            first.clone()
        } else {
            EndpointSpec::default()
        };
        spec.endpoints.insert(name.clone(), endpoint);
    }
    let named = matches!(spec.network, NetworkMode::Named(_));
    if args.network.len() > 1 && !args.network.iter().all(|one| matches!(one, NetworkMode::Named(_))) {
        return Err(Failure::ours(
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
        ));
    }
    if !named && first != EndpointSpec::default() {
        return Err(Failure::ours(
            "an address or an alias needs a network: say --network NAME",
        ));
    }
    if spec.network == NetworkMode::None && needs_one {
        return Err(Failure::ours("a published port needs a network: say --network bridge"));
    }
    Ok(())
}

fn files(args: &Args, spec: &mut ContainerSpec) {
    spec.read_only = args.read_only;
    spec.mounts = args.volume.iter().chain(&args.mount).cloned().collect();
    spec.volumes_from = args.volumes_from.clone();
    spec.tmpfs = args.tmpfs.iter().cloned().collect();
    spec.shm_size = args.shm_size;
    spec.storage_size = args.storage_opt;
}

fn limits(args: &Args, spec: &mut ContainerSpec) {
    spec.limits = args.limits.limits();
    spec.limits.best_effort = args.best_effort_limits;
    spec.oom_score_adj = args.oom_score_adj;
    spec.ulimits = args.ulimit.clone();
}

fn security(args: &Args, spec: &mut ContainerSpec) {
    spec.privileged = args.privileged;
    spec.cap_add = args.cap_add.clone();
    spec.cap_drop = args.cap_drop.clone();
    for option in &args.security_opt {
        match option {
            SecurityOption::Seccomp(seccomp) => spec.seccomp = seccomp.clone(),
            SecurityOption::NoNewPrivileges(on) => spec.no_new_privileges = *on,
            SecurityOption::AppArmor(profile) => spec.apparmor = Some(profile.clone()),
            SecurityOption::Label(part) => spec.selinux.push(part.clone()),
        }
    }
}

/// Whatever fails around the container is ours: 125.
fn as_ours(failure: Failure) -> Failure {
    failure.of_ours()
}

#[cfg(test)]
mod tests {
    use longshore::{HealthCheck, LogConfig, OnUnhealthy};

    use super::*;
    use crate::cli::{Cli, OfContainer, Verb};
    use clap::Parser as _;

    fn parse(words: &str) -> Result<Args, clap::Error> {
        let words = ["longshore", "run"].into_iter().chain(words.split_whitespace());
        match Cli::try_parse_from(words)?.verb {
            Verb::OfContainer(OfContainer::Run(args)) => Ok(*args),
            other => panic!("{other:?}"),
        }
    }

    fn spec_of(words: &str) -> ContainerSpec {
        spec(&parse(words).unwrap()).unwrap()
    }

    #[test]
    fn options_end_at_the_image() {
        let spec = spec_of("-it --rm busybox ls -l --rm -i -- -h");
        assert_eq!(spec.image, "busybox");
        assert_eq!(spec.command.unwrap(), ["ls", "-l", "--rm", "-i", "--", "-h"]);
        assert!(spec.tty && spec.open_stdin);
        assert_eq!(spec_of("busybox -i").command.unwrap(), ["-i"]);
        assert_eq!(spec_of("busybox").command, None);
        assert_eq!(spec_of("-- busybox ls").command.unwrap(), ["ls"]);
    }

    #[test]
    fn words_that_make_no_sense_are_refused() {
        for bad in [
            "",
            "--bogus busybox",
            "-m lots busybox",
            "--network container: busybox",
            "-p x:80 busybox",
            "-v ../data:x busybox",
            "--mount type=bind,source=/a busybox",
            "--pull often busybox",
            "--stop-signal NOPE busybox",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn h1_h5_identity() {
        let spec = spec_of(
            "-e A=1 -e B=x=y -w /w -u app:staff --group-add audio -h box --name web -l a=b -l c --entrypoint /bin/sh busybox -c true",
        );
        assert_eq!((spec.env["A"].as_str(), spec.env["B"].as_str()), ("1", "x=y"));
        assert_eq!(spec.working_dir.as_deref(), Some("/w".as_ref()));
        assert_eq!(
            (spec.user.as_deref(), spec.groups),
            (Some("app:staff"), vec!["audio".to_owned()])
        );
        assert_eq!(
            (spec.hostname.as_deref(), spec.name.as_deref()),
            (Some("box"), Some("web"))
        );
        assert_eq!((spec.labels["a"].as_str(), spec.labels["c"].as_str()), ("b", ""));
        assert_eq!(
            (spec.entrypoint.unwrap(), spec.command.unwrap()),
            (vec!["/bin/sh".to_owned()], vec!["-c".into(), "true".into()])
        );
    }

    #[test]
    fn an_empty_entrypoint_clears_the_image_s() {
        let words = ["longshore", "run", "--entrypoint", "", "busybox", "true"];
        let Verb::OfContainer(OfContainer::Run(args)) = Cli::try_parse_from(words).unwrap().verb else {
            panic!("not run")
        };
        assert_eq!(spec(&args).unwrap().entrypoint, Some(Vec::new()));
    }

    #[test]
    fn h15_h16_limits() {
        let spec = spec_of(
            "-m 64m --memory-swap -1 --cpus 1.5 --pids-limit 20 --ulimit nofile=10:20 --shm-size 1m --best-effort-limits busybox",
        );
        assert_eq!(
            (spec.limits.memory, spec.limits.memory_swap),
            (Some(Bytes::mib(64)), Some(-1))
        );
        assert_eq!(
            (spec.limits.nano_cpus, spec.limits.pids),
            (Some(1_500_000_000), Some(20))
        );
        assert_eq!(
            (spec.ulimits[0].soft, spec.shm_size, spec.limits.best_effort),
            (10, Some(Bytes::mib(1)), true)
        );
    }

    #[test]
    fn h10_h11_h13_security_and_files() {
        let spec = spec_of(
            "--cap-drop ALL --cap-add CHOWN --security-opt seccomp=unconfined --security-opt no-new-privileges --read-only --tmpfs /tmp -v /a:/b:ro --network host --init busybox",
        );
        assert_eq!(
            (spec.cap_drop, spec.cap_add),
            (vec!["ALL".to_owned()], vec!["CHOWN".to_owned()])
        );
        assert_eq!(spec.seccomp, longshore::Seccomp::Unconfined);
        assert!(spec.no_new_privileges && spec.read_only && spec.init && spec.mounts[0].read_only);
        assert!(spec.tmpfs.contains_key(std::path::Path::new("/tmp")));
        assert_eq!(spec.network, NetworkMode::Host);
    }

    #[test]
    fn h18_i1_namespaces() {
        let spec =
            spec_of("--pid container:a --ipc shareable --uts host --cgroupns host --network container:b busybox");
        assert_eq!(spec.pid_mode, NamespaceMode::Container("a".into()));
        assert_eq!(
            (spec.ipc_mode, spec.uts_mode, spec.cgroup_mode),
            (NamespaceMode::Shareable, NamespaceMode::Host, NamespaceMode::Host)
        );
        assert_eq!(spec.network, NetworkMode::Container("b".into()));
        assert_eq!(spec_of("busybox").pid_mode, NamespaceMode::Private);
        assert!(spec_of("--privileged busybox").privileged);
        for bad in ["--pid container: busybox", "--ipc mine busybox"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn detached_is_refused_with_the_reason() {
        let failure = refuse(&parse("-d busybox").unwrap(), false).unwrap_err();
        assert!(format!("{failure:?}").contains("bound"));
        assert!(refuse(&parse("-d busybox").unwrap(), true).is_ok());
    }

    #[test]
    fn g10_g11_h19_what_is_done_for_it() {
        let spec = spec_of(
            "--restart on-failure:3 --health-interval 2s --health-timeout 500ms --health-retries 7 --health-start-period 1m \
             --health-start-interval 1s --health-on-failure restart --log-driver json-file --log-opt max-size=1m busybox",
        );
        assert_eq!(spec.restart, RestartPolicy::OnFailure { max_retries: Some(3) });
        assert_eq!(spec.on_unhealthy, OnUnhealthy::Restart);
        let health = &spec.health;
        assert_eq!(
            (health.interval, health.retries),
            (Some(Duration::from_secs(2)), Some(7))
        );
        assert_eq!(health.timeout, Some(Duration::from_millis(500)));
        assert_eq!(health.start_period, Some(Duration::from_secs(60)));
        assert_eq!(health.start_interval, Some(Duration::from_secs(1)));
        assert_eq!(spec.log, LogConfig::driver("json-file").option("max-size", "1m"));
        let off = spec_of("--no-healthcheck busybox");
        assert_eq!((off.health, off.restart), (HealthCheck::disabled(), RestartPolicy::No));
        for bad in [
            "--restart sometimes busybox",
            "--restart always:3 busybox",
            "--health-interval soon busybox",
            "--health-on-failure panic busybox",
            "--health-cmd true --no-healthcheck busybox",
            "--detach-keys ctrl-P busybox",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
