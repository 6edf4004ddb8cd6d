//! What an image's history says of a step.

use super::go;
use crate::build::plan::{Action, FileContent, HealthAction};

/// The remark of all entries: readers of images know by it whose words they are.
pub(super) const COMMENT: &str = "buildkit.dockerfile.v0";

/// Behind what makes a layer.
const MARK: &str = " # buildkit";

/// The words for a step; triggers for later have none.
pub(super) fn told(action: &Action, arguments: &[(String, String)]) -> Option<String> {
    Some(match action {
        Action::Add(add) => {
            let flags = flags(false, add.owner.as_deref(), add.permissions.as_deref());
            format!("ADD{flags}{} {}{MARK}", sources(&add.sources), add.written)
        }
        Action::Arg(found) => {
            let shown = found.iter().map(|(name, value)| match value {
                Some(value) => format!("{name}={value}"),
                None => name.clone(),
            });
            format!("ARG {}", shown.collect::<Vec<_>>().join(" "))
        }
        Action::Author(author) => format!("MAINTAINER {author}"),
        Action::Cmd(args) => format!("CMD {}", go::quoted_list(args)),
        Action::Copy(copy) => {
            let flags = flags(copy.parents, copy.owner.as_deref(), copy.permissions.as_deref());
            format!("COPY{flags}{} {}{MARK}", sources(&copy.sources), copy.written)
        }
        Action::Entrypoint(args) => format!("ENTRYPOINT {}", go::quoted_list(args)),
        Action::Env(found) => format!("ENV{}", pairs(found)),
        Action::Expose(ranges) => {
            let ports: Vec<String> = ranges.iter().flat_map(|range| range.each()).collect();
            format!("EXPOSE {}", go::list(&ports))
        }
        Action::Healthcheck(check) => format!("HEALTHCHECK {}", health(check)),
        Action::Label(found) => format!("LABEL{}", pairs(found)),
        Action::Onbuild(_) => return None,
        Action::Run(run) => format!("RUN {}{}{MARK}", shown(arguments), run.args.join(" ")),
        Action::Shell(args) => format!("SHELL {}", go::list(args)),
        Action::StopSignal(signal) => format!("STOPSIGNAL {signal}"),
        Action::User(user) => format!("USER {user}"),
        Action::Volume(paths) => format!("VOLUME {}", go::list(paths)),
        Action::Workdir(path) => format!("WORKDIR {path}"),
    })
}

fn pairs(found: &[(String, String)]) -> String {
    found.iter().map(|(name, value)| format!(" {name}={value}")).collect()
}

/// The arguments in force, before a command: their number, then each.
fn shown(arguments: &[(String, String)]) -> String {
    if arguments.is_empty() {
        return String::new();
    }
    let all: String = arguments
        .iter()
        .map(|(name, value)| format!("{name}={value} "))
        .collect();
    format!("|{} {all}", arguments.len())
}

fn flags(parents: bool, owner: Option<&str>, permissions: Option<&str>) -> String {
    let parents = if parents { " --parents" } else { "" };
    let owner = owner.map(|owner| format!(" --chown={owner}")).unwrap_or_default();
    let permissions = permissions.map(|mode| format!(" --chmod={mode}")).unwrap_or_default();
    format!("{parents}{owner}{permissions}")
}

/// Files of the Dockerfile itself come last.
fn sources(sources: &[FileContent]) -> String {
    let paths = sources.iter().filter_map(|source| match source {
        FileContent::Path(path) => Some(format!(" {path}")),
        FileContent::Inline { .. } => None,
    });
    let inline = sources.iter().filter_map(|source| match source {
        FileContent::Inline { name, .. } => Some(format!(" <<{name}")),
        FileContent::Path(_) => None,
    });
    paths.chain(inline).collect()
}

fn health(check: &HealthAction) -> String {
    format!(
        "{{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        go::list(&check.test),
        go::duration(check.interval),
        go::duration(check.timeout),
        go::duration(check.start_period),
        go::duration(check.start_interval),
        check.retries
    )
}
