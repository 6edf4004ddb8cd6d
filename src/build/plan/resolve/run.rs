//! `RUN`, and commands in general.

use super::{Parsed, Resolver, args};
use crate::build::dockerfile::{CommandLine, Fault, Form, Heredoc, Mount, MountFlag, Run};
use crate::build::expand::{self, Style};
use crate::build::plan::{Action, MountAction, RunAction, Script, actions};

/// Where a heredoc that begins with `#!` is while it runs, as in BuildKit: caches of steps must not depend on the builder.
const SCRIPTS: &str = "/dev/pipes";

impl Resolver<'_> {
    pub(super) fn run(&mut self, run: &Run) -> Parsed<Action> {
        let mounts = run.mounts.iter().map(|flag| self.mount(flag));
        let mounts = mounts.collect::<Parsed<_>>()?;
        let script = script(&run.command);
        let args = match (&script, run.command.form) {
            (Some(script), _) => self.in_shell(&script.path),
            (None, Form::Shell) => self.in_shell(&line(&run.command)),
            (None, Form::Exec) => self.with_shell(&run.command),
        };
        Ok(Action::Run(RunAction {
            args,
            script,
            mounts,
            network: run.network,
            security: run.security,
            devices: run.devices.clone(),
        }))
    }

    /// A command as it is run: the shell form by the shell in force.
    pub(super) fn with_shell(&self, command: &CommandLine) -> Vec<String> {
        match command.form {
            // An empty line is a command for the shell, too; an empty array is none.
            Form::Shell => self.in_shell(command.args.first().map_or("", |line| &line.text)),
            Form::Exec => command.args.iter().map(|word| word.text.clone()).collect(),
        }
    }

    fn in_shell(&self, line: &str) -> Vec<String> {
        self.state.in_shell(line)
    }

    fn mount(&mut self, flag: &MountFlag) -> Parsed<MountAction> {
        let mut mount = self.resolved(flag)?;
        self.place(&mut mount, flag)?;
        let from = mount.from.as_deref().filter(|from| !from.is_empty());
        let from = from.map(|name| self.names.origin(name, flag.span, false)).transpose()?;
        Ok(MountAction { mount, from })
    }

    /// Makes the target absolute. Secrets and agents have places of their own where none is given.
    fn place(&self, mount: &mut Mount, flag: &MountFlag) -> Parsed<()> {
        let placed = actions::place(mount, &self.state.working_dir);
        placed.map_err(|problem| Fault::new(flag.span, problem, "target=PATH"))
    }

    fn resolved(&mut self, flag: &MountFlag) -> Parsed<Mount> {
        let style = Style::words(self.file.escape());
        let mut unmatched = std::collections::BTreeSet::new();
        let env = &self.state.env;
        let mount = flag.resolve(|value| {
            let expanded = expand::expand(value, style, env).map_err(|failure| args::fault(failure, flag.span))?;
            unmatched.extend(expanded.unmatched);
            Ok(expanded.text)
        })?;
        self.remember(&unmatched);
        Ok(mount)
    }
}

/// The line for the shell. A heredoc alone is the script itself; several, or one with a command, are for the shell to read.
fn line(command: &CommandLine) -> String {
    let text = command.args.first().map(|word| word.text.clone()).unwrap_or_default();
    match alone(command) {
        Some(heredoc) => heredoc.content(),
        None => command
            .heredocs
            .iter()
            .fold(text, |text, heredoc| format!("{text}\n{}{}", heredoc.raw, heredoc.name)),
    }
}

/// The heredoc that is all there is: `RUN <<EOF`.
fn alone(command: &CommandLine) -> Option<&Heredoc> {
    let word = command.args.first()?;
    let is_heredoc = crate::build::dockerfile::is_heredoc(&word.text);
    command.heredocs.first().filter(|_| is_heredoc)
}

fn script(command: &CommandLine) -> Option<Script> {
    let heredoc = alone(command)?;
    let content = heredoc.content();
    content.starts_with("#!").then(|| Script {
        path: format!("{SCRIPTS}/{}", heredoc.name),
        content,
    })
}
