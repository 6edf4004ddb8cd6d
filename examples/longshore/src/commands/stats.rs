//! `stats`: what containers use, once or again and again.

use futures_util::StreamExt as _;
use longshore::containers::StatsOptions;
use longshore::{Bytes, ListOptions, Stats};

use crate::context::Context;
use crate::failure::Failure;
use crate::table::Table;

/// Options of `stats`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One reading, not a stream
    #[arg(long)]
    no_stream: bool,
    /// Names or ids [default: all that run]
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Prints a table for each reading.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let mut names = args.containers;
    if names.is_empty() {
        names = engine
            .list(ListOptions::default())
            .await?
            .into_iter()
            .map(|found| found.name)
            .collect();
    }
    let options = StatsOptions {
        stream: !args.no_stream,
        one_shot: false,
    };
    let mut streams = Vec::new();
    for name in &names {
        streams.push((name, engine.containers().stats(name, options).await?));
    }
    while !streams.is_empty() {
        let mut table = Table::new(["NAME", "CPU %", "MEM USAGE / LIMIT", "BLOCK I/O", "PIDS"]);
        let mut going = Vec::new();
        for (name, mut stream) in streams {
            if let Some(stats) = stream.next().await {
                table.row(row(name, &stats?));
                going.push((name, stream));
            }
        }
        streams = going;
        if !streams.is_empty() {
            table.print()?;
        }
    }
    Ok(0)
}

fn row(name: &str, stats: &Stats) -> [String; 5] {
    let bytes = |bytes: Option<u64>| bytes.map_or("-".to_owned(), |bytes| Bytes::new(bytes).to_string());
    [
        name.to_owned(),
        percent(stats).map_or("-".to_owned(), |percent| format!("{percent:.2}%")),
        format!(
            "{} / {}",
            bytes(stats.memory.usage_bytes),
            bytes(stats.memory.limit_bytes)
        ),
        format!(
            "{} / {}",
            bytes(stats.block.read_bytes),
            bytes(stats.block.written_bytes)
        ),
        stats.pids.current.map_or("-".to_owned(), |count| count.to_string()),
    ]
}

/// Of one CPU, between two readings.
fn percent(stats: &Stats) -> Option<f64> {
    let (then, before) = stats.previous?;
    let used = stats.cpu.total_ns?.checked_sub(before.total_ns?)? as f64;
    let passed = stats.read?.duration_since(then).ok()?.as_nanos() as f64;
    (passed > 0.0).then(|| used / passed * 100.0)
}
