//! `rename`.

use hyper::StatusCode;

use super::super::call::Call;
use super::super::error::Failure;
use super::super::reply;
use super::super::router::Answer;
use super::create::{name_taken, valid_name};

/// What Docker was doing when it found that a name cannot be.
const BEFORE: &str = "Error when allocating new name: ";

pub(super) async fn rename(call: Call) -> Answer {
    let Some(name) = call.query.get("name") else {
        return Err(Failure::bad("Neither old nor new names may be empty"));
    };
    let name = valid_name(name.strip_prefix('/').unwrap_or(name), BEFORE)?;
    let info = call.engine.containers().inspect(call.name()).await?;
    if info.name == name {
        let message = "Renaming a container with the same name as its current name";
        return Err(Failure::bad(message));
    }
    let renamed = call.engine.containers().rename(info.id.as_str(), &name).await;
    match renamed {
        Ok(()) => Ok(reply::empty(StatusCode::NO_CONTENT)),
        Err(error) if error.is_conflict() => {
            let failure = name_taken(&call, &name, error).await;
            let message = format!("{BEFORE}{}", failure.message);
            Err(failure.say(message))
        }
        Err(error) => Err(error.into()),
    }
}
