//! `attach`: connects our standard streams to those of a running container.

use longshore::containers::{DetachKeys, SlowReader};
use longshore::{AttachOptions, WaitCondition};

use crate::context::Context;
use crate::failure::Failure;
use crate::session;

/// Options of `attach`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Leave the container's stdin alone
    #[arg(long)]
    no_stdin: bool,
    /// Keys that leave a terminal [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<DetachKeys>,
    /// Name or id
    container: String,
}

/// Attaches until the container ends; its exit code is ours.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let (containers, name) = (engine.containers(), &args.container);
    let tty = containers.inspect(name).await?.spec.tty;
    let exit = containers.wait(name, WaitCondition::NotRunning).await?;
    let mut attached = containers.attach(name, AttachOptions::slow(SlowReader::Wait)).await?;
    if args.no_stdin
        && let Some(input) = attached.input.take()
    {
        input.detach();
    }
    let resize = async |rows, columns| drop(containers.resize(name, rows, columns).await);
    let keys = tty.then(|| args.detach_keys.unwrap_or_default());
    if !session::join(attached, tty, keys, resize).await? {
        return session::left();
    }
    Ok(session::code(exit.await?.status))
}
