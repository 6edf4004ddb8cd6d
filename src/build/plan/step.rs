//! Typed steps: what is to be done, with every variable put in. They can be made without a Dockerfile too.

use std::time::Duration;

use super::PortRange;
use crate::build::dockerfile::{DeviceFlag, Mount, NetworkFlag, SecurityFlag, Span};
use crate::types::Reference;

/// A step of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Step {
    /// What to do.
    pub action: Action,
    /// Where the Dockerfile says so; for a trigger of an image, the place of `FROM`.
    pub span: Span,
    /// The instruction as it is written, in one line.
    pub text: String,
    /// Whether the base says so with `ONBUILD`.
    pub triggered: bool,
}

/// Where files come from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// A stage, by number.
    Stage(usize),
    /// An image.
    Image(Reference),
    /// A named context.
    Context(String),
    /// Nothing: an empty directory.
    Scratch,
    /// Whatever has this name where it is said, as `--from` has it: a stage, else a named context, else an image. A plan says
    /// which, and has no such origin in its steps.
    Named(String),
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Files of the context, of URLs or of repositories.
    Add(AddAction),
    /// Variables for the steps that follow, not for the image's containers, with their values if they have any.
    Arg(Vec<(String, Option<String>)>),
    /// The image's author.
    Author(String),
    /// What containers run.
    Cmd(Vec<String>),
    /// Files of the context, a stage or an image.
    Copy(CopyAction),
    /// What containers run, with `Cmd` as arguments.
    Entrypoint(Vec<String>),
    /// Variables of the steps that follow and of containers.
    Env(Vec<(String, String)>),
    /// Ports that containers listen on.
    Expose(Vec<PortRange>),
    /// How health is told.
    Healthcheck(HealthAction),
    /// Labels of the image.
    Label(Vec<(String, String)>),
    /// An instruction for builds upon the image.
    Onbuild(String),
    /// A command.
    Run(RunAction),
    /// What runs the shell form.
    Shell(Vec<String>),
    /// The signal that stops containers.
    StopSignal(String),
    /// Who runs what follows.
    User(String),
    /// Directories that become volumes.
    Volume(Vec<String>),
    /// Where what follows runs; made if it is not there. Absolute.
    Workdir(String),
}

/// A command to run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunAction {
    /// The program and its arguments, a shell where the shell form is used.
    pub args: Vec<String>,
    /// A program of a heredoc that `args` runs: it is there while the step runs.
    pub script: Option<Script>,
    /// What is mounted while the step runs.
    pub mounts: Vec<MountAction>,
    /// Its network.
    pub network: NetworkFlag,
    /// Its privileges.
    pub security: SecurityFlag,
    /// Its devices.
    pub devices: Vec<DeviceFlag>,
}

/// A heredoc that begins with `#!`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Script {
    /// Where it is while the step runs.
    pub path: String,
    /// What it says.
    pub content: String,
}

/// A mount, with where its files come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MountAction {
    /// The mount.
    pub mount: Mount,
    /// Where its files come from; the context without.
    pub from: Option<Origin>,
}

/// What is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileContent {
    /// A path or a pattern; for `ADD`, a URL or a repository too.
    Path(String),
    /// A file as it is written in the Dockerfile.
    Inline {
        /// Its name.
        name: String,
        /// What is in it.
        content: String,
    },
}

/// Files to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyAction {
    /// Where from; the context without.
    pub from: Option<Origin>,
    /// `USER[:GROUP]`, by name or number.
    pub owner: Option<String>,
    /// Permissions, octal or symbolic.
    pub permissions: Option<String>,
    /// Whether the copies are a layer that does not depend on what is below.
    pub link: bool,
    /// Whether the directories above the sources are copied too.
    pub parents: bool,
    /// Patterns of what to leave out.
    pub excludes: Vec<String>,
    /// What to copy.
    pub sources: Vec<FileContent>,
    /// Where to: absolute, with a slash at the end where it is a directory in any case.
    pub destination: String,
    /// The same as it is written, for the image's history.
    pub written: String,
}

/// Files to add.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AddAction {
    /// `USER[:GROUP]`, by name or number.
    pub owner: Option<String>,
    /// Permissions, octal or symbolic.
    pub permissions: Option<String>,
    /// Whether the files are a layer that does not depend on what is below.
    pub link: bool,
    /// Whether a repository keeps its `.git`.
    pub keep_git_dir: Option<bool>,
    /// The digest of what a URL or a repository gives.
    pub checksum: Option<String>,
    /// Whether archives are unpacked; by default those of the context are.
    pub unpack: Option<bool>,
    /// Patterns of what to leave out.
    pub excludes: Vec<String>,
    /// What to add.
    pub sources: Vec<FileContent>,
    /// Where to: absolute, with a slash at the end where it is a directory in any case.
    pub destination: String,
    /// The same as it is written, for the image's history.
    pub written: String,
}

/// How health is told, as the image's config keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HealthAction {
    /// `NONE`; `CMD` and a program with its arguments; or `CMD-SHELL` and a line.
    pub test: Vec<String>,
    /// Between two checks; zero for the default, as all that follows.
    pub interval: Duration,
    /// How long a check may take.
    pub timeout: Duration,
    /// How long failures do not count after the start.
    pub start_period: Duration,
    /// Between two checks within the start period.
    pub start_interval: Duration,
    /// Failures that make a container unhealthy.
    pub retries: u32,
}
