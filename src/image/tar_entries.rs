//! The entries of an archive, one after the other, within limits, to a proper end.

use std::io::{self, Read};

use tar::Header;

use super::ImageError;
use super::ext4::attribute_index;
use super::meter::Meter;
use super::tar_name::{parts, refused};
use super::tar_reader::{HEADER_BYTES, Next, TarEntry, TarReader};
use super::tree::Meta;

/// How much archives may hold together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) bytes: u64,
    pub(super) entries: u64,
}

/// How much they did hold so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    bytes: u64,
    entries: u64,
    /// Entries that were left out.
    pub(super) skipped: u64,
}

impl Tally {
    fn add(&mut self, bytes: u64, limits: Limits) -> Result<(), ImageError> {
        self.entries += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        if self.entries > limits.entries {
            return Err(ImageError::Limit { what: "entries", limit: limits.entries });
        }
        if self.bytes > limits.bytes {
            return Err(ImageError::Limit { what: "bytes of content", limit: limits.bytes });
        }
        Ok(())
    }
}

/// How an archive has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With its end marker: nothing else tells whether it is whole.
    Marked,
    /// Where its stream does, which tells by itself whether it is whole.
    OfStream,
}

/// Hands every entry of the archive to `add`, with its name in parts; `add` says whether it took it.
pub(super) fn add_entries<'m>(
    meter: &Meter<'m>,
    limits: Limits,
    tally: &mut Tally,
    end: End,
    mut add: impl FnMut(&mut TarEntry<'m>, &[Vec<u8>]) -> Result<bool, ImageError>,
) -> Result<(), ImageError> {
    let mut reader = TarReader::new(meter.clone());
    let has_mark = loop {
        let mut entry = match reader.next()? {
            Next::Entry(entry) => *entry,
            Next::Mark => break true,
            Next::Nothing => break false,
        };
        meter.allow(None);
        tally.add(entry.size(), limits)?;
        let kept = parts(entry.name())?;
        match add(&mut entry, &kept) {
            Ok(true) => {}
            Ok(false) => tally.skipped += 1,
            Err(error) => return Err(meter.refusal().unwrap_or(error)),
        }
        reader.finish(entry)?;
    };
    match end {
        End::Marked if has_mark => end_of_archive(meter),
        End::Marked => Err(ImageError::Truncated(meter.total())),
        End::OfStream => {
            meter.allow(None);
            io::copy(&mut meter.clone(), &mut io::sink()).map(drop).map_err(|e| meter.explain(e))
        }
    }
}

/// An archive ends with two blocks of zeros (POSIX pax, "ustar Interchange Format") and then whatever
/// fills its last record. The first of them has been read.
fn end_of_archive(meter: &Meter) -> Result<(), ImageError> {
    meter.allow(Some(HEADER_BYTES));
    let mut rest = Vec::new();
    meter.clone().read_to_end(&mut rest).map_err(|e| meter.explain(e))?;
    if rest.len() < 512 || rest[..512].iter().any(|byte| *byte != 0) {
        return Err(ImageError::Truncated(meter.total()));
    }
    Ok(())
}

/// Owner, mode, time and attributes of an entry.
pub(super) fn meta(entry: &TarEntry) -> Result<Meta, ImageError> {
    let header = entry.header();
    let id = |what: &str, record: &str, field: &[u8], value: io::Result<u64>| {
        let value = match entry.records().number(record) {
            Some(written) => written.ok(),
            // A field that its writer left empty, as some do.
            None if field.iter().all(|byte| matches!(byte, 0 | b' ')) => Some(0),
            None => value.ok(),
        };
        let value = value.and_then(|value| u32::try_from(value).ok());
        value.ok_or_else(|| refused(entry.name(), format!("its {what} is no number of 32 bits")))
    };
    let mode = header.mode().map_err(|_| refused(entry.name(), "its mode is no number of 32 bits"))?;
    let mut meta = Meta {
        mode: (mode & 0o7777) as u16,
        uid: id("owner", "uid", &header.as_old().uid, header.uid())?,
        gid: id("group", "gid", &header.as_old().gid, header.gid())?,
        mtime: (written_time(header), 0),
        ..Meta::default()
    };
    if let Some(text) = entry.records().get("mtime").and_then(|value| std::str::from_utf8(value).ok()) {
        meta.mtime = pax_time(text).unwrap_or(meta.mtime);
    }
    for (key, value) in entry.records().iter() {
        if let Some(attribute) = key.strip_prefix(b"SCHILY.xattr.") {
            add_attribute(attribute, value, &mut meta);
        }
    }
    Ok(meta)
}

/// Keeps an extended attribute that ext4 has a place for; an ACL has another form on the disk.
fn add_attribute(name: &[u8], value: &[u8], meta: &mut Meta) {
    if name.len() > 255 || attribute_index(name).is_none() {
        return;
    }
    // Of two records the last counts, and one without a value takes the attribute back.
    let value = if name.starts_with(b"system.posix_acl_") { acl_on_disk(value) } else { Some(value.to_vec()) };
    meta.attributes.retain(|(other, _)| other != name);
    meta.attributes.extend(value.filter(|value| !value.is_empty()).map(|value| (name.to_vec(), value)));
}

/// An ACL as programs see it (version 2, eight bytes an entry; linux/posix_acl_xattr.h) → as ext4 keeps
/// it (version 1, ids only where an entry is about a certain user or group; fs/ext4/acl.h).
fn acl_on_disk(value: &[u8]) -> Option<Vec<u8>> {
    const USER: [u8; 2] = [2, 0];
    const GROUP: [u8; 2] = [8, 0];
    let entries = value.strip_prefix(&2u32.to_le_bytes())?;
    let mut disk = 1u32.to_le_bytes().to_vec();
    for entry in entries.chunks(8) {
        let (tag, permissions, id) = (entry.get(..2)?, entry.get(2..4)?, entry.get(4..8)?);
        disk.extend_from_slice(tag);
        disk.extend_from_slice(permissions);
        if tag == USER || tag == GROUP {
            disk.extend_from_slice(id);
        }
    }
    Some(disk)
}

/// The header's own time. Before the epoch it is in two's complement (GNU tar's base-256), of which the crate
/// gives the low 64 bits; what ext4 cannot hold is brought within its bounds where it is written.
fn written_time(header: &Header) -> i64 {
    header.mtime().unwrap_or(0).cast_signed()
}

/// Seconds with a fraction, before the epoch with a minus (POSIX pax, "mtime").
fn pax_time(text: &str) -> Option<(i64, u32)> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = seconds.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    match (seconds.starts_with('-'), nanoseconds) {
        (true, 1..) => Some((whole.checked_sub(1)?, 1_000_000_000 - nanoseconds)),
        _ => Some((whole, nanoseconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_fractions_and_signs() {
        assert_eq!(pax_time("12.5"), Some((12, 500_000_000)));
        assert_eq!(pax_time("12"), Some((12, 0)));
        assert_eq!(pax_time("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(pax_time("-0.5"), Some((-1, 500_000_000)));
        assert_eq!(pax_time("1.0000000019"), Some((1, 1)));
        for bad in ["", "x", "1.x", "99999999999999999999", "-"] {
            assert_eq!(pax_time(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_time_before_the_epoch_needs_no_record() {
        let mut header = Header::new_gnu();
        header.set_mtime(86_400);
        assert_eq!(written_time(&header), 86_400);
        header.as_old_mut().mtime = [0xff; 12];
        assert_eq!(written_time(&header), -1);
        header.as_old_mut().mtime[10..].copy_from_slice(&[0xfe, 0xd4]);
        assert_eq!(written_time(&header), -300);
        header.as_old_mut().mtime = *b"not a number";
        assert_eq!(written_time(&header), 0);
    }

    #[test]
    fn an_acl_is_written_as_ext4_keeps_it() {
        let seen = [2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 232, 3, 0, 0];
        assert_eq!(acl_on_disk(&seen), Some(vec![1, 0, 0, 0, 1, 0, 6, 0, 2, 0, 4, 0, 232, 3, 0, 0]));
        assert_eq!(acl_on_disk(&seen[..19]), None);
        assert_eq!(acl_on_disk(&[1, 0, 0, 0]), None);
    }
}
