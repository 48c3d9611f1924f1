//! A waiting room: who waits for something that comes to all at once. Bounded, and with the age of who waits longest.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A room for a limited number of callers.
#[derive(Debug, Default)]
pub struct Room {
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    last: u64,
    /// When each came, in the order in which they came.
    since: BTreeMap<u64, Instant>,
}

/// A caller's place; left when it is dropped.
#[derive(Debug)]
pub struct Stay {
    room: Arc<Room>,
    number: u64,
}

impl Room {
    /// Takes a place; None when there are `limit` callers already.
    pub fn enter(self: &Arc<Self>, limit: usize, now: Instant) -> Option<Stay> {
        let mut inside = self.inside();
        if inside.since.len() >= limit {
            return None;
        }
        inside.last += 1;
        let number = inside.last;
        inside.since.insert(number, now);
        drop(inside);
        Some(Stay { room: Arc::clone(self), number })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.inside().since.len()
    }

    /// Whether nobody is there.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How long whoever came first has been there; zero when nobody is.
    pub fn age(&self, now: Instant) -> Duration {
        let inside = self.inside();
        inside.since.first_key_value().map_or(Duration::ZERO, |(_, since)| now.saturating_duration_since(*since))
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        // Nothing in here panics half-way.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.room.inside().since.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_room_is_bounded_and_knows_who_waits_longest() {
        let (room, now) = (Arc::<Room>::default(), clock::now());
        let second = Duration::from_secs(1);
        let first = room.enter(2, now).expect("a place");
        let other = room.enter(2, now + second).expect("a place");
        assert!(room.enter(2, now).is_none(), "it is full");
        assert!(room.enter(3, now).is_some(), "the limit is the present one");
        assert_eq!((room.len(), room.age(now + 3 * second)), (2, 3 * second));
        drop(first);
        assert_eq!((room.len(), room.age(now + 3 * second)), (1, 2 * second));
        assert!(room.enter(2, now).is_some(), "a place was left");
        drop(other);
        assert!(room.is_empty() && room.age(now) == Duration::ZERO);
    }
}
