//! Names for containers that were given none.

use crate::types::{ContainerId, ContainerName};

const MOODS: [&str; 32] = [
    "amber", "brisk", "calm", "clear", "coastal", "deft", "early", "even", "fair", "fresh", "gentle", "high", "keen",
    "level", "light", "lively", "mellow", "misty", "neat", "noble", "open", "patient", "quick", "quiet", "ready",
    "sea", "silver", "steady", "sunny", "tidal", "warm", "wide",
];
const THINGS: [&str; 32] = [
    "anchor", "barge", "beacon", "berth", "bow", "buoy", "cable", "capstan", "cargo", "channel", "crane", "current",
    "deck", "dock", "ferry", "gull", "harbour", "hatch", "hold", "hull", "jetty", "keel", "mast", "mooring", "pier",
    "pilot", "quay", "rope", "sail", "sluice", "tide", "wharf",
];

/// A name drawn from the id's own randomness: two words and four hex digits, so that a clash is as good as impossible.
pub(crate) fn from_id(id: &ContainerId) -> ContainerName {
    let text = id.as_str();
    let pick = |at: usize| usize::from_str_radix(&text[at..at + 2], 16).unwrap_or(0) % 32;
    let name = format!("{}_{}_{}", MOODS[pick(20)], THINGS[pick(22)], &text[24..28]);
    name.parse()
        .unwrap_or_else(|_| unreachable!("two words and hex digits make a name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_makes_a_valid_name() {
        for _ in 0..200 {
            let name = from_id(&ContainerId::random());
            assert!(name.as_str().parse::<ContainerName>().is_ok());
        }
    }
}
