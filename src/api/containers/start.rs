//! `start`.

use std::time::Duration;

use hyper::StatusCode;

use super::super::call::Call;
use super::super::reply;
use super::super::router::Answer;
use super::checkpoint;
use crate::containers::RemoveOptions;
use crate::types::Outcome;

/// How long an answer on another connection takes to be written.
const HEARD_WITHIN: Duration = Duration::from_millis(20);

pub(super) async fn start(call: Call) -> Answer {
    let containers = call.engine.containers();
    let started = match call.query.get("checkpoint").filter(|name| !name.is_empty()) {
        Some(checkpoint) => {
            let directory = checkpoint::directory(call.query.get("checkpoint-dir"));
            containers.restore(call.name(), checkpoint, directory).await
        }
        None => containers.start(call.name()).await,
    };
    match started {
        Ok(outcome) => Ok(reply::empty(code(outcome))),
        Err(error) => {
            clear_up(&call).await;
            Err(error.into())
        }
    }
}

/// A container that is to be removed when it has ended, and could not even start, has ended: clients wait for that.
/// Source: moby, `daemon/start.go`.
async fn clear_up(call: &Call) {
    let Ok(info) = call.engine.containers().inspect(call.name()).await else {
        return;
    };
    if !info.spec.auto_remove || info.started.is_some() {
        return;
    }
    let removed = call
        .engine
        .containers()
        .remove(info.id.as_str(), RemoveOptions::default())
        .await;
    if let Err(error) = removed {
        tracing::debug!(container = %info.id, error = error.report(), "a container that could not start stays");
    }
    // Whoever waits for the removal on another connection hears of it first: the client of Docker 20.10 gives up its wait
    // as soon as it hears of the failure.
    tokio::time::sleep(HEARD_WITHIN).await;
}

/// 204, or 304 where there was nothing to do.
pub(super) fn code(outcome: Outcome) -> StatusCode {
    match outcome {
        Outcome::Done => StatusCode::NO_CONTENT,
        Outcome::Already => StatusCode::NOT_MODIFIED,
    }
}
