//! `logs`: what a container has written, and with `-f` what it will write.

use std::io::{self, Write as _};
use std::time::SystemTime;

use futures_util::StreamExt as _;
use longshore::logs::{LogEntry, LogQuery, LogStream};

use crate::context::Context;
use crate::failure::Failure;
use crate::human;

/// Options of `logs`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Go on with what is written from now on
    #[arg(short, long)]
    follow: bool,
    /// Only so many lines, counted from the end, or all
    #[arg(short = 'n', long, value_name = "LINES", default_value = "all", value_parser = tail)]
    tail: Tail,
    /// Put the time before each line
    #[arg(short, long)]
    timestamps: bool,
    /// Put what the log says beside each line before it: labels, variables, a tag
    #[arg(long)]
    details: bool,
    /// Nothing older: a time, or a length of time such as 10m
    #[arg(long, value_name = "TIME", value_parser = human::parse_time)]
    since: Option<SystemTime>,
    /// Nothing younger
    #[arg(long, value_name = "TIME", value_parser = human::parse_time)]
    until: Option<SystemTime>,
    /// Name or id
    container: String,
}

/// How many lines; `None` is all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tail(Option<usize>);

/// Copies a container's log to stdout and stderr.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let query = LogQuery {
        since_ns: args.since.map(human::nanoseconds),
        until_ns: args.until.map(human::nanoseconds),
        tail: args.tail.0,
        follow: args.follow,
        timestamps: args.timestamps,
        details: args.details,
        ..LogQuery::default()
    };
    let mut entries = engine.containers().logs(&args.container, query).await?;
    while let Some(entry) = entries.next().await {
        match entry {
            Ok(entry) => show(&entry)?,
            Err(error) if error.is_retryable() => eprintln!("longshore: {}", error.report()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(0)
}

fn show(entry: &LogEntry) -> io::Result<()> {
    match entry.stream {
        LogStream::Stdout => {
            let mut stdout = io::stdout().lock();
            stdout.write_all(&entry.bytes)?;
            stdout.flush()
        }
        LogStream::Stderr => io::stderr().lock().write_all(&entry.bytes),
    }
}

/// Docker takes anything below zero for all.
fn tail(text: &str) -> Result<Tail, String> {
    match text.parse::<i64>() {
        Ok(lines) => Ok(Tail(usize::try_from(lines).ok())),
        Err(_) if text == "all" => Ok(Tail(None)),
        Err(_) => Err(format!("invalid number of lines: {text:?} (or all)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_lines() {
        assert_eq!(
            (tail("all"), tail("0"), tail("7"), tail("-1")),
            (Ok(Tail(None)), Ok(Tail(Some(0))), Ok(Tail(Some(7))), Ok(Tail(None)))
        );
        assert!(tail("x").is_err());
    }
}
