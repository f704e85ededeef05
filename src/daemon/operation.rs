//! One operation: its id, whom it tells, and whether it shall go on.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use event_listener::Event as Wake;
use smol::channel::Sender;
use smol::future::FutureExt;

use crate::model::OpId;
use crate::protocol::{Event, Fault, FaultKind};

/// Set once, by whoever no longer wants the result.
#[derive(Debug, Default)]
pub struct Cancel {
    set: AtomicBool,
    wake: Wake,
}

impl Cancel {
    /// From now on the operation ends at its next safe point.
    pub fn set(&self) {
        self.set.store(true, Ordering::Release);
        self.wake.notify(usize::MAX);
    }

    /// Whether it was set.
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }

    /// Ends when it is set.
    pub async fn wait(&self) {
        while !self.is_set() {
            let listener = self.wake.listen();
            if self.is_set() {
                return;
            }
            listener.await;
        }
    }
}

/// How many operations are under way that somebody waits for.
#[derive(Debug, Clone, Default)]
pub struct Workload(Arc<AtomicU32>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Work(Arc<AtomicU32>);

impl Workload {
    /// One more.
    pub fn begin(&self) -> Work {
        self.0.fetch_add(1, Ordering::AcqRel);
        Work(self.0.clone())
    }

    /// How many there are now.
    pub fn count(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// An operation under way.
#[derive(Debug, Clone)]
pub struct Op {
    /// Its id, in every log line and in the user's error.
    pub id: OpId,
    /// Whether it shall go on.
    pub cancel: Arc<Cancel>,
    events: Option<Sender<Event>>,
    last_stage: Arc<Mutex<String>>,
    /// Whether its stages are told.
    staged: bool,
}

impl Op {
    /// An operation that somebody asked for and listens to.
    pub fn asked(id: OpId, events: Sender<Event>) -> Self {
        Self { id, cancel: Arc::default(), events: Some(events), last_stage: Arc::default(), staged: true }
    }

    /// An operation that nobody asked for.
    pub fn background() -> Self {
        Self { id: OpId::BACKGROUND, cancel: Arc::default(), events: None, last_stage: Arc::default(), staged: true }
    }

    /// The same operation, given up only by whoever sets this one's `cancel`: what takes something
    /// away is brought to its end even when its asker leaves.
    pub fn to_its_end(&self) -> Self {
        Self { cancel: Arc::default(), ..self.clone() }
    }

    /// The same operation as part of a larger one, whose own stages are told. Everything else is told as ever.
    pub fn as_part(&self) -> Self {
        Self { staged: false, ..self.clone() }
    }

    /// What `future` gives, or `None` when it is cancelled first.
    pub async fn unless_cancelled<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let given = async { Some(future.await) };
        let cancelled = async {
            self.cancel.wait().await;
            None
        };
        given.or(cancelled).await
    }

    /// Tells that a stage begins; the same one again is told once.
    pub fn stage(&self, name: &str) {
        if !self.staged {
            return;
        }
        if let Ok(mut last) = self.last_stage.lock() {
            if *last == name {
                return;
            }
            name.clone_into(&mut last);
        }
        self.tell(Event::Stage { name: name.to_owned() });
    }

    /// Tells what the present stage waits for, should it take long.
    pub fn waits_for(&self, what: impl Into<String>) {
        self.tell(Event::Waiting { what: what.into() });
    }

    /// Tells something. Whoever does not listen fast enough misses it: nothing waits for a reader.
    pub fn tell(&self, event: Event) {
        if let Some(events) = &self.events {
            // Full or closed: see above.
            let _ = events.try_send(event);
        }
    }

    /// A safe point: ends the operation when nobody wants its result any more.
    pub fn safe_point(&self) -> Result<(), Fault> {
        if self.cancel.is_set() { Err(Self::cancelled()) } else { Ok(()) }
    }

    /// The fault of a cancelled operation.
    pub fn cancelled() -> Fault {
        Fault::new(FaultKind::Cancelled, "cancelled")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted_until_it_is_dropped() {
        let load = Workload::default();
        let (first, second) = (load.begin(), load.clone().begin());
        assert_eq!(load.count(), 2);
        drop(first);
        assert_eq!(load.count(), 1);
        drop(second);
        assert_eq!(load.count(), 0);
    }

    #[test]
    fn a_part_tells_no_stages_and_everything_else() {
        let (sender, told) = smol::channel::bounded(8);
        let op = Op::asked(OpId::BACKGROUND, sender);
        op.stage("whole");
        let part = op.as_part();
        part.stage("part");
        part.tell(Event::Warning { text: "look".into() });
        op.stage("next");
        let told: Vec<Event> = std::iter::from_fn(|| told.try_recv().ok()).collect();
        let stage = |name: &str| Event::Stage { name: name.into() };
        assert_eq!(told, [stage("whole"), Event::Warning { text: "look".into() }, stage("next")]);
        op.cancel.set();
        assert!(part.safe_point().is_err(), "it ends with the whole");
    }
}
