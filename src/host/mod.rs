//! This installation: where things lie, what the user configured, what the machine can do.
//!
//! Reads files and the environment; changes nothing. Which monitor is chosen and why is decided
//! here, so that everybody gives the same answer.

/// Names of the user's own for commands.
pub mod aliases;
/// Which monitor runs new VMs, and what they get by default.
pub mod choose;
/// `config.toml`.
pub mod config;
/// What the machine can do.
pub mod facts;
/// Which versions of Firecracker are driven.
pub mod firecracker;
/// The record of a system install.
pub mod install;
/// Where things lie.
pub mod paths;
/// The way to servers.
pub mod web;
