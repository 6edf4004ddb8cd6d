//! The choice of a platform from an index. Pure.

use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::types::{Descriptor, Platform};

/// How many platforms an error lists.
const MAX_LISTED: usize = 30;

/// Chooses the entry that fits best: the very platform, then one without a variant, then one with a variant that the
/// wanted processor runs too, the highest first. Among equals the first one in the index wins. The only entry of an index
/// that says nothing about platforms is taken as well; the image's config will tell.
///
/// # Errors
/// `NotFound` listing what there is.
pub(crate) fn choose(entries: &[Descriptor], wanted: &Platform, image: &str) -> Result<Descriptor> {
    if let [only] = entries
        && only.platform.is_none()
    {
        return Ok(only.clone());
    }
    let ranked = entries
        .iter()
        .filter_map(|entry| Some((rank(wanted, entry.platform.as_ref()?)?, entry)));
    // `min_by_key` gives the first of equals.
    let best = ranked.min_by_key(|(rank, _)| *rank);
    best.map(|(_, entry)| entry.clone())
        .ok_or_else(|| nothing(entries, wanted, image))
}

/// How good a fit is: 0 is best, none is no fit.
fn rank(wanted: &Platform, offered: &Platform) -> Option<u32> {
    if wanted.os != offered.os || wanted.architecture != offered.architecture {
        return None;
    }
    match (variant(wanted), variant(offered)) {
        (wanted, offered) if wanted == offered => Some(0),
        (_, None) => Some(1),
        // Nobody asked for a variant: the lowest asks least of the processor.
        (None, Some(offered)) => Some(level(offered).map_or(u32::MAX, |level| 2 + level)),
        (Some(wanted), Some(offered)) => level(wanted)?.checked_sub(level(offered)?).map(|below| 2 + below),
    }
}

/// The variant, where it is not the one that everybody means. Source: `Normalize` of containerd's platforms package.
fn variant(platform: &Platform) -> Option<&str> {
    match (platform.architecture.as_str(), platform.variant.as_deref()) {
        ("arm64", Some("v8" | "8")) | ("amd64", Some("v1")) | (_, Some("")) => None,
        ("arm", None) => Some("v7"),
        (_, variant) => variant,
    }
}

/// `v7` is 7. A processor runs code for a lower number of its architecture.
fn level(variant: &str) -> Option<u32> {
    let digits: u16 = variant.strip_prefix('v').unwrap_or(variant).parse().ok()?;
    Some(digits.into())
}

fn nothing(entries: &[Descriptor], wanted: &Platform, image: &str) -> Error {
    let mut there: Vec<String> = entries
        .iter()
        .filter_map(|entry| entry.platform.as_ref())
        .map(shown)
        .collect();
    there.retain(|platform| platform != "unknown/unknown");
    there.truncate(MAX_LISTED);
    let there = if there.is_empty() {
        "none that are named".to_owned()
    } else {
        there.join(", ")
    };
    let message = format!("{image} is not there for {wanted}; available platforms: {there}");
    Error::new(ErrorKind::NotFound, message).with_object(ObjectKind::Image, image)
}

/// A stranger's words, fit to print.
fn shown(platform: &Platform) -> String {
    platform
        .to_string()
        .chars()
        .filter(|c| !c.is_control())
        .take(60)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Digest, MediaType};

    fn entries(platforms: &[&str]) -> Vec<Descriptor> {
        let entry = |(n, text): (usize, &&str)| Descriptor {
            media_type: MediaType("m".into()),
            digest: Digest::of(&[n as u8]),
            size: n as u64,
            platform: (!text.is_empty()).then(|| text.parse().unwrap()),
            annotations: Default::default(),
        };
        platforms.iter().enumerate().map(entry).collect()
    }

    fn chosen(wanted: &str, platforms: &[&str]) -> Option<u64> {
        choose(&entries(platforms), &wanted.parse().unwrap(), "app")
            .ok()
            .map(|entry| entry.size)
    }

    #[test]
    fn the_best_fit_wins() {
        let table: &[(&str, &[&str], Option<u64>)] = &[
            ("linux/amd64", &["linux/arm64", "linux/amd64"], Some(1)),
            (
                "linux/amd64",
                &["linux/amd64/v3", "linux/amd64/v2", "linux/amd64"],
                Some(2),
            ),
            ("linux/amd64", &["linux/amd64/v3", "linux/amd64/v2"], Some(1)),
            (
                "linux/amd64/v3",
                &["linux/amd64", "linux/amd64/v2", "linux/amd64/v3"],
                Some(2),
            ),
            ("linux/arm64/v8", &["linux/arm64"], Some(0)),
            ("linux/arm64", &["linux/arm64/v8"], Some(0)),
            ("linux/arm/v7", &["linux/arm/v5", "linux/arm/v6"], Some(1)),
            ("linux/arm/v6", &["linux/arm/v7"], None),
            (
                "linux/amd64",
                &["unknown/unknown", "windows/amd64", "linux/amd64", "linux/amd64"],
                Some(2),
            ),
            ("linux/amd64", &["windows/amd64"], None),
            ("linux/amd64", &[""], Some(0)),
            ("linux/amd64", &["", ""], None),
            ("linux/amd64", &[], None),
        ];
        for (wanted, platforms, expected) in table {
            assert_eq!(chosen(wanted, platforms), *expected, "{wanted} of {platforms:?}");
        }
    }

    #[test]
    fn a_missing_platform_lists_the_others() {
        let wanted = "linux/s390x".parse().unwrap();
        let error = choose(
            &entries(&["linux/amd64", "unknown/unknown", "linux/arm64/v8"]),
            &wanted,
            "app:1",
        )
        .unwrap_err();
        assert!(error.is_not_found());
        assert_eq!(
            error.to_string(),
            "app:1 is not there for linux/s390x; available platforms: linux/amd64, linux/arm64/v8"
        );
    }
}
