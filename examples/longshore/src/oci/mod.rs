//! `longshore oci`: containers of bundles of the OCI runtime specification, with the command line of runc.
//!
//! No engine takes part, and no image: a directory of a container's state ([`place`]) and one process for each that has it
//! ([`monitor`]), which the other verbs ask by a socket ([`ask`]). The container is the library's own runtime's; it ends with that
//! process, however that ends.

mod ask;
mod create;
mod list;
mod monitor;
mod place;
mod report;
mod streams;

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use longshore::{Error, Signal};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use self::ask::Request;
use self::place::{Root, Status};
use crate::failure::Failure;

/// Options of all verbs, which stand before the verb.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Directory for the state of containers [default: /run/longshore-oci for root, else $XDG_RUNTIME_DIR/longshore-oci]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// File that errors are written to, too
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// How they are written there
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Set a container up; its program waits for `start`
    Create(create::Args),
    /// Run the program of a container that was created
    Start(Name),
    /// Create a container, start it, wait for its end, and delete it
    Run(create::RunArgs),
    /// Print the state of a container, as the specification has it
    State(Name),
    /// Send a signal to the first process of a container
    Kill(KillArgs),
    /// Delete a container that has stopped
    Delete(DeleteArgs),
    /// List containers
    #[command(visible_aliases = ["ps", "ls"])]
    List(list::Args),
    /// The process that has a container
    #[command(hide = true)]
    Monitor(create::Args),
}

/// A container.
#[derive(Debug, ClapArgs)]
struct Name {
    /// What the container is called
    #[arg(value_name = "CONTAINER")]
    id: String,
}

#[derive(Debug, ClapArgs)]
struct KillArgs {
    /// Send it to all processes of the container
    #[arg(short, long)]
    all: bool,
    /// What the container is called
    #[arg(value_name = "CONTAINER")]
    id: String,
    /// Name or number of the signal
    #[arg(default_value = "TERM")]
    signal: Signal,
}

#[derive(Debug, ClapArgs)]
struct DeleteArgs {
    /// Kill it first if it has not stopped; one that is not there is no error
    #[arg(short, long)]
    force: bool,
    /// What the container is called
    #[arg(value_name = "CONTAINER")]
    id: String,
}

/// Does what the command line says. The exit code comes back: that of the container for `run`, 1 for whatever fails.
pub async fn run(args: Args) -> Result<u8, Failure> {
    let Args {
        root,
        log,
        log_format,
        verb,
    } = args;
    let done = dispatch(root, verb).await;
    if let (Err(error), Some(file)) = (&done, log) {
        write_log(&file, log_format, &error.report())?;
    }
    Ok(done?)
}

async fn dispatch(root: Option<PathBuf>, verb: Verb) -> Result<u8, Error> {
    let root = match root {
        Some(root) => Root::at(root)?,
        None => Root::usual()?,
    };
    match verb {
        Verb::Create(args) => create::run(&root, &args).await.map(|_| 0),
        Verb::Run(args) => create::run_to_end(&root, &args).await,
        Verb::Monitor(args) => monitor::run(&root, &args).await,
        Verb::List(args) => list::run(&root, &args),
        Verb::State(name) => {
            let state = root.container(&name.id)?.state()?;
            print(&format!("{:#}\n", state.to_json())).map(|()| 0)
        }
        Verb::Start(name) => root.container(&name.id)?.ask(&Request::Start).await.map(|_| 0),
        Verb::Kill(args) => {
            let request = Request::Kill {
                signal: args.signal,
                all: args.all,
            };
            root.container(&args.id)?.ask(&request).await.map(|_| 0)
        }
        Verb::Delete(args) => delete(&root, &args).await.map(|()| 0),
    }
}

async fn delete(root: &Root, args: &DeleteArgs) -> Result<(), Error> {
    let container = match root.container(&args.id) {
        Err(error) if error.is_not_found() && args.force => return Ok(()),
        found => found?,
    };
    let state = match container.state() {
        // Whoever was creating it was killed before there was anything.
        Err(error) if error.is_not_found() && args.force => return container.remove(),
        found => found?,
    };
    if state.status == Status::Stopped && !container.is_held()? {
        // Nobody has it any more: its process was killed, and the container with it.
        return monitor::clear(&container, &state).await;
    }
    let done = container.ask(&Request::Delete { force: args.force }).await;
    done.map(|_| ())
}

/// Writes to stdout, whose reader may have gone.
fn print(text: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    let done = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    done.map_err(|error| Error::os("write to stdout", error))
}

/// Adds an error to a log, in the words of runc: programs that run runtimes read the last of them.
fn write_log(file: &std::path::Path, format: LogFormat, message: &str) -> Result<(), Failure> {
    let now = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
    let line = match format {
        LogFormat::Json => json!({"level": "error", "msg": message, "time": now}).to_string(),
        LogFormat::Text => format!("time={now:?} level=error msg={message:?}"),
    };
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.append(true).create(true).open(file)?;
    Ok(writeln!(file, "{line}")?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser as _;

    #[test]
    fn oci_the_command_line_of_runc() {
        for words in [
            "oci --root /r --log /l --log-format json create --bundle /b --pid-file /p --console-socket /c box",
            "oci create -b /b box",
            "oci start box",
            "oci run -d -b /b box",
            "oci state box",
            "oci kill box",
            "oci kill box KILL",
            "oci kill --all box 9",
            "oci delete --force box",
            "oci list -q",
            "oci ps --format json",
        ] {
            let words = std::iter::once("longshore").chain(words.split(' '));
            Cli::try_parse_from(words).unwrap();
        }
        for bad in [
            "oci kill box NOSUCH",
            "oci --log-format xml state box",
            "oci start",
            "oci",
        ] {
            let words = std::iter::once("longshore").chain(bad.split(' '));
            assert!(Cli::try_parse_from(words).is_err(), "{bad}");
        }
    }

    #[test]
    fn oci_errors_are_logged_line_by_line() {
        let dir = std::env::temp_dir().join(format!("longshore-oci-log-{}", std::process::id()));
        let message = "no \"such\"\nthing";
        write_log(&dir, LogFormat::Json, message).unwrap();
        write_log(&dir, LogFormat::Text, message).unwrap();
        let text = std::fs::read_to_string(&dir).unwrap();
        std::fs::remove_file(&dir).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let first: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
        assert_eq!(
            (first["msg"].as_str(), first["level"].as_str()),
            (Some(message), Some("error"))
        );
        assert!(
            lines[1].contains(r#"level=error msg="no \"such\"\nthing""#),
            "{}",
            lines[1]
        );
    }
}
