//! The guest shell over a channel to banger's agent: `protocol::shell` spoken from the host.

mod exchange;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;

use self::exchange::Exchange;
use super::{Command, GuestShell, Io, Outcome, Program, ShellError, Timeouts};
use crate::protocol::shell::{self, Begin, Hunt, MAX_COMMAND, Terminal, ToShell, Token};
use crate::protocol::{FrameBuffer, frame};

/// A channel to a guest; runs one command after the other.
pub struct AgentShell {
    socket: UnixStream,
    name: String,
    timeouts: Timeouts,
    /// Until the guest has said its token.
    hunt: Option<Hunt>,
    heard: FrameBuffer,
    to_say: VecDeque<u8>,
    /// Why it cannot be used any more.
    lost: Option<String>,
}

impl AgentShell {
    /// Takes over a connected channel to the guest called `name`, which expects `token`.
    pub fn open(socket: OwnedFd, token: Token, name: &str, timeouts: Timeouts) -> Result<Self, ShellError> {
        let socket = UnixStream::from(socket);
        let unblocked = socket.set_nonblocking(true);
        let shell = Self {
            socket,
            name: name.to_owned(),
            timeouts,
            hunt: Some(Hunt::new(token)),
            heard: FrameBuffer::default(),
            to_say: token.into_iter().collect(),
            lost: None,
        };
        unblocked.map_err(|e| shell.connection_lost(e.to_string()))?;
        Ok(shell)
    }

    fn connection_lost(&self, reason: String) -> ShellError {
        ShellError::ConnectionLost { name: self.name.clone(), reason }
    }

    fn say(&mut self, frame: &ToShell) -> Result<(), ShellError> {
        self.to_say.extend(frame::encode(frame).map_err(|e| ShellError::Command(e.into()))?);
        Ok(())
    }
}

impl GuestShell for AgentShell {
    fn run(&mut self, command: &Command, io: Io<'_>) -> Result<Outcome, ShellError> {
        if let Some(reason) = &self.lost {
            return Err(self.connection_lost(reason.clone()));
        }
        let begin = begin(command)?;
        let has_pty = begin.pty.is_some();
        self.say(&ToShell::Begin(begin))?;
        let mut exchange = Exchange::new(self, has_pty, io);
        let result = exchange.run();
        let is_cut_off = exchange.is_cut_off;
        drop(exchange);
        self.lost = match &result {
            Err(ShellError::ConnectionLost { reason, .. }) => Some(reason.clone()),
            Ok(_) if !is_cut_off => None,
            Ok(_) | Err(_) => Some("its last command was cut off".to_owned()),
        };
        result
    }
}

/// The command in the guest's language, once it is known to fit.
pub fn begin(command: &Command) -> Result<Begin, ShellError> {
    let refused = |why: &str| ShellError::Command(why.into());
    let bytes = |words: &[OsString]| words.iter().map(|w| w.clone().into_vec()).collect::<Vec<_>>();
    let program = match (&command.program, &command.user) {
        (Program::Argv(words), _) if words.is_empty() => return Err(refused("the command is empty")),
        (Program::Argv(words), Some(user)) => shell::Program::As { user: user.clone(), words: bytes(words) },
        (Program::Argv(words), None) => shell::Program::Argv(bytes(words)),
        (Program::Login | Program::Tool(_), Some(_)) => return Err(refused("only a program runs as another user")),
        (Program::Login, None) => shell::Program::Login,
        (Program::Tool(tool), None) => shell::Program::Tool(tool.clone()),
    };
    let words = match &program {
        shell::Program::Argv(words) | shell::Program::As { words, .. } => words.iter().map(Vec::len).sum(),
        shell::Program::Login | shell::Program::Tool(_) => 0usize,
    };
    let size = words + command.env.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    if size > MAX_COMMAND {
        let cure = "put it into a file in the guest and run that";
        return Err(refused(&format!("it has {size} bytes, at most {MAX_COMMAND} fit; {cure}")));
    }
    let pty = command.pty.as_ref().map(|pty| Terminal { term: pty.term.clone(), cols: pty.cols, rows: pty.rows });
    Ok(Begin { program, env: command.env.clone(), cwd: command.cwd.clone(), pty })
}
