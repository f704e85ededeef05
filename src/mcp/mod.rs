//! The server's side of the Model Context Protocol over two streams (modelcontextprotocol.io, transport "stdio"):
//! lines of JSON-RPC 2.0 in, lines out.
//!
//! Which tools there are, and what they do, is somebody else's ([`Toolbox`]); this room knows neither daemon nor
//! terminal. Written by hand over serde_json: the SDK for Rust, `rmcp`, needs tokio, and what a server of tools has to
//! speak is a few methods. Everything that arrives is hostile: lines are bounded, nothing of it can panic, and a slow
//! call holds up no other.

/// Whether a call is still wanted.
mod cancellation;
/// A byte stream as lines.
mod lines;
/// One line as messages.
mod message;
/// Where answers go.
mod outbox;
/// What is asked, and who answers.
mod server;
/// What a tool takes: its schema and its check.
mod tool;

pub use cancellation::Cancellation;
pub use lines::{Line, Lines, MAX_LINE};
pub use message::{Batch, Message, Wrong, parse};
pub use outbox::Outbox;
pub use server::{Call, Server, Toolbox};
pub use tool::{Arguments, Field, Hints, Kind, MAX_TEXT, Tool};
