//! The ssh carrier of the guest shell (`crate::shell`), keys, known hosts, quoting.
//!
//! Synchronous; every wait has a deadline or ends with its peer. Nothing here reads or writes the
//! user's own ssh files. What the carrier does on the wire, and why, is in `SSH.md`.

mod agreement;
mod carrier;
mod courier;
mod error;
mod exchange;
mod keys;
mod known_hosts;
mod quote;
mod session;
mod user_ssh;
mod watchdog;

#[cfg(test)]
pub(crate) mod tests;

pub use error::SshError;
pub use keys::{KeyPair, generate};
pub use known_hosts::{KnownHosts, entry};
pub use quote::{QuoteError, quote, quote_argv};
pub use session::{Access, SshShell};
pub use user_ssh::{UserSsh, settings};
