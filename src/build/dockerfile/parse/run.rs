//! `RUN`.

use super::command_line;
use super::{Command, Fault, Heredoc, Parsed, Raw, Word};
use crate::build::dockerfile::csv;
use crate::build::dockerfile::instruction::{DeviceFlag, NetworkFlag, Run, SecurityFlag};
use crate::build::dockerfile::mount::MountFlag;

const FLAGS: [&str; 4] = ["mount", "network", "security", "device"];

const NETWORKS: [(&str, NetworkFlag); 3] = [
    ("default", NetworkFlag::Default),
    ("none", NetworkFlag::None),
    ("host", NetworkFlag::Host),
];

const SECURITY: [(&str, SecurityFlag); 2] = [("sandbox", SecurityFlag::Sandbox), ("insecure", SecurityFlag::Insecure)];

pub(super) fn run(raw: Raw<'_>, heredocs: Vec<Heredoc>) -> Parsed<Command> {
    let flags = raw.flags(&FLAGS, &["mount", "device"])?;
    raw.some("a command: RUN apt-get update, or RUN [\"apt-get\", \"update\"]")?;
    let command = command_line::read(&raw, 0, heredocs)?;
    if command.args.is_empty() {
        return Err(raw.fault("RUN with an empty array", "a program and its arguments"));
    }
    Ok(Command::Run(Run {
        mounts: flags
            .all("mount")?
            .iter()
            .map(MountFlag::parse)
            .collect::<Parsed<_>>()?,
        network: flags.choice("network", &NETWORKS)?.unwrap_or_default(),
        security: flags.choice("security", &SECURITY)?.unwrap_or_default(),
        devices: flags.all("device")?.iter().map(device).collect::<Parsed<_>>()?,
        command,
    }))
}

/// `vendor.com/class=name[,required]`, or the name as `name=`.
fn device(value: &Word) -> Parsed<DeviceFlag> {
    let fault = |problem: String| Fault::new(value.span, problem, "--device=NAME or --device=NAME,required");
    let mut name = None;
    let mut required = false;
    for field in csv::fields(value)? {
        match field.split_once('=').unwrap_or((&field, "")) {
            ("required", "" | "true" | "1") => required = true,
            ("required", "false" | "0") => required = false,
            ("name", given) if name.is_none() => name = Some(given.to_owned()),
            _ if name.is_none() => name = Some(field),
            (key, _) => return Err(fault(format!("{key:?} is not for --device"))),
        }
    }
    let name = name.filter(|name| !name.is_empty());
    Ok(DeviceFlag {
        name: name.ok_or_else(|| fault("--device without a name".into()))?,
        required,
        span: value.span,
    })
}
