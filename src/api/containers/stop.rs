//! `stop`, `restart`, `kill`, `pause`, `unpause`: what changes the state of one that runs.

use std::time::Duration;

use hyper::StatusCode;

use super::super::call::Call;
use super::super::error::Failure;
use super::super::query::Query;
use super::super::reply;
use super::super::router::Answer;
use super::start::code;
use crate::containers::StopOptions;
use crate::types::Signal;

/// Longer than anybody waits: what Docker's "for ever" is taken for.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// `signal` and `t`; a negative `t` waits for ever.
fn options(query: &Query) -> Result<StopOptions, Failure> {
    let timeout = query.parsed::<i64>("t")?.map(|seconds| match u64::try_from(seconds) {
        Ok(seconds) => Duration::from_secs(seconds).min(FOR_EVER),
        Err(_) => FOR_EVER,
    });
    Ok(StopOptions {
        signal: signal(query)?,
        timeout,
    })
}

fn signal(query: &Query) -> Result<Option<Signal>, Failure> {
    let name = query.get("signal").map(str::parse);
    Ok(name.transpose()?)
}

pub(super) async fn stop(call: Call) -> Answer {
    let options = options(&call.query)?;
    let outcome = call.engine.containers().stop(call.name(), options).await?;
    Ok(reply::empty(code(outcome)))
}

pub(super) async fn restart(call: Call) -> Answer {
    let options = options(&call.query)?;
    call.engine.containers().restart(call.name(), options).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

pub(super) async fn kill(call: Call) -> Answer {
    let signal = signal(&call.query)?.unwrap_or(Signal::KILL);
    call.engine.containers().kill(call.name(), signal).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

pub(super) async fn pause(call: Call) -> Answer {
    call.engine.containers().pause(call.name()).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

pub(super) async fn unpause(call: Call) -> Answer {
    call.engine.containers().unpause(call.name()).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}
