//! Who is connected: a bound on all, and who gives way when it is reached. Whoever has not greeted
//! goes before somebody new is turned away: silence, however often, keeps nobody out.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smol::channel::{Receiver, Sender, bounded};

/// All connections.
#[derive(Debug)]
pub(super) struct Crowd {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Those that have not greeted, by age.
    strangers: BTreeMap<u64, Sender<Infallible>>,
    greeted: usize,
    next: u64,
}

/// One connection's place in the crowd, free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Arc<Crowd>,
    number: u64,
    /// Once it has greeted.
    kept: Option<Sender<Infallible>>,
    displaced: Receiver<Infallible>,
}

impl Crowd {
    /// Room for `most`, at least one.
    pub(super) fn of_at_most(most: usize) -> Arc<Self> {
        Arc::new(Self { most, state: Mutex::default() })
    }

    /// A place, if need be that of the oldest stranger; `None` when all have greeted.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Place> {
        let mut state = self.state();
        if state.strangers.len() + state.greeted >= self.most {
            state.strangers.pop_first()?;
        }
        let (sender, displaced) = bounded(1);
        let number = state.next;
        state.next += 1;
        state.strangers.insert(number, sender);
        Some(Place { crowd: self.clone(), number, kept: None, displaced })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Plain data, right after every statement: a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Ends when somebody else was given the place.
    pub(super) async fn displaced(&self) {
        // Nothing is ever sent: the other end is dropped.
        let _ = self.displaced.recv().await;
    }

    /// The connection has greeted: its place is its own, unless it was given away already.
    pub(super) fn keep(&mut self) {
        let mut state = self.crowd.state();
        if let Some(sender) = state.strangers.remove(&self.number) {
            state.greeted += 1;
            self.kept = Some(sender);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.crowd.state();
        match &self.kept {
            Some(_) => state.greeted -= 1,
            None => drop(state.strangers.remove(&self.number)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::vmm::deadline::within;

    fn is_displaced(place: &Place) -> bool {
        smol::block_on(within(Duration::from_millis(1), place.displaced())).is_some()
    }

    #[test]
    fn the_oldest_stranger_gives_way_and_who_has_greeted_never_does() {
        let crowd = Crowd::of_at_most(3);
        let mut places: Vec<Place> = (0..3).map(|_| crowd.enter().expect("room")).collect();
        places[0].keep();
        let fourth = crowd.enter().expect("the second gives way");
        assert_eq!(places.iter().map(is_displaced).collect::<Vec<_>>(), [false, true, false]);
        assert!(!is_displaced(&fourth));
    }

    #[test]
    fn a_crowd_of_acquaintances_lets_nobody_in_until_one_leaves() {
        let crowd = Crowd::of_at_most(2);
        let mut places: Vec<Place> = (0..2).map(|_| crowd.enter().expect("room")).collect();
        places.iter_mut().for_each(Place::keep);
        assert!(crowd.enter().is_none());
        places.pop();
        assert!(crowd.enter().is_some());
    }

    #[test]
    fn whoever_was_displaced_neither_keeps_nor_frees_the_place_of_another() {
        let crowd = Crowd::of_at_most(1);
        let mut first = crowd.enter().expect("room");
        let mut second = crowd.enter().expect("the first gives way");
        first.keep();
        drop(first);
        second.keep();
        assert!(crowd.enter().is_none());
    }
}
