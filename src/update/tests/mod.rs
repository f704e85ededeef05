//! The room as a whole: releases that are made and signed here, and an update that is cut at each step.

/// The way of a release from a server to the staging folder.
mod coming;
/// What is refused, and that nothing is changed then.
mod refusals;
/// Releases.
pub mod releases;
/// A small server that does what it is told.
mod server;
/// Replacing, failing, being cut, and what is there afterwards.
mod swaps;
/// Keys and signatures of openssl's.
pub mod vectors;
