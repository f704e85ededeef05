//! An archive's entries as they come: headers, and what describes them (POSIX pax, "pax Interchange Format";
//! GNU tar manual, "Basic Tar Format").
//!
//! The fields of a header are read by the `tar` crate. Its own reader takes the records of PAX for lines, so that a
//! name or an attribute with a line end in it is lost: here a record is as long as it says.

use std::io::{self, Read};

use tar::{EntryType, Header};

use super::ImageError;
use super::meter::Meter;
use super::tar_name::refused;
use super::tar_sparse::{self, SparseMap};

/// Bytes of headers that one entry may have: long names, PAX records with extended attributes.
pub(super) const HEADER_BYTES: u64 = 1 << 20;
/// Bytes of a block.
const BLOCK: usize = 512;

/// What lies between archive and entries.
pub(super) struct TarReader<'m> {
    meter: Meter<'m>,
}

/// One entry; what is not read of its content is passed over.
pub(super) struct TarEntry<'m> {
    meter: Meter<'m>,
    header: Header,
    records: Records,
    name: Vec<u8>,
    link: Vec<u8>,
    size: u64,
    left: u64,
    /// The parts of a sparse file of GNU's old kind.
    sparse: Option<SparseMap>,
}

/// What comes next.
pub(super) enum Next<'m> {
    Entry(Box<TarEntry<'m>>),
    /// The first of the two blocks that end an archive.
    Mark,
    /// The stream ended before it.
    Nothing,
}

impl<'m> TarReader<'m> {
    pub(super) fn new(meter: Meter<'m>) -> Self {
        Self { meter }
    }

    /// The next entry, with all that was said of it before.
    pub(super) fn next(&mut self) -> Result<Next<'m>, ImageError> {
        self.meter.allow(Some(HEADER_BYTES));
        let (mut records, mut name, mut link) = (Records::default(), None, None);
        loop {
            let Some(header) = self.header()? else {
                return Ok(if self.meter.has_ended() { Next::Nothing } else { Next::Mark });
            };
            match header.entry_type() {
                EntryType::XHeader => records = Records::parse(&self.whole(&header)?)?,
                EntryType::XGlobalHeader => drop(self.whole(&header)?),
                EntryType::GNULongName => name = Some(text(self.whole(&header)?)),
                EntryType::GNULongLink => link = Some(text(self.whole(&header)?)),
                _ => return self.entry(header, records, name, link).map(|entry| Next::Entry(Box::new(entry))),
            }
        }
    }

    fn entry(
        &mut self,
        header: Header,
        records: Records,
        name: Option<Vec<u8>>,
        link: Option<Vec<u8>>,
    ) -> Result<TarEntry<'m>, ImageError> {
        let own = || header.path_bytes().into_owned();
        let name = records.get("path").map(<[u8]>::to_vec).or(name).unwrap_or_else(own);
        let own = || header.link_name_bytes().unwrap_or_default().into_owned();
        let link = records.get("linkpath").map(<[u8]>::to_vec).or(link).unwrap_or_else(own);
        let size = match records.number("size") {
            Some(size) => size.ok(),
            None => header.entry_size().ok(),
        };
        let size = size.ok_or_else(|| refused(&name, "its size is no number"))?;
        let sparse = match header.entry_type() {
            EntryType::GNUSparse => Some(tar_sparse::of_header(&header, &name, || self.block())?),
            _ => None,
        };
        // The content of a link or a folder is none, whatever its size says (POSIX pax, "typeflag").
        let has_content = !matches!(header.entry_type(), EntryType::Link | EntryType::Symlink | EntryType::Directory)
            && !matches!(header.entry_type(), EntryType::Char | EntryType::Block | EntryType::Fifo);
        let size = if has_content { size } else { 0 };
        Ok(TarEntry { meter: self.meter.clone(), header, records, name, link, size, left: size, sparse })
    }

    /// The next header; `None` at a block of zeros, or at the end of the stream.
    fn header(&mut self) -> Result<Option<Header>, ImageError> {
        let Some(block) = self.block()? else { return Ok(None) };
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        // The sum is of the header with blanks in the sum's own place.
        let sum = block[..148].iter().chain(&block[156..]).map(|byte| u32::from(*byte)).sum::<u32>() + 8 * 32;
        match header.cksum() {
            Ok(expected) if expected == sum => Ok(Some(header)),
            _ => Err(ImageError::Stream(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("byte {} begins no entry: its sum is wrong", self.meter.total() - BLOCK as u64),
            ))),
        }
    }

    /// The next block; `None` at the end of the stream.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, ImageError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.meter.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(ImageError::Truncated(self.meter.total())),
                Ok(count) => filled += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.meter.explain(e)),
            }
        }
        Ok(Some(block))
    }

    /// All that a header of headers is about; the meter bounds it.
    fn whole(&mut self, header: &Header) -> Result<Vec<u8>, ImageError> {
        let size = header.entry_size().map_err(ImageError::Stream)?;
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < size {
            let block = self.block()?.ok_or_else(|| ImageError::Truncated(self.meter.total()))?;
            bytes.extend_from_slice(&block);
        }
        bytes.truncate(size as usize);
        Ok(bytes)
    }

    /// Passes over what is left of an entry.
    pub(super) fn finish(&mut self, entry: TarEntry<'m>) -> Result<(), ImageError> {
        let padding = entry.size.next_multiple_of(BLOCK as u64) - entry.size;
        let left = entry.left + padding;
        let passed = io::copy(&mut (&mut self.meter).take(left), &mut io::sink()).map_err(|e| self.meter.explain(e))?;
        if passed < left { Err(ImageError::Truncated(self.meter.total())) } else { Ok(()) }
    }
}

/// A long name ends with a NUL.
fn text(mut bytes: Vec<u8>) -> Vec<u8> {
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    bytes
}

impl TarEntry<'_> {
    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    pub(super) fn kind(&self) -> EntryType {
        self.header.entry_type()
    }

    /// The name, as it is written; that of a sparse file of the PAX kinds is in a record of its own.
    pub(super) fn name(&self) -> &[u8] {
        self.records.get("GNU.sparse.name").unwrap_or(&self.name)
    }

    /// The target of a link.
    pub(super) fn link(&self) -> &[u8] {
        &self.link
    }

    /// Bytes of content in the archive.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn records(&self) -> &Records {
        &self.records
    }

    /// What was said of a sparse file of GNU's old kind, once.
    pub(super) fn take_sparse(&mut self) -> Option<SparseMap> {
        self.sparse.take()
    }
}

impl Read for TarEntry<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.meter.read(&mut buffer[..room])?;
        self.left -= count as u64;
        Ok(count)
    }
}

/// The records of a PAX header.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Records(Vec<(Vec<u8>, Vec<u8>)>);

impl Records {
    /// `LENGTH KEY=VALUE\n` again and again; LENGTH counts all of it.
    fn parse(mut bytes: &[u8]) -> Result<Self, ImageError> {
        let damaged = || ImageError::Stream(io::Error::new(io::ErrorKind::InvalidData, "a PAX header holds no record"));
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let blank = bytes.iter().take(20).position(|byte| *byte == b' ').ok_or_else(damaged)?;
            let length = number(&bytes[..blank]).and_then(|length| usize::try_from(length).ok()).ok_or_else(damaged)?;
            let record = bytes.get(blank + 1..length).ok_or_else(damaged)?;
            let record = record.strip_suffix(b"\n").ok_or_else(damaged)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(damaged)?;
            records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
            bytes = &bytes[length..];
        }
        Ok(Self(records))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(key, value)| (key.as_slice(), value.as_slice()))
    }

    /// The last record called `key`; one without a value takes back what was said (POSIX pax).
    pub(super) fn get(&self, key: &str) -> Option<&[u8]> {
        let last = self.iter().filter(|(name, _)| *name == key.as_bytes()).last();
        last.map(|(_, value)| value).filter(|value| !value.is_empty())
    }

    /// The same as a number, where there is one; `Err`: it is none.
    pub(super) fn number(&self, key: &str) -> Option<Result<u64, ()>> {
        self.get(key).map(|value| number(value).ok_or(()))
    }
}

/// A number in decimal digits.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_as_long_as_it_says() {
        let records = Records::parse(b"12 path=a\nb\n31 SCHILY.xattr.x=\n=9 a=\n12345\n8 size=\n").expect("records");
        assert_eq!(records.get("path"), Some(&b"a\nb"[..]));
        assert_eq!(records.get("SCHILY.xattr.x"), Some(&b"\n=9 a=\n12345"[..]));
        assert_eq!(records.get("size"), None);
        for bad in
            [&b"x"[..], b"5 a=b\n", b"6 a=bc", b"99 a=b\n", b"0 a=b\n", b"6 abc\n", b"18446744073709551615 a=b\n"]
        {
            assert!(Records::parse(bad).is_err(), "{}", bad.escape_ascii());
        }
    }
}
