//! What a call does in a guest: over the agent or ssh as every command does it, cut off when the call is cancelled or
//! its time is over.

use std::io::{self, PipeReader};
use std::os::fd::{AsFd, BorrowedFd};
use std::thread::JoinHandle;
use std::time::Duration;

use signal_hook::consts::{SIGKILL, SIGTERM};

use super::super::client::Client;
use super::super::commands::session;
use super::super::report::Failure;
use crate::mcp::{Call, Cancellation};
use crate::model::VmName;
use crate::protocol::owner::Carrier;
use crate::protocol::{Fault, FaultKind};
use crate::shell::{Command, Control, ControlEvent, GuestShell, Io, Outcome, TimeLimit};
use crate::workspace::Guest;

/// The end of a call as what may happen beside a command: it is killed. Told once, as every event: what asks for the next
/// one is a loop.
pub struct Leash<'c>(&'c Cancellation);

impl Control for Leash<'_> {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.descriptor()
    }

    fn next(&mut self) -> Option<ControlEvent> {
        self.0.is_asked_anew().then_some(ControlEvent::Abandon(SIGKILL))
    }

    fn end_asked_for(&mut self) -> Option<i32> {
        self.0.is_asked().then_some(SIGTERM)
    }
}

/// A way into a guest for one call.
pub struct Carry<'c> {
    shell: Box<dyn GuestShell>,
    control: TimeLimit<Leash<'c>>,
}

impl<'c> Carry<'c> {
    /// Into the VM called `name`, for at most `limit`.
    pub fn open(
        client: &mut Client,
        name: &VmName,
        carriers: Vec<Carrier>,
        call: &'c Call,
        limit: Duration,
    ) -> Result<Self, Failure> {
        let way = session::open(client, name, carriers)?;
        let control = TimeLimit::new(Leash(&call.cancellation), Some(limit));
        let mut control = control.map_err(|e| Fault::failed("cannot measure the time", &e))?;
        let shell = session::connect(way, &mut control).map_err(|failure| match failure {
            Failure::Signalled(_) if !call.cancellation.is_asked() => {
                let message = format!("VM '{name}' did not answer within {}s", limit.as_secs());
                Failure::new(FaultKind::OperationFailed, message)
            }
            other => other,
        })?;
        Ok(Self { shell, control })
    }

    /// Runs `command` with these three streams; how it ended.
    pub fn run(
        &mut self,
        command: &Command,
        stdin: &impl AsFd,
        stdout: &impl AsFd,
        stderr: &impl AsFd,
    ) -> Result<Outcome, Failure> {
        let control: Option<&mut dyn Control> = Some(&mut self.control);
        let io = Io { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: stderr.as_fd(), control };
        self.shell.run(command, io).map_err(|e| session::of_shell(&e))
    }

    /// The same way for what the room `workspace` does in a guest.
    pub fn guest(&mut self) -> Guest<'_> {
        Guest { shell: &mut *self.shell, control: &mut self.control }
    }

    /// Whether the time was over before what was last run had ended.
    pub fn is_late(&self) -> bool {
        self.control.is_over()
    }

    /// From now on the limit is for all that is run, taken together.
    pub fn for_all(self) -> Self {
        Self { control: self.control.for_all(), ..self }
    }
}

/// Reads from a pipe beside the command that writes to it.
pub fn beside<T: Send + 'static>(
    read: impl FnOnce(PipeReader) -> T + Send + 'static,
) -> Result<(io::PipeWriter, JoinHandle<T>), Failure> {
    let (reader, writer) = io::pipe().map_err(|e| Fault::failed("cannot make a pipe", &e))?;
    Ok((writer, std::thread::spawn(move || read(reader))))
}

/// What a thread beside a command gave.
pub fn joined<T>(thread: JoinHandle<T>) -> Result<T, Failure> {
    thread.join().map_err(|_| Failure::new(FaultKind::OperationFailed, "reading broke off"))
}
