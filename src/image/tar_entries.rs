//! The entries of an archive, one after the other, within limits, to a proper end.

use std::io::{self, Read};

use tar::{Archive, Entry};

use super::ImageError;
use super::ext4::attribute_index;
use super::meter::Meter;
use super::tar_name::{parts, refused};
use super::tree::Meta;

/// Bytes of headers that one entry may have: long names, PAX records with extended attributes.
pub(super) const HEADER_BYTES: u64 = 1 << 20;

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

/// An entry of a metered archive.
pub(super) type TarEntry<'a, 'm> = Entry<'a, Meter<'m>>;

/// Hands every entry of the archive to `add`, with its name in parts; `add` says whether it took it.
pub(super) fn add_entries<'m>(
    meter: &Meter<'m>,
    limits: Limits,
    tally: &mut Tally,
    end: End,
    mut add: impl FnMut(&mut TarEntry<'_, 'm>, &[Vec<u8>]) -> Result<bool, ImageError>,
) -> Result<(), ImageError> {
    let mut archive = Archive::new(meter.clone());
    let mut entries = archive.entries().map_err(|e| meter.explain(e))?;
    loop {
        meter.allow(Some(HEADER_BYTES));
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(|e| meter.explain(e))?;
        meter.allow(None);
        tally.add(entry.size(), limits)?;
        if entry.header().entry_type().is_pax_global_extensions() {
            drain(meter, &mut entry)?;
            continue;
        }
        let kept = parts(&name_of(&mut entry)?)?;
        match add(&mut entry, &kept) {
            Ok(true) => {}
            Ok(false) => tally.skipped += 1,
            Err(error) => return Err(meter.refusal().unwrap_or(error)),
        }
        // What `add` did not care to read, so that the next headers are all that the next step reads.
        drain(meter, &mut entry)?;
    }
    match end {
        End::Marked => end_of_archive(meter),
        End::OfStream => {
            meter.allow(None);
            io::copy(&mut meter.clone(), &mut io::sink()).map(drop).map_err(|e| meter.explain(e))
        }
    }
}

/// The name of an entry; that of a sparse file of the PAX kinds is in a record of its own.
fn name_of(entry: &mut TarEntry) -> Result<Vec<u8>, ImageError> {
    let own = entry.path_bytes().into_owned();
    Ok(pax_record(entry, "GNU.sparse.name")?.unwrap_or(own))
}

/// The last PAX record of an entry that is called `key`.
pub(super) fn pax_record(entry: &mut TarEntry, key: &str) -> Result<Option<Vec<u8>>, ImageError> {
    let Some(records) = entry.pax_extensions().map_err(ImageError::Stream)? else { return Ok(None) };
    let mut found = None;
    for record in records {
        let record = record.map_err(ImageError::Stream)?;
        if record.key_bytes() == key.as_bytes() {
            found = Some(record.value_bytes().to_owned());
        }
    }
    Ok(found)
}

fn drain(meter: &Meter, entry: &mut TarEntry) -> Result<(), ImageError> {
    io::copy(entry, &mut io::sink()).map(drop).map_err(|e| meter.explain(e))
}

/// An archive ends with two blocks of zeros (POSIX pax, "ustar Interchange Format") and then whatever
/// fills its last record. The reader stops at the first block, and just as quietly at the end of the
/// stream.
fn end_of_archive(meter: &Meter) -> Result<(), ImageError> {
    let truncated = || ImageError::Truncated(meter.total());
    if meter.has_ended() {
        return Err(truncated());
    }
    meter.allow(Some(HEADER_BYTES));
    let mut rest = Vec::new();
    meter.clone().read_to_end(&mut rest).map_err(|e| meter.explain(e))?;
    if rest.len() < 512 || rest[..512].iter().any(|byte| *byte != 0) {
        return Err(truncated());
    }
    Ok(())
}

/// Owner, mode, time and attributes of an entry.
pub(super) fn meta(entry: &mut TarEntry) -> Result<Meta, ImageError> {
    let name = entry.path_bytes().into_owned();
    let number = |what: &str, value: io::Result<u64>| {
        value
            .ok()
            .and_then(|value| u32::try_from(value).ok())
            .ok_or_else(|| refused(&name, format!("its {what} is no number of 32 bits")))
    };
    let header = entry.header();
    let mut meta = Meta {
        mode: (number("mode", header.mode().map(u64::from))? & 0o7777) as u16,
        uid: if is_blank(&header.as_old().uid) { 0 } else { number("owner", header.uid())? },
        gid: if is_blank(&header.as_old().gid) { 0 } else { number("group", header.gid())? },
        mtime: (i64::try_from(header.mtime().unwrap_or(0)).unwrap_or(0), 0),
        ..Meta::default()
    };
    add_pax_records(entry, &mut meta)?;
    Ok(meta)
}

/// A field that its writer left empty, as some do.
fn is_blank(field: &[u8]) -> bool {
    field.iter().all(|byte| matches!(byte, 0 | b' '))
}

/// Time and extended attributes, which GNU tar, bsdtar and star put into PAX records.
fn add_pax_records(entry: &mut TarEntry, meta: &mut Meta) -> Result<(), ImageError> {
    let Some(records) = entry.pax_extensions().map_err(ImageError::Stream)? else { return Ok(()) };
    for record in records {
        let record = record.map_err(ImageError::Stream)?;
        let key = record.key_bytes();
        if key == b"mtime" {
            meta.mtime = std::str::from_utf8(record.value_bytes()).ok().and_then(pax_time).unwrap_or(meta.mtime);
        } else if let Some(attribute) = key.strip_prefix(b"SCHILY.xattr.") {
            add_attribute(attribute, record.value_bytes(), meta);
        }
    }
    Ok(())
}

/// Keeps an extended attribute that ext4 has a place for; an ACL has another form on the disk.
fn add_attribute(name: &[u8], value: &[u8], meta: &mut Meta) {
    if name.len() > 255 || attribute_index(name).is_none() {
        return;
    }
    let value = if name.starts_with(b"system.posix_acl_") { acl_on_disk(value) } else { Some(value.to_vec()) };
    meta.attributes.retain(|(other, _)| other != name);
    meta.attributes.extend(value.map(|value| (name.to_vec(), value)));
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
    fn an_acl_is_written_as_ext4_keeps_it() {
        let seen = [2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 232, 3, 0, 0];
        assert_eq!(acl_on_disk(&seen), Some(vec![1, 0, 0, 0, 1, 0, 6, 0, 2, 0, 4, 0, 232, 3, 0, 0]));
        assert_eq!(acl_on_disk(&seen[..19]), None);
        assert_eq!(acl_on_disk(&[1, 0, 0, 0]), None);
    }
}
