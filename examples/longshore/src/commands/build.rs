//! `build`: makes an image of a Dockerfile.

use std::fs;
use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use longshore::build::{BuildOutput, BuildSpec, ContextSource, Entitlement, Secret};
use longshore::{Bytes, Limits, NetworkMode, Platform, ProgressEvent, Pull};

use super::say;
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
    /// What it runs on, say linux/arm64
    #[arg(long)]
    platform: Option<Platform>,
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
    /// Let RUN do what the Dockerfile cannot allow itself: network.host, security.insecure
    #[arg(long, value_name = "ENTITLEMENT")]
    allow: Vec<String>,
    /// Most memory of a RUN
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<Bytes>,
    /// Files in the place of an image: DIR, type=local,dest=DIR or type=tar,dest=FILE
    #[arg(short, long, value_name = "OUTPUT")]
    output: Option<String>,
    /// Print nothing but the image's id
    #[arg(short, long)]
    quiet: bool,
    /// Write the image's id to a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// The context: a directory, a URL, or - for a tar or a Dockerfile on stdin
    path: String,
}

/// Builds an image, and prints its id.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let (quiet, iidfile) = (args.quiet, args.iidfile.clone());
    let spec = spec(args)?;
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
    say(&id)?;
    Ok(0)
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
        let (id, secret) = secret(text)?;
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
    for text in &args.allow {
        spec = spec.allow(match text.as_str() {
            "network.host" => Entitlement::HostNetwork,
            "security.insecure" => Entitlement::Insecure,
            other => {
                return Err(Failure::ours(format!(
                    "--allow {other}: network.host or security.insecure"
                )));
            }
        });
    }
    if let Some(text) = &args.output {
        spec = spec.output(output(text)?);
    }
    spec = args.target.into_iter().fold(spec, BuildSpec::target);
    spec = args.platform.into_iter().fold(spec, BuildSpec::platform);
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
        Err(_) => Ok(spec.dockerfile_text(fs::read_to_string(whole)?)),
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

/// As buildx has it: a path alone is a directory.
fn output(text: &str) -> Result<BuildOutput, Failure> {
    if !text.contains('=') {
        return Ok(BuildOutput::Directory(text.into()));
    }
    let (mut kind, mut dest) = ("", "");
    for field in text.split(',') {
        match halves(field, "--output type=local|tar,dest=PATH")? {
            ("type", value) => kind = value,
            ("dest", value) => dest = value,
            (other, _) => {
                return Err(Failure::ours(format!(
                    "--output: {other:?} is not one of type and dest"
                )));
            }
        }
    }
    match (kind, dest) {
        ("image" | "docker", "") => Ok(BuildOutput::Image),
        ("local", dest) if !dest.is_empty() => Ok(BuildOutput::Directory(dest.into())),
        ("tar", dest) if !dest.is_empty() && dest != "-" => Ok(BuildOutput::Tar(dest.into())),
        _ => Err(Failure::ours(format!(
            "--output {text}: type=local,dest=DIR or type=tar,dest=FILE; an image is saved with `save` or `push`"
        ))),
    }
}

/// As buildx has it: without a source it is the variable of that name, or else the file.
fn secret(text: &str) -> Result<(String, Secret), Failure> {
    let (mut id, mut file, mut variable) = (None, None, None);
    for field in text.split(',') {
        match halves(field, "--secret id=ID[,src=FILE|,env=NAME]")? {
            ("id", value) => id = Some(value),
            ("src" | "source", value) => file = Some(value),
            ("env", value) => variable = Some(value),
            ("type", "file" | "env") => {}
            (other, _) => {
                return Err(Failure::ours(format!(
                    "--secret: {other:?} is not one of id, src, env and type"
                )));
            }
        }
    }
    let id = id.ok_or_else(|| Failure::ours("--secret: it has no id"))?;
    let of_environment = |name: &str| std::env::var(name).ok().map(String::into_bytes);
    let unset = |name: &str| Failure::ours(format!("--secret id={id}: the variable {name} is not set"));
    let bytes = match (file, variable) {
        (Some(file), _) => fs::read(file).map_err(|error| Failure::ours(format!("--secret {file}: {error}")))?,
        (None, Some(name)) => of_environment(name).ok_or_else(|| unset(name))?,
        (None, None) => match of_environment(id) {
            Some(bytes) => bytes,
            None => fs::read(id).map_err(|error| Failure::ours(format!("--secret {id}: {error}")))?,
        },
    };
    Ok((id.to_owned(), Secret::new(bytes)))
}

fn halves<'a>(text: &'a str, usage: &str) -> Result<(&'a str, &'a str), Failure> {
    text.split_once('=')
        .ok_or_else(|| Failure::ours(format!("{text:?}: {usage}")))
}
