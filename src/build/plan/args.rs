//! Variables of a whole Dockerfile: those that the platforms give, and `ARG` above the first `FROM`.

use std::collections::BTreeSet;

use super::PlanOptions;
use crate::build::dockerfile::{Argument, Command, Dockerfile, Fault, Instruction, Parsed, Span};
use crate::build::expand::{self, Env, Expanded, Failure, Style};
use crate::build::limits;
use crate::types::Platform;

/// Arguments that are there without `ARG`, and are in no image.
pub(crate) const PREDEFINED: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// The variables that `FROM` can use.
#[derive(Debug, Clone)]
pub(crate) struct Globals {
    pub(crate) env: Env,
    /// What `ARG` above the first `FROM` declares, with or without a value.
    pub(crate) declared: BTreeSet<String>,
    style: Style,
}

impl Globals {
    pub(crate) fn new(file: &Dockerfile, options: &PlanOptions) -> Parsed<Self> {
        let mut globals = Self {
            env: platforms(file, options),
            declared: BTreeSet::new(),
            style: Style::words(file.escape()),
        };
        for instruction in file.arguments() {
            globals.declare(instruction, options)?;
        }
        Ok(globals)
    }

    fn declare(&mut self, instruction: &Instruction, options: &PlanOptions) -> Parsed<()> {
        let Command::Arg(arguments) = &instruction.command else {
            return Ok(());
        };
        for argument in arguments {
            let name = &argument.name.text;
            if let Some(value) = self.value(argument, options)? {
                self.env.set(name, &value);
            }
            within(&self.env, argument.name.span)?;
            self.declared.insert(name.clone());
        }
        Ok(())
    }

    fn value(&self, argument: &Argument, options: &PlanOptions) -> Parsed<Option<String>> {
        if let Some(given) = options.arguments.get(&argument.name.text) {
            return Ok(Some(given.clone()));
        }
        let Some(default) = &argument.default else {
            return Ok(None);
        };
        self.expand(&default.text, default.span)
            .map(|expanded| Some(expanded.text))
    }

    /// A word of `FROM`.
    pub(crate) fn expand(&self, text: &str, span: Span) -> Parsed<Expanded> {
        expand::expand(text, self.style, &self.env).map_err(|failure| fault(failure, span))
    }
}

/// Variables must not fill the memory.
pub(super) fn within(env: &Env, span: Span) -> Parsed<()> {
    if env.bytes() > limits::ENVIRONMENT_BYTES {
        return Err(Fault::limit(span, "bytes in all variables", limits::ENVIRONMENT_BYTES));
    }
    Ok(())
}

pub(super) fn fault(failure: Failure, span: Span) -> Fault {
    Fault::new(span, failure.problem, failure.expected)
}

fn platforms(file: &Dockerfile, options: &PlanOptions) -> Env {
    let last = file.stages().last().and_then(|stage| stage.name.as_deref());
    let stage = options.target.as_deref().or(last).unwrap_or("default");
    let mut env = Env::default();
    of_platform(&mut env, "BUILD", &options.build_platform);
    of_platform(&mut env, "TARGET", &options.platform);
    env.set("TARGETSTAGE", stage);
    let names: Vec<String> = env.names().map(str::to_owned).collect();
    for name in names {
        if let Some(given) = options.arguments.get(&name) {
            env.set(&name, given);
        }
    }
    env
}

fn of_platform(env: &mut Env, prefix: &str, platform: &Platform) {
    env.set(&format!("{prefix}PLATFORM"), &platform.to_string());
    env.set(&format!("{prefix}OS"), &platform.os);
    // A version of the system is Windows' alone.
    env.set(&format!("{prefix}OSVERSION"), "");
    env.set(&format!("{prefix}ARCH"), &platform.architecture);
    env.set(
        &format!("{prefix}VARIANT"),
        platform.variant.as_deref().unwrap_or_default(),
    );
}
