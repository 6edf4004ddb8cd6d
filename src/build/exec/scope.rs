//! The variables that commands of a stage see, line by line. Pure.

use crate::build::plan::Action;

/// Variables in force, in the order in which they were first set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Scope(Vec<(String, String)>);

impl Scope {
    /// A stage begins: what its base's config says is in force, over what a stage below left.
    pub(super) fn begin(mut self, env: &[String]) -> Self {
        for pair in env {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            self.set(name, value);
        }
        self
    }

    /// `ENV` and `ARG` alike: what is said last counts.
    pub(super) fn apply(&mut self, action: &Action) {
        match action {
            Action::Env(pairs) => pairs.iter().for_each(|(name, value)| self.set(name, value)),
            Action::Arg(found) => {
                for (name, value) in found {
                    if let Some(value) = value {
                        self.set(name, value);
                    }
                }
            }
            _ => {}
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f5_arguments_hide_variables_until_the_stage_ends() {
        let shown = |scope: &Scope| {
            scope
                .iter()
                .map(|(n, v)| format!("{n}={v}"))
                .collect::<Vec<_>>()
                .join(" ")
        };
        let mut scope = Scope::default().begin(&["A=1".to_owned(), "B=2".to_owned()]);
        scope.apply(&Action::Arg(vec![
            ("A".into(), Some("arg".into())),
            ("C".into(), None),
            ("D".into(), Some("4".into())),
        ]));
        assert_eq!(shown(&scope), "A=arg B=2 D=4");
        scope.apply(&Action::Env(vec![("D".into(), "env".into())]));
        assert_eq!(shown(&scope), "A=arg B=2 D=env");
        let next = scope.begin(&["A=1".to_owned(), "B=2".to_owned(), "D=env".to_owned()]);
        assert_eq!(shown(&next), "A=1 B=2 D=env");
    }
}
