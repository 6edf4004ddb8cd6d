//! `ps`: lists containers.

use longshore::{ContainerSummary, ListOptions};

use super::{filter, say};
use crate::context::Context;
use crate::failure::Failure;
use crate::human;
use crate::options::{self, Pair};
use crate::table::{Table, ellipsis};

/// Characters of a command that are shown.
const COMMAND_WIDTH: usize = 20;

/// Options of `ps`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also those that do not run
    #[arg(short, long)]
    all: bool,
    /// Print ids alone
    #[arg(short, long)]
    quiet: bool,
    /// Only those that match: id, name, label, status, ancestor, exited
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = options::pair)]
    filter: Vec<Pair>,
    /// Cut nothing short
    #[arg(long)]
    no_trunc: bool,
}

/// Lists containers, the newest first.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let options = ListOptions { all: args.all, filter: filter(&args.filter) };
    let found = engine.list(options).await?;
    if args.quiet {
        found.iter().try_for_each(|container| say(id(container, args.no_trunc)))?;
        return Ok(0);
    }
    let mut table = Table::new(["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]);
    for container in found {
        table.row(row(&container, args.no_trunc));
    }
    table.print()?;
    Ok(0)
}

fn id(container: &ContainerSummary, whole: bool) -> &str {
    if whole { container.id.as_str() } else { container.id.short() }
}

fn row(container: &ContainerSummary, whole: bool) -> [String; 7] {
    let command = format!("{:?}", container.command.join(" "));
    [
        id(container, whole).to_owned(),
        image(container),
        if whole { command } else { quoted(&container.command.join(" ")) },
        human::ago(container.created),
        container.status.clone(),
        String::new(),
        container.name.clone(),
    ]
}

/// The image as it was named; an id is cut to twelve digits, as Docker does.
fn image(container: &ContainerSummary) -> String {
    if container.image == container.image_id.to_string() { container.image_id.short() } else { container.image.clone() }
}

/// A command in quotes, cut to what is shown.
fn quoted(command: &str) -> String {
    format!("\"{}\"", ellipsis(command, COMMAND_WIDTH).escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_quoted_and_cut() {
        assert_eq!(quoted("sleep 100"), "\"sleep 100\"");
        assert_eq!(quoted("sh -c 'sleep 1000000000'"), "\"sh -c 'sleep 100000…\"");
        assert_eq!(quoted("a\nb"), "\"a\\nb\"");
    }
}
