//! `start`.

use hyper::StatusCode;

use super::super::call::Call;
use super::super::error::Failure;
use super::super::reply;
use super::super::router::Answer;
use crate::types::Outcome;

pub(super) async fn start(call: Call) -> Answer {
    if call.query.get("checkpoint").is_some() {
        return Err(Failure::option("checkpoint", "an engine that restores checkpoints"));
    }
    let outcome = call.engine.containers().start(call.name()).await?;
    Ok(reply::empty(code(outcome)))
}

/// 204, or 304 where there was nothing to do.
pub(super) fn code(outcome: Outcome) -> StatusCode {
    match outcome {
        Outcome::Done => StatusCode::NO_CONTENT,
        Outcome::Already => StatusCode::NOT_MODIFIED,
    }
}
