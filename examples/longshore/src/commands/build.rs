//! `build`: makes an image of a Dockerfile.

use std::fs;
use std::io::{IsTerminal as _, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use longshore::build::{BuildOutput, BuildSpec, ContextSource, Entitlement};
use longshore::{Bytes, Limits, NetworkMode, Platform, ProgressEvent, Pull};

use super::say;
use crate::build_words::{self, Output, halves};
use crate::context::Context;
use crate::failure::Failure;
use crate::options;
use crate::transfer;

/// Options of `build`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image's name; more than once for more names
    #[arg(short, long, value_name = "NAME")]
    tag: Vec<String>,
    /// The Dockerfile [default: PATH/Dockerfile]; - for stdin
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// A value for an ARG of the Dockerfile; without a value, that of this environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// Another context: a directory, a URL, docker-image://NAME or oci-layout://DIR
    #[arg(long, value_name = "NAME=CONTEXT")]
    build_context: Vec<String>,
    /// The stage to build
    #[arg(long)]
    target: Option<String>,
    /// What it runs on, say linux/arm64; several make an index
    #[arg(long, value_delimiter = ',')]
    platform: Vec<Platform>,
    /// A label of the image
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Do every step anew
    #[arg(long)]
    no_cache: bool,
    /// Do the steps of a stage anew
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    no_cache_filter: Vec<String>,
    /// Ask registries for newer images to build upon
    #[arg(long)]
    pull: bool,
    /// The network of RUN [default: bridge]
    #[arg(long, value_name = "NETWORK", value_parser = options::network)]
    network: Option<NetworkMode>,
    /// A line for /etc/hosts of RUN
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<String>,
    /// A secret for RUN --mount=type=secret
    #[arg(long, value_name = "id=ID[,src=FILE|,env=NAME]")]
    secret: Vec<String>,
    /// An agent for RUN --mount=type=ssh [default socket: $SSH_AUTH_SOCK]
    #[arg(long, value_name = "ID[=SOCKET]")]
    ssh: Vec<String>,
    /// Keys of the hosts of repositories that are read over SSH [default: ~/.ssh/known_hosts]
    #[arg(long, value_name = "FILE")]
    known_hosts: Option<PathBuf>,
    /// Let RUN do what the Dockerfile cannot allow itself: network.host, security.insecure, device=NAME
    #[arg(long, value_name = "ENTITLEMENT")]
    allow: Vec<String>,
    /// Most memory of a RUN
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<Bytes>,
    /// Where it goes: DIR, type=local|tar|oci|docker,dest=PATH, type=registry; more than once for more places
    #[arg(short, long, value_name = "OUTPUT")]
    output: Vec<String>,
    /// Push the image to the registry that its name says
    #[arg(long)]
    push: bool,
    /// Keep the image here, beside other outputs
    #[arg(long)]
    load: bool,
    /// Where steps are looked for: NAME, type=local,src=DIR, type=registry,ref=NAME
    #[arg(long, value_name = "CACHE")]
    cache_from: Vec<String>,
    /// Where steps are put: NAME, type=local,dest=DIR, type=registry,ref=NAME, type=inline
    #[arg(long, value_name = "CACHE")]
    cache_to: Vec<String>,
    /// Ask for an attestation; none is made, and a warning says so
    #[arg(long, value_name = "KIND")]
    attest: Vec<String>,
    /// As --attest=type=provenance
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    provenance: Option<String>,
    /// As --attest=type=sbom
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sbom: Option<String>,
    /// Print nothing but the image's id
    #[arg(short, long)]
    quiet: bool,
    /// Write the image's id to a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Write digests and names to a file, in buildx's words
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// The context: a directory, a URL, or - for a tar or a Dockerfile on stdin
    path: String,
}

/// Builds an image, and prints its id.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let (quiet, iidfile, metadata) = (args.quiet, args.iidfile.clone(), args.metadata_file.clone());
    let outputs = outputs(&args)?;
    let spool = match outputs.iter().any(|output| output.stdout) {
        true => Some(Spool::make()?),
        false => None,
    };
    let mut spec = spec(args)?;
    for mut output in outputs {
        spec = output.names.drain(..).fold(spec, BuildSpec::tag);
        spec = spec.output(match (&spool, output.stdout) {
            (Some(spool), true) => at(output.kind, spool.file()),
            _ => output.kind,
        });
    }
    let engine = context.engine().await?;
    let built = engine.build(spec).progress(move |event| {
        if let (ProgressEvent::Build(event), false) = (event, quiet) {
            eprintln!("{event}");
        }
    });
    let built = built.result().await?;
    if !quiet {
        built
            .warnings
            .iter()
            .for_each(|warning| eprintln!("warning: {warning}"));
    }
    let id = built.id.to_string();
    if let Some(file) = iidfile {
        fs::write(file, &id)?;
    }
    if let Some(file) = metadata {
        fs::write(file, format!("{:#}\n", built.metadata()))?;
    }
    match spool {
        Some(spool) => spool.pour()?,
        None => say(&id)?,
    }
    Ok(0)
}

/// All outputs, with those that have an option of their own.
fn outputs(args: &Args) -> Result<Vec<Output>, Failure> {
    let mut outputs = Vec::new();
    for text in &args.output {
        outputs.push(build_words::output(text)?);
    }
    let asked = [(args.push, BuildOutput::Push), (args.load, BuildOutput::Image)];
    for (_, kind) in asked.into_iter().filter(|(asked, _)| *asked) {
        outputs.push(Output {
            kind,
            names: Vec::new(),
            stdout: false,
        });
    }
    if outputs.iter().filter(|output| output.stdout).count() > 1 {
        return Err(Failure::ours("--output: only one can go to stdout"));
    }
    Ok(outputs)
}

/// The same output in another file.
fn at(kind: BuildOutput, file: PathBuf) -> BuildOutput {
    match kind {
        BuildOutput::Archive(_, format) => BuildOutput::Archive(file, format),
        _ => BuildOutput::Tar(file),
    }
}

/// A file on its way to stdout, in a directory that goes with it.
struct Spool(PathBuf);

impl Spool {
    fn make() -> Result<Self, Failure> {
        let dir = std::env::temp_dir().join(format!("longshore-build-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&dir)?;
        Ok(Self(dir))
    }

    fn file(&self) -> PathBuf {
        self.0.join("output")
    }

    fn pour(&self) -> Result<(), Failure> {
        std::io::copy(&mut fs::File::open(self.file())?, &mut std::io::stdout().lock())?;
        Ok(())
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn spec(args: Args) -> Result<BuildSpec, Failure> {
    let source = match args.path.as_str() {
        "-" => ContextSource::Stream(transfer::read(None).map_err(|error| Failure::ours(error.to_string()))?),
        path => context_of(path)?,
    };
    let mut spec = dockerfile(BuildSpec::new(source), &args)?.no_cache(args.no_cache);
    for tag in args.tag {
        spec = spec.tag(tag);
    }
    for text in &args.build_arg {
        let value = match text.split_once('=') {
            Some((name, value)) => Some((name, value.to_owned())),
            None => std::env::var(text).ok().map(|value| (text.as_str(), value)),
        };
        if let Some((name, value)) = value {
            spec = spec.argument(name, value);
        }
    }
    for text in &args.build_context {
        let (name, value) = halves(text, "--build-context NAME=CONTEXT")?;
        spec = spec.context(name, context_of(value)?);
    }
    for text in &args.label {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        spec = spec.label(name, value);
    }
    for text in &args.secret {
        let (id, secret) = build_words::secret(text)?;
        spec = spec.secret(id, secret);
    }
    for text in &args.ssh {
        let (id, socket) = text.split_once('=').unwrap_or((text, ""));
        let socket = match socket {
            "" => std::env::var("SSH_AUTH_SOCK").map_err(|_| {
                Failure::ours(format!(
                    "--ssh {id}: SSH_AUTH_SOCK is not set; name the socket: {id}=PATH"
                ))
            })?,
            socket => socket.to_owned(),
        };
        spec = spec.ssh_agent(id, socket);
    }
    if let Some(lines) = known_hosts(args.known_hosts.as_deref())? {
        spec = spec.known_hosts(lines);
    }
    for text in &args.allow {
        if let Some(device) = text.strip_prefix("device=") {
            spec = spec.allow_device(device);
            continue;
        }
        spec = spec.allow(match text.as_str() {
            "network.host" => Entitlement::HostNetwork,
            "security.insecure" => Entitlement::Insecure,
            other => {
                return Err(Failure::ours(format!(
                    "--allow {other}: network.host, security.insecure or device=NAME"
                )));
            }
        });
    }
    for text in &args.cache_from {
        spec = spec.cache_from(build_words::cache_source(text)?);
    }
    for text in &args.cache_to {
        spec = spec.cache_to(build_words::cache_target(text)?);
    }
    let asked = [("provenance", args.provenance), ("sbom", args.sbom)];
    let asked = asked
        .into_iter()
        .filter(|(_, how)| how.as_deref().is_some_and(|how| how != "false"));
    spec = asked.fold(spec, |spec, (kind, _)| spec.attestation(kind));
    spec = args.attest.into_iter().fold(spec, BuildSpec::attestation);
    spec = args.target.into_iter().fold(spec, BuildSpec::target);
    if !args.platform.is_empty() {
        spec = spec.platforms(args.platform);
    }
    spec = args.network.into_iter().fold(spec, BuildSpec::network);
    spec = args.add_host.into_iter().fold(spec, BuildSpec::extra_host);
    spec = args.no_cache_filter.into_iter().fold(spec, BuildSpec::no_cache_stage);
    if args.pull {
        spec = spec.pull(Pull::Always);
    }
    if args.memory.is_some() {
        let mut limits = Limits::default();
        limits.memory = args.memory;
        spec = spec.limits(limits);
    }
    Ok(spec)
}

/// The keys of hosts that this user knows.
fn known_hosts(file: Option<&Path>) -> Result<Option<String>, Failure> {
    if let Some(file) = file {
        let text = fs::read_to_string(file);
        return Ok(Some(
            text.map_err(|error| Failure::ours(format!("{}: {error}", file.display())))?,
        ));
    }
    let Some(home) = std::env::var_os("HOME") else {
        return Ok(None);
    };
    Ok(fs::read_to_string(Path::new(&home).join(".ssh/known_hosts")).ok())
}

/// A Dockerfile within the context goes by its path there, so that its own ignore file is found.
fn dockerfile(spec: BuildSpec, args: &Args) -> Result<BuildSpec, Failure> {
    let Some(file) = &args.file else { return Ok(spec) };
    if file == Path::new("-") {
        if std::io::stdin().is_terminal() {
            return Err(Failure::ours(
                "--file -: the Dockerfile is read from stdin, which is a terminal",
            ));
        }
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(spec.dockerfile_text(text));
    }
    let context = Path::new(&args.path);
    if !context.is_dir() {
        return Ok(spec.dockerfile(file.to_string_lossy()));
    }
    let whole = fs::canonicalize(file).map_err(|error| Failure::ours(format!("{}: {error}", file.display())))?;
    match whole.strip_prefix(fs::canonicalize(context)?) {
        Ok(inside) => Ok(spec.dockerfile(inside.to_string_lossy())),
        Err(_) => {
            let mut beside = whole.clone().into_os_string();
            beside.push(".dockerignore");
            let spec = spec.dockerfile_text(fs::read_to_string(whole)?);
            match fs::read_to_string(beside) {
                Ok(text) => Ok(spec.ignore_text(text)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(spec),
                Err(error) => Err(error.into()),
            }
        }
    }
}

fn context_of(text: &str) -> Result<ContextSource, Failure> {
    if let Some(name) = text.strip_prefix("docker-image://") {
        return Ok(ContextSource::Image(name.parse()?));
    }
    if let Some(path) = text.strip_prefix("oci-layout://") {
        let (dir, name) = path
            .split_once(':')
            .map_or((path, None), |(dir, name)| (dir, Some(name)));
        return Ok(ContextSource::Layout(dir.into(), name.map(str::to_owned)));
    }
    if text.contains("://") || text.starts_with("git@") {
        return Ok(ContextSource::Url(text.to_owned()));
    }
    Ok(ContextSource::Directory(text.into()))
}
