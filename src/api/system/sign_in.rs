//! `auth`: whether a registry takes somebody's credentials.

use hyper::StatusCode;
use serde_json::json;

use super::super::auth::{self, Auth};
use super::super::call::Call;
use super::super::error::Failure;
use super::super::reply;
use super::super::router::Answer;
use crate::error::{Error, ErrorKind};

/// The registry that is meant where none is named, in the words of references.
const HUB: &str = "docker.io";

pub(super) async fn sign_in(mut call: Call) -> Answer {
    let asked: Auth = call.json().await?.unwrap_or_default();
    let registry = host(asked.serveraddress.as_deref().unwrap_or_default()).to_owned();
    let credentials = auth::from(asked).ok_or_else(|| Failure::bad("`auth` is not user:password in base64"))?;
    let credentials = credentials.ok_or_else(|| Failure::bad("no username was given"))?;
    let checked = call.engine.images().login(&registry, credentials).await;
    checked.map_err(|error| failure(&registry, error))?;
    // An identity token would stand for the password from now on; no token service is asked for one.
    Ok(reply::ok(&json!({"Status": "Login Succeeded", "IdentityToken": ""})))
}

/// The host of what clients call a registry: an address with or without a scheme, and Docker Hub's old path.
fn host(address: &str) -> &str {
    let address = address.trim();
    let rest = address.split_once("://").map_or(address, |(_scheme, rest)| rest);
    match rest.split('/').next().unwrap_or_default() {
        "" | "index.docker.io" | "registry-1.docker.io" => HUB,
        host => host,
    }
}

/// Docker's words for who is not let in, and for a registry that cannot be asked. Source: moby, `registry.loginV2`.
fn failure(registry: &str, error: Error) -> Failure {
    let (status, why) = match error.kind() {
        ErrorKind::Denied => (StatusCode::UNAUTHORIZED, "unauthorized: "),
        ErrorKind::Unavailable | ErrorKind::Timeout => (StatusCode::INTERNAL_SERVER_ERROR, ""),
        _ => return error.into(),
    };
    let message = format!("Get \"https://{registry}/v2/\": {why}{}", error.report());
    Failure::from(error).say(message).status(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c2_registries_as_clients_name_them() {
        for (address, expected) in [
            ("", HUB),
            ("https://index.docker.io/v1/", HUB),
            ("docker.io", HUB),
            ("127.0.0.1:5000", "127.0.0.1:5000"),
            ("http://localhost:5000/v2/", "localhost:5000"),
            (" ghcr.io ", "ghcr.io"),
        ] {
            assert_eq!(host(address), expected, "{address:?}");
        }
    }

    #[test]
    fn c2_who_is_not_let_in_is_told_in_docker_s_words() {
        let denied = failure("x:5000", Error::new(ErrorKind::Denied, "wrong password"));
        assert_eq!(denied.status, 401);
        assert_eq!(
            denied.message,
            "Get \"https://x:5000/v2/\": unauthorized: wrong password"
        );
        assert_eq!(denied.detail["kind"], "denied");
        assert_eq!(failure("x", Error::invalid("no")).status, 400);
    }
}
