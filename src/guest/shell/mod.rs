//! The guest's end of the agent's carrier: runs what the host says, over one channel per command.
//!
//! `protocol::shell` is the language. Who may speak is decided before: a channel listens to a token
//! that the agent's own link announced, and the ports are root's. A command is started as sshd would
//! start it; what an image without `tar` and `sh` lacks, the agent's own tools do.

/// Which channels are in use.
pub mod channels;
/// Starting a command.
pub mod child;
/// Commands that need nobody.
pub mod jobs;
/// A command that runs.
pub mod running;
/// One command's life on a channel.
pub mod session;
/// Its streams.
pub mod streams;
/// What the agent can do by itself.
pub mod tools;
/// Becoming another user.
pub mod user;
/// One channel's bytes.
pub mod wire;
