//! `longshore`: Docker's everyday verbs over the longshore crate, in this very process. No daemon, no socket.
//!
//! The client is thin on purpose: it turns words into requests ([`cli`], [`options`]), shows what comes back ([`table`],
//! [`inspection`], [`pull_view`]) and connects standard streams ([`session`]). Everything else is the crate's.

mod auth;
mod build_words;
mod care;
mod cli;
mod commands;
mod context;
mod devices;
mod failure;
mod human;
mod inspection;
mod limits;
mod oci;
mod options;
mod pull_view;
mod session;
mod table;
mod terminal;
mod transfer;

use std::process::ExitCode;

use clap::Parser as _;

use self::cli::Cli;
use self::failure::Failure;

fn main() -> ExitCode {
    let outcome = match Cli::try_parse() {
        Ok(cli) => run(cli),
        Err(error) => usage(&error),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => failure.tell(),
    }
}

/// Runs a verb on a runtime of this thread alone: the engine brings the one thread that it needs.
fn run(cli: Cli) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(commands::dispatch(cli));
    // Dropping the runtime would wait for a write to a pipe that nobody reads.
    runtime.shutdown_background();
    outcome
}

/// Help and the version go to stdout with 0; a word that makes no sense gives 125, as with Docker.
fn usage(error: &clap::Error) -> Result<u8, Failure> {
    error.print()?;
    Ok(if error.use_stderr() { failure::OURS } else { 0 })
}
