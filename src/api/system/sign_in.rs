//! `auth`: whether a registry lets somebody in. No manager can ask that without an image yet.

use serde::Deserialize;

use super::super::call::Call;
use super::super::error::Failure;
use super::super::router::Answer;
use crate::error::Error;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SignIn {
    username: Option<String>,
    serveraddress: Option<String>,
}

pub(super) async fn sign_in(mut call: Call) -> Answer {
    let asked: SignIn = call.json().await?.unwrap_or_default();
    if asked.username.is_none_or(|name| name.is_empty()) {
        return Err(Failure::bad("no username was given"));
    }
    let registry = asked.serveraddress.unwrap_or_default();
    let needs =
        "a version of longshore that asks registries; credentials are checked when an image is pulled or pushed";
    Err(Error::unsupported(format!("signing in to {registry:?}"), needs).into())
}
