//! Containers.

mod list;

use super::router::{Route, routes};

/// Routes of containers.
pub(super) const ROUTES: &[Route] = routes! {
    GET "containers/json" => list::list;
};
