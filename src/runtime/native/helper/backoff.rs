//! The pause before a container is started again. `core` only; it compiles into both sides.

/// The pause in milliseconds: `last` was the one before it, 0 if there was none, and `ran` is how long the container ran since.
pub(crate) fn pause(last: u64, ran: u64, first: u64, longest: u64, steady: u64) -> u64 {
    if last == 0 || ran >= steady {
        return first.min(longest);
    }
    last.saturating_mul(2).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of a container that is not detached: see `containers/policy.rs`.
    #[test]
    fn pauses_of_a_detached_container_grow_and_begin_anew() {
        let next = |last, ran| pause(last, ran, 100, 60_000, 10_000);
        let mut pauses = Vec::new();
        let mut last = 0;
        for _ in 0..12 {
            last = next(last, 0);
            pauses.push(last);
        }
        assert_eq!(pauses[..4], [100, 200, 400, 800]);
        assert_eq!(pauses[11], 60_000);
        assert_eq!(next(last, 10_000), 100);
        assert_eq!(next(u64::MAX, 0), 60_000);
    }
}
