//! Failing on purpose: what the tests of crashes do to a daemon or helper between two of its steps.
//!
//! `BANGER_FAULT=STEP:before|after:fail` has that step fail, once. With a path instead of `fail` the
//! process waits there until whoever opened that FIFO for writing has closed it: what it kills in
//! between, it kills at exactly this step. Heeded only by a process that may run the monitor of the
//! tests; nothing on a socket can arm it.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// The variable that arms a fault.
pub const VARIABLE: &str = "BANGER_FAULT";

/// Which side of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Nothing of it is done.
    Before,
    /// All of it is done.
    After,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Effect {
    Fail,
    WaitFor(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Armed {
    step: String,
    moment: Moment,
    effect: Effect,
}

/// At most one fault, which happens once.
#[derive(Debug, Default)]
pub struct FaultPoint {
    armed: Mutex<Option<Armed>>,
}

impl FaultPoint {
    /// What the environment arms, where that is `allowed`; an error where it cannot be read.
    pub fn of_environment(allowed: bool) -> io::Result<Self> {
        let Some(text) = std::env::var_os(VARIABLE).filter(|_| allowed) else { return Ok(Self::default()) };
        let text = text.to_string_lossy();
        let refused = || io::Error::new(io::ErrorKind::InvalidInput, format!("{VARIABLE}={text} is no fault"));
        Ok(Self { armed: Mutex::new(Some(parse(&text).ok_or_else(refused)?)) })
    }

    /// Whether a fault is still to happen.
    pub fn is_armed(&self) -> bool {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Passes this side of `step`: fails or waits if that is what is armed.
    pub fn pass(&self, step: &str, moment: Moment) -> io::Result<()> {
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(fault) = armed.take_if(|fault| fault.step == step && fault.moment == moment) else { return Ok(()) };
        drop(armed);
        match fault.effect {
            Effect::Fail => Err(io::Error::other(format!("told to fail {moment:?} {step}"))),
            // Opening waits for the writer, reading for its end (fifo(7)).
            Effect::WaitFor(gate) => std::fs::read(gate).map(drop),
        }
    }
}

fn parse(text: &str) -> Option<Armed> {
    let mut words = text.splitn(3, ':');
    let step = words.next().filter(|step| !step.is_empty())?.to_owned();
    let moment = match words.next()? {
        "before" => Moment::Before,
        "after" => Moment::After,
        _ => return None,
    };
    let effect = match words.next()? {
        "fail" => Effect::Fail,
        gate => Effect::WaitFor(Some(PathBuf::from(gate)).filter(|gate| gate.is_absolute())?),
    };
    Some(Armed { step, moment, effect })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_happens_once_and_at_its_own_side_of_its_own_step() {
        let point = FaultPoint { armed: Mutex::new(parse("launch tap:after:fail")) };
        point.pass("launch tap", Moment::Before).expect("the other side");
        point.pass("launch", Moment::After).expect("another step");
        point.pass("launch tap", Moment::After).expect_err("armed");
        point.pass("launch tap", Moment::After).expect("spent");
    }

    #[test]
    fn what_is_no_fault_is_refused() {
        for text in ["", "launch", "launch:before", "launch:during:fail", ":before:fail", "launch:before:gate"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn where_it_is_not_allowed_nothing_is_armed() {
        let point = FaultPoint::of_environment(false).expect("not even read");
        assert!(point.armed.into_inner().expect("not poisoned").is_none());
    }
}
