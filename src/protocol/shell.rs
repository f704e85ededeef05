//! Host to guest, one command at a time over a channel of its own: the agent's carrier of the guest
//! shell.
//!
//! A channel is a byte stream (a virtio-serial port, or vsock) that may still hold the rest of an
//! earlier conversation. So its use is announced over the agent's link first
//! ([`OpenShell`](super::guest::GuestRequest::OpenShell)), with a token that nobody can have said
//! before; each side begins by saying the token and skips everything up to the other's. Then frames
//! (`super::frame`): [`ToShell::Begin`], what belongs to the command, [`FromShell::Ended`], and so
//! on with the next. The end is a frame, so that a cut channel is never mistaken for success.
//!
//! Flow control is per stream: nobody sends more than [`WINDOW`] bytes of it that the other side has
//! not said to have passed on. So each side can always read, and a reader that is slow on one stream
//! holds up neither the others nor a signal. Append-only, like the language of the agent.

/// Bytes of the token that begins a conversation.
pub const TOKEN: usize = 16;

/// A conversation's beginning.
pub type Token = [u8; TOKEN];

/// How many commands can run at once over a monitor that has a fixed number of channels.
pub const CHANNELS: u8 = 8;

/// Most bytes of one stream that are under way.
pub const WINDOW: usize = 256 << 10;

/// Most bytes of a stream in one frame.
pub const CHUNK: usize = 32 << 10;

/// Most bytes of a command's words and variables: a frame holds them all.
pub const MAX_COMMAND: usize = 512 << 10;

/// Name of the virtio-serial port of channel `number`, below [`CHANNELS`].
pub fn channel_name(number: u8) -> String {
    format!("org.banger.shell.{number}")
}

/// Skips what an earlier conversation left, up to and with the token.
#[derive(Debug)]
pub struct Hunt {
    token: Token,
    tail: Vec<u8>,
}

impl Hunt {
    /// Looks for `token`.
    pub fn new(token: Token) -> Self {
        Self { token, tail: Vec::new() }
    }

    /// What follows the token, once `bytes`, the next of the stream, complete it.
    pub fn hear(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.tail.extend_from_slice(bytes);
        if let Some(at) = self.tail.windows(TOKEN).position(|w| w == self.token) {
            return Some(self.tail.split_off(at + TOKEN));
        }
        let surplus = self.tail.len().saturating_sub(TOKEN - 1);
        self.tail.drain(..surplus);
        None
    }
}

/// Host to guest.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum ToShell {
    /// Run something. Only between commands.
    Begin(Begin),
    /// More of its standard input.
    Input(Vec<u8>),
    /// The end of its standard input.
    InputEnd,
    /// So many bytes of an output were passed on.
    Passed {
        /// Which output.
        output: Output,
        /// How many bytes.
        bytes: u32,
    },
    /// Send this signal (its Linux number) to the command's process group.
    Signal(u8),
    /// The terminal has this size now.
    Resize {
        /// Width in characters.
        cols: u16,
        /// Height in characters.
        rows: u16,
    },
    /// Are you there? Answered at any time.
    Ping,
}

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Begin {
    /// The program.
    pub program: Program,
    /// Added to the environment.
    pub env: Vec<(String, String)>,
    /// Folder to start in; `None` is the user's home.
    pub cwd: Option<String>,
    /// A terminal for the command.
    pub pty: Option<Terminal>,
}

/// A program in the guest.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Program {
    /// The user's login shell.
    Login,
    /// Program and arguments, at least one word, found through `PATH`.
    Argv(Vec<Vec<u8>>),
    /// Something that the agent can do by itself, whatever the image has.
    Tool(Tool),
    /// Like [`Program::Argv`], as another user than root.
    As {
        /// User or uid, and perhaps `:` and group or gid.
        user: String,
        /// Program and arguments.
        words: Vec<Vec<u8>>,
    },
}

/// What the agent can do by itself. Each is a process in the guest like any command.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Tool {
    /// Says what is at a path: `folder`, `file`, `other` or `nothing`, and a newline.
    Probe {
        /// The path.
        path: Vec<u8>,
    },
    /// Writes `name` of `folder`, and all below it, as a tar stream.
    Pack {
        /// The folder that it is in.
        folder: Vec<u8>,
        /// Its name there; `.` is the folder's content.
        name: Vec<u8>,
    },
    /// Reads a tar stream and unpacks it in `folder`, which is there.
    Unpack {
        /// The folder.
        folder: Vec<u8>,
    },
    /// Reads a [`Begin`] (its frame) and runs it as a job, which needs nobody; says the job's number.
    Detach,
    /// Says what a job says and ends as it ends.
    Attach {
        /// The job.
        job: u32,
        /// Where to begin: bytes of its outputs, counted together.
        from: u64,
        /// Whether to wait for what is still to come.
        follow: bool,
    },
    /// Says which jobs there are, one line each: number, state, words.
    Jobs,
}

/// The terminal of a command.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Terminal {
    /// `TERM`.
    pub term: String,
    /// Width in characters.
    pub cols: u16,
    /// Height in characters.
    pub rows: u16,
}

/// One of the two streams that come out of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Output {
    /// Standard output, or what a terminal shows.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Guest to host.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum FromShell {
    /// What the command says.
    Said {
        /// Where.
        output: Output,
        /// What, at most [`CHUNK`] bytes.
        bytes: Vec<u8>,
    },
    /// So many bytes of its input were passed on.
    Passed {
        /// How many bytes.
        bytes: u32,
    },
    /// The command reads no more input.
    InputClosed,
    /// The command has ended and everything that it said was sent.
    Ended(Ending),
    /// To a ping.
    Pong,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Ending {
    /// By itself, with this status.
    Exited(u8),
    /// By this signal, a Linux number.
    Signaled(u8),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::frame::{HEADER, decode, encode};

    fn bytes(value: &impl bincode::Encode) -> Vec<u8> {
        encode(value).expect("encodes").split_off(HEADER)
    }

    #[test]
    fn the_bytes_of_each_word_to_the_guest_are_pinned() {
        let begin = |program| {
            let terminal = Terminal { term: "t".into(), cols: 80, rows: 24 };
            ToShell::Begin(Begin {
                program,
                env: vec![("A".into(), "b".into())],
                cwd: Some("/".into()),
                pty: Some(terminal),
            })
        };
        let rest = [1, 1, b'A', 1, b'b', 1, 1, b'/', 1, 1, b't', 80, 24];
        let path = || b"/".to_vec();
        let table: Vec<(ToShell, Vec<u8>)> = vec![
            (begin(Program::Login), [&[0, 0][..], &rest].concat()),
            (begin(Program::Argv(vec![b"ls".into()])), [&[0, 1, 1, 2, b'l', b's'][..], &rest].concat()),
            (begin(Program::Tool(Tool::Probe { path: path() })), [&[0, 2, 0, 1, b'/'][..], &rest].concat()),
            (
                begin(Program::Tool(Tool::Pack { folder: path(), name: b".".into() })),
                [&[0, 2, 1, 1, b'/', 1, b'.'][..], &rest].concat(),
            ),
            (begin(Program::Tool(Tool::Unpack { folder: path() })), [&[0, 2, 2, 1, b'/'][..], &rest].concat()),
            (begin(Program::Tool(Tool::Detach)), [&[0, 2, 3][..], &rest].concat()),
            (
                begin(Program::As { user: "u".into(), words: vec![b"ls".into()] }),
                [&[0, 3, 1, b'u', 1, 2, b'l', b's'][..], &rest].concat(),
            ),
            (
                begin(Program::Tool(Tool::Attach { job: 7, from: 9, follow: true })),
                [&[0, 2, 4, 7, 9, 1][..], &rest].concat(),
            ),
            (begin(Program::Tool(Tool::Jobs)), [&[0, 2, 5][..], &rest].concat()),
            (ToShell::Input(b"x".into()), vec![1, 1, b'x']),
            (ToShell::InputEnd, vec![2]),
            (ToShell::Passed { output: Output::Stderr, bytes: 5 }, vec![3, 1, 5]),
            (ToShell::Signal(15), vec![4, 15]),
            (ToShell::Resize { cols: 80, rows: 24 }, vec![5, 80, 24]),
            (ToShell::Ping, vec![6]),
        ];
        for (value, pinned) in table {
            assert_eq!(bytes(&value), pinned, "{value:?}");
            assert_eq!(decode::<ToShell>(&pinned), Ok(value));
        }
    }

    #[test]
    fn the_bytes_of_each_word_from_the_guest_are_pinned() {
        let table = [
            (FromShell::Said { output: Output::Stdout, bytes: b"x".into() }, vec![0, 0, 1, b'x']),
            (FromShell::Passed { bytes: 5 }, vec![1, 5]),
            (FromShell::InputClosed, vec![2]),
            (FromShell::Ended(Ending::Exited(42)), vec![3, 0, 42]),
            (FromShell::Ended(Ending::Signaled(9)), vec![3, 1, 9]),
            (FromShell::Pong, vec![4]),
        ];
        for (value, pinned) in table {
            assert_eq!(bytes(&value), pinned, "{value:?}");
            assert_eq!(decode::<FromShell>(&pinned), Ok(value));
        }
    }

    #[test]
    fn a_token_is_found_wherever_the_stream_is_cut() {
        let token: Token = *b"0123456789abcdef";
        let stream = [b"01234567 left over 0123456789abcde".as_slice(), &token, b"rest"].concat();
        for cut in 0..=stream.len() {
            let mut hunt = Hunt::new(token);
            let first = hunt.hear(&stream[..cut]);
            let rest = match first {
                Some(rest) => [&rest, &stream[cut..]].concat(),
                None => hunt.hear(&stream[cut..]).expect("found"),
            };
            assert_eq!(rest, b"rest", "{cut}");
        }
        let mut hunt = Hunt::new(token);
        assert_eq!(hunt.hear(&vec![b'0'; 1 << 20]), None);
        assert!(hunt.tail.len() < TOKEN);
    }

    #[test]
    fn every_cut_and_flip_is_refused_or_understood_but_never_fatal() {
        let whole = bytes(&ToShell::Begin(Begin {
            program: Program::Argv(vec![b"sh".into(), b"-c".into(), b"exit 42".into()]),
            env: vec![("A".into(), "b".into())],
            cwd: None,
            pty: None,
        }));
        for at in 0..whole.len() {
            assert!(decode::<ToShell>(&whole[..at]).is_err(), "{at}");
            for flip in 1..=255 {
                let mut bad = whole.clone();
                bad[at] ^= flip;
                let _ = decode::<ToShell>(&bad);
            }
        }
        assert!(decode::<ToShell>(&[whole, vec![0]].concat()).is_err());
    }
}
