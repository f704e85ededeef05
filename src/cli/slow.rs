//! Who notices that nothing has happened for a while, and says what is being waited for: beside whoever waits, which
//! is blocked meanwhile.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::render;

/// Silence that a person wonders about.
pub const SILENCE: Duration = Duration::from_secs(10);

/// Longest pause between two lines about one silence.
const LONGEST: Duration = Duration::from_secs(600);

/// How often it is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// In a line that moves: each second.
    Moving,
    /// In lines that stay: after twice the time, each time.
    Growing,
}

/// Watches the stages of one operation until dropped.
pub struct Watch {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    stage: String,
    waits_for: Option<String>,
    begun: Instant,
    heard: Instant,
    due: Instant,
    silence: Duration,
    is_over: bool,
}

impl Watch {
    /// Begins with the stage `name`; what is to be said after `silence` and later goes to `say`.
    pub fn begin(name: &str, silence: Duration, pace: Pace, say: impl Fn(&str) + Send + 'static) -> Self {
        let now = Instant::now();
        let state = State {
            stage: name.to_owned(),
            waits_for: None,
            begun: now,
            heard: now,
            due: now + silence,
            silence,
            is_over: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let watched = shared.clone();
        std::thread::spawn(move || watched.watch(pace, &say));
        Self { shared }
    }

    /// Another stage begins; how long the one before it took.
    pub fn next(&self, name: &str) -> Duration {
        let mut state = self.shared.state();
        let now = Instant::now();
        let took = now - state.begun;
        (state.stage, state.waits_for, state.begun) = (name.to_owned(), None, now);
        state.hear(now);
        took
    }

    /// How long the present stage has taken.
    pub fn took(&self) -> Duration {
        self.shared.state().begun.elapsed()
    }

    /// As if the present stage, and its silence, had begun so long ago.
    #[cfg(test)]
    pub fn began_earlier(&self, time: Duration) {
        let mut state = self.shared.state();
        (state.begun, state.heard, state.due) = (state.begun - time, state.heard - time, state.due - time);
        self.shared.changed.notify_all();
    }

    /// Something has happened.
    pub fn hear(&self) {
        self.shared.state().hear(Instant::now());
    }

    /// What the present stage waits for, for people.
    pub fn waits_for(&self, what: &str) {
        self.shared.state().waits_for = Some(what.to_owned());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.state().is_over = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Plain data, right after every statement: a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says it while nobody changes the stage, so that nothing is said of one that is over.
    fn watch(&self, pace: Pace, say: &dyn Fn(&str)) {
        let mut state = self.state();
        while !state.is_over {
            let now = Instant::now();
            if now < state.due {
                let pause = state.due - now;
                state = self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            say(&state.words(now));
            state.due = now
                + match pace {
                    Pace::Moving => Duration::from_secs(1),
                    Pace::Growing => (now - state.heard).min(LONGEST),
                };
        }
    }
}

impl State {
    fn hear(&mut self, now: Instant) {
        (self.heard, self.due) = (now, now + self.silence);
    }

    fn words(&self, now: Instant) -> String {
        let time = render::duration((now - self.begun).as_secs());
        match &self.waits_for {
            Some(what) => format!("still {} ({time}): {what}", self.stage),
            None => format!("still {} ({time})", self.stage),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, channel};

    const SHORT: Duration = Duration::from_millis(40);
    const LONG: Duration = Duration::from_secs(10);

    fn watched(pace: Pace) -> (Watch, Receiver<String>) {
        let (sender, said) = channel();
        // Its receiver may have gone first.
        let say = move |text: &str| drop(sender.send(text.to_owned()));
        (Watch::begin("waiting for ssh", SHORT, pace, say), said)
    }

    #[test]
    fn silence_is_told_with_what_is_waited_for_and_again_after_twice_the_time() {
        let (watch, said) = watched(Pace::Growing);
        watch.waits_for("the guest's agent");
        let begun = Instant::now();
        assert_eq!(said.recv_timeout(LONG).expect("said"), "still waiting for ssh (0s): the guest's agent");
        said.recv_timeout(LONG).expect("said again");
        assert!(begun.elapsed() >= SHORT, "{:?}", begun.elapsed());
    }

    #[test]
    fn another_stage_waits_for_something_else() {
        let (watch, said) = watched(Pace::Growing);
        watch.waits_for("the guest's agent");
        watch.next("copying");
        assert_eq!(said.recv_timeout(LONG).expect("said"), "still copying (0s)");
    }

    #[test]
    fn what_is_over_says_nothing_and_ends() {
        let (watch, said) = watched(Pace::Moving);
        drop(watch);
        while said.recv_timeout(LONG).is_ok() {}
        assert_eq!(said.try_recv(), Err(std::sync::mpsc::TryRecvError::Disconnected), "its thread has ended");
    }
}
