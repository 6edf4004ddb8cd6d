//! `distribution/{name}/json`: what a registry holds under a name.

use serde_json::json;

use super::super::auth;
use super::super::call::Call;
use super::super::reply;
use super::super::router::Answer;
use super::manifests::descriptor;
use super::tag::named;
use crate::images::Credentials;

pub(super) async fn distribution(call: Call) -> Answer {
    let name = named(call.name(), None)?;
    let credentials = auth::credentials(&call)?.unwrap_or(Credentials::Anonymous);
    let found = call.engine.images().distribution(&name, credentials).await?;
    Ok(reply::ok(
        &json!({"Descriptor": descriptor(&found.descriptor), "Platforms": found.platforms}),
    ))
}
