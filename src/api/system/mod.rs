//! The engine as a whole: ping, version, info, auth, events, disk usage.

mod df;
mod events;
mod info;
mod ping;
mod sign_in;
mod steps;
mod version;

#[cfg(test)]
pub(super) use self::{events::of as event_body, info::body as info_body, version::body as version_body};
use super::router::{Route, routes};

/// Routes of the engine as a whole.
pub(super) const ROUTES: &[Route] = routes! {
    HEAD "_ping" => ping::ping;
    GET "_ping" => ping::ping;
    GET "version" => version::version;
    GET "info" => info::info;
    POST "auth" => sign_in::sign_in;
    GET "events" => events::events;
    GET "system/df" => df::df;
};
