//! `DELETE containers/{id}`.

use hyper::StatusCode;

use super::super::call::Call;
use super::super::error::Failure;
use super::super::reply;
use super::super::router::Answer;
use crate::containers::RemoveOptions;

pub(super) async fn remove(call: Call) -> Answer {
    if call.query.flag("link") {
        return Err(Failure::option(
            "link",
            "an engine that has links; networks replaced them",
        ));
    }
    let options = RemoveOptions {
        force: call.query.flag("force"),
        volumes: call.query.flag("v"),
    };
    call.engine.containers().remove(call.name(), options).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}
