//! Banger on this system: whether all that it needs is there.

/// What is wrong, and what to type.
pub mod doctor;
