//! `containers/prune`.

use serde_json::json;

use super::super::call::Call;
use super::super::filters;
use super::super::reply;
use super::super::router::Answer;

pub(super) async fn prune(call: Call) -> Answer {
    let pruned = call.engine.containers().prune(filters::read(&call.query)?).await?;
    Ok(reply::ok(&json!({
        "ContainersDeleted": pruned.removed,
        "SpaceReclaimed": pruned.reclaimed_bytes,
    })))
}
