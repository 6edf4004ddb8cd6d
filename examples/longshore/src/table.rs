//! Columns as Docker prints them: at least ten wide, three apart, the last one ragged.

use std::io::{self, Write};

const LEAST_WIDTH: usize = 10;
const GAP: usize = 3;

/// Rows under a header.
#[derive(Debug)]
pub struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// A table with nothing but its header.
    pub fn new(header: [&str; N]) -> Self {
        Self {
            rows: vec![header.map(Into::into)],
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }

    /// Prints it to stdout.
    pub fn print(&self) -> io::Result<()> {
        io::stdout().lock().write_all(self.render().as_bytes())
    }

    fn render(&self) -> String {
        let length = |cell: &String| cell.chars().count();
        let width = |column: usize| {
            self.rows
                .iter()
                .map(|row| length(&row[column]) + GAP)
                .max()
                .unwrap_or(0)
                .max(LEAST_WIDTH)
        };
        let widths: [usize; N] = std::array::from_fn(width);
        let mut text = String::new();
        for row in &self.rows {
            for (column, cell) in row.iter().enumerate() {
                text.push_str(cell);
                if column + 1 < N {
                    text.extend(std::iter::repeat_n(' ', widths[column] - length(cell)));
                }
            }
            text.push('\n');
        }
        text
    }
}

/// A text cut to a number of characters, the last of which then is an ellipsis.
pub fn ellipsis(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_s_columns() {
        let mut table = Table::new(["REPOSITORY", "TAG", "SIZE"]);
        table.row(["busybox".into(), "latest".into(), "4.26MB".into()]);
        assert_eq!(
            table.render(),
            "REPOSITORY   TAG       SIZE\nbusybox      latest    4.26MB\n"
        );
    }

    #[test]
    fn long_commands_are_cut() {
        assert_eq!(ellipsis("\"sh -c 'sleep 100000'\"", 20), "\"sh -c 'sleep 10000…");
        assert_eq!(ellipsis("short", 20), "short");
    }
}
