//! Frames: `u32` little-endian length, then bincode 2 of one value.
//!
//! bincode stays behind this file and `store::codec`. Its limit guards decoding only, trailing
//! bytes would pass, so both are checked here.

use bincode::{Decode, Encode};

/// Most bytes of a frame's body: 1 MiB, checked before anything is allocated.
pub const MAX_FRAME: usize = 1 << 20;

/// Bytes of the length that stands before each body.
pub const HEADER: usize = 4;

const CONFIG: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<MAX_FRAME>,
> = bincode::config::standard().with_limit::<MAX_FRAME>();

/// A frame was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The announced length is above [`MAX_FRAME`].
    #[error("a frame of {0} bytes was announced; at most {MAX_FRAME} are allowed")]
    TooLong(u64),
    /// The body is not a value of the language.
    #[error("a frame could not be read: {0}")]
    Malformed(String),
    /// The body holds more than the value.
    #[error("a frame has {0} bytes after its value")]
    Trailing(usize),
    /// The connection ended inside a frame.
    #[error("the connection ended inside a frame")]
    Truncated,
}

/// `value` as a whole frame, header included.
pub fn encode<T: Encode>(value: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; HEADER];
    bincode::encode_into_std_write(value, &mut frame, CONFIG).map_err(|e| FrameError::Malformed(e.to_string()))?;
    let body = frame.len() - HEADER;
    if body > MAX_FRAME {
        return Err(FrameError::TooLong(body as u64));
    }
    frame[..HEADER].copy_from_slice(&(body as u32).to_le_bytes());
    Ok(frame)
}

/// The value in a frame's `body`, which it must fill.
pub fn decode<T: Decode<()>>(body: &[u8]) -> Result<T, FrameError> {
    if body.len() > MAX_FRAME {
        return Err(FrameError::TooLong(body.len() as u64));
    }
    let (value, used) = bincode::decode_from_slice(body, CONFIG).map_err(|e| FrameError::Malformed(describe(e)))?;
    match body.len() - used {
        0 => Ok(value),
        rest => Err(FrameError::Trailing(rest)),
    }
}

fn describe(error: bincode::error::DecodeError) -> String {
    match error {
        bincode::error::DecodeError::OtherString(text) => text,
        bincode::error::DecodeError::Other(text) => text.to_owned(),
        other => format!("{other:?}").chars().take(200).collect(),
    }
}

/// Collects bytes as they arrive and gives out whole bodies.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
}

impl FrameBuffer {
    /// Adds what has arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes that wait to become a frame.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next whole body. `Ok(None)`: more bytes are needed.
    pub fn next_body(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        let Some(header) = self.bytes.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*header) as usize;
        if length > MAX_FRAME {
            return Err(FrameError::TooLong(length as u64));
        }
        if self.bytes.len() < HEADER + length {
            return Ok(None);
        }
        let rest = self.bytes.split_off(HEADER + length);
        let mut body = std::mem::replace(&mut self.bytes, rest);
        body.drain(..HEADER);
        Ok(Some(body))
    }

    /// What to say when the connection has ended.
    pub fn at_end(&self) -> Result<(), FrameError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(FrameError::Truncated) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let frame = encode(&(7u32, "hello".to_owned())).expect("encodes");
        for cut in 0..frame.len() {
            let mut buffer = FrameBuffer::default();
            buffer.push(&frame[..cut]);
            assert_eq!(buffer.next_body(), Ok(None));
            buffer.push(&frame[cut..]);
            let body = buffer.next_body().expect("whole").expect("there");
            assert_eq!(decode::<(u32, String)>(&body), Ok((7, "hello".to_owned())));
            assert_eq!(buffer.at_end(), Ok(()));
        }
    }

    #[test]
    fn a_huge_announced_length_is_refused_before_it_is_allocated() {
        let mut buffer = FrameBuffer::default();
        buffer.push(&u32::MAX.to_le_bytes());
        assert_eq!(buffer.next_body(), Err(FrameError::TooLong(u64::from(u32::MAX))));
    }

    #[test]
    fn a_hostile_inner_length_and_trailing_bytes_are_refused() {
        let body = [0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert!(matches!(decode::<Vec<u8>>(&body), Err(FrameError::Malformed(_))));
        assert_eq!(decode::<u8>(&[1, 2]), Err(FrameError::Trailing(1)));
    }
}
