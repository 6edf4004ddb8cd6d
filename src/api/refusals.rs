//! What Docker has and longshore does not: swarms, plugins, and what is not there yet. Each is answered in a way that
//! clients understand.

use hyper::StatusCode;
use serde_json::json;

use super::call::Call;
use super::error::Failure;
use super::reply;
use super::router::{Answer, Route, routes};
use crate::error::{Error, ErrorKind};

/// Routes that lead to a refusal.
pub(super) const ROUTES: &[Route] = routes! {
    GET "swarm" => swarm;
    POST "swarm/leave" => outside_swarm;
    POST "swarm/{verb}" => swarm;
    GET "swarm/unlockkey" => swarm;
    GET "nodes" => swarm;
    GET "nodes/{id}" => swarm;
    DELETE "nodes/{id}" => swarm;
    POST "nodes/{id}/update" => swarm;
    GET "services" => swarm;
    POST "services/create" => swarm;
    GET "services/{id}" => swarm;
    DELETE "services/{id}" => swarm;
    POST "services/{id}/update" => swarm;
    GET "services/{id}/logs" => swarm;
    GET "tasks" => swarm;
    GET "tasks/{id}" => swarm;
    GET "tasks/{id}/logs" => swarm;
    GET "secrets" => swarm;
    POST "secrets/create" => swarm;
    GET "secrets/{id}" => swarm;
    DELETE "secrets/{id}" => swarm;
    POST "secrets/{id}/update" => swarm;
    GET "configs" => swarm;
    POST "configs/create" => swarm;
    GET "configs/{id}" => swarm;
    DELETE "configs/{id}" => swarm;
    POST "configs/{id}/update" => swarm;
    PUT "volumes/{name}" => swarm;
    GET "plugins" => no_plugins;
    GET "plugins/privileges" => plugins;
    POST "plugins/pull" => plugins;
    POST "plugins/create" => plugins;
    GET "plugins/{name*}/json" => missing_plugin;
    DELETE "plugins/{name*}" => missing_plugin;
    POST "plugins/{name*}/enable" => missing_plugin;
    POST "plugins/{name*}/disable" => missing_plugin;
    POST "plugins/{name*}/upgrade" => missing_plugin;
    POST "plugins/{name*}/push" => missing_plugin;
    POST "plugins/{name*}/set" => missing_plugin;
    POST "build/cancel" => cancel_build;
    POST "session" => build_kit;
    POST "grpc" => build_kit;
    GET "images/search" => search;
    GET "images/{name*}/attestations" => attestations;
    GET "containers/{id}/attach/ws" => websocket;
};

/// Without the builder.
#[cfg(not(feature = "build"))]
pub(super) const NO_BUILDS: &[Route] = routes! {
    POST "build" => build;
    POST "build/prune" => build;
};

/// In the words of an engine outside a swarm, with the code that clients take for it.
async fn swarm(_call: Call) -> Answer {
    let message = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to \
                   swarm and try again.";
    let kind = ErrorKind::Unsupported {
        needs: "an orchestrator".into(),
    };
    Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, &kind, message))
}

async fn outside_swarm(_call: Call) -> Answer {
    let kind = ErrorKind::Unsupported {
        needs: "an orchestrator".into(),
    };
    let message = "This node is not part of a swarm";
    Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, &kind, message))
}

async fn no_plugins(_call: Call) -> Answer {
    Ok(reply::ok(&json!([])))
}

async fn plugins(_call: Call) -> Answer {
    later(
        "plugins",
        "drivers given to the engine in code; see the seams in the crate's documentation",
    )
}

async fn missing_plugin(call: Call) -> Answer {
    let message = format!("plugin \"{}\" not found", call.name());
    Err(Failure::new(StatusCode::NOT_FOUND, &ErrorKind::NotFound, message))
}

fn later(what: &'static str, needs: &'static str) -> Answer {
    Err(Error::unsupported(what, needs).into())
}

#[cfg(not(feature = "build"))]
async fn build(_call: Call) -> Answer {
    later("building images", "longshore with its feature `build`")
}

async fn cancel_build(_call: Call) -> Answer {
    later(
        "ending a build by its number",
        "the end of the connection that asked for it",
    )
}

async fn build_kit(_call: Call) -> Answer {
    later("BuildKit", "Docker's own builder: DOCKER_BUILDKIT=0 at the client")
}

async fn search(_call: Call) -> Answer {
    later("searching registries", "the registry's own search")
}

async fn attestations(_call: Call) -> Answer {
    later("attestations", "a version of longshore that has them")
}

async fn websocket(_call: Call) -> Answer {
    later("attaching over a websocket", "POST /containers/{id}/attach")
}
