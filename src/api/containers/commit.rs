//! `commit`: of a container named in the query.

use hyper::StatusCode;
use serde_json::json;

use super::super::call::Call;
use super::super::error::Failure;
use super::super::images::reference;
use super::super::reply;
use super::super::router::Answer;
use crate::containers::CommitOptions;
use crate::images::RunConfig;

pub(super) async fn commit(mut call: Call) -> Answer {
    let config = call.json::<Option<RunConfig>>().await?.flatten();
    let text = |name: &str| call.query.get(name).unwrap_or_default().to_owned();
    let container = text("container");
    let options = CommitOptions {
        name: reference(&call.query, "repo", call.query.get("tag"))?,
        author: text("author"),
        message: text("comment"),
        changes: call.query.all("changes").map(str::to_owned).collect(),
        // Only where it is given does it say anything.
        pause: call.query.get("pause").is_none() || call.query.flag("pause"),
        config,
    };
    let container = container.strip_prefix('/').unwrap_or(&container);
    if container.is_empty() {
        return Err(Failure::bad("no container was named: container is missing"));
    }
    let image = call.engine.containers().commit(container, options).await?;
    Ok(reply::json(StatusCode::CREATED, &json!({"Id": image.to_string()})))
}
