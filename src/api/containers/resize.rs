//! `resize`.

use hyper::StatusCode;

use super::super::call::Call;
use super::super::error::Failure;
use super::super::query::Query;
use super::super::reply;
use super::super::router::Answer;

pub(super) async fn resize(call: Call) -> Answer {
    let (rows, columns) = size(&call.query)?;
    call.engine.containers().resize(call.name(), rows, columns).await?;
    Ok(reply::empty(StatusCode::OK))
}

/// `h` and `w`.
pub(in crate::api) fn size(query: &Query) -> Result<(u16, u16), Failure> {
    let need = |name: &str| {
        let value = query.parsed::<u16>(name)?;
        value.ok_or_else(|| Failure::bad(format!("invalid resize: {name} is missing")))
    };
    Ok((need("h")?, need("w")?))
}
