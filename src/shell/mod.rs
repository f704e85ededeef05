//! What a user runs in a guest: the seam, and what every carrier of it needs.
//!
//! A carrier implements [`GuestShell`]; its callers do not notice which one it is. Synchronous; every
//! wait has a deadline or ends with its peer. The ssh carrier is the room `ssh`; the agent's is here,
//! because it needs nothing beyond the guest's language. `CARRIER.md` says how it works.

/// The agent's carrier.
mod agent;
/// What signals mean while a command runs.
mod attention;
/// Running a command for its output.
mod capture;
/// This process's signals as events.
mod control;
/// A time limit beside a command.
mod limit;
/// Whether the peer still lives.
mod pulse;
/// Commands, outcomes, and the trait.
mod seam;
/// The local ends of a command's streams.
mod streams;

pub use agent::{AgentShell, begin};
pub use attention::{Attention, Heed};
pub use capture::{Captured, capture, capture_heeding};
pub use control::HostSignals;
pub use limit::TimeLimit;
pub use pulse::{Beat, Pulse, Timeouts};
pub use seam::{
    Command, Control, ControlEvent, GuestShell, Io, Outcome, Program, Pty, ShellError, signal_name, signal_number,
};
pub use streams::{Inlet, Outlet, Reader, is_ready};
