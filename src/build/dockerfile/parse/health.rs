//! `HEALTHCHECK`.

use std::time::Duration;

use super::command_line;
use super::{Command, Fault, Parsed, Raw, Word, words};
use crate::build::dockerfile::flags::Flags;
use crate::build::dockerfile::instruction::{HealthProbe, Healthcheck};
use crate::build::dockerfile::units;

const SHAPE: &str = "HEALTHCHECK [FLAGS] CMD COMMAND, or HEALTHCHECK NONE";
const FLAGS: [&str; 5] = ["interval", "timeout", "start-period", "start-interval", "retries"];

pub(super) fn healthcheck(raw: Raw<'_>) -> Parsed<Command> {
    raw.some(SHAPE)?;
    let flags = raw.flags(&FLAGS, &[])?;
    let (kind, rest) = words::first(raw.text());
    match (kind.text.to_ascii_uppercase().as_str(), rest) {
        ("NONE", None) => Ok(Command::Healthcheck(Healthcheck::None)),
        ("NONE", Some(_)) => Err(raw.fault("HEALTHCHECK NONE with arguments", "HEALTHCHECK NONE")),
        ("CMD", rest) => {
            let at = rest.map_or(raw.text().len(), |rest| rest.start);
            Ok(Command::Healthcheck(Healthcheck::Command(probe(&raw, &flags, at)?)))
        }
        _ => {
            let problem = format!("unknown kind {:?} of HEALTHCHECK", kind.text);
            Err(Fault::new(raw.word(kind).span, problem, "CMD or NONE"))
        }
    }
}

fn probe(raw: &Raw<'_>, flags: &Flags<'_>, at: usize) -> Parsed<HealthProbe> {
    let command = command_line::read(raw, at, Vec::new())?;
    if command.args.is_empty() {
        return Err(raw.fault("HEALTHCHECK CMD without a command", SHAPE));
    }
    Ok(HealthProbe {
        command,
        interval: duration(flags, "interval")?,
        timeout: duration(flags, "timeout")?,
        start_period: duration(flags, "start-period")?,
        start_interval: duration(flags, "start-interval")?,
        retries: retries(flags.one("retries")?)?,
    })
}

/// A duration of no less than a millisecond, or zero for the default.
fn duration(flags: &Flags<'_>, name: &str) -> Parsed<Duration> {
    let Some(value) = flags.one(name)?.filter(|value| !value.text.is_empty()) else {
        return Ok(Duration::ZERO);
    };
    let given = units::duration(&value.text);
    let fits = given.filter(|given| given.is_zero() || *given >= Duration::from_millis(1));
    fits.ok_or_else(|| {
        let problem = format!("--{name} cannot be {:?}", value.text);
        Fault::new(value.span, problem, "a duration of a millisecond or more, 30s or 1m30s")
    })
}

fn retries(value: Option<Word>) -> Parsed<u32> {
    let Some(value) = value.filter(|value| !value.text.is_empty()) else {
        return Ok(0);
    };
    let number = value
        .text
        .parse::<i32>()
        .ok()
        .and_then(|number| u32::try_from(number).ok());
    number.ok_or_else(|| {
        let problem = format!("--retries cannot be {:?}", value.text);
        Fault::new(value.span, problem, "a number, 3")
    })
}
