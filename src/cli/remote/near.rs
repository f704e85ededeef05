//! This side of the way to another machine's daemon: ssh with `banger-relay` at its other end, started when the first
//! connection is asked for, and a thread that relays.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::super::client::Channel;
use super::super::report::Failure;
use super::machine::Machine;
use super::ssh;
use crate::model::ProcessRef;
use crate::os::process;
use crate::protocol::hello::BUILD;
use crate::protocol::{Fault, FaultKind, FrameBuffer};
use crate::relay::{Ending, GreetingError, Handle, Lost, Relay, answer, hear_greeting};

/// This binary, even when its file was replaced meanwhile.
const SELF: &str = "/proc/self/exe";

/// What runs there. The other personality of a binary that has none of that name says something else.
const COMMAND: &str = "banger --as banger-relay";

/// How long ssh may take to end when there is nothing more to say.
const END_LIMIT: Duration = Duration::from_secs(3);

/// The way to a machine.
#[derive(Debug)]
pub struct Near {
    machine: Machine,
    state: Mutex<Option<Running>>,
    /// The process there that the daemon sees.
    here: Arc<OnceLock<ProcessRef>>,
    /// Why it has ended, when nobody wanted it to.
    lost: Arc<Lost>,
}

#[derive(Debug)]
struct Running {
    handle: Handle,
    ssh: Child,
}

impl Near {
    /// To `machine`; nothing is started yet.
    pub fn new(machine: Machine) -> Self {
        Self { machine, state: Mutex::default(), here: Arc::default(), lost: Arc::default() }
    }

    /// The machine.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The process that the daemon there takes for this one.
    pub fn process(&self) -> Option<ProcessRef> {
        self.here.get().copied()
    }

    /// Why the way has ended, where nobody wanted it to.
    pub fn lost(&self) -> Option<Fault> {
        self.lost.fault()
    }

    /// A connection to the daemon there. The first one starts ssh, which ends with the thread that asks for it.
    pub fn dial(&self) -> Result<Channel, Failure> {
        let mut state = self.state();
        let running = match &mut *state {
            Some(running) => running,
            None => state.insert(self.start()?),
        };
        let dialled = running.handle.dial().map_err(|e| Fault::failed("cannot make a pair of sockets", &e))?;
        let (socket, lost) = dialled.ok_or_else(|| self.lost().unwrap_or_else(|| self.cut()))?;
        Ok(Channel::relayed(socket, lost))
    }

    fn state(&self) -> MutexGuard<'_, Option<Running>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cut(&self) -> Fault {
        Fault::new(FaultKind::Unavailable, format!("the connection to {} was lost", self.machine))
    }

    fn start(&self) -> Result<Running, Failure> {
        let (mut child, mut input, mut output) = self.spawn()?;
        let heard = match hear_greeting(&mut output, true) {
            Ok((hello, heard)) => {
                let there = format!("banger on {}", self.machine);
                hello.check(&there, &self.machine.copying()).map_err(Failure::from).map(|()| heard)
            }
            // Its end says more than that nothing was heard.
            Err(error) => Err(self.unheard(&mut child, &error)),
        };
        let started = heard.and_then(|heard| self.begin(input_of(&mut input)?, output, heard));
        match started {
            Ok(handle) => Ok(Running { handle, ssh: child }),
            Err(failure) => {
                // It has ended, or has nothing to do any more.
                let _ = child.kill();
                let _ = child.wait();
                Err(failure)
            }
        }
    }

    fn spawn(&self) -> Result<(Child, Option<ChildStdin>, ChildStdout), Failure> {
        let failed = |e: io::Error| Failure::from(Fault::failed("cannot start ssh", &e));
        let mut command = Command::new(SELF);
        command.arg0("banger-leash").arg(std::process::id().to_string()).arg(ssh::program()?);
        command.args(ssh::arguments(&self.machine, false, COMMAND));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        Ok((child, input, output.ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?))
    }

    fn begin(&self, mut input: ChildStdin, output: ChildStdout, heard: FrameBuffer) -> Result<Handle, Failure> {
        let failed = |error: &dyn std::error::Error| {
            Failure::from(Fault::failed(format!("cannot speak to banger on {}", self.machine), error))
        };
        answer(&mut input).map_err(|e| failed(&e))?;
        let made = Relay::near(OwnedFd::from(output), OwnedFd::from(input), heard, self.here.clone());
        let (relay, handle) = made.map_err(|e| failed(&e))?;
        let (lost, cut) = (self.lost.clone(), self.cut());
        std::thread::spawn(move || {
            relay.run(|ending| {
                let fault = match ending {
                    Ending::Broken(why) => cut.cause(why),
                    Ending::Cut | Ending::Finished => cut,
                };
                if !matches!(ending, Ending::Finished) {
                    lost.set(fault.clone());
                }
                fault
            })
        });
        Ok(handle)
    }

    /// Why nothing was heard.
    fn unheard(&self, child: &mut Child, error: &GreetingError) -> Failure {
        let machine = &self.machine;
        let unavailable = |message: String| Fault::new(FaultKind::Unavailable, message);
        let said = match error {
            GreetingError::Ended { said } => said,
            GreetingError::Chatter { said } => {
                let fault = unavailable(format!("a shell on {machine} says something before banger does"));
                return fault.cause(said).hint("its startup files must be silent where there is no terminal").into();
            }
            GreetingError::Stream(_) | GreetingError::Frame(_) => {
                return Fault::of(FaultKind::Unavailable, error)
                    .hint(format!("is banger on {machine} as new as this?"))
                    .into();
            }
        };
        let code = child.wait().ok().and_then(|status| status.code());
        let fault = match code {
            Some(ssh::OWN_FAILURE) => unavailable(format!("ssh does not get to {machine}")),
            Some(ssh::NO_PROGRAM) => unavailable(format!("there is no banger on {machine}")).hint(machine.copying()),
            _ => unavailable(format!("banger on {machine} has no way for other machines; this is {BUILD}"))
                .hint(machine.asking()),
        };
        if said.is_empty() { fault.into() } else { fault.cause(said).into() }
    }

    /// Ends what was started, after all that was said.
    pub fn finish(&self) {
        let Some(Running { handle, mut ssh }) = self.state().take() else { return };
        handle.finish();
        let pidfd = i32::try_from(ssh.id()).ok().and_then(|pid| process::reference(pid).ok());
        let pidfd = pidfd.and_then(|reference| process::open(reference).ok().flatten());
        let has_ended = pidfd.is_none_or(|pidfd| process::wait_for_end(pidfd, END_LIMIT).unwrap_or(false));
        if !has_ended {
            // It may have ended meanwhile.
            let _ = ssh.kill();
        }
        let _ = ssh.wait();
    }
}

fn input_of(input: &mut Option<ChildStdin>) -> Result<ChildStdin, Failure> {
    input.take().ok_or_else(|| Failure::new(FaultKind::OperationFailed, "ssh has no standard input"))
}
