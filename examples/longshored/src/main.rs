//! `longshored`: a daemon that Docker clients drive. Thin: it opens an engine, lets the library serve the Engine API over
//! it, and does what daemons do: sockets with owners, sockets handed in, readiness, an end on SIGTERM.

mod activation;
mod ending;
mod failure;
mod options;
mod tls;

use std::process::ExitCode;

use longshore::volumes::PluginPlaces;
use longshore::{Engine, Lifetime, api};

use crate::failure::Failure;
use crate::options::{Host, Options};

fn main() -> ExitCode {
    let done = Options::load().and_then(|options| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        runtime.block_on(run(options))
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("longshored: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<(), Failure> {
    let places = options.places()?;
    let tls = tls::config(&options)?;
    let root = match &options.root {
        Some(root) => root.clone(),
        None => Engine::default_root()?,
    };
    let plugins = PluginPlaces::docker();
    let mut builder = Engine::builder(root).with_volume_plugins(plugins);
    if options.live_restore {
        builder = builder.lifetime(Lifetime::Detached).supervise(true);
    }
    if let Some(isolation) = options.isolation {
        builder = builder.isolation(isolation);
    }
    if let Some(runtime) = &options.default_runtime {
        builder = builder.default_runtime(runtime);
    }
    if !options.cdi_spec_dir.is_empty() {
        builder = builder.cdi_directories(&options.cdi_spec_dir);
    }
    let engine = builder.open().await?;
    let mut server = api::Server::new(engine.clone()).limits(options.limits());
    if let Some(gid) = group(options.group.as_deref())? {
        server = server.group(gid);
    }
    for place in places {
        server = match place {
            Host::Unix(path) => server.unix(path, api::Mode(options.socket_mode())),
            Host::Tcp(address) => server.tcp(address, tls.clone()),
            Host::Inherited => activation::sockets()?.into_iter().fold(server, api::Server::listener),
        };
    }
    let bound = server.bind().await?;
    let end = ending::end(engine, bound.activity(), options.idle())?;
    activation::notify("READY=1");
    bound.serve_until(end).await;
    activation::notify("STOPPING=1");
    Ok(())
}

/// The group that may use unix sockets: the one that was asked for, or `docker` if there is one that is ours to give to.
fn group(asked: Option<&str>) -> Result<Option<u32>, Failure> {
    let name = asked.unwrap_or("docker");
    let found = nix::unistd::Group::from_name(name).map_err(|error| Failure::new(format!("group {name}: {error}")))?;
    match (found, asked) {
        (Some(group), None) if !may_give_to(group.gid) => Ok(None),
        (Some(group), _) => Ok(Some(group.gid.as_raw())),
        (None, None) => Ok(None),
        (None, Some(name)) => name
            .parse()
            .map(Some)
            .map_err(|_| Failure::new(format!("there is no group {name}"))),
    }
}

/// Whether this user may give a file of his to a group: root to any, others to their own. Source: chown(2).
fn may_give_to(group: nix::unistd::Gid) -> bool {
    let own = || nix::unistd::getgroups().is_ok_and(|groups| groups.contains(&group));
    nix::unistd::geteuid().is_root() || nix::unistd::getegid() == group || own()
}
