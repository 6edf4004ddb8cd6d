//! `update`.

use serde_json::json;

use super::super::call::Call;
use super::super::object::Object;
use super::super::reply;
use super::super::router::Answer;
use super::{create, devices, limits};
use crate::containers::Limits;

pub(super) async fn update(mut call: Call) -> Answer {
    let mut body = Object::new("", call.object().await?);
    let wanted = limits::take(&mut body, limits::For::Update)?;
    limits::check_cpus(&call, &wanted).await?;
    // Of no account to an update, as in Docker, which leaves them as they are without a word.
    devices::take_rates(&mut body, &mut Limits::default())?;
    let restart = create::take_restart(&mut body)?;
    body.refuse(create::REFUSED_OF_HOST)?;
    if let Some(policy) = restart {
        call.engine.containers().set_restart(call.name(), policy).await?;
    }
    let warnings = call.engine.containers().update(call.name(), wanted).await?;
    let warnings = Some(warnings).filter(|all| !all.is_empty());
    Ok(reply::ok(&json!({"Warnings": warnings})))
}
