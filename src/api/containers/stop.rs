//! `stop`, `restart`, `kill`, `pause`, `unpause`: what changes the state of one that runs.

use std::time::Duration;

use hyper::StatusCode;

use super::super::call::Call;
use super::super::error::Failure;
use super::super::query::Query;
use super::super::reply;
use super::super::router::Answer;
use super::start::code;
use crate::containers::{StopOptions, WaitCondition};
use crate::error::Error;
use crate::types::Signal;

/// How long the answer to a SIGKILL waits for the end of a container that the kernel cannot end at once.
const KILLED_WITHIN: Duration = Duration::from_secs(10);
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
    let failed = |error| prefixed(error, &format!("Cannot kill container: {}", call.name()));
    let containers = call.engine.containers();
    // Docker answers a SIGKILL when the container has ended. Source: moby, `daemon/kill.go`.
    let ended = match signal == Signal::KILL {
        true => Some(
            containers
                .wait(call.name(), WaitCondition::NotRunning)
                .await
                .map_err(failed)?,
        ),
        false => None,
    };
    containers.kill(call.name(), signal).await.map_err(failed)?;
    if let Some(ended) = ended {
        let _ = tokio::time::timeout(KILLED_WITHIN, ended).await;
    }
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// Docker says of some verbs what they were about to do.
fn prefixed(error: Error, what: &str) -> Failure {
    let failure = Failure::from(error);
    let words = format!("{what}: {}", failure.message);
    failure.say(words)
}

pub(super) async fn pause(call: Call) -> Answer {
    let paused = call.engine.containers().pause(call.name()).await;
    paused.map_err(|error| match (error.step(), error.object()) {
        (Some("paused"), Some((_, id))) => {
            let words = format!("Container {id} is already paused");
            Failure::from(error).say(words)
        }
        _ => error.into(),
    })?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

pub(super) async fn unpause(call: Call) -> Answer {
    call.engine.containers().unpause(call.name()).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}
