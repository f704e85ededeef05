//! One operation: its id, whom it tells, and whether it shall go on.

use std::sync::atomic::{AtomicBool, Ordering};
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

/// An operation under way.
#[derive(Debug, Clone)]
pub struct Op {
    /// Its id, in every log line and in the user's error.
    pub id: OpId,
    /// Whether it shall go on.
    pub cancel: Arc<Cancel>,
    events: Option<Sender<Event>>,
    last_stage: Arc<Mutex<String>>,
}

impl Op {
    /// An operation that somebody asked for and listens to.
    pub fn asked(id: OpId, events: Sender<Event>) -> Self {
        Self { id, cancel: Arc::default(), events: Some(events), last_stage: Arc::default() }
    }

    /// An operation that nobody asked for.
    pub fn background() -> Self {
        Self { id: OpId::BACKGROUND, cancel: Arc::default(), events: None, last_stage: Arc::default() }
    }

    /// The same operation, given up only by whoever sets this one's `cancel`: what takes something
    /// away is brought to its end even when its asker leaves.
    pub fn to_its_end(&self) -> Self {
        Self { cancel: Arc::default(), ..self.clone() }
    }

    /// The same operation, of which nobody is told: part of a larger one.
    pub fn untold(&self) -> Self {
        Self { events: None, ..self.clone() }
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
        if let Ok(mut last) = self.last_stage.lock() {
            if *last == name {
                return;
            }
            name.clone_into(&mut last);
        }
        self.tell(Event::Stage { name: name.to_owned() });
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
