//! The end of a container that goes with it: the handle of its run tells it, however late it is asked.

use std::fmt;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::Engine;
use crate::containers::{ContainerExit, Exiting, WaitCondition};
use crate::error::{Error, Result};
use crate::types::ContainerId;

/// An end that was registered for before the start. It holds what the manager's registration holds, until somebody has asked
/// for it or the last handle of the run is gone.
pub(super) struct Ending(Mutex<State>);

enum State {
    Coming(Exiting),
    Told(ContainerExit),
    /// Whoever was to tell it went away.
    Lost,
}

impl fmt::Debug for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ending").finish_non_exhaustive()
    }
}

impl Ending {
    /// Registers for the end that a container goes with: its last one, should it be restarted before. `None` where the manager
    /// cannot wait for that.
    pub(super) async fn register(engine: &Engine, id: &ContainerId) -> Result<Option<Arc<Self>>> {
        match engine.containers().wait(id.as_str(), WaitCondition::Removed).await {
            Ok(exiting) => Ok(Some(Arc::new(Self(Mutex::new(State::Coming(exiting)))))),
            Err(error) if error.is_unsupported() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// How a container ended that is gone, as the error says.
    pub(super) async fn of_gone(&self, gone: Error) -> Result<ContainerExit> {
        let mut state = self.0.lock().await;
        if let State::Coming(exiting) = &mut *state {
            *state = exiting.await.map_or(State::Lost, State::Told);
        }
        match *state {
            State::Told(exit) => Ok(exit),
            _ => Err(gone),
        }
    }
}
