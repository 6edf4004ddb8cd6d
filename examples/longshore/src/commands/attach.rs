//! `attach`: connects our standard streams to those of a running container.

use longshore::containers::SlowReader;
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
    session::join(attached, tty, resize).await?;
    Ok(session::code(exit.await?.status))
}
