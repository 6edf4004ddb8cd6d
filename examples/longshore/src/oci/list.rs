//! `longshore oci list`: the containers of a root.

use clap::{Args as ClapArgs, ValueEnum};
use longshore::Error;
use serde_json::Value;

use super::place::{Root, State};
use super::print;

#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Print names alone
    #[arg(short, long)]
    quiet: bool,
    /// How to print them
    #[arg(short, long, default_value = "table")]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// Prints them, in the order of their names. One that is just being created, or deleted, is left out.
pub fn run(root: &Root, args: &Args) -> Result<u8, Error> {
    let mut states = Vec::new();
    for place in root.all()? {
        match place.state() {
            Err(error) if error.is_not_found() => {}
            state => states.push(state?),
        }
    }
    let text = match args.format {
        _ if args.quiet => states.iter().map(|state| format!("{}\n", state.id)).collect(),
        Format::Json => format!("{}\n", Value::Array(states.iter().map(State::to_json).collect())),
        Format::Table => table(&states),
    };
    print(&text).map(|()| 0)
}

fn table(states: &[State]) -> String {
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED"].map(str::to_owned)];
    rows.extend(states.iter().map(|state| {
        [
            state.id.clone(),
            state.pid.to_string(),
            state.status.as_str().to_owned(),
            state.bundle.display().to_string(),
            state.created.clone(),
        ]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2), width(3)];
    let line = |row: &[String; 5]| {
        let cells = row.iter().zip(widths.into_iter().chain([0]));
        let cells: String = cells.map(|(cell, width)| format!("{cell:width$}  ")).collect();
        format!("{}\n", cells.trim_end())
    };
    rows.iter().map(line).collect()
}
