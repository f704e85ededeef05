//! The steps of an update as data: the way forward, the way back from each of them, and what is to be done about one that
//! was interrupted. Pure.
//!
//! Units and services are not taken back one by one, in the order they were changed: they follow the file. So the way
//! back puts the old file in its place first, and then has it bring everything else into line.

/// One step forward, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The new binary lies beside the installed one, whole, on the disk.
    Lay,
    /// The installed one has a second name.
    Keep,
    /// The new one takes the installed one's name.
    Swap,
    /// Units and the record of the install are those of the new one.
    Units,
    /// Helper and daemon are.
    Restart,
    /// Its doctor finds nothing that was well before.
    Doctor,
    /// The second name and the journal go.
    Settle,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Lay, Self::Keep, Self::Swap, Self::Units, Self::Restart, Self::Doctor, Self::Settle];

    /// As the journal has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lay => "lay",
            Self::Keep => "keep",
            Self::Swap => "swap",
            Self::Units => "units",
            Self::Restart => "restart",
            Self::Doctor => "doctor",
            Self::Settle => "settle",
        }
    }

    /// The step of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.name() == name)
    }

    /// What is being done, for people.
    pub fn doing(self) -> &'static str {
        match self {
            Self::Lay => "write the new binary",
            Self::Keep => "keep the old one",
            Self::Swap => "put the new one in its place",
            Self::Units => "refresh the units",
            Self::Restart => "restart helper and daemon",
            Self::Doctor => "examine",
            Self::Settle => "tidy up",
        }
    }
}

/// One step of the way back, in this order. Each is done already where there is nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Back {
    /// The old binary has its name again.
    File,
    /// The store is one that it can use.
    Store,
    /// Units and the record of the install are its own.
    Units,
    /// Helper and daemon are.
    Restart,
    /// What the update laid beside it, and the journal, go.
    Clear,
}

impl Back {
    /// For the tests of crashes.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "back file",
            Self::Store => "back store",
            Self::Units => "back units",
            Self::Restart => "back restart",
            Self::Clear => "back clear",
        }
    }

    /// What is being done, for people.
    pub fn doing(self) -> &'static str {
        match self {
            Self::File => "put the old binary back",
            Self::Store => "put the old store back",
            Self::Units => "refresh the units",
            Self::Restart => "restart helper and daemon",
            Self::Clear => "tidy up",
        }
    }
}

/// The way back once `begun` has begun.
pub fn way_back(begun: Step) -> &'static [Back] {
    match begun {
        Step::Lay | Step::Keep => &[Back::Clear],
        // From the swap on, whatever starts by itself, after a crash or a power cut, may be the new one already.
        Step::Swap | Step::Units | Step::Restart | Step::Doctor => {
            &[Back::File, Back::Store, Back::Units, Back::Restart, Back::Clear]
        }
        // It is done.
        Step::Settle => &[],
    }
}

/// What lies under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lies {
    /// What was installed before the update.
    Old,
    /// What the update was to install.
    New,
    /// Something else.
    Other,
    /// Nothing.
    Nothing,
}

/// What to do about an interrupted update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cure {
    /// Go the way back.
    TakeBack,
    /// It was done but for tidying up.
    Finish,
    /// The old one is nowhere: bring everything else into line with the new one, and stay there.
    Follow,
    /// Somebody has installed something else since: only tidy up.
    LeaveBe,
    /// There is no binary at all.
    Lost,
}

/// What to do where `begun` had begun, `installed` lies under the binary's name and `previous` under the second one.
pub fn cure(begun: Step, installed: Lies, previous: Lies) -> Cure {
    match (installed, previous) {
        // The same binary once more is old and new.
        (Lies::New | Lies::Old, _) if begun == Step::Settle => Cure::Finish,
        (Lies::Old, _) | (Lies::New | Lies::Nothing, Lies::Old) => Cure::TakeBack,
        (Lies::New, _) => Cure::Follow,
        (Lies::Other, _) => Cure::LeaveBe,
        (Lies::Nothing, _) => Cure::Lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_have_names_of_their_own_and_are_in_order() {
        for pair in Step::ALL.windows(2) {
            assert!(pair[0] < pair[1]);
        }
        for step in Step::ALL {
            assert_eq!(Step::named(step.name()), Some(step));
        }
        assert_eq!(Step::named("leap"), None);
    }

    #[test]
    fn the_file_is_back_before_anything_follows_it_and_the_journal_goes_last() {
        for step in Step::ALL {
            let way = way_back(step);
            if step >= Step::Swap && step < Step::Settle {
                assert_eq!(way.first(), Some(&Back::File), "{step:?}");
                let at = |back| way.iter().position(|b| *b == back).expect("there");
                assert!(at(Back::Store) < at(Back::Restart) && at(Back::Units) < at(Back::Restart));
            }
            assert!(way.is_empty() || way.last() == Some(&Back::Clear), "{step:?}");
        }
    }

    #[test]
    fn an_interrupted_update_is_taken_back_unless_it_was_done_or_cannot_be() {
        use Lies::{New, Nothing, Old, Other};
        for (begun, installed, previous, expected) in [
            (Step::Lay, Old, Nothing, Cure::TakeBack),
            (Step::Swap, Old, Old, Cure::TakeBack),
            (Step::Swap, New, Old, Cure::TakeBack),
            (Step::Doctor, New, Old, Cure::TakeBack),
            (Step::Doctor, Old, Nothing, Cure::TakeBack),
            (Step::Restart, Nothing, Old, Cure::TakeBack),
            (Step::Settle, New, Old, Cure::Finish),
            (Step::Settle, New, Nothing, Cure::Finish),
            (Step::Settle, Old, Old, Cure::Finish),
            (Step::Restart, New, Nothing, Cure::Follow),
            (Step::Restart, New, Other, Cure::Follow),
            (Step::Restart, Other, Old, Cure::LeaveBe),
            (Step::Lay, Other, Nothing, Cure::LeaveBe),
            (Step::Swap, Nothing, Other, Cure::Lost),
        ] {
            assert_eq!(cure(begun, installed, previous), expected, "{begun:?} {installed:?} {previous:?}");
        }
    }
}
