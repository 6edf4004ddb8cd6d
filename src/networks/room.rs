//! How much of what this process has containers may use for their ways out. Each connection of a container's, and each pair that exchanges
//! datagrams, is two descriptors of the process, which may need them for other things: without a bound one container could take them all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::resource::{Resource, getrlimit};

/// Fewer are of no use, and more are no room that anybody asks for.
const LEAST: u64 = 32;
const MOST: u64 = 16_384;

/// Places that are given to whoever comes first; no container has more than half of them.
#[derive(Debug)]
pub(crate) struct Room {
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// By containers' addresses.
    of: HashMap<IpAddr, usize>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    room: Arc<Room>,
    who: IpAddr,
}

impl Room {
    /// As much as uses half of the descriptors that this process may have at this moment.
    pub(super) fn of_this_process() -> Arc<Self> {
        let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
        Self::with((descriptors / 4).clamp(LEAST, MOST))
    }

    fn with(most: u64) -> Arc<Self> {
        Arc::new(Self {
            most: usize::try_from(most).unwrap_or(usize::MAX),
            taken: Mutex::default(),
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a container, if there is one for it.
    pub(super) fn take(self: &Arc<Self>, who: IpAddr) -> Option<Seat> {
        let mut taken = self.taken();
        let own = taken.of.get(&who).copied().unwrap_or(0);
        if taken.all >= self.most || own >= self.most / 2 {
            return None;
        }
        taken.all += 1;
        taken.of.insert(who, own + 1);
        Some(Seat {
            room: Arc::clone(self),
            who,
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.room.taken();
        taken.all = taken.all.saturating_sub(1);
        if let Some(own) = taken.of.get_mut(&self.who) {
            *own -= 1;
            if *own == 0 {
                taken.of.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i12_no_container_has_more_than_half_of_the_room() {
        let room = Room::with(10);
        let [one, other, third] = [1, 2, 3].map(|last| IpAddr::from([10, 0, 0, last]));
        let mut of_one: Vec<Seat> = std::iter::from_fn(|| room.take(one)).collect();
        let of_other: Vec<Seat> = std::iter::from_fn(|| room.take(other)).collect();
        assert_eq!((of_one.len(), of_other.len()), (5, 5));
        assert!(room.take(third).is_none(), "all of it is taken");
        of_one.pop();
        let seat = room.take(third).unwrap();
        assert!(room.take(one).is_none());
        drop((seat, of_one, of_other));
        let taken = room.taken();
        assert_eq!((taken.all, taken.of.len()), (0, 0));
    }
}
