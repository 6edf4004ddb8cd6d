//! What the instructions of a Dockerfile say, as data. Variables are still in it.

use std::time::Duration;

use super::heredoc::Heredoc;
use super::mount::MountFlag;
use super::span::Span;

/// A word of a Dockerfile, quotes and variables still in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Word {
    /// The word.
    pub text: String,
    /// Where it is.
    pub span: Span,
}

/// A comment, without its `#`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comment {
    /// What it says.
    pub text: String,
    /// Where it is.
    pub span: Span,
}

/// An instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// Its keyword as it is written.
    pub keyword: Word,
    /// The whole of it, without its heredocs.
    pub span: Span,
    /// Its text in one line, continuations joined.
    pub text: String,
    /// The comments right above it.
    pub comments: Vec<Comment>,
    /// What it says.
    pub command: Command,
}

/// What an instruction says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// `ADD`: files from the context, URLs and repositories.
    Add(Add),
    /// `ARG`: variables that whoever builds can set.
    Arg(Vec<Argument>),
    /// `CMD`: what containers run.
    Cmd(CommandLine),
    /// `COPY`: files from the context, a stage or an image.
    Copy(Copy),
    /// `ENTRYPOINT`: what containers run, with `CMD` as its arguments.
    Entrypoint(CommandLine),
    /// `ENV`: variables of the containers.
    Env(Vec<Pair>),
    /// `EXPOSE`: ports that containers listen on.
    Expose(Vec<Word>),
    /// `FROM`: a stage begins.
    From(From),
    /// `HEALTHCHECK`: how the health of containers is told.
    Healthcheck(Healthcheck),
    /// `LABEL`: labels of the image.
    Label(Vec<Pair>),
    /// `MAINTAINER`: the author.
    Maintainer(Word),
    /// `ONBUILD`: an instruction for builds upon the image.
    Onbuild(Onbuild),
    /// `RUN`: a command at build time.
    Run(Run),
    /// `SHELL`: what runs the shell form of commands.
    Shell(Vec<Word>),
    /// `STOPSIGNAL`: the signal that stops containers.
    StopSignal(Word),
    /// `USER`: who runs what follows.
    User(Word),
    /// `VOLUME`: directories that become volumes.
    Volume(Vec<Word>),
    /// `WORKDIR`: where what follows runs.
    Workdir(Word),
}

impl Command {
    /// The keyword, in capitals.
    pub fn keyword(&self) -> &'static str {
        match self {
            Self::Add(_) => "ADD",
            Self::Arg(_) => "ARG",
            Self::Cmd(_) => "CMD",
            Self::Copy(_) => "COPY",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Env(_) => "ENV",
            Self::Expose(_) => "EXPOSE",
            Self::From(_) => "FROM",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::Label(_) => "LABEL",
            Self::Maintainer(_) => "MAINTAINER",
            Self::Onbuild(_) => "ONBUILD",
            Self::Run(_) => "RUN",
            Self::Shell(_) => "SHELL",
            Self::StopSignal(_) => "STOPSIGNAL",
            Self::User(_) => "USER",
            Self::Volume(_) => "VOLUME",
            Self::Workdir(_) => "WORKDIR",
        }
    }
}

/// `FROM [--platform=P] IMAGE [AS NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// The platform asked for.
    pub platform: Option<Word>,
    /// An image, an earlier stage, or `scratch`.
    pub image: Word,
    /// The word `AS` as it is written.
    pub keyword: Option<Word>,
    /// The stage's name as it is written; case does not matter.
    pub name: Option<Word>,
}

/// A stage: `FROM` and what follows, up to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Its name in small letters.
    pub name: Option<String>,
    /// What it begins with.
    pub from: From,
    /// The instruction `FROM` as a whole.
    pub opening: Instruction,
    /// What follows.
    pub instructions: Vec<Instruction>,
}

/// A name and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The name.
    pub name: Word,
    /// The value.
    pub value: Word,
    /// Whether they are written in the old way, `NAME VALUE` without `=`.
    pub legacy: bool,
}

/// A variable of `ARG`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: Word,
    /// Its value where whoever builds gives none.
    pub default: Option<Word>,
}

/// How a command is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A line for the shell.
    Shell,
    /// A JSON array: the program and its arguments.
    Exec,
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// How it is written.
    pub form: Form,
    /// The program and its arguments; in the shell form, one line or none.
    pub args: Vec<Word>,
    /// The heredocs of the shell form.
    pub heredocs: Vec<Heredoc>,
    /// Whether it looks like the exec form but is not JSON, so that a shell gets the brackets.
    pub nearly_exec: bool,
}

/// `RUN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// `--mount`.
    pub mounts: Vec<MountFlag>,
    /// `--network`.
    pub network: NetworkFlag,
    /// `--security`.
    pub security: SecurityFlag,
    /// `--device`.
    pub devices: Vec<DeviceFlag>,
    /// What to run.
    pub command: CommandLine,
}

/// `--network` of `RUN`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NetworkFlag {
    /// What the build as a whole has.
    #[default]
    Default,
    /// No network but loopback.
    None,
    /// The host's network.
    Host,
}

/// `--security` of `RUN`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SecurityFlag {
    /// Like any container.
    #[default]
    Sandbox,
    /// With all privileges.
    Insecure,
}

/// `--device` of `RUN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFlag {
    /// The device's name in CDI's manner, `vendor.com/class=name`.
    pub name: String,
    /// Whether the step fails without it.
    pub required: bool,
    /// The flag.
    pub span: Span,
}

/// What `COPY` and `ADD` take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileSource {
    /// A path or a pattern; for `ADD`, a URL or a repository too.
    Path(Word),
    /// A file written in the Dockerfile.
    Inline(Heredoc),
}

/// `COPY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// A stage by name or number, an image, or a named context; else the context.
    pub from: Option<Word>,
    /// Who owns the copies.
    pub chown: Option<Word>,
    /// Their permissions.
    pub chmod: Option<Word>,
    /// Whether the copies are a layer that does not depend on what is below.
    pub link: bool,
    /// Whether the directories above the sources are copied too.
    pub parents: bool,
    /// Patterns of what to leave out.
    pub excludes: Vec<Word>,
    /// What to copy.
    pub sources: Vec<FileSource>,
    /// Where to.
    pub destination: Word,
}

/// `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Add {
    /// Who owns the files.
    pub chown: Option<Word>,
    /// Their permissions.
    pub chmod: Option<Word>,
    /// Whether the files are a layer that does not depend on what is below.
    pub link: bool,
    /// Whether a repository keeps its `.git`.
    pub keep_git_dir: Option<bool>,
    /// The digest of what a URL or a repository gives.
    pub checksum: Option<Word>,
    /// Whether archives are unpacked; by default those of the context are.
    pub unpack: Option<bool>,
    /// Patterns of what to leave out.
    pub excludes: Vec<Word>,
    /// What to add.
    pub sources: Vec<FileSource>,
    /// Where to.
    pub destination: Word,
}

/// `HEALTHCHECK`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Healthcheck {
    /// `HEALTHCHECK NONE`: the base image's check is not in force.
    None,
    /// `HEALTHCHECK CMD`.
    Command(HealthProbe),
}

/// How health is told. A duration or number of zero leaves the engine's default in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthProbe {
    /// What to run.
    pub command: CommandLine,
    /// Between two checks.
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

/// `ONBUILD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Onbuild {
    /// What the image's config keeps: the instruction as text, with its heredocs.
    pub trigger: String,
    /// The instruction.
    pub instruction: Box<Instruction>,
}
