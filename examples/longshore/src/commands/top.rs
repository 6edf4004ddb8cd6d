//! `top`: the processes of a container.

use super::say;
use crate::context::Context;
use crate::failure::Failure;

/// Options of `top`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name or id
    container: String,
    /// Arguments as for ps: -ef, aux, -o pid,comm
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Prints a table, as wide as it is.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let top = engine.containers().top(&args.container, &args.arguments).await?;
    let rows: Vec<&Vec<String>> = std::iter::once(&top.titles).chain(&top.processes).collect();
    for line in lines(&rows) {
        say(&line)?;
    }
    Ok(0)
}

/// Columns three apart, the last one ragged. What a process calls itself may not act on the terminal.
fn lines(rows: &[&Vec<String>]) -> Vec<String> {
    let clean = |cell: &String| -> String {
        cell.chars()
            .map(|c| if c.is_control() { '\u{fffd}' } else { c })
            .collect()
    };
    let length = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let line = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let width = if column + 1 == row.len() {
                0
            } else {
                length(column).unwrap_or(0) + 3
            };
            format!("{:width$}", clean(cell))
        });
        cells.collect::<String>()
    };
    rows.iter().map(|row| line(row)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let titles = vec!["PID".to_owned(), "CMD".to_owned()];
        let row = vec!["12345".to_owned(), "sh\x1b[2J -c x".to_owned()];
        assert_eq!(lines(&[&titles, &row]), ["PID     CMD", "12345   sh\u{fffd}[2J -c x"]);
    }
}
