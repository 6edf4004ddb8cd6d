//! The command line: global options and the list of verbs. Each verb's own options stand in its file.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use longshore::Isolation;

use crate::{commands, oci};

/// Runs containers in this very process: no daemon, no root needed
#[derive(Debug, Parser)]
#[command(
    name = "longshore",
    version,
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// Directory that holds images and containers [default: /var/lib/longshore for root, else ~/.local/share/longshore]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,

    /// Look for images in another root, too, which is only read
    #[arg(long, value_name = "DIR")]
    pub additional_store: Vec<PathBuf>,

    /// Where this host cannot keep containers apart as they should be: strict (an error), best-available
    #[arg(long, value_name = "WORD", default_value_t)]
    pub isolation: Isolation,

    /// Talk to an engine elsewhere: unix:///run/docker.sock, tcp://HOST:PORT
    #[arg(short = 'H', long, value_name = "URL")]
    pub host: Option<String>,

    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    #[command(flatten)]
    OfContainer(OfContainer),
    /// Make an image of a Dockerfile
    Build(Box<commands::build::Args>),
    /// Verbs about what is known from earlier builds
    #[command(subcommand)]
    Builder(BuilderVerb),
    /// Download an image
    Pull(commands::pull::Args),
    /// Send an image to a registry
    Push(commands::push::Args),
    /// Write images into an archive
    Save(commands::save::Args),
    /// Take images from an archive
    Load(commands::load::Args),
    /// Make an image of the tar of a root file system
    Import(commands::import::Args),
    /// Show the steps an image was made in
    History(commands::history::Args),
    /// Sign in to a registry
    Login(commands::login::Args),
    /// Forget who one is to a registry
    Logout(commands::login::Logout),
    /// Verbs about images
    #[command(subcommand)]
    Image(ImageVerb),
    /// Verbs about indexes of images of several platforms
    #[command(subcommand)]
    Manifest(ManifestVerb),
    /// List images
    Images(commands::images::Args),
    /// Give an image another name
    Tag(commands::tag::Args),
    /// Remove one or more images
    Rmi(commands::rmi::Args),
    /// List containers
    Ps(commands::ps::Args),
    /// Show everything about containers or images, as JSON
    Inspect(commands::inspect::Args),
    /// Show what this engine is and what this host offers
    Info(commands::info::Args),
    /// Show what happens, and with --since what happened
    Events(commands::events::Args),
    /// Verbs about volumes
    #[command(subcommand)]
    Volume(VolumeVerb),
    /// Verbs about containers
    #[command(subcommand)]
    Container(ContainerVerb),
    /// Verbs about networks
    #[command(subcommand)]
    Network(NetworkVerb),
    /// Verbs about checkpoints: containers' processes, written down
    #[command(subcommand)]
    Checkpoint(CheckpointVerb),
    /// Verbs about the engine as a whole
    #[command(subcommand)]
    System(SystemVerb),
    /// Containers of OCI bundles, with the command line of runc
    Oci(Box<oci::Args>),
}

/// Verbs about containers, which are there with and without `container` before them.
#[derive(Debug, Subcommand)]
pub enum OfContainer {
    /// Create a container from an image and run it in the foreground
    Run(Box<commands::run::Args>),
    /// Show what a container has written
    Logs(commands::logs::Args),
    /// Stop one or more running containers
    Stop(commands::stop::Args),
    /// Send a signal to one or more running containers
    Kill(commands::kill::Args),
    /// Remove one or more containers
    Rm(commands::rm::Args),
    /// Run a command in a running container
    Exec(commands::exec::Args),
    /// Connect to the standard streams of a running container
    Attach(commands::attach::Args),
    /// Stop one or more containers, if they run, and start them
    Restart(commands::restart::Args),
    /// Stop the processes of one or more containers where they are
    Pause(commands::pause::Args),
    /// Let one or more paused containers go on
    Unpause(commands::unpause::Args),
    /// Start one or more containers that do not run
    Start(commands::start::Args),
    /// Give a container another name
    Rename(commands::rename::Args),
    /// Change the limits of one or more containers
    Update(commands::update::Args),
    /// Show the processes of a container
    Top(commands::top::Args),
    /// Show what containers use
    Stats(commands::stats::Args),
    /// Show what a container changed of its image's files
    Diff(commands::diff::Args),
    /// Write all that a container's root file system shows into an archive
    Export(commands::export::Args),
    /// Make an image of a container, with what it changed
    Commit(commands::commit::Args),
    /// Copy files between a container and this host
    Cp(commands::cp::Args),
    /// Wait until containers do not run, and print their exit codes
    Wait(commands::wait::Args),
    /// Show where a container's ports are published
    Port(commands::port::Args),
}

#[derive(Debug, Subcommand)]
pub enum BuilderVerb {
    /// Make an image of a Dockerfile
    Build(Box<commands::build::Args>),
    /// Forget steps of earlier builds
    Prune(commands::builder_prune::Args),
}

#[derive(Debug, Subcommand)]
pub enum ImageVerb {
    /// Make an image of a Dockerfile
    Build(Box<commands::build::Args>),
    /// List images
    #[command(visible_alias = "list")]
    Ls(commands::images::Args),
    /// Download an image
    Pull(commands::pull::Args),
    /// Send an image to a registry
    Push(commands::push::Args),
    /// Write images into an archive
    Save(commands::save::Args),
    /// Take images from an archive
    Load(commands::load::Args),
    /// Make an image of the tar of a root file system
    Import(commands::import::Args),
    /// Show the steps an image was made in
    History(commands::history::Args),
    /// Give an image another name
    Tag(commands::tag::Args),
    /// Remove one or more images
    Rm(commands::rmi::Args),
    /// Remove images that nobody uses
    Prune(commands::image_prune::Args),
}

#[derive(Debug, Subcommand)]
pub enum NetworkVerb {
    /// Make a network
    Create(commands::network::Create),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(commands::network::List),
    /// Show everything about networks, as JSON
    Inspect(commands::network::Names),
    /// Remove one or more networks
    #[command(visible_alias = "remove")]
    Rm(commands::network::Names),
    /// Remove networks that no container is on
    Prune(commands::network::Prune),
    /// Put a container on a network
    Connect(commands::network::Connect),
    /// Take a container out of a network
    Disconnect(commands::network::Disconnect),
}

#[derive(Debug, Subcommand)]
pub enum CheckpointVerb {
    /// Write the processes of a running container down
    Create(commands::checkpoint::Create),
    /// List checkpoints of a container
    #[command(visible_alias = "list")]
    Ls(commands::checkpoint::Ls),
    /// Remove a checkpoint
    #[command(visible_alias = "remove")]
    Rm(commands::checkpoint::Rm),
}

#[derive(Debug, Subcommand)]
pub enum ManifestVerb {
    /// Make an index of images that are here
    Create(commands::manifest::Create),
    /// Say something else of an image of an index
    Annotate(commands::manifest::Annotate),
    /// Send an index with its images to a registry
    Push(commands::push::Args),
    /// Print an index as it is
    Inspect(commands::manifest::Inspect),
    /// Remove one or more indexes
    Rm(commands::manifest::Rm),
}

#[derive(Debug, Subcommand)]
pub enum VolumeVerb {
    /// Make a volume
    Create(commands::volume::Create),
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(commands::volume::Ls),
    /// Show everything about volumes, as JSON
    Inspect(commands::volume::Inspect),
    /// Remove one or more volumes
    #[command(visible_alias = "remove")]
    Rm(commands::volume::Rm),
    /// Remove volumes that no container uses
    Prune(commands::volume::Prune),
    /// Copy a volume as it is at this moment
    Snapshot(commands::volume::Snapshot),
    /// Write what a volume holds into an archive
    Export(commands::volume::Export),
    /// Make a volume of what an archive holds
    Import(commands::volume::Import),
}

#[derive(Debug, Subcommand)]
pub enum ContainerVerb {
    #[command(flatten)]
    Same(Box<OfContainer>),
    /// List containers
    #[command(visible_aliases = ["list", "ps"])]
    Ls(commands::ps::Args),
    /// Show everything about containers, as JSON
    Inspect(commands::inspect::Names),
    /// Remove containers that do not run
    Prune(commands::container_prune::Args),
}

#[derive(Debug, Subcommand)]
pub enum SystemVerb {
    /// Look for damaged or missing files of images, and repair them
    Doctor(commands::doctor::Args),
    /// Show what images and containers take on disk
    Df(commands::df::Args),
    /// Remove everything that nobody uses
    Prune(commands::system_prune::Args),
    /// Show what this engine is and what this host offers
    Info(commands::info::Args),
    /// Show what happens, and with --since what happened
    Events(commands::events::Args),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_makes_sense() {
        Cli::command().debug_assert();
    }

    #[test]
    fn verbs_about_containers_are_there_twice() {
        for words in [
            &["longshore", "port", "web"][..],
            &["longshore", "container", "port", "web"],
        ] {
            let verb = Cli::try_parse_from(words).unwrap().verb;
            let verb = match verb {
                Verb::Container(ContainerVerb::Same(verb)) => *verb,
                Verb::OfContainer(verb) => verb,
                other => panic!("{other:?}"),
            };
            assert!(matches!(verb, OfContainer::Port(_)), "{words:?}");
        }
    }

    #[test]
    fn the_root_stands_before_the_verb() {
        let cli = Cli::try_parse_from(["longshore", "--root", "/r", "ps", "-a"]).unwrap();
        assert_eq!(cli.root, Some("/r".into()));
    }
}
