//! Instructions that change the image's config alone.

use super::{Fault, Parsed, Resolver};
use crate::build::dockerfile::{Form, Healthcheck, Pair, Span, Word};
use crate::build::expand::Style;
use crate::build::plan::{Action, HealthAction, paths, ports};
use crate::types::Signal;

impl Resolver<'_> {
    /// All of an instruction's values are expanded before any of them is in force.
    pub(super) fn pairs(&mut self, pairs: &[Pair]) -> Parsed<Vec<(String, String)>> {
        pairs
            .iter()
            .map(|pair| Ok((self.some(&pair.name)?, self.word(&pair.value)?)))
            .collect()
    }

    pub(super) fn env(&mut self, pairs: &[Pair]) -> Parsed<Action> {
        let found = self.pairs(pairs)?;
        for ((name, value), pair) in found.iter().zip(pairs) {
            self.set(name, value, pair.name.span)?;
        }
        Ok(Action::Env(found))
    }

    pub(super) fn expose(&mut self, words: &[Word]) -> Parsed<Action> {
        let mut found = Vec::new();
        for word in words {
            for port in self.split(word)? {
                let exposed = ports::exposed(&port);
                let exposed = exposed.map_err(|problem| Fault::new(word.span, problem, "PORT[/PROTOCOL]"))?;
                found.push(exposed.range);
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(Action::Expose(found))
    }

    pub(super) fn shell(&mut self, words: &[Word]) -> Parsed<Action> {
        self.state.shell = words.iter().map(|word| word.text.clone()).collect();
        Ok(Action::Shell(self.state.shell.clone()))
    }

    pub(super) fn stop_signal(&mut self, word: &Word) -> Parsed<Action> {
        let text = self.some(word)?;
        match text.parse::<Signal>() {
            Ok(_) => Ok(Action::StopSignal(text)),
            Err(error) => Err(Fault::new(word.span, error.to_string(), "a signal, SIGTERM or 15")),
        }
    }

    pub(super) fn volume(&mut self, words: &[Word]) -> Parsed<Action> {
        let found = words.iter().map(|word| self.some(word));
        Ok(Action::Volume(found.collect::<Parsed<_>>()?))
    }

    pub(super) fn workdir(&mut self, word: &Word) -> Parsed<Action> {
        let path = self.word(word)?;
        self.first_workdir.get_or_insert_with(|| (self.at, path.clone()));
        self.state.working_dir = paths::absolute(&self.state.working_dir, &path);
        Ok(Action::Workdir(self.state.working_dir.clone()))
    }

    /// An empty value counts as none.
    pub(super) fn given(&mut self, word: Option<&Word>) -> Parsed<Option<String>> {
        let value = word.map(|word| self.word(word)).transpose()?;
        Ok(value.filter(|value| !value.is_empty()))
    }

    pub(super) fn heredoc(&mut self, text: &str, span: Span) -> Parsed<String> {
        self.text(text, span, Style::heredoc()).map(|expanded| expanded.text)
    }
}

pub(super) fn health(check: &Healthcheck) -> Action {
    let mut action = HealthAction {
        test: vec!["NONE".to_owned()],
        interval: std::time::Duration::ZERO,
        timeout: std::time::Duration::ZERO,
        start_period: std::time::Duration::ZERO,
        start_interval: std::time::Duration::ZERO,
        retries: 0,
    };
    if let Healthcheck::Command(probe) = check {
        let kind = match probe.command.form {
            Form::Exec => "CMD",
            Form::Shell => "CMD-SHELL",
        };
        action.test = vec![kind.to_owned()];
        action
            .test
            .extend(probe.command.args.iter().map(|word| word.text.clone()));
        action.interval = probe.interval;
        action.timeout = probe.timeout;
        action.start_period = probe.start_period;
        action.start_interval = probe.start_interval;
        action.retries = probe.retries;
    }
    Action::Healthcheck(action)
}
