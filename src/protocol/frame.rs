//! Frames: `u32` little-endian length, then bincode 2 of one value.
//!
//! bincode stays behind this file and `store::codec`. Its limit guards decoding only, trailing
//! bytes would pass, so both are checked here.

use bincode::{Decode, Encode};

/// Most bytes of a frame's body: 1 MiB, checked before anything is allocated.
pub const MAX_FRAME: usize = 1 << 20;

/// Most bytes of a request's body: 64 KiB. What is bigger travels as a descriptor, so nobody who
/// asks has a use for the memory of a whole frame.
pub const MAX_REQUEST: usize = 64 << 10;

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
    /// The length is above what is allowed here.
    #[error("a frame of {announced} bytes was announced; at most {most} are allowed")]
    TooLong {
        /// Bytes of its body, as its header says.
        announced: u64,
        /// Most bytes.
        most: usize,
    },
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
        return Err(FrameError::TooLong { announced: body as u64, most: MAX_FRAME });
    }
    frame[..HEADER].copy_from_slice(&(body as u32).to_le_bytes());
    Ok(frame)
}

/// The value in a frame's `body`, which it must fill.
pub fn decode<T: Decode<()>>(body: &[u8]) -> Result<T, FrameError> {
    if body.len() > MAX_FRAME {
        return Err(FrameError::TooLong { announced: body.len() as u64, most: MAX_FRAME });
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
#[derive(Debug)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    /// What of it was given out already.
    taken: usize,
    most: usize,
}

impl Default for FrameBuffer {
    fn default() -> Self {
        Self { bytes: Vec::new(), taken: 0, most: MAX_FRAME }
    }
}

impl FrameBuffer {
    /// For who is asked: takes bodies of at most [`MAX_REQUEST`] bytes.
    pub fn for_requests() -> Self {
        Self { bytes: Vec::new(), taken: 0, most: MAX_REQUEST }
    }

    /// Adds what has arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..std::mem::take(&mut self.taken));
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting().is_empty()
    }

    /// Whether more waits than any one frame has.
    pub fn is_full(&self) -> bool {
        self.waiting().len() > HEADER + self.most
    }

    /// Whether [`FrameBuffer::next_body`] has something to say without more bytes.
    pub fn is_ready(&self) -> bool {
        self.next_length().map_or(true, |length| length.is_some())
    }

    fn waiting(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    /// The length of the next body, once all of it is there.
    fn next_length(&self) -> Result<Option<usize>, FrameError> {
        let Some(header) = self.waiting().first_chunk::<HEADER>() else { return Ok(None) };
        let length = u32::from_le_bytes(*header) as usize;
        if length > self.most {
            return Err(FrameError::TooLong { announced: length as u64, most: self.most });
        }
        Ok((self.waiting().len() >= HEADER + length).then_some(length))
    }

    /// The next whole body. `Ok(None)`: more bytes are needed.
    pub fn next_body(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        let Some(length) = self.next_length()? else { return Ok(None) };
        let body = self.waiting()[HEADER..HEADER + length].to_vec();
        self.taken += HEADER + length;
        if self.taken == self.bytes.len() {
            // Nothing is kept for one that was large.
            (self.bytes, self.taken) = (Vec::new(), 0);
        }
        Ok(Some(body))
    }

    /// What to say when the connection has ended.
    pub fn at_end(&self) -> Result<(), FrameError> {
        if self.waiting().is_empty() { Ok(()) } else { Err(FrameError::Truncated) }
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
        let refused = FrameError::TooLong { announced: u64::from(u32::MAX), most: MAX_FRAME };
        assert_eq!(buffer.next_body(), Err(refused));
    }

    #[test]
    fn who_is_asked_keeps_no_more_than_a_request() {
        let announcing = |length: usize| {
            let mut buffer = FrameBuffer::for_requests();
            buffer.push(&(length as u32).to_le_bytes());
            buffer
        };
        assert_eq!(announcing(MAX_REQUEST).next_body(), Ok(None));
        assert!(!announcing(MAX_REQUEST).is_ready() && announcing(MAX_REQUEST + 1).is_ready());
        assert!(announcing(MAX_REQUEST + 1).next_body().is_err());
        let mut buffer = announcing(MAX_REQUEST);
        buffer.push(&[0; MAX_REQUEST]);
        assert!(buffer.is_ready() && !buffer.is_full());
        buffer.push(&[0]);
        assert!(buffer.is_full());
    }

    #[test]
    fn a_hostile_inner_length_and_trailing_bytes_are_refused() {
        let body = [0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert!(matches!(decode::<Vec<u8>>(&body), Err(FrameError::Malformed(_))));
        assert_eq!(decode::<u8>(&[1, 2]), Err(FrameError::Trailing(1)));
    }
}
