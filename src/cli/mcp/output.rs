//! What a command says, bounded: its beginning and its end, because errors stand at both.

use std::collections::VecDeque;
use std::io::Read;

use base64ct::{Base64, Encoding};
use serde_json::{Value, json};

/// Most bytes that are kept of the beginning, and as many of the end.
const HALF: usize = 32 << 10;

/// Bytes of a stream.
#[derive(Debug, Default)]
pub struct Kept {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    total: u64,
}

impl Kept {
    /// Reads `stream` to its end; an error ends it as its end does.
    pub fn read(mut stream: impl Read) -> Self {
        let (mut kept, mut portion) = (Self::default(), vec![0; 16 << 10]);
        loop {
            match stream.read(&mut portion) {
                Ok(0) => return kept,
                Ok(count) => kept.take(&portion[..count]),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return kept,
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let (first, rest) = bytes.split_at(bytes.len().min(HALF - self.head.len()));
        self.head.extend_from_slice(first);
        self.tail.extend(rest);
        let surplus = self.tail.len().saturating_sub(HALF);
        self.tail.drain(..surplus);
    }

    /// As text, with a line where something was left out.
    pub fn text(&self) -> String {
        let tail: Vec<u8> = self.tail.iter().copied().collect();
        match self.left_out() {
            0 => String::from_utf8_lossy(&[self.head.as_slice(), &tail].concat()).into_owned(),
            count => format!(
                "{}\n[... {count} bytes left out ...]\n{}",
                String::from_utf8_lossy(&self.head),
                String::from_utf8_lossy(&tail)
            ),
        }
    }

    /// How many bytes there were.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// How many bytes are not kept.
    pub fn left_out(&self) -> u64 {
        self.total - (self.head.len() + self.tail.len()) as u64
    }
}

/// Bytes as JSON has them: as they are where they are text, else as base64.
pub fn content(bytes: Vec<u8>) -> (&'static str, Value) {
    match String::from_utf8(bytes) {
        Ok(text) => ("utf-8", json!(text)),
        Err(e) => ("base64", json!(Base64::encode_string(e.as_bytes()))),
    }
}

/// Of a text that was cut, without the character in which that happened; anything else as it is.
pub fn whole_characters(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Err(e) = std::str::from_utf8(&bytes)
        && e.error_len().is_none()
        && e.valid_up_to() > 0
    {
        bytes.truncate(e.valid_up_to());
    }
    bytes
}

/// Bytes of `content`, which is in this `encoding`.
pub fn bytes(content: &str, encoding: &str) -> Option<Vec<u8>> {
    match encoding {
        "base64" => Base64::decode_vec(content).ok(),
        _ => Some(content.as_bytes().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_short_is_kept_whole_and_of_what_is_long_both_ends() {
        let short = Kept::read(&b"a\xc3\xa4\xff"[..]);
        assert_eq!((short.text().as_str(), short.total(), short.left_out()), ("aä\u{fffd}", 4, 0));
        let whole = Kept::read(vec![b'x'; 2 * HALF].as_slice());
        assert_eq!((whole.text().len(), whole.left_out()), (2 * HALF, 0));
        let long = Kept::read([b"begin".to_vec(), vec![b'x'; 10 * HALF], b"end".to_vec()].concat().as_slice());
        let text = long.text();
        assert!(text.starts_with("beginx") && text.ends_with("xend") && text.contains("bytes left out ...]"));
        assert_eq!((long.total(), long.left_out()), (10 * HALF as u64 + 8, 8 * HALF as u64 + 8));
        assert!(long.tail.capacity() < 4 * HALF);
    }

    #[test]
    fn a_text_that_is_cut_stays_a_text() {
        for (cut, whole) in [(&b"a\xe4\xb8"[..], &b"a"[..]), (b"a\xe4\xb8\xad", b"a\xe4\xb8\xad"), (b"\xe4", b"\xe4")] {
            assert_eq!(whole_characters(cut.to_vec()), whole);
        }
        assert_eq!(whole_characters(b"a\xffb".to_vec()), b"a\xffb");
    }

    #[test]
    fn bytes_that_are_no_text_come_and_go_as_base64() {
        for sent in [b"".to_vec(), b"text\n".to_vec(), (0..=255).collect()] {
            let (encoding, value) = content(sent.clone());
            assert_eq!(bytes(value.as_str().expect("text"), encoding), Some(sent));
        }
        assert_eq!(bytes("no base64!", "base64"), None);
    }
}
