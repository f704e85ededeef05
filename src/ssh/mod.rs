//! The way into a guest: the shell seam, its ssh carrier, keys, known hosts, quoting.
//!
//! Synchronous; every wait has a deadline or ends with its peer. Names `model`, `os` and `host`
//! only. Nothing here reads or writes the user's own ssh files. What runs in a guest goes through
//! [`GuestShell`], so that another carrier can take ssh's place without its callers noticing.
//! What the carrier does on the wire, and why, is in `SSH.md`.

mod agreement;
mod capture;
mod carrier;
mod control;
mod courier;
mod error;
mod exchange;
mod keys;
mod known_hosts;
mod pulse;
mod quote;
mod session;
mod shell;
mod streams;
mod user_ssh;
mod watchdog;

#[cfg(test)]
mod tests;

pub use capture::{Captured, capture};
pub use control::HostSignals;
pub use error::SshError;
pub use keys::{KeyPair, generate};
pub use known_hosts::{KnownHosts, entry};
pub use quote::{QuoteError, quote, quote_argv};
pub use session::{Access, SshShell, Timeouts};
pub use shell::{Command, Control, ControlEvent, GuestShell, Io, Outcome, Pty, ShellError};
pub use user_ssh::UserSsh;
