//! The languages between banger's processes, and how they are framed.
//!
//! Bytes and types only: no sockets, no files. One request enum per boundary, matched without a
//! wildcard arm on the other side. The owner and root languages are spoken between equal
//! versions; the guest language is append-only, because VMs live through updates.

/// What is understood of the other side's bytes, in the guest language.
pub mod ear;
/// What happens during a long operation.
pub mod event;
/// What goes wrong, for people and for programs.
pub mod fault;
/// How a value becomes bytes on a stream.
pub mod frame;
/// Daemon to the guest's agent.
pub mod guest;
/// What every conversation begins with.
pub mod hello;
/// Command line to daemon.
pub mod owner;
/// Command line to another machine's daemon.
pub mod relay;
/// Daemon to root helper.
pub mod root;
/// Host to guest, one channel per command.
pub mod shell;

pub use event::Event;
pub use fault::{Fault, FaultKind};
pub use frame::{FrameBuffer, FrameError, MAX_FRAME};
pub use hello::Hello;
