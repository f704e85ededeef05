//! What happens during a long operation, streamed before its reply.

/// Something that happened. Append-only.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Event {
    /// A stage has begun.
    Stage {
        /// Its name for people.
        name: String,
    },
    /// How far the stage is.
    Progress {
        /// Units done, bytes unless the stage says otherwise.
        done: u64,
        /// Units in all, where known.
        total: Option<u64>,
    },
    /// A line for people.
    Line {
        /// Its text, without the newline.
        text: String,
    },
    /// Something that is not right but does not end the operation.
    Warning {
        /// Its text.
        text: String,
    },
    /// What the present stage waits for, should it take long.
    Waiting {
        /// For people.
        what: String,
    },
}
