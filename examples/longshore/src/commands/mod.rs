//! The verbs, one file each: its options as `Args`, its work as `run`.

pub mod attach;
pub mod build;
pub mod builder_prune;
pub mod checkpoint;
pub mod commit;
pub mod container_prune;
pub mod cp;
pub mod df;
pub mod diff;
pub mod doctor;
pub mod events;
pub mod exec;
pub mod export;
pub mod history;
pub mod image_prune;
pub mod images;
pub mod import;
pub mod info;
pub mod inspect;
pub mod kill;
pub mod load;
pub mod login;
pub mod logs;
pub mod manifest;
pub mod network;
pub mod pause;
pub mod port;
pub mod ps;
pub mod pull;
pub mod push;
pub mod rename;
pub mod restart;
pub mod rm;
pub mod rmi;
pub mod run;
pub mod save;
pub mod start;
pub mod stats;
pub mod stop;
pub mod system_prune;
pub mod tag;
pub mod top;
pub mod unpause;
pub mod update;
pub mod volume;
pub mod wait;

use std::io::{self, BufRead as _, Write as _};

use longshore::Filter;

use crate::cli::{
    BuilderVerb, CheckpointVerb, Cli, ContainerVerb, ImageVerb, ManifestVerb, NetworkVerb, OfContainer, SystemVerb,
    Verb, VolumeVerb,
};
use crate::context::Context;
use crate::failure::Failure;
use crate::{oci, options};

/// Does what the command line says. The exit code comes back.
pub async fn dispatch(cli: Cli) -> Result<u8, Failure> {
    let context = Context::new(cli.root, cli.additional_store, cli.host, cli.isolation)?;
    match cli.verb {
        Verb::OfContainer(verb) => of_container(&context, verb).await,
        Verb::Container(ContainerVerb::Same(verb)) => of_container(&context, *verb).await,
        Verb::Build(args) | Verb::Image(ImageVerb::Build(args)) | Verb::Builder(BuilderVerb::Build(args)) => {
            build::run(&context, *args).await
        }
        Verb::Builder(BuilderVerb::Prune(args)) => builder_prune::run(&context, args).await,
        Verb::Pull(args) | Verb::Image(ImageVerb::Pull(args)) => pull::run(&context, args).await,
        Verb::Push(args) | Verb::Image(ImageVerb::Push(args)) | Verb::Manifest(ManifestVerb::Push(args)) => {
            push::run(&context, args).await
        }
        Verb::Manifest(ManifestVerb::Create(args)) => manifest::create(&context, args).await,
        Verb::Manifest(ManifestVerb::Annotate(args)) => manifest::annotate(&context, args).await,
        Verb::Manifest(ManifestVerb::Inspect(args)) => manifest::inspect(&context, args).await,
        Verb::Manifest(ManifestVerb::Rm(args)) => manifest::rm(&context, args).await,
        Verb::Save(args) | Verb::Image(ImageVerb::Save(args)) => save::run(&context, args).await,
        Verb::Load(args) | Verb::Image(ImageVerb::Load(args)) => load::run(&context, args).await,
        Verb::Import(args) | Verb::Image(ImageVerb::Import(args)) => import::run(&context, args).await,
        Verb::History(args) | Verb::Image(ImageVerb::History(args)) => history::run(&context, args).await,
        Verb::Images(args) | Verb::Image(ImageVerb::Ls(args)) => images::run(&context, args).await,
        Verb::Tag(args) | Verb::Image(ImageVerb::Tag(args)) => tag::run(&context, args).await,
        Verb::Rmi(args) | Verb::Image(ImageVerb::Rm(args)) => rmi::run(&context, args).await,
        Verb::Image(ImageVerb::Prune(args)) => image_prune::run(&context, args).await,
        Verb::Login(args) => login::run(args).await,
        Verb::Logout(args) => login::logout(args).await,
        Verb::Ps(args) | Verb::Container(ContainerVerb::Ls(args)) => ps::run(&context, args).await,
        Verb::Container(ContainerVerb::Inspect(args)) => inspect::containers(&context, args).await,
        Verb::Inspect(args) => inspect::run(&context, args).await,
        Verb::Info(args) | Verb::System(SystemVerb::Info(args)) => info::run(&context, args).await,
        Verb::Events(args) | Verb::System(SystemVerb::Events(args)) => events::run(&context, args).await,
        Verb::Volume(VolumeVerb::Create(args)) => volume::create(&context, args).await,
        Verb::Volume(VolumeVerb::Ls(args)) => volume::ls(&context, args).await,
        Verb::Volume(VolumeVerb::Inspect(args)) => volume::inspect(&context, args).await,
        Verb::Volume(VolumeVerb::Rm(args)) => volume::rm(&context, args).await,
        Verb::Volume(VolumeVerb::Prune(args)) => volume::prune(&context, args).await,
        Verb::Volume(VolumeVerb::Snapshot(args)) => volume::snapshot(&context, args).await,
        Verb::Volume(VolumeVerb::Export(args)) => volume::export(&context, args).await,
        Verb::Volume(VolumeVerb::Import(args)) => volume::import(&context, args).await,
        Verb::Network(NetworkVerb::Create(args)) => network::create(&context, args).await,
        Verb::Network(NetworkVerb::Ls(args)) => network::list(&context, args).await,
        Verb::Network(NetworkVerb::Inspect(args)) => network::inspect(&context, args).await,
        Verb::Network(NetworkVerb::Rm(args)) => network::rm(&context, args).await,
        Verb::Network(NetworkVerb::Prune(args)) => network::prune(&context, args).await,
        Verb::Network(NetworkVerb::Connect(args)) => network::connect(&context, args).await,
        Verb::Network(NetworkVerb::Disconnect(args)) => network::disconnect(&context, args).await,
        Verb::Checkpoint(CheckpointVerb::Create(args)) => checkpoint::create(&context, args).await,
        Verb::Checkpoint(CheckpointVerb::Ls(args)) => checkpoint::ls(&context, args).await,
        Verb::Checkpoint(CheckpointVerb::Rm(args)) => checkpoint::rm(&context, args).await,
        Verb::Container(ContainerVerb::Prune(args)) => container_prune::run(&context, args).await,
        Verb::System(SystemVerb::Doctor(args)) => doctor::run(&context, args).await,
        Verb::System(SystemVerb::Df(args)) => df::run(&context, args).await,
        Verb::System(SystemVerb::Prune(args)) => system_prune::run(&context, args).await,
        Verb::Oci(args) => oci::run(*args).await,
    }
}

/// Verbs about containers.
async fn of_container(context: &Context, verb: OfContainer) -> Result<u8, Failure> {
    match verb {
        OfContainer::Run(args) => run::run(context, *args).await,
        OfContainer::Logs(args) => logs::run(context, args).await,
        OfContainer::Stop(args) => stop::run(context, args).await,
        OfContainer::Kill(args) => kill::run(context, args).await,
        OfContainer::Rm(args) => rm::run(context, args).await,
        OfContainer::Exec(args) => exec::run(context, args).await,
        OfContainer::Attach(args) => attach::run(context, args).await,
        OfContainer::Restart(args) => restart::run(context, args).await,
        OfContainer::Pause(args) => pause::run(context, args).await,
        OfContainer::Unpause(args) => unpause::run(context, args).await,
        OfContainer::Start(args) => start::run(context, args).await,
        OfContainer::Rename(args) => rename::run(context, args).await,
        OfContainer::Update(args) => update::run(context, args).await,
        OfContainer::Top(args) => top::run(context, args).await,
        OfContainer::Stats(args) => stats::run(context, args).await,
        OfContainer::Diff(args) => diff::run(context, args).await,
        OfContainer::Export(args) => export::run(context, args).await,
        OfContainer::Commit(args) => commit::run(context, args).await,
        OfContainer::Cp(args) => cp::run(context, args).await,
        OfContainer::Wait(args) => wait::run(context, args).await,
        OfContainer::Port(args) => port::run(context, args).await,
    }
}

/// Does something for each name and prints the name; one that fails is told on stderr and does not keep the others waiting.
async fn each(names: &[String], verb: impl AsyncFn(&str) -> longshore::Result<()>) -> Result<u8, Failure> {
    let mut code = 0;
    for name in names {
        match verb(name).await {
            Ok(()) => say(name)?,
            Err(error) => {
                code = 1;
                eprintln!("longshore: {}", error.report());
            }
        }
    }
    Ok(code)
}

/// Prints a line to stdout.
fn say(line: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}

/// Whether the user agrees to what cannot be undone.
fn agreed(warning: &str) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    write!(out, "WARNING! {warning}\nAre you sure you want to continue? [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Docker's filters, `key=value` each.
fn filter(terms: &[options::Pair]) -> Filter {
    terms.iter().fold(Filter::new(), |filter, (key, value)| {
        filter.with(key, value.as_deref().unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_filter_keeps_its_own_equals_sign() {
        let terms = [
            options::pair("label=a=b").unwrap(),
            options::pair("status=exited").unwrap(),
        ];
        let filter = filter(&terms);
        assert_eq!(
            (filter.values("label"), filter.values("status")),
            (&["a=b".to_owned()][..], &["exited".to_owned()][..])
        );
    }
}
