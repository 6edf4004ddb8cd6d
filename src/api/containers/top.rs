//! `top`.

use serde_json::json;

use super::super::call::Call;
use super::super::reply;
use super::super::router::Answer;

pub(super) async fn top(call: Call) -> Answer {
    let arguments = call.query.get("ps_args").unwrap_or("-ef");
    let arguments: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
    let top = call.engine.containers().top(call.name(), &arguments).await?;
    Ok(reply::ok(&json!({"Titles": top.titles, "Processes": top.processes})))
}
