//! The engine as a whole: ping, version, info, auth, events, disk usage.

mod ping;
mod version;

use super::router::{Route, routes};

/// Routes of the engine as a whole.
pub(super) const ROUTES: &[Route] = routes! {
    HEAD "_ping" => ping::ping;
    GET "_ping" => ping::ping;
    GET "version" => version::version;
};
