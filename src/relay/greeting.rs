//! How two relays begin: each learns the other's build before anything else is said.

use std::io::{self, Read, Write};

use crate::protocol::relay::PREAMBLE;
use crate::protocol::{FrameBuffer, FrameError, Hello, frame};

/// Most bytes that a login shell may say before the other side is heard.
const MAX_CHATTER: usize = 64 << 10;

/// Of these so many are kept, to be shown.
const SHOWN_CHATTER: usize = 200;

/// Why the other side is not heard.
#[derive(Debug, thiserror::Error)]
pub enum GreetingError {
    /// The stream.
    #[error("the stream to the other side broke")]
    Stream(#[from] io::Error),
    /// It has ended; with what was said instead.
    #[error("the other side ended before it said who it is")]
    Ended {
        /// The beginning of it.
        said: String,
    },
    /// Something else speaks.
    #[error("the other side says something else")]
    Chatter {
        /// The beginning of it.
        said: String,
    },
    /// What it says is no greeting.
    #[error("the other side could not be understood")]
    Frame(#[from] FrameError),
}

/// The far side's first words.
pub fn greet(output: &mut impl Write) -> Result<(), GreetingError> {
    output.write_all(PREAMBLE)?;
    answer(output)
}

/// The near side's first words.
pub fn answer(output: &mut impl Write) -> Result<(), GreetingError> {
    output.write_all(&frame::encode(&Hello::ours())?)?;
    Ok(output.flush()?)
}

/// The other side's hello, and what has come behind it. With `chatter` anything may stand before its preamble.
pub fn hear_greeting(input: &mut impl Read, chatter: bool) -> Result<(Hello, FrameBuffer), GreetingError> {
    let mut said = Vec::new();
    let mut buffer = FrameBuffer::default();
    if chatter {
        buffer.push(&behind_preamble(input, &mut said)?);
    }
    loop {
        if let Some(body) = buffer.next_body()? {
            return Ok((frame::decode(&body)?, buffer));
        }
        let piece = read_piece(input)?;
        if piece.is_empty() {
            return Err(GreetingError::Ended { said: shown(&said) });
        }
        buffer.push(&piece);
    }
}

fn behind_preamble(input: &mut impl Read, said: &mut Vec<u8>) -> Result<Vec<u8>, GreetingError> {
    loop {
        if let Some(at) = said.windows(PREAMBLE.len()).position(|window| window == PREAMBLE) {
            let rest = said.split_off(at + PREAMBLE.len());
            said.truncate(at);
            return Ok(rest);
        }
        if said.len() > MAX_CHATTER {
            return Err(GreetingError::Chatter { said: shown(said) });
        }
        let piece = read_piece(input)?;
        if piece.is_empty() {
            return Err(GreetingError::Ended { said: shown(said) });
        }
        said.extend(piece);
    }
}

fn read_piece(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut piece = vec![0; 4096];
    loop {
        match input.read(&mut piece) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            read => {
                piece.truncate(read?);
                return Ok(piece);
            }
        }
    }
}

fn shown(said: &[u8]) -> String {
    String::from_utf8_lossy(&said[..said.len().min(SHOWN_CHATTER)]).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting() -> Vec<u8> {
        let mut bytes = Vec::new();
        greet(&mut bytes).expect("written");
        bytes
    }

    #[test]
    fn what_a_login_shell_says_before_is_passed_over() {
        for chatter in [&b""[..], b"Welcome!\n", b"\0banger rel", &[0; 9000]] {
            let bytes = [chatter, &greeting(), b"rest"].concat();
            let (hello, _) = hear_greeting(&mut bytes.as_slice(), true).expect("heard");
            assert_eq!(hello, Hello::ours());
        }
        assert!(hear_greeting(&mut b"Welcome!\n".as_slice(), false).is_err());
    }

    #[test]
    fn one_that_is_cut_or_never_comes_is_an_error_with_what_was_said() {
        let whole = greeting();
        for cut in 0..whole.len() {
            assert!(matches!(hear_greeting(&mut &whole[..cut], true), Err(GreetingError::Ended { .. })), "{cut}");
        }
        match hear_greeting(&mut b"sh: banger: not found\n".as_slice(), true) {
            Err(GreetingError::Ended { said }) => assert_eq!(said, "sh: banger: not found"),
            other => panic!("{other:?}"),
        }
        let endless = vec![b'x'; 2 * MAX_CHATTER];
        assert!(matches!(hear_greeting(&mut endless.as_slice(), true), Err(GreetingError::Chatter { .. })));
        let garbage = [PREAMBLE, &[0xff; 16]].concat();
        assert!(matches!(hear_greeting(&mut garbage.as_slice(), true), Err(GreetingError::Frame(_))));
    }
}
