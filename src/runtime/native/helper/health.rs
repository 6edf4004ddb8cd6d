//! A container's health as its shim sees it, and what it writes down of each probe. `core` only; it compiles into both sides.
//!
//! The file of probes has a slot for each of the last five, written in turn, each with a checksum. It has its full size from the
//! first moment, as the file of the state. Little endian.

use super::record::checksum;

/// How many probes are remembered.
pub(crate) const KEPT: u64 = 5;
/// How much of what a probe printed.
pub(crate) const OUTPUT: usize = 4096;
/// Bytes before that.
pub(crate) const HEAD: usize = 72;
/// Bytes of a probe.
pub(crate) const SLOT: usize = HEAD + OUTPUT;
/// Bytes of the file.
pub(crate) const FILE: usize = SLOT * KEPT as usize;

/// "lsprobe" and the schema's number.
const MAGIC: u64 = 0x0165_626f_7270_736c;
const WORDS: usize = HEAD / 8;

/// Values of [`Health::status`].
pub(crate) mod status {
    pub(crate) const STARTING: u32 = 1;
    pub(crate) const HEALTHY: u32 = 2;
    pub(crate) const UNHEALTHY: u32 = 3;
}

/// Values of [`Probe::outcome`].
pub(crate) mod outcome {
    /// It ended; the value is its wait status.
    pub(crate) const ENDED: u32 = 1;
    /// It took too long, and was killed.
    pub(crate) const OVERRAN: u32 = 2;
    /// It could not be run; the value is an errno.
    pub(crate) const FAILED: u32 = 3;
}

/// The health of the present run, or of the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) status: u32,
    /// Failures in a row that count.
    pub(crate) streak: u32,
    /// How many probes there were.
    pub(crate) probes: u64,
    /// How often the status has changed: as the first change leaves `STARTING` for good, this tells them all.
    pub(crate) turns: u32,
    /// When it did last.
    pub(crate) since_ns: i64,
}

impl Health {
    pub(crate) const NEW: Self = Self {
        status: status::STARTING,
        streak: 0,
        probes: 0,
        turns: 0,
        since_ns: 0,
    };

    /// Takes a probe's result in, as `containers/health.rs` does. `counts`: a failure is no longer one of the start period. Says
    /// whether the status changed.
    pub(crate) fn take(&mut self, well: bool, counts: bool, retries: u32, now_ns: i64) -> bool {
        let before = self.status;
        self.probes += 1;
        if well {
            self.streak = 0;
            self.status = status::HEALTHY;
        } else if counts || before != status::STARTING {
            self.streak = self.streak.saturating_add(1);
            if self.streak >= retries {
                self.status = status::UNHEALTHY;
            }
        }
        if self.status == before {
            return false;
        }
        self.turns = self.turns.saturating_add(1);
        self.since_ns = now_ns;
        true
    }
}

/// How a probe went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Probe {
    /// 1 for the first of a run.
    pub(crate) number: u64,
    pub(crate) start_ns: i64,
    pub(crate) end_ns: i64,
    pub(crate) outcome: u32,
    pub(crate) value: i32,
    /// The step that failed.
    pub(crate) step: u32,
    /// Bytes that it printed, and that are kept. Of one that could not be run: the name of what that was about.
    pub(crate) len: u32,
    /// When the run began.
    pub(crate) run_ns: i64,
}

impl Probe {
    /// Puts it before its output, in a slot.
    pub(crate) fn encode(&self, slot: &mut [u8]) {
        let words = [
            MAGIC,
            self.number,
            self.start_ns as u64,
            self.end_ns as u64,
            u64::from(self.outcome) | u64::from(self.value as u32) << 32,
            u64::from(self.step) | u64::from(self.len) << 32,
            self.run_ns as u64,
            0,
        ];
        for (place, word) in slot.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let sum = sum(slot, self.len);
        if let Some(place) = slot.get_mut(HEAD - 8..HEAD) {
            place.copy_from_slice(&sum.to_le_bytes());
        }
    }

    /// A probe and its output; `None` for anything that was not written whole.
    pub(crate) fn decode(slot: &[u8]) -> Option<(Self, &[u8])> {
        let word = |at: usize| {
            let part = slot.get(at * 8..at * 8 + 8).and_then(|part| part.first_chunk::<8>());
            part.map(|part| u64::from_le_bytes(*part))
        };
        let probe = Self {
            number: word(1)?,
            start_ns: word(2)? as i64,
            end_ns: word(3)? as i64,
            outcome: word(4)? as u32,
            value: (word(4)? >> 32) as i32,
            step: word(5)? as u32,
            len: (word(5)? >> 32) as u32,
            run_ns: word(6)? as i64,
        };
        let output = slot.get(HEAD..HEAD.checked_add(probe.len as usize)?)?;
        (word(0)? == MAGIC && word(WORDS - 1)? == sum(slot, probe.len)).then_some((probe, output))
    }

    /// Where in the file it is written.
    pub(crate) fn place(&self) -> usize {
        (self.number % KEPT) as usize * SLOT
    }
}

fn sum(slot: &[u8], len: u32) -> u64 {
    let head = slot.get(..HEAD - 8).unwrap_or(&[]);
    let output = slot.get(HEAD..HEAD + len as usize).unwrap_or(&[]);
    checksum(head.iter().chain(output))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn g11_a_shim_s_health_is_that_of_an_engine() {
        use crate::containers::{Health as Engines, HealthStatus, ProbeResult};
        let result = |exit_code| ProbeResult {
            start: std::time::SystemTime::UNIX_EPOCH,
            end: std::time::SystemTime::UNIX_EPOCH,
            exit_code,
            output: String::new(),
        };
        // Every sequence of eight: failures of the start period, failures, successes.
        for sequence in 0..3u32.pow(8) {
            let (mut shims, mut engines) = (Health::NEW, Engines::default());
            let (mut rest, mut turns) = (sequence, 0);
            for at in 0..8 {
                let (well, counts) = (rest % 3 == 2, rest % 3 >= 1);
                rest /= 3;
                let changed = shims.take(well, counts, 2, at);
                assert_eq!(changed, engines.take(result(i32::from(!well)), counts, 2));
                turns += u32::from(changed);
                let expected = match engines.status {
                    HealthStatus::Starting => status::STARTING,
                    HealthStatus::Healthy => status::HEALTHY,
                    _ => status::UNHEALTHY,
                };
                assert_eq!((shims.status, shims.streak), (expected, engines.failing_streak));
                assert_eq!((shims.turns, shims.probes), (turns, at as u64 + 1));
                assert!(!changed || shims.since_ns == at);
            }
        }
    }

    fn written(probe: Probe, output: &[u8]) -> Vec<u8> {
        let mut slot = vec![0; SLOT];
        slot[HEAD..HEAD + output.len()].copy_from_slice(output);
        probe.encode(&mut slot);
        slot
    }

    fn probes() -> impl Strategy<Value = (Probe, Vec<u8>)> {
        let output = proptest::collection::vec(any::<u8>(), 0..=OUTPUT);
        let words = (any::<u64>(), any::<[i64; 3]>(), any::<[u32; 2]>(), any::<i32>());
        (words, output).prop_map(|((number, times, [outcome, step], value), output)| {
            let probe = Probe {
                number,
                start_ns: times[0],
                end_ns: times[1],
                run_ns: times[2],
                outcome,
                value,
                step,
                len: output.len() as u32,
            };
            (probe, output)
        })
    }

    proptest! {
        #[test]
        fn g11_what_was_written_of_a_probe_is_read((probe, output) in probes()) {
            prop_assert!(probe.place() + SLOT <= FILE);
            let slot = written(probe, &output);
            prop_assert_eq!(Probe::decode(&slot), Some((probe, &output[..])));
        }

        #[test]
        fn g11_a_changed_byte_of_a_probe_is_never_believed((probe, output) in probes(), at: prop::sample::Index, by in 1u8..) {
            let mut slot = written(probe, &output);
            let at = at.index(HEAD + output.len());
            slot[at] ^= by;
            // The word without a meaning is part of the sum as well.
            prop_assert_eq!(Probe::decode(&slot), None);
        }

        #[test]
        fn g11_garbage_is_no_probe(bytes in proptest::collection::vec(any::<u8>(), 0..2 * HEAD)) {
            prop_assert_eq!(Probe::decode(&bytes), None);
        }
    }
}
