//! Limits: which cgroups this user may make, with which controllers.

use super::Feature;
use crate::runtime::cgroups::CgroupMode;
use crate::runtime::cgroups::place::{Home, Places};

pub(super) fn features() -> Vec<Feature> {
    let places = Places::find();
    let mut features = vec![mode(&places), kill(&places)];
    let controllers = [
        ("cgroup_memory", "memory"),
        ("cgroup_cpu", "cpu"),
        ("cgroup_pids", "pids"),
        ("cgroup_cpuset", "cpuset"),
    ];
    features.extend(controllers.map(|(name, controller)| of_controller(&places, name, controller)));
    features
}

fn mode(places: &Places) -> Feature {
    let host = match (&places.layout.v2, places.layout.v1.is_empty()) {
        (Some(_), true) => "v2",
        (Some(_), false) => "hybrid",
        (None, false) => "v1",
        (None, true) => "none",
    };
    match places.mode() {
        CgroupMode::None => Feature::no(
            "cgroup",
            format!("host: {host}; none that this user may write"),
            places.remedy("memory"),
        ),
        usable => Feature::yes("cgroup", format!("host: {host}; usable: {usable}")),
    }
}

/// A whole container at once, and birth inside the cgroup: both are of version 2.
fn kill(places: &Places) -> Feature {
    const NAME: &str = "cgroup_kill";
    match (&places.v2, &places.layout.v2) {
        (Some(home), _) => Feature::yes(NAME, format!("below {}", home.dir.display())),
        (None, Some(_)) => Feature::no(
            NAME,
            "version 2 is mounted, but not for this user",
            places.remedy_kill(),
        ),
        (None, None) => Feature::no(NAME, "version 2 is not mounted", places.remedy_kill()),
    }
}

fn of_controller(places: &Places, name: &'static str, controller: &str) -> Feature {
    match places.of_controller(controller) {
        Some(Home { v2, dir, .. }) => Feature::yes(
            name,
            format!("version {} below {}", if *v2 { 2 } else { 1 }, dir.display()),
        ),
        None => Feature::no(name, format!("no {controller} limits"), places.remedy(controller)),
    }
}
