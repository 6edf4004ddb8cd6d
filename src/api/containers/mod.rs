//! Containers: one verb, one file.

mod archive;
mod attach;
mod checkpoint;
mod commit;
mod create;
mod devices;
mod diff;
mod inspect;
mod limits;
mod list;
mod logs;
mod mounts;
mod networking;
mod prune;
mod remove;
mod rename;
mod resize;
mod start;
mod stats;
mod stop;
mod top;
mod update;
mod wait;

#[cfg(feature = "build")]
pub(super) use self::create::AskedUlimit;
#[cfg(test)]
pub(super) use self::inspect::body as inspect_body;
pub(super) use self::list::{add_sizes, summary};
pub(super) use self::logs::time as log_time;
pub(super) use self::resize::size as resize_size;
use super::router::{Route, routes};

/// Routes of containers.
pub(super) const ROUTES: &[Route] = routes! {
    GET "containers/json" => list::list;
    POST "containers/create" => create::create;
    POST "containers/prune" => prune::prune;
    POST "commit" => commit::commit;
    HEAD "containers/{id}/archive" => archive::stat;
    GET "containers/{id}/archive" => archive::get;
    PUT "containers/{id}/archive" => archive::put;
    GET "containers/{id}/changes" => diff::changes;
    GET "containers/{id}/export" => diff::export;
    GET "containers/{id}/json" => inspect::inspect;
    POST "containers/{id}/start" => start::start;
    POST "containers/{id}/stop" => stop::stop;
    POST "containers/{id}/restart" => stop::restart;
    POST "containers/{id}/kill" => stop::kill;
    POST "containers/{id}/pause" => stop::pause;
    POST "containers/{id}/unpause" => stop::unpause;
    POST "containers/{id}/wait" => wait::wait;
    DELETE "containers/{id}" => remove::remove;
    POST "containers/{id}/attach" => attach::attach;
    GET "containers/{id}/logs" => logs::logs;
    POST "containers/{id}/resize" => resize::resize;
    GET "containers/{id}/top" => top::top;
    GET "containers/{id}/stats" => stats::stats;
    POST "containers/{id}/rename" => rename::rename;
    POST "containers/{id}/update" => update::update;
    GET "containers/{id}/checkpoints" => checkpoint::list;
    POST "containers/{id}/checkpoints" => checkpoint::create;
    DELETE "containers/{id}/checkpoints/{name}" => checkpoint::remove;
};
