//! Whether a plan is one as a whole. It is looked at before any of it is done: what the helper cannot do in full it refuses, and
//! does no part of.
//!
//! The peer that sends plans is trusted, and makes no others. A plan that is none is a mistake, or a message that somebody else has
//! written, and what would be left out of it may be what keeps a container in.

use super::wire::{MOST_MOUNTS, MountRecord, NO_FD, Plan, Section, field, flag, mount};

/// Whether each part of a plan means something; `has` says whether a descriptor came along at a position.
#[cfg_attr(not(test), unsafe(link_section = "lhchild"))]
pub(crate) fn is_whole(plan: &Plan<'_>, has: &dyn Fn(u32) -> bool) -> bool {
    plan.field(field::FLAGS) & !flag::ALL == 0
        && words_are_whole(plan)
        && lists_are_whole(plan)
        && descriptors_are_there(plan, has)
        && plan.mounts().count() <= MOST_MOUNTS
        && plan.mounts().all(|record| is_mount(plan, &record, has))
}

/// No record of words is cut short.
#[cfg_attr(not(test), unsafe(link_section = "lhchild"))]
fn words_are_whole(plan: &Plan<'_>) -> bool {
    const BYTES: [(Section, usize); 5] = [
        (Section::Gids, 4),
        (Section::Rlimits, 20),
        (Section::Devices, 24),
        (Section::Seccomp, 8),
        (Section::Squash, 8),
    ];
    BYTES
        .iter()
        .all(|(section, bytes)| plan.section(*section).len().is_multiple_of(*bytes))
}

/// Lists have as many items as what belongs to them.
#[cfg_attr(not(test), unsafe(link_section = "lhchild"))]
fn lists_are_whole(plan: &Plan<'_>) -> bool {
    let count = |section| plan.strings(section).count();
    // A tool has a place, and neither names nor a user.
    let texts = if plan.has(flag::TOOL) { 1 } else { 4 };
    let maps = if plan.has(flag::OWN_USERNS) { 2 } else { 0 };
    count(Section::Argv) > 0
        && count(Section::Texts) == texts
        && count(Section::DevicePaths) == plan.section(Section::Devices).len() / 24
        && count(Section::Sysctls).is_multiple_of(2)
        && count(Section::IdMaps) == maps
}

/// What a plan says of descriptors is about some that came along.
#[cfg_attr(not(test), unsafe(link_section = "lhchild"))]
fn descriptors_are_there(plan: &Plan<'_>, has: &dyn Fn(u32) -> bool) -> bool {
    // Not that of a container to join, without which a command goes nowhere.
    const OPTIONAL: [usize; 8] = [
        field::FD_STDIN,
        field::FD_STDOUT,
        field::FD_STDERR,
        field::FD_CGROUP,
        field::FD_JOIN_PID,
        field::FD_JOIN_IPC,
        field::FD_JOIN_NET,
        field::FD_JOIN_SHM,
    ];
    let there = |index: &usize| plan.field(*index) == NO_FD || has(plan.field(*index));
    let first = plan.field(field::FD_V1_FIRST);
    has(plan.field(field::FD_STATUS))
        && OPTIONAL.iter().all(there)
        && (0..plan.field(field::V1_COUNT)).all(|index| first.checked_add(index).is_some_and(has))
}

/// A mount has what its kind needs.
#[cfg_attr(not(test), unsafe(link_section = "lhchild"))]
fn is_mount(plan: &Plan<'_>, record: &MountRecord<'_>, has: &dyn Fn(u32) -> bool) -> bool {
    let position = record.flags >> mount::FD_SHIFT;
    let more = 2 * usize::from(record.flags & mount::OWN_MAP != 0) + usize::from(record.flags & mount::SUBPATH != 0);
    let strings = record.strings.clone().count();
    let known = record.flags & ((1 << mount::FD_SHIFT) - 1) & !mount::ALL == 0;
    let kind = match record.kind {
        mount::BIND => strings == 2 + more,
        mount::OVERLAY => strings >= 4 + more,
        mount::FILESYSTEM => strings >= 3 + more,
        mount::TREE => return known && strings == 2 + more && has(position),
        mount::SHARED_MEMORY => strings == 1 && plan.field(field::FD_JOIN_SHM) != NO_FD,
        _ => false,
    };
    known && kind && position == 0
}
