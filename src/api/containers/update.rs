//! `update`.

use serde_json::json;

use super::super::call::Call;
use super::super::object::Object;
use super::super::reply;
use super::super::router::Answer;
use super::create;
use crate::containers::Limits;

pub(super) async fn update(mut call: Call) -> Answer {
    let mut body = Object::new("", call.object().await?);
    let mut limits = Limits::default();
    create::take_limits(&mut body, &mut limits)?;
    create::take_restart(&mut body)?;
    body.refuse(create::REFUSED_OF_HOST)?;
    let warnings = call.engine.containers().update(call.name(), limits).await?;
    Ok(reply::ok(&json!({"Warnings": warnings})))
}
