//! `exec`: runs a command in a running container.

use std::path::PathBuf;

use longshore::containers::{DetachKeys, SlowReader};
use longshore::{AttachOptions, ExecSpec};

use crate::context::Context;
use crate::failure::Failure;
use crate::options::{self, Pair};
use crate::session;
use crate::terminal::window_size;

/// Options of `exec`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Pass our stdin on
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Do not wait for it
    #[arg(short, long)]
    detach: bool,
    /// Set a variable: NAME=VALUE, or NAME for our own value
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = options::pair)]
    env: Vec<Pair>,
    /// Read variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Working directory in the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<PathBuf>,
    /// Name or uid, with :group or :gid
    #[arg(short, long)]
    user: Option<String>,
    /// All capabilities, and no seccomp filter
    #[arg(long)]
    privileged: bool,
    /// Keys that leave its terminal [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<DetachKeys>,
    /// Name or id
    container: String,
    /// Program and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<String>,
}

/// Runs the command; its exit code is ours.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let mut spec = ExecSpec::new(args.command).tty(args.tty).privileged(args.privileged);
    spec.stdin = args.interactive && !args.detach;
    spec.env = options::environment(&args.env_file, &args.env).map_err(Failure::ours)?;
    spec.working_dir = args.workdir;
    spec.user = args.user;
    spec.tty_size = window_size().filter(|_| args.tty);
    let engine = context.engine().await?;
    let containers = engine.containers();
    let exec = containers.exec_create(&args.container, spec).await?;
    let started = containers
        .exec_start(&exec.id, AttachOptions::slow(SlowReader::Wait))
        .await;
    let attached = started.map_err(|error| Failure::of_exec(&error))?;
    if args.detach {
        return Ok(0);
    }
    let resize = async |rows, columns| drop(containers.exec_resize(&exec.id, rows, columns).await);
    let keys = args.tty.then(|| args.detach_keys.unwrap_or_default());
    if !session::join(attached, args.tty, keys, resize).await? {
        return session::left();
    }
    Ok(session::code(containers.exec_wait(&exec.id).await?))
}
