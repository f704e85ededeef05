//! Places for connections of guests: so many in all, so many of one address.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

/// A number of places.
#[derive(Debug, Clone)]
pub(super) struct Places {
    taken: Arc<Mutex<Vec<Ipv4Addr>>>,
    in_all: usize,
    of_one: usize,
}

impl Places {
    /// All of them free.
    pub fn new(in_all: usize, of_one: usize) -> Self {
        Self { taken: Arc::default(), in_all, of_one }
    }

    /// A place for `address`, unless there is none left for it.
    pub fn enter(&self, address: Ipv4Addr) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_one = taken.iter().filter(|other| **other == address).count();
        if taken.len() >= self.in_all || of_one >= self.of_one {
            return None;
        }
        taken.push(address);
        Some(Place { taken: self.taken.clone(), address })
    }
}

/// A place that is taken, until dropped.
pub(super) struct Place {
    taken: Arc<Mutex<Vec<Ipv4Addr>>>,
    address: Ipv4Addr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = taken.iter().position(|other| *other == self.address) {
            taken.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_leaves_room_for_others_and_places_come_back() {
        let (places, one, other) = (Places::new(3, 2), Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let mut held: Vec<Place> = (0..2).filter_map(|_| places.enter(one)).collect();
        assert!(held.len() == 2 && places.enter(one).is_none());
        held.extend(places.enter(other));
        assert!(held.len() == 3 && places.enter(other).is_none());
        held.remove(0);
        assert!(places.enter(one).is_some());
    }
}
