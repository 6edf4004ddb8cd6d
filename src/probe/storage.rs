//! Layers without copies.

use std::fs;

use super::{Feature, module, release};

pub(super) fn features() -> Vec<Feature> {
    vec![overlay(), overlay_in_user_namespace()]
}

const REMEDY: &str = "as root, `modprobe overlay`, or a kernel with CONFIG_OVERLAY_FS (until then layers are copied)";

fn overlay() -> Feature {
    if registered() {
        return Feature::yes("overlay", "the kernel has it");
    }
    match (module("overlay"), nix::unistd::geteuid().is_root()) {
        (Some(true), true) => Feature::yes("overlay", "a module, loaded at the first mount"),
        (Some(true), false) => Feature::no("overlay", "a module that is not loaded", REMEDY),
        (Some(false), _) => Feature::no("overlay", "the kernel lacks it", REMEDY),
        (None, _) => Feature::unknown("overlay", "not registered, and there is no list of modules"),
    }
}

fn registered() -> bool {
    let text = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    text.lines()
        .any(|line| line.split_whitespace().last() == Some("overlay"))
}

/// Since Linux 5.11, with extended attributes of the `user` class.
fn overlay_in_user_namespace() -> Feature {
    const NAME: &str = "overlay_userns";
    let release = release();
    let mut numbers = release.split('.').map(|part| part.parse().unwrap_or(0u32));
    let new_enough = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (5, 11);
    if !new_enough {
        return Feature::no(
            NAME,
            release,
            "boot Linux 5.11 or newer (until then ordinary users' layers are copied)",
        );
    }
    if registered() {
        return Feature::yes(NAME, "by the kernel's version");
    }
    // A mount in a user namespace may not load modules.
    match module("overlay") {
        Some(true) => Feature::no(NAME, "a module that is not loaded", REMEDY),
        Some(false) => Feature::no(NAME, "the kernel lacks it", REMEDY),
        None => Feature::unknown(NAME, "not registered, and there is no list of modules"),
    }
}
