//! What is remembered of a guest's way out: what its names led to, which names were refused, what is open.
//! Bounded: a guest that asks for a million names costs no more than one that asks for a thousand.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::model::egress::Opening;
use crate::model::secret::SecretHost;

/// Most names, addresses and openings that are remembered, of each kind.
const KEPT: usize = 1024;

/// Most letters of a failure that are remembered.
const WHY: usize = 300;

/// Questions per second that a guest may ask for long, and how many at once.
const PACE: u32 = 200;
const BURST: u32 = 1000;

/// One guest.
#[derive(Debug)]
pub(super) struct Outward {
    /// What an address was called when it was looked up last.
    names: HashMap<Ipv4Addr, String>,
    /// Names that are not granted, and how often each was asked for.
    refused: Counted,
    /// Granted names that led to addresses which are not opened by name.
    filtered: Counted,
    /// Until when what is open.
    open: HashMap<(Ipv4Addr, Option<u16>), Instant>,
    /// What became of requests to the hosts of its secrets, of which there are few.
    secrets: BTreeMap<String, Sent>,
    /// How many questions may come now, as of when.
    allowance: (u32, Instant),
}

/// Names and how often, up to a number of them.
#[derive(Debug, Default)]
pub(super) struct Counted {
    names: BTreeMap<String, u64>,
    beyond: u64,
}

impl Counted {
    fn count(&mut self, name: &str) {
        if let Some(count) = self.names.get_mut(name) {
            *count = count.saturating_add(1);
        } else if self.names.len() < KEPT {
            self.names.insert(name.to_owned(), 1);
        } else {
            self.beyond = self.beyond.saturating_add(1);
        }
    }

    /// Each name, and how often.
    pub fn names(&self) -> impl Iterator<Item = (&String, u64)> {
        self.names.iter().map(|(name, count)| (name, *count))
    }

    /// How often one for which there was no room.
    pub fn beyond(&self) -> u64 {
        self.beyond
    }
}

/// What became of requests to the host of a secret.
#[derive(Debug, Clone, Default)]
pub(super) struct Sent {
    /// Requests that were sent on.
    pub requests: u64,
    /// How many of them carried a secret.
    pub with_secret: u64,
    /// What came to nothing.
    pub failed: u64,
    /// Why the last of it did.
    pub last_failure: Option<String>,
}

impl Outward {
    /// Of a guest that has asked nothing.
    pub fn new() -> Self {
        Self {
            names: HashMap::new(),
            refused: Counted::default(),
            filtered: Counted::default(),
            open: HashMap::new(),
            secrets: BTreeMap::new(),
            allowance: (BURST, Instant::now()),
        }
    }

    /// Whether one more question is heard.
    pub fn may_ask(&mut self, now: Instant) -> bool {
        let (left, since) = self.allowance;
        let earned = now.saturating_duration_since(since).as_millis() * u128::from(PACE) / 1000;
        let (left, since) = match u32::try_from(earned) {
            Ok(0) => (left, since),
            Ok(earned) => (left.saturating_add(earned).min(BURST), now),
            Err(_) => (BURST, now),
        };
        self.allowance = (left.saturating_sub(1), since);
        left > 0
    }

    /// Counts a question for a name that is not granted.
    pub fn refuse_name(&mut self, name: &str) {
        self.refused.count(name);
    }

    /// Counts an answer of which something was held back.
    pub fn filter_name(&mut self, name: &str) {
        self.filtered.count(name);
    }

    /// Remembers what a name led to.
    pub fn note_name(&mut self, name: &str, addresses: impl Iterator<Item = Ipv4Addr>) {
        for address in addresses {
            if self.names.len() < KEPT || self.names.contains_key(&address) {
                self.names.insert(address, name.to_owned());
            }
        }
    }

    /// Those of `wanted` that are not open for as long already.
    pub fn not_open(&mut self, wanted: &[Opening], now: Instant) -> Vec<Opening> {
        self.open.retain(|_, until| *until > now);
        let lasts = |o: &Opening| {
            let until = now + Duration::from_secs(u64::from(o.seconds));
            // A second is lost to rounding, here and in the kernel.
            self.open.get(&(o.address, o.port)).is_some_and(|open| *open + Duration::from_secs(2) >= until)
        };
        wanted.iter().filter(|o| !lasts(o)).copied().collect()
    }

    /// Remembers that `openings` were made at `now`.
    pub fn note_open(&mut self, openings: &[Opening], now: Instant) {
        for o in openings {
            if self.open.len() < KEPT {
                self.open.insert((o.address, o.port), now + Duration::from_secs(u64::from(o.seconds)));
            }
        }
    }

    /// Forgets what is open: it is no more.
    pub fn close(&mut self) {
        self.open.clear();
    }

    /// Counts a request to the host of a secret, with so many secrets in it.
    pub fn count_request(&mut self, host: &SecretHost, swapped: usize) {
        let sent = self.secrets.entry(host.name().to_owned()).or_default();
        sent.requests = sent.requests.saturating_add(1);
        sent.with_secret = sent.with_secret.saturating_add(u64::from(swapped > 0));
    }

    /// Counts what came to nothing on the way to the host of a secret, and why.
    pub fn count_failure(&mut self, host: &str, why: &str) {
        let sent = self.secrets.entry(host.to_ascii_lowercase()).or_default();
        sent.failed = sent.failed.saturating_add(1);
        // A guest's own words may be part of it.
        let clean = |c: &char| !c.is_control();
        sent.last_failure = Some(why.chars().filter(clean).take(WHY).collect());
    }

    /// What became of requests to the host of a secret.
    pub fn sent_to(&self, host: &SecretHost) -> Sent {
        self.secrets.get(host.name()).cloned().unwrap_or_default()
    }

    /// What `address` was called.
    pub fn name_of(&self, address: Ipv4Addr) -> Option<&String> {
        self.names.get(&address)
    }

    /// Names that are not granted.
    pub fn refused(&self) -> &Counted {
        &self.refused
    }

    /// Names of whose answers something was held back.
    pub fn filtered(&self) -> &Counted {
        &self.filtered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_asks_without_end_is_heard_at_a_pace() {
        let (mut outward, start) = (Outward::new(), Instant::now());
        let heard = (0..5000).filter(|_| outward.may_ask(start)).count();
        assert_eq!(heard, BURST as usize);
        let later = start + Duration::from_secs(2);
        assert_eq!((0..5000).filter(|_| outward.may_ask(later)).count(), 2 * PACE as usize);
        assert_eq!((0..5000).filter(|_| outward.may_ask(later + Duration::from_secs(3600))).count(), BURST as usize);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_rest_is_counted() {
        let mut outward = Outward::new();
        for number in 0..3000 {
            outward.refuse_name(&format!("{number}.example"));
            let address = Ipv4Addr::from(number);
            outward.note_name("a.example", [address].into_iter());
            outward.note_open(&[Opening { address, port: None, seconds: 60 }], Instant::now());
        }
        assert_eq!((outward.refused().names().count(), outward.refused().beyond()), (KEPT, 3000 - KEPT as u64));
        assert_eq!((outward.names.len(), outward.open.len()), (KEPT, KEPT));
    }

    #[test]
    fn what_is_open_for_as_long_is_not_opened_again() {
        let (mut outward, now) = (Outward::new(), Instant::now());
        let wanted = [Opening { address: Ipv4Addr::LOCALHOST, port: Some(443), seconds: 60 }];
        assert_eq!(outward.not_open(&wanted, now), wanted);
        outward.note_open(&wanted, now);
        assert!(outward.not_open(&wanted, now).is_empty());
        assert_eq!(outward.not_open(&wanted, now + Duration::from_secs(30)), wanted);
        outward.close();
        assert_eq!(outward.not_open(&wanted, now), wanted);
    }
}
