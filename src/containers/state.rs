//! The states of a container, and what each verb does in each: written once, here.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::types::ContainerId;

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ContainerState {
    /// It was never started.
    Created,
    /// Its first process is about to run.
    Starting,
    /// Its first process runs.
    Running,
    /// Its first process has ended.
    Exited,
    /// It is being removed.
    Removing,
}

impl ContainerState {
    /// Every state.
    pub const ALL: [Self; 5] = [
        Self::Created,
        Self::Starting,
        Self::Running,
        Self::Exited,
        Self::Removing,
    ];

    /// Docker's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Exited => "exited",
            Self::Removing => "removing",
        }
    }

    /// The state of a word that [`ContainerState::as_str`] gave.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

impl fmt::Display for ContainerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A verb that depends on the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Start,
    Kill,
    Stop,
    Resize,
    Remove,
    RemoveForce,
}

impl Verb {
    fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Resize => "resize",
            Self::Remove | Self::RemoveForce => "remove",
        }
    }
}

/// What a verb does in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Move {
    /// It does its work.
    Go,
    /// Its work is done already; Docker's 304.
    Already,
    /// It ends the container first.
    KillFirst,
    /// It waits until another call has finished with the container, and looks again.
    Wait,
    /// It is refused with this kind.
    Refuse(Refusal),
}

/// Why a verb is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    NotRunning,
    Running,
    BeingRemoved,
}

/// The table: rows are states, columns verbs.
pub(crate) const fn step(state: ContainerState, verb: Verb) -> Move {
    use ContainerState as S;
    use Move::{Already, Go, KillFirst, Refuse, Wait};
    match (state, verb) {
        (S::Created | S::Exited, Verb::Start) => Go,
        (S::Running, Verb::Start) => Already,
        (S::Running, Verb::Kill | Verb::Stop | Verb::Resize) => Go,
        (S::Created | S::Exited, Verb::Stop) => Already,
        (S::Created | S::Exited | S::Removing, Verb::Kill | Verb::Resize) => Refuse(Refusal::NotRunning),
        (S::Created | S::Exited, Verb::Remove | Verb::RemoveForce) => Go,
        (S::Running, Verb::Remove) => Refuse(Refusal::Running),
        (S::Running, Verb::RemoveForce) => KillFirst,
        (S::Starting, _) => Wait,
        (S::Removing, Verb::Remove | Verb::RemoveForce) => Wait,
        (S::Removing, Verb::Start | Verb::Stop) => Refuse(Refusal::BeingRemoved),
    }
}

/// The error of a refused verb.
pub(crate) fn refuse(id: &ContainerId, state: ContainerState, verb: Verb, refusal: Refusal) -> Error {
    let short = id.short();
    let (kind, message) = match refusal {
        Refusal::NotRunning => (
            ErrorKind::InvalidState,
            format!(
                "cannot {} container {short}: it is not running (state {state})",
                verb.as_str()
            ),
        ),
        Refusal::Running => (
            ErrorKind::Conflict,
            format!("cannot remove container {short}: it is running; stop it first, or remove it with force"),
        ),
        Refusal::BeingRemoved => (
            ErrorKind::Conflict,
            format!("cannot {} container {short}: it is being removed", verb.as_str()),
        ),
    };
    Error::new(kind, message).with_object(ObjectKind::Container, id.as_str())
}

/// What a verb does, or the error of its refusal.
pub(crate) fn decide(id: &ContainerId, state: ContainerState, verb: Verb) -> Result<Move> {
    match step(state, verb) {
        Move::Refuse(refusal) => Err(refuse(id, state, verb, refusal)),
        go => Ok(go),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_in_every_state() {
        use Move::{Already, Go, KillFirst, Refuse, Wait};
        use Refusal::{BeingRemoved, NotRunning, Running};
        let verbs = [
            Verb::Start,
            Verb::Kill,
            Verb::Stop,
            Verb::Resize,
            Verb::Remove,
            Verb::RemoveForce,
        ];
        let table = [
            (
                ContainerState::Created,
                [Go, Refuse(NotRunning), Already, Refuse(NotRunning), Go, Go],
            ),
            (ContainerState::Starting, [Wait; 6]),
            (
                ContainerState::Running,
                [Already, Go, Go, Go, Refuse(Running), KillFirst],
            ),
            (
                ContainerState::Exited,
                [Go, Refuse(NotRunning), Already, Refuse(NotRunning), Go, Go],
            ),
            (
                ContainerState::Removing,
                [
                    Refuse(BeingRemoved),
                    Refuse(NotRunning),
                    Refuse(BeingRemoved),
                    Refuse(NotRunning),
                    Wait,
                    Wait,
                ],
            ),
        ];
        for (state, row) in table {
            for (verb, expected) in verbs.into_iter().zip(row) {
                assert_eq!(step(state, verb), expected, "{verb:?} in {state}");
            }
            assert_eq!(ContainerState::parse(state.as_str()), Some(state));
        }
    }
}
