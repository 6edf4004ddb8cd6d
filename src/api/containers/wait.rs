//! `wait`: the answer's head goes out as soon as the waiter is registered, so that a client knows it may start the
//! container now; the body follows when it ends.

use bytes::Bytes;
use futures_util::stream;
use hyper::StatusCode;
use serde_json::{Value, json};

use super::super::call::Call;
use super::super::error::Failure;
use super::super::reply::{self, Body};
use super::super::router::Answer;
use crate::containers::{ContainerExit, WaitCondition};
use crate::error::Result;

pub(super) async fn wait(call: Call) -> Answer {
    let condition = match call.query.get("condition") {
        None | Some("not-running") => WaitCondition::NotRunning,
        Some("next-exit") => WaitCondition::NextExit,
        Some("removed") => WaitCondition::Removed,
        Some(other) => return Err(Failure::bad(format!("invalid condition: {other:?}"))),
    };
    let exiting = call.engine.containers().wait(call.name(), condition).await?;
    let version = call.version;
    let ended = async move {
        let mut value = body(&exiting.await);
        // Before 1.42 it said that there was no error.
        if !version.at_least(42) && value.get("Error").is_none() {
            value["Error"] = Value::Null;
        }
        Ok::<_, std::convert::Infallible>(Bytes::from(format!("{value}\n")))
    };
    let body = Body::stream(stream::once(ended));
    Ok(reply::typed(StatusCode::OK, reply::JSON, body))
}

fn body(ended: &Result<ContainerExit>) -> Value {
    match ended {
        Ok(exit) => json!({"StatusCode": exit.status.code()}),
        Err(error) => json!({"StatusCode": -1, "Error": {"Message": error.report()}}),
    }
}
