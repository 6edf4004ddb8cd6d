//! Images: one verb, one file.

mod archive;
mod create;
mod distribution;
mod history;
mod inspect;
mod list;
mod manifests;
mod progress;
mod prune;
mod push;
mod remove;
mod tag;

#[cfg(feature = "build")]
pub(super) use self::archive::platform_of;
pub(super) use self::archive::reference;
#[cfg(test)]
pub(super) use self::inspect::body as inspect_body;
pub(super) use self::list::{add_usage, known, summary};
pub(super) use self::manifests::manifest_of;
use super::router::{Route, routes};

/// Routes of images.
pub(super) const ROUTES: &[Route] = routes! {
    GET "images/json" => list::list;
    POST "images/create" => create::create;
    POST "images/load" => archive::load;
    POST "images/prune" => prune::prune;
    GET "images/get" => archive::save_many;
    GET "images/{name*}/json" => inspect::inspect;
    GET "distribution/{name*}/json" => distribution::distribution;
    GET "images/{name*}/history" => history::history;
    GET "images/{name*}/get" => archive::save_one;
    POST "images/{name*}/push" => push::push;
    POST "images/{name*}/tag" => tag::tag;
    DELETE "images/{name*}" => remove::remove;
};
