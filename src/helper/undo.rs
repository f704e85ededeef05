//! Named steps, and the list backwards when one fails. Pure: what a step does is the caller's.

use crate::os::fault_point::Moment;

/// One step and what takes it back. Both must be idempotent: a step that failed half-way is taken
/// back too.
pub struct Step<C, E> {
    /// For the log.
    pub name: &'static str,
    /// The deed.
    pub act: fn(&mut C) -> Result<(), E>,
    /// What takes it back; done when there is nothing.
    pub undo: fn(&mut C) -> Result<(), E>,
}

/// What failed, and what failed while taking it back.
#[derive(Debug)]
pub struct Failure<E> {
    /// The step that failed.
    pub step: &'static str,
    /// Why.
    pub error: E,
    /// Failed undos, in the order they were tried.
    pub undone: Vec<E>,
}

/// Does `steps` in order; on failure takes back those that were begun, the last first. `point` is
/// passed before and after each, and may fail it.
pub fn carry_out<C, E>(
    context: &mut C,
    steps: &[Step<C, E>],
    point: impl Fn(&str, Moment) -> Result<(), E>,
) -> Result<(), Failure<E>> {
    for (at, step) in steps.iter().enumerate() {
        let passed = point(step.name, Moment::Before).and_then(|()| (step.act)(context));
        if let Err(error) = passed.and_then(|()| point(step.name, Moment::After)) {
            let undone = take_back(context, &steps[..=at]);
            return Err(Failure { step: step.name, error, undone });
        }
    }
    Ok(())
}

/// Takes `steps` back, the last first, going on after a failure; returns all failures.
pub fn take_back<C, E>(context: &mut C, steps: &[Step<C, E>]) -> Vec<E> {
    steps.iter().rev().filter_map(|step| (step.undo)(context).err()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Log = Vec<&'static str>;

    const FINE: Step<Log, &str> = Step {
        name: "fine",
        act: |log| {
            log.push("made");
            Ok(())
        },
        undo: |log| {
            log.push("unmade");
            Ok(())
        },
    };
    const STUCK: Step<Log, &str> = Step {
        name: "stuck",
        act: |log| {
            log.push("stuck made");
            Ok(())
        },
        undo: |_| Err("stuck"),
    };
    const BROKEN: Step<Log, &str> = Step {
        name: "broken",
        act: |_| Err("broken"),
        undo: |log| {
            log.push("broken unmade");
            Ok(())
        },
    };

    #[test]
    fn undo_goes_backwards_and_on_after_a_failure() {
        let mut log = Log::new();
        let failure = carry_out(&mut log, &[FINE, STUCK, BROKEN, FINE], |_, _| Ok(())).expect_err("fails");
        assert_eq!((failure.step, failure.error, failure.undone), ("broken", "broken", vec!["stuck"]));
        assert_eq!(log, ["made", "stuck made", "broken unmade", "unmade"]);
    }

    #[test]
    fn a_point_that_fails_fails_its_step() {
        let mut log = Log::new();
        let point = |_: &str, moment| if moment == Moment::After { Err("told to") } else { Ok(()) };
        let failure = carry_out(&mut log, &[FINE, FINE], point).expect_err("fails");
        assert_eq!((failure.step, failure.error), ("fine", "told to"));
        assert_eq!(log, ["made", "unmade"]);
    }

    #[test]
    fn nothing_is_taken_back_when_all_is_well() {
        let mut log = Log::new();
        carry_out(&mut log, &[FINE, FINE], |_, _| Ok(())).expect("works");
        assert_eq!(log, ["made", "made"]);
    }
}
