//! Several archives in one stream, in pieces: who reads knows where one ends, and that all have come.
//!
//! A piece is its length in 4 bytes, little-endian, and its bytes. A length of 0 ends a layer, and one that no
//! piece can have ends the stream: only its writer, when all is verified, says that.

use std::io::{self, Read, Write};

/// Most bytes of a piece.
const MOST: usize = 1 << 20;
/// Ends the stream.
const END: u32 = u32::MAX;

/// Writes layers.
#[derive(Debug)]
pub struct LayerWriter<W>(W);

impl<W: Write> LayerWriter<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self(out)
    }

    /// Copies one layer whole.
    pub fn layer(&mut self, layer: &mut dyn Read) -> io::Result<()> {
        let mut piece = vec![0; 4 + MOST / 4];
        loop {
            let count = match layer.read(&mut piece[4..]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            // One write for both: a pipe takes it with fewer turns.
            piece[..4].copy_from_slice(&(count as u32).to_le_bytes());
            self.0.write_all(&piece[..4 + count])?;
            if count == 0 {
                return Ok(());
            }
        }
    }

    /// Where it writes to.
    pub fn out(&mut self) -> &mut W {
        &mut self.0
    }

    /// Says that these are all layers, and that each is what it should be.
    pub fn finish(mut self) -> io::Result<()> {
        self.0.write_all(&END.to_le_bytes())?;
        self.0.flush()
    }
}

/// Reads layers.
pub(super) struct LayerReader<'r> {
    stream: &'r mut dyn Read,
    left: usize,
    at_end: bool,
}

impl<'r> LayerReader<'r> {
    pub(super) fn new(stream: &'r mut dyn Read) -> Self {
        Self { stream, left: 0, at_end: true }
    }

    /// Whether there is another layer; the last one must have been read to its end.
    pub(super) fn next_layer(&mut self) -> io::Result<bool> {
        match self.length()? {
            END => Ok(false),
            length => {
                self.begin(length)?;
                Ok(true)
            }
        }
    }

    fn length(&mut self) -> io::Result<u32> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::new(e.kind(), "the stream of layers was cut off"),
            _ => e,
        })?;
        Ok(u32::from_le_bytes(length))
    }

    fn begin(&mut self, length: u32) -> io::Result<()> {
        if length as usize > MOST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a piece of a layer is longer than 1 MiB"));
        }
        self.left = length as usize;
        self.at_end = length == 0;
        Ok(())
    }
}

impl Read for LayerReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at_end || buffer.is_empty() {
            return Ok(0);
        }
        let room = buffer.len().min(self.left);
        let count = self.stream.read(&mut buffer[..room])?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream of layers was cut off"));
        }
        self.left -= count;
        if self.left == 0 {
            let length = self.length()?;
            self.begin(length)?;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = LayerWriter::new(&mut bytes);
        writer.layer(&mut &[7u8; 600_000][..]).expect("written");
        writer.layer(&mut &b""[..]).expect("written");
        writer.layer(&mut &b"abc"[..]).expect("written");
        writer.finish().expect("written");
        bytes
    }

    fn read(mut bytes: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let mut reader = LayerReader::new(&mut bytes);
        let mut layers = Vec::new();
        while reader.next_layer()? {
            let mut layer = Vec::new();
            reader.read_to_end(&mut layer)?;
            layers.push(layer);
        }
        Ok(layers)
    }

    #[test]
    fn layers_come_out_as_they_went_in() {
        let layers = read(&stream()).expect("whole");
        assert_eq!(layers.iter().map(Vec::len).collect::<Vec<_>>(), [600_000, 0, 3]);
        assert_eq!(layers[2], b"abc");
    }

    #[test]
    fn a_stream_that_was_cut_is_never_whole() {
        let stream = stream();
        for length in (0..stream.len()).step_by(997).chain(stream.len() - 30..stream.len()) {
            assert!(read(&stream[..length]).is_err(), "{length}");
        }
        assert!(read(&(MOST as u32 + 1).to_le_bytes()).is_err());
    }
}
