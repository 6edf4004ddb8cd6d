//! `rename`.

use hyper::StatusCode;

use super::super::call::Call;
use super::super::error::Failure;
use super::super::reply;
use super::super::router::Answer;

pub(super) async fn rename(call: Call) -> Answer {
    let Some(name) = call.query.get("name") else {
        return Err(Failure::bad("Neither old nor new names may be empty"));
    };
    let name = name.strip_prefix('/').unwrap_or(name);
    let renamed = call.engine.containers().rename(call.name(), name).await;
    match renamed {
        Ok(()) => Ok(reply::empty(StatusCode::NO_CONTENT)),
        Err(error) if error.is_conflict() => Err(super::create::name_taken(&call, name, error).await),
        Err(error) => Err(error.into()),
    }
}
