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
    let options = ListOptions {
        all: args.all,
        filter: filter(&args.filter),
    };
    let found = engine.list(options).await?;
    if args.quiet {
        found
            .iter()
            .try_for_each(|container| say(id(container, args.no_trunc)))?;
        return Ok(0);
    }
    let mut table = Table::new([
        "CONTAINER ID",
        "IMAGE",
        "COMMAND",
        "CREATED",
        "STATUS",
        "PORTS",
        "NAMES",
    ]);
    for container in found {
        table.row(row(&container, args.no_trunc));
    }
    table.print()?;
    Ok(0)
}

fn id(container: &ContainerSummary, whole: bool) -> &str {
    if whole {
        container.id.as_str()
    } else {
        container.id.short()
    }
}

fn row(container: &ContainerSummary, whole: bool) -> [String; 7] {
    let command = container.command.join(" ");
    [
        id(container, whole).to_owned(),
        image(container),
        quoted(&if whole {
            command
        } else {
            ellipsis(&command, COMMAND_WIDTH)
        }),
        human::ago(container.created),
        container.status.clone(),
        ports(container),
        container.name.clone(),
    ]
}

/// Published ports in Docker's way: `0.0.0.0:8080->80/tcp`.
fn ports(container: &ContainerSummary) -> String {
    let mut all: Vec<String> = Vec::new();
    for one in &container.ports {
        let at = std::net::SocketAddr::new(one.host_ip, one.host_port);
        all.push(format!("{at}->{}", one.port));
    }
    all.join(", ")
}

/// The image as it was named; an id is cut to twelve digits, as Docker does.
fn image(container: &ContainerSummary) -> String {
    if container.image == container.image_id.to_string() {
        container.image_id.short()
    } else {
        container.image.clone()
    }
}

/// A command in quotes, with nothing in it that a terminal would act on.
fn quoted(command: &str) -> String {
    format!("{command:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_quoted() {
        assert_eq!(quoted("sleep 100"), "\"sleep 100\"");
        assert_eq!(quoted("sh -c 'a'"), "\"sh -c 'a'\"");
        assert_eq!(quoted("a\n\x1b[2J"), "\"a\\n\\u{1b}[2J\"");
    }
}
