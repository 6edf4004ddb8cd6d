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
    /// It runs, and its processes are stopped where they are.
    Paused,
    /// Its first process has ended, and its restart policy is about to start it again.
    Restarting,
    /// Its first process has ended.
    Exited,
    /// It is being removed.
    Removing,
}

impl ContainerState {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Created,
        Self::Starting,
        Self::Running,
        Self::Paused,
        Self::Restarting,
        Self::Exited,
        Self::Removing,
    ];

    /// Docker's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Removing => "removing",
        }
    }

    /// Whether its first process lives: it runs, or is paused.
    pub const fn is_alive(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
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
    Pause,
    Unpause,
    Exec,
    Checkpoint,
    Attach,
    Top,
    Rename,
    Update,
    Diff,
    Export,
    Commit,
    Remove,
    RemoveForce,
}

impl Verb {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Resize => "resize",
            Self::Pause => "pause",
            Self::Unpause => "unpause",
            Self::Exec => "run a command in",
            Self::Checkpoint => "checkpoint",
            Self::Attach => "attach to",
            Self::Top => "list the processes of",
            Self::Rename => "rename",
            Self::Update => "update",
            Self::Diff => "list the changes of",
            Self::Export => "export",
            Self::Commit => "commit",
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
    Paused,
    NotPaused,
    Restarting,
    BeingRemoved,
}

impl Refusal {
    /// What an error says of it as its step: the state that is in the way.
    fn as_str(self) -> &'static str {
        match self {
            Self::NotRunning => "not running",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::NotPaused => "not paused",
            Self::Restarting => "restarting",
            Self::BeingRemoved => "being removed",
        }
    }
}

/// The table: rows are states, columns verbs.
pub(crate) const fn step(state: ContainerState, verb: Verb) -> Move {
    use ContainerState as S;
    use Move::{Already, Go, KillFirst, Refuse, Wait};
    match (state, verb) {
        (S::Starting, _) => Wait,
        (S::Removing, Verb::Remove | Verb::RemoveForce) => Wait,
        (
            S::Removing,
            Verb::Start
            | Verb::Stop
            | Verb::Attach
            | Verb::Rename
            | Verb::Update
            | Verb::Diff
            | Verb::Export
            | Verb::Commit,
        ) => Refuse(Refusal::BeingRemoved),
        (_, Verb::Rename | Verb::Update | Verb::Diff | Verb::Export | Verb::Commit) => Go,
        (S::Created | S::Exited, Verb::Start | Verb::Attach | Verb::Remove | Verb::RemoveForce) => Go,
        (S::Created | S::Exited, Verb::Stop) => Already,
        (S::Running | S::Restarting, Verb::Start) => Already,
        (S::Restarting, Verb::Kill | Verb::Stop | Verb::Attach) => Go,
        (S::Restarting, Verb::RemoveForce) => KillFirst,
        (S::Restarting, _) => Refuse(Refusal::Restarting),
        (S::Running, Verb::Remove) => Refuse(Refusal::Running),
        (S::Running, Verb::Unpause) => Refuse(Refusal::NotPaused),
        (S::Paused, Verb::Start | Verb::Pause | Verb::Exec | Verb::Checkpoint | Verb::Attach | Verb::Remove) => {
            Refuse(Refusal::Paused)
        }
        (S::Running | S::Paused, Verb::RemoveForce) => KillFirst,
        (S::Running | S::Paused, _) => Go,
        (S::Created | S::Exited | S::Removing, _) => Refuse(Refusal::NotRunning),
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
        Refusal::Paused if matches!(verb, Verb::Remove) => (
            ErrorKind::Conflict,
            format!(
                "cannot remove container {short}: it is paused; unpause and stop it first, or remove it with force"
            ),
        ),
        Refusal::Paused if matches!(verb, Verb::Pause) => (
            ErrorKind::InvalidState,
            format!("cannot pause container {short}: it is paused already"),
        ),
        Refusal::Paused => (
            ErrorKind::InvalidState,
            format!(
                "cannot {} container {short}: it is paused; unpause it first",
                verb.as_str()
            ),
        ),
        Refusal::NotPaused => (
            ErrorKind::InvalidState,
            format!("cannot unpause container {short}: it is not paused"),
        ),
        Refusal::Restarting if matches!(verb, Verb::Remove) => (
            ErrorKind::Conflict,
            format!(
                "cannot remove container {short}: it is about to be restarted; stop it first, or remove it with force"
            ),
        ),
        Refusal::Restarting => (
            ErrorKind::Conflict,
            format!(
                "cannot {} container {short}: it is restarting; wait until it runs",
                verb.as_str()
            ),
        ),
        Refusal::BeingRemoved => (
            ErrorKind::Conflict,
            format!("cannot {} container {short}: it is being removed", verb.as_str()),
        ),
    };
    let error = Error::new(kind, message).with_object(ObjectKind::Container, id.as_str());
    error.with_step(refusal.as_str())
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
    fn g1_every_verb_in_every_state() {
        use ContainerState as S;
        use Move::{Already, Go, KillFirst, Refuse, Wait};
        use Refusal::{BeingRemoved, NotPaused, NotRunning, Paused, Restarting, Running};
        let columns = [S::Created, S::Running, S::Paused, S::Restarting, S::Exited, S::Removing];
        let gone = Refuse(NotRunning);
        let going = Refuse(BeingRemoved);
        let soon = Refuse(Restarting);
        let table = [
            (Verb::Start, [Go, Already, Refuse(Paused), Already, Go, going]),
            (Verb::Kill, [gone, Go, Go, Go, gone, gone]),
            (Verb::Stop, [Already, Go, Go, Go, Already, going]),
            (Verb::Resize, [gone, Go, Go, soon, gone, gone]),
            (Verb::Pause, [gone, Go, Refuse(Paused), soon, gone, gone]),
            (Verb::Unpause, [gone, Refuse(NotPaused), Go, soon, gone, gone]),
            (Verb::Exec, [gone, Go, Refuse(Paused), soon, gone, gone]),
            (Verb::Checkpoint, [gone, Go, Refuse(Paused), soon, gone, gone]),
            (Verb::Attach, [Go, Go, Refuse(Paused), Go, Go, going]),
            (Verb::Top, [gone, Go, Go, soon, gone, gone]),
            (Verb::Rename, [Go, Go, Go, Go, Go, going]),
            (Verb::Update, [Go, Go, Go, Go, Go, going]),
            (Verb::Diff, [Go, Go, Go, Go, Go, going]),
            (Verb::Export, [Go, Go, Go, Go, Go, going]),
            (Verb::Commit, [Go, Go, Go, Go, Go, going]),
            (Verb::Remove, [Go, Refuse(Running), Refuse(Paused), soon, Go, Wait]),
            (Verb::RemoveForce, [Go, KillFirst, KillFirst, KillFirst, Go, Wait]),
        ];
        for (verb, row) in table {
            for (state, expected) in columns.into_iter().zip(row) {
                assert_eq!(step(state, verb), expected, "{verb:?} in {state}");
            }
            assert_eq!(step(S::Starting, verb), Wait, "{verb:?}");
        }
        for state in ContainerState::ALL {
            assert_eq!(ContainerState::parse(state.as_str()), Some(state));
        }
    }
}
