//! A repository of the host's goes into a guest, and a patch comes out.
//!
//! Deciding what goes in (`intake`) is apart from bringing it there (`prepare`), so that a wrong repository is
//! refused before there is a VM. The guest's side is its own `sh` and `git`, told what to do by scripts; all
//! that it says is hostile. Applying a patch (`patch`, `permit`, `apply`) happens on the host alone.
//! `WORKSPACES.md` says what travels and why.

/// Putting a patch into the host's repository.
mod apply;
/// What can go wrong.
mod error;
/// The patch out of a guest.
mod export;
/// The host's git.
mod git;
/// The guest's side: scripts, and how they are run.
mod guest;
/// A commit as a pack.
mod history;
/// What git ignores beside the repository's own rules.
mod ignored;
/// What goes in.
mod intake;
/// Addresses without credentials.
mod origin;
/// Packs and their indexes.
mod pack;
/// Reading a patch.
pub mod patch;
/// What a patch may change.
mod permit;
/// Bringing it in.
mod prepare;
/// A repository on the host.
mod repository;
/// What `git status` says.
mod status;
/// What a repository wants to be installed.
mod tools;

pub use apply::apply;
pub use error::WorkspaceError;
pub use export::{Exported, From, MAX_PATCH, Summary, export, summary};
pub use git::GitError;
pub use guest::Guest;
pub use intake::{Intake, Listed, Why, Wishes, quoted};
pub use permit::permitted;
pub use prepare::{Prepared, prepare};
pub use repository::{Repository, head_at};
pub use tools::{LOG as TOOLS_LOG, Tools};

#[cfg(test)]
mod tests;
