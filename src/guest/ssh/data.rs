//! Values as ssh writes them (RFC 4251, section 5). Reading never trusts a length.

use super::error::SessionError;

/// Reads values one after the other.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], SessionError> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(SessionError::Protocol("a message is cut short"))?;
        self.0 = rest;
        Ok(bytes)
    }

    /// `byte`.
    pub fn byte(&mut self) -> Result<u8, SessionError> {
        Ok(self.bytes(1)?[0])
    }

    /// `boolean`: all but 0 is true.
    pub fn boolean(&mut self) -> Result<bool, SessionError> {
        Ok(self.byte()? != 0)
    }

    /// `uint32`.
    pub fn number(&mut self) -> Result<u32, SessionError> {
        let bytes = self.bytes(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// `uint64`.
    pub fn long(&mut self) -> Result<u64, SessionError> {
        Ok(u64::from(self.number()?) << 32 | u64::from(self.number()?))
    }

    /// `string`.
    pub fn string(&mut self) -> Result<&'a [u8], SessionError> {
        let length = self.number()?;
        self.bytes(length as usize)
    }

    /// A `string` that is text.
    pub fn text(&mut self) -> Result<&'a str, SessionError> {
        std::str::from_utf8(self.string()?).map_err(|_| SessionError::Protocol("a name is not text"))
    }
}

/// Writes values one after the other.
#[derive(Debug, Default, Clone)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// A message of this number.
    pub fn message(number: u8) -> Self {
        Self(vec![number])
    }

    /// Bytes as they are.
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// `byte`, and `boolean` as 0 or 1.
    pub fn byte(self, byte: impl Into<u8>) -> Self {
        self.bytes(&[byte.into()])
    }

    /// `uint32`.
    pub fn number(self, number: u32) -> Self {
        self.bytes(&number.to_be_bytes())
    }

    /// `uint64`.
    pub fn long(self, number: u64) -> Self {
        self.bytes(&number.to_be_bytes())
    }

    /// `string`. What this server sends is far below 4 GiB.
    pub fn string(self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        self.number(bytes.len() as u32).bytes(bytes)
    }

    /// `mpint` of a number that is not negative, from its bytes, largest first.
    pub fn integer(self, bytes: &[u8]) -> Self {
        let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
        let digits = &bytes[first..];
        match digits.first() {
            Some(high) if high & 0x80 != 0 => self.number(digits.len() as u32 + 1).byte(0).bytes(digits),
            _ => self.string(digits),
        }
    }

    /// What was written.
    pub fn done(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_they_were_written_and_no_length_is_trusted() {
        let bytes = Writer::message(7).byte(true).number(9).long(1 << 40).string("text").done();
        let mut reader = Reader::new(&bytes);
        assert_eq!((reader.byte().expect("byte"), reader.boolean().expect("boolean")), (7, true));
        assert_eq!((reader.number().expect("number"), reader.long().expect("long")), (9, 1 << 40));
        assert_eq!((reader.text().expect("text"), reader.0), ("text", &b""[..]));
        for hostile in [&[0xff; 4][..], &[0, 0, 0, 9, 1], &[0, 0]] {
            assert!(Reader::new(hostile).string().is_err());
        }
    }

    #[test]
    fn integers_are_those_of_the_standards_examples() {
        assert_eq!(Writer::default().integer(&[0, 0]).done(), [0, 0, 0, 0]);
        assert_eq!(Writer::default().integer(&[0, 0x80]).done(), [0, 0, 0, 2, 0, 0x80]);
        assert_eq!(Writer::default().integer(&[0x9, 0xa3]).done(), [0, 0, 0, 2, 0x9, 0xa3]);
    }
}
