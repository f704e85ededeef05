//! Another machine's daemon over one stream: connections to it, and the descriptors that travel over them, as channels
//! (`protocol::relay`).
//!
//! `channels` is the language: which frame may come when, who may send how much. Pure, and all that comes is taken for
//! hostile. `ends` are the descriptors of this side; `serve` waits on all of them with one poll(2) and blocks nowhere, so
//! that no channel holds up another. `src/cli/REMOTE.md` has the whole picture.

mod channels;
mod ends;
mod greeting;
mod handle;
mod serve;

#[cfg(test)]
mod tests;

pub use channels::{CHUNK, Channels, MAX_CHANNELS, News, Side, Violation, WINDOW};
pub use greeting::{GreetingError, answer, greet, hear_greeting};
pub use handle::{Handle, Lost};
pub use serve::{Dialer, Ending, Relay};
