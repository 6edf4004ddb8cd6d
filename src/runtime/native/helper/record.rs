//! What a shim writes down: where its container is in its life, and how it ended. `core` only; it compiles into both sides.
//!
//! The file has two slots, written in turn, each with a checksum: a write that was cut short leaves the other slot as it was.
//! It has its full size from the first moment, so that no later write needs room on the disk. Little endian, as the schema's
//! number may outlive the machine's.

use super::health::Health;

/// Bytes of a slot.
pub(crate) const SLOT: usize = 256;
/// Bytes of the file.
pub(crate) const FILE: usize = 2 * SLOT;

const WORDS: usize = SLOT / 8;
/// "lsstate" and the schema's number.
const MAGIC: u64 = 0x0001_7461_7473_736c;
const HAS_EXIT: u64 = 1;
const HAS_OOM: u64 = 2;
const OOM: u64 = 4;
const HAS_FAILURE: u64 = 8;
const STDIN_CLOSED: u64 = 16;
const HAS_HEALTH: u64 = 32;

/// Values of [`State::phase`].
pub(crate) mod phase {
    pub(crate) const STARTING: u32 = 1;
    pub(crate) const RUNNING: u32 = 2;
    pub(crate) const RESTARTING: u32 = 3;
    pub(crate) const ENDED: u32 = 4;
}

/// The fields of `DetachedState`, and the boot in which they were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct State {
    pub(crate) boot: [u64; 2],
    pub(crate) change: u64,
    pub(crate) phase: u32,
    pub(crate) shim_pid: u32,
    pub(crate) pid: u32,
    pub(crate) start_ticks: u64,
    pub(crate) started_ns: i64,
    pub(crate) finished_ns: i64,
    /// The wait status of the last run that has ended.
    pub(crate) exit: Option<i32>,
    pub(crate) oom_killed: Option<bool>,
    pub(crate) restarts: u32,
    pub(crate) ends: u64,
    /// Step and errno.
    pub(crate) failure: Option<(u32, i32)>,
    pub(crate) lost_entries: u64,
    pub(crate) stdin_closed: bool,
    /// Of the present run, or of the last; `None` where nothing is probed, or not by the shim.
    pub(crate) health: Option<Health>,
}

fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

fn bit(set: bool, bit: u64) -> u64 {
    if set { bit } else { 0 }
}

/// FNV-1a: each byte's step can be undone, so that no single changed byte goes unseen.
pub(crate) fn checksum<'a>(bytes: impl IntoIterator<Item = &'a u8>) -> u64 {
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

impl State {
    pub(crate) fn encode(&self) -> [u8; SLOT] {
        let (step, errno) = self.failure.unwrap_or((0, 0));
        let health = self.health.unwrap_or(Health::NEW);
        let flags = bit(self.exit.is_some(), HAS_EXIT)
            | bit(self.oom_killed.is_some(), HAS_OOM)
            | bit(self.oom_killed == Some(true), OOM)
            | bit(self.failure.is_some(), HAS_FAILURE)
            | bit(self.stdin_closed, STDIN_CLOSED)
            | bit(self.health.is_some(), HAS_HEALTH);
        let words = [
            MAGIC,
            self.change,
            self.boot[0],
            self.boot[1],
            pair(self.phase, self.shim_pid),
            pair(self.pid, self.restarts),
            self.start_ticks,
            self.started_ns as u64,
            self.finished_ns as u64,
            flags,
            pair(self.exit.unwrap_or(0) as u32, step),
            u64::from(errno as u32),
            self.ends,
            self.lost_entries,
            // Older shims write zeros from here on, and older readers see no more.
            pair(health.status, health.streak),
            health.probes,
            u64::from(health.turns),
            health.since_ns as u64,
        ];
        let mut out = [0u8; SLOT];
        for (slot, word) in out.chunks_exact_mut(8).zip(words) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        if let Some((body, end)) = out.split_last_chunk_mut::<8>() {
            *end = checksum(&*body).to_le_bytes();
        }
        out
    }

    /// `None` for anything that was not written whole.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..SLOT)?;
        let word = |at: usize| {
            let part = bytes.get(at * 8..at * 8 + 8).and_then(|part| part.first_chunk::<8>());
            u64::from_le_bytes(*part.unwrap_or(&[0; 8]))
        };
        if word(0) != MAGIC || word(WORDS - 1) != checksum(bytes.get(..SLOT - 8)?) {
            return None;
        }
        let has = |bit: u64| word(9) & bit != 0;
        Some(Self {
            boot: [word(2), word(3)],
            change: word(1),
            phase: word(4) as u32,
            shim_pid: (word(4) >> 32) as u32,
            pid: word(5) as u32,
            restarts: (word(5) >> 32) as u32,
            start_ticks: word(6),
            started_ns: word(7) as i64,
            finished_ns: word(8) as i64,
            exit: has(HAS_EXIT).then_some(word(10) as i32),
            oom_killed: has(HAS_OOM).then_some(has(OOM)),
            failure: has(HAS_FAILURE).then_some(((word(10) >> 32) as u32, word(11) as i32)),
            ends: word(12),
            lost_entries: word(13),
            stdin_closed: has(STDIN_CLOSED),
            health: has(HAS_HEALTH).then_some(Health {
                status: word(14) as u32,
                streak: (word(14) >> 32) as u32,
                probes: word(15),
                turns: word(16) as u32,
                since_ns: word(17) as i64,
            }),
        })
    }

    /// Where in the file this is written.
    pub(crate) fn place(&self) -> usize {
        (self.change % 2) as usize * SLOT
    }
}

/// The newest of the states in a file that were written whole.
pub(crate) fn newest(file: &[u8]) -> Option<State> {
    let slot = |at: usize| file.get(at..).and_then(State::decode);
    match (slot(0), slot(SLOT)) {
        (Some(first), Some(second)) if second.change > first.change => Some(second),
        (first, second) => first.or(second),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn states() -> impl Strategy<Value = State> {
        let life = (
            any::<u64>(),
            1u32..5,
            any::<u32>(),
            any::<u32>(),
            any::<u64>(),
            any::<i64>(),
            any::<i64>(),
        );
        let end = (
            proptest::option::of(any::<i32>()),
            proptest::option::of(any::<bool>()),
            any::<u32>(),
            any::<u64>(),
            proptest::option::of((any::<u32>(), any::<i32>())),
            any::<u64>(),
            any::<[u64; 2]>(),
        );
        (life, end).prop_map(|(life, end)| State {
            boot: end.6,
            change: life.0,
            phase: life.1,
            shim_pid: life.2,
            pid: life.3,
            start_ticks: life.4,
            started_ns: life.5,
            finished_ns: life.6,
            exit: end.0,
            oom_killed: end.1,
            restarts: end.2,
            ends: end.3,
            failure: end.4,
            lost_entries: end.5,
            stdin_closed: life.4 % 2 == 1,
            health: (life.4 % 3 == 1).then_some(Health {
                status: life.1,
                streak: life.2,
                probes: life.4,
                turns: life.3,
                since_ns: life.5,
            }),
        })
    }

    /// A file whose two slots hold this state and the one before.
    fn file(state: &State) -> (Vec<u8>, State) {
        let state = State {
            change: state.change.max(1),
            ..*state
        };
        let before = State {
            change: state.change - 1,
            exit: None,
            ..state
        };
        let mut file = vec![0; FILE];
        for each in [&before, &state] {
            file[each.place()..each.place() + SLOT].copy_from_slice(&each.encode());
        }
        (file, before)
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(state in states()) {
            prop_assert_eq!(State::decode(&state.encode()), Some(state));
            let (file, before) = file(&state);
            prop_assert_eq!(newest(&file), Some(State { change: before.change + 1, ..state }));
        }

        #[test]
        fn a_changed_byte_is_never_believed(state in states(), at in 0..FILE, by in 1u8..) {
            let (mut file, before) = file(&state);
            let last = newest(&file);
            file[at] ^= by;
            let seen = newest(&file);
            prop_assert!(seen == last || seen == Some(before), "{:?}", seen);
        }

        #[test]
        fn garbage_is_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..2 * FILE)) {
            prop_assert_eq!(newest(&bytes), None);
        }
    }

    #[test]
    fn every_torn_write_leaves_the_state_before() {
        let old = State {
            change: 6,
            phase: phase::RUNNING,
            pid: 77,
            ..State::default()
        };
        let new = State {
            change: 8,
            phase: phase::ENDED,
            exit: Some(0x300),
            ends: 1,
            ..old
        };
        let other = State { change: 7, ..old };
        for written in 0..=SLOT {
            let mut file = vec![0; FILE];
            for each in [&old, &other] {
                file[each.place()..each.place() + SLOT].copy_from_slice(&each.encode());
            }
            file[new.place()..new.place() + written].copy_from_slice(&new.encode()[..written]);
            let expected = if file[..SLOT] == new.encode() { new } else { other };
            assert_eq!(newest(&file), Some(expected), "{written}");
            assert!(written < SLOT || expected == new);
        }
    }

    #[test]
    fn every_truncation_leaves_what_is_whole() {
        let first = State {
            change: 2,
            phase: phase::RUNNING,
            ..State::default()
        };
        let second = State {
            change: 3,
            phase: phase::ENDED,
            exit: Some(9),
            ends: 1,
            ..first
        };
        let file = [first.encode(), second.encode()].concat();
        for length in 0..=FILE {
            let expected = match length {
                FILE => Some(second),
                SLOT.. => Some(first),
                _ => None,
            };
            assert_eq!(newest(&file[..length]), expected, "{length}");
        }
    }
}
