//! `history`: the steps an image was made in.

use longshore::Bytes;
use longshore::images::HistoryLine;

use super::say;
use crate::context::Context;
use crate::failure::Failure;
use crate::human;
use crate::table::Table;

const MISSING: &str = "<missing>";
/// How much of a step is shown, in characters.
const SHORT: usize = 45;

/// Options of `history`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print ids alone
    #[arg(short, long)]
    quiet: bool,
    /// Cut nothing short
    #[arg(long)]
    no_trunc: bool,
    /// A name or id
    image: String,
}

/// Shows an image's history.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let lines = engine.images().history(&args.image).await?;
    if args.quiet {
        lines.iter().try_for_each(|line| say(&id(line, args.no_trunc)))?;
        return Ok(0);
    }
    let mut table = Table::new(["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"]);
    for line in &lines {
        table.row([
            id(line, args.no_trunc),
            human::ago_of(line.created.as_deref()),
            step(&line.created_by, args.no_trunc),
            Bytes::new(line.size_bytes).human(),
            line.comment.clone(),
        ]);
    }
    table.print()?;
    Ok(0)
}

fn id(line: &HistoryLine, whole: bool) -> String {
    match &line.id {
        None => MISSING.to_owned(),
        Some(id) if whole => id.to_string(),
        Some(id) => id.short(),
    }
}

/// A step on one line. An image is a stranger's: what drives a terminal is left out.
fn step(text: &str, whole: bool) -> String {
    let plain: String = text
        .chars()
        .map(|c| if c.is_whitespace() { ' ' } else { c })
        .filter(|c| !c.is_control())
        .collect();
    if whole || plain.chars().count() <= SHORT {
        return plain;
    }
    plain.chars().take(SHORT - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::step;

    #[test]
    fn a_step_stays_on_its_line() {
        assert_eq!(step("RUN a\n b\x1b[31m", false), "RUN a  b[31m");
        assert_eq!(step(&"x".repeat(60), false).chars().count(), 45);
        assert_eq!(step(&"x".repeat(60), true).chars().count(), 60);
    }
}
