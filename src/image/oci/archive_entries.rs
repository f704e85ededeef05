//! What lies where in a tar of images. Nothing is unpacked: names are keys, contents stay where they are.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use tar::EntryType;

use crate::os::files::named;

use super::decoder::{Decoder, Start};
use super::error::OciError;
use super::flow::Section;
use super::{Input, Settings};

/// Most bytes of an archive, decompressed.
const MOST_BYTES: u64 = 64 << 30;
/// Most entries.
const MOST_ENTRIES: usize = 65_536;
/// Bytes of headers that one entry may have: the tar reader keeps long names in memory.
const MOST_HEADER: u64 = 64 << 10;
/// Most bytes of a name, or of a link's, that is kept: those of images have a tenth of it, and all are in memory.
const MOST_NAME: usize = 512;
/// Links that lead to one layer.
const MOST_LINKS: usize = 8;

enum Entry {
    File { at: u64, size: u64 },
    Link(String),
}

/// An archive whose entries are known.
pub(super) struct Entries {
    file: Arc<File>,
    entries: HashMap<String, Entry>,
    name: String,
}

impl Entries {
    /// Reads all headers. A stream, or a file that is compressed, is first copied below the cache, decompressed,
    /// into a file that has no name: nothing stays, however this ends.
    pub(super) fn read(input: Input, settings: &Settings, on_stage: &mut dyn FnMut(&str)) -> Result<Self, OciError> {
        let (file, name) = match input {
            Input::Stream(stream) => {
                on_stage("copying the archive");
                (
                    spool(Decoder::new(BufReader::with_capacity(256 << 10, Start::new(stream))), settings)?,
                    "-".to_owned(),
                )
            }
            Input::File(path) => {
                let file = File::open(&path).map_err(named("open", &path))?;
                (seekable(file, &path, settings, on_stage)?, path.display().to_string())
            }
            Input::Open(file, name) => (seekable(file, Path::new(&name), settings, on_stage)?, name),
        };
        let mut entries = Self { file: Arc::new(file), entries: HashMap::new(), name };
        on_stage("reading the archive");
        entries.scan()?;
        Ok(entries)
    }

    pub(super) fn refuse(&self, reason: impl ToString) -> OciError {
        OciError::Archive { name: self.name.clone(), reason: reason.to_string() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The content called `name`, through links.
    pub(super) fn section(&self, name: &str) -> Result<Section, OciError> {
        let mut here = plain(name).ok_or_else(|| self.refuse(format!("the name {name:?} leads out of it")))?;
        for _ in 0..=MOST_LINKS {
            match self.entries.get(&here) {
                Some(Entry::File { at, size }) => {
                    return Ok(Section { file: Arc::clone(&self.file), at: *at, end: at + size });
                }
                Some(Entry::Link(target)) => here = target.clone(),
                None => return Err(self.refuse(format!("{name:?} is not in it"))),
            }
        }
        Err(self.refuse(format!("{name:?} is a link to a link, and so on")))
    }

    /// A small content.
    pub(super) fn document(&self, name: &str, limit: u64) -> Result<Vec<u8>, OciError> {
        let mut section = self.section(name)?;
        if section.end - section.at > limit {
            return Err(OciError::TooLarge { what: format!("{name} of {}", self.name), limit });
        }
        let mut bytes = Vec::new();
        section.read_to_end(&mut bytes).map_err(named("read", Path::new(&self.name)))?;
        Ok(bytes)
    }

    fn scan(&mut self) -> Result<(), OciError> {
        let allowance = Rc::new(Cell::new(MOST_HEADER));
        let file = self.file.try_clone()?;
        let length = file.metadata()?.len();
        let mut archive = tar::Archive::new(Headers { file, allowance: Rc::clone(&allowance) });
        let mut found = archive.entries_with_seek().map_err(|e| self.refuse(e))?;
        loop {
            allowance.set(MOST_HEADER);
            let Some(entry) = found.next() else { return Ok(()) };
            let entry = entry.map_err(|e| self.refuse(e))?;
            if self.entries.len() >= MOST_ENTRIES {
                return Err(self.refuse(format!("it has more than {MOST_ENTRIES} entries")));
            }
            self.note(&entry, length)?;
        }
    }

    fn note(&mut self, entry: &tar::Entry<Headers>, length: u64) -> Result<(), OciError> {
        let Ok(name) = String::from_utf8(entry.path_bytes().into_owned()) else { return Ok(()) };
        let link = entry.link_name_bytes().unwrap_or_default();
        if name.len() > MOST_NAME || link.len() > MOST_NAME {
            return Ok(());
        }
        let shown: String = name.chars().take(200).collect();
        let kept = plain(&name).ok_or_else(|| self.refuse(format!("the name {shown:?} leads out of it")))?;
        let noted = match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => {
                let (at, size) = (entry.raw_file_position(), entry.size());
                if at.checked_add(size).is_none_or(|end| end > length) {
                    return Err(self.refuse(format!("{shown:?} has {size} bytes, and the archive ends before them")));
                }
                Entry::File { at, size }
            }
            kind @ (EntryType::Symlink | EntryType::Link) => {
                let target = String::from_utf8(link.into_owned()).unwrap_or_default();
                // A symbolic link starts in its folder, a hard link at the top.
                let folder = kept.rsplit_once('/').map_or("", |(folder, _)| folder);
                let from = if kind == EntryType::Symlink { format!("{folder}/{target}") } else { target.clone() };
                let absolute = target.starts_with('/');
                let target = resolved(&from).filter(|_| !absolute);
                Entry::Link(target.ok_or_else(|| self.refuse(format!("the link {shown:?} leads out of it")))?)
            }
            _ => return Ok(()),
        };
        self.entries.insert(kept, noted);
        Ok(())
    }
}

/// A name without `./`; `None` when it is absolute or goes up.
fn plain(name: &str) -> Option<String> {
    if name.starts_with('/') || name.split('/').any(|part| part == "..") {
        return None;
    }
    resolved(name)
}

/// A path with `..` taken away; `None` when it leads out of the top.
fn resolved(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            parts.pop()?;
        } else {
            parts.push(part);
        }
    }
    Some(parts.join("/"))
}

/// The file, or what it decompresses to.
fn seekable(file: File, path: &Path, settings: &Settings, on_stage: &mut dyn FnMut(&str)) -> Result<File, OciError> {
    let regular = file.metadata().map_err(named("look at", path))?.is_file();
    if regular && !is_compressed(&file).map_err(named("read", path))? {
        return Ok(file);
    }
    on_stage("decompressing the archive");
    spool(Decoder::new(BufReader::with_capacity(256 << 10, Start::new(file))), settings)
}

fn is_compressed(mut file: &File) -> io::Result<bool> {
    let mut decoder = Decoder::new(BufReader::with_capacity(512, Start::new(file)));
    // What is damaged is found when it is read for good.
    let _ = decoder.read(&mut [0; 1]);
    let compressed = decoder.is_compressed();
    file.seek(SeekFrom::Start(0))?;
    Ok(compressed)
}

/// A copy of `stream` in a file without a name.
fn spool(stream: impl Read, settings: &Settings) -> Result<File, OciError> {
    super::cache(&settings.cache)?;
    let flags = rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
    let file = rustix::fs::open(&settings.cache, flags, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR);
    let mut file = File::from(file.map_err(io::Error::from).map_err(named("make a file in", &settings.cache))?);
    let mut stream = stream.take(MOST_BYTES + 1);
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0;
    loop {
        let count = match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(io::Error::new(e.kind(), format!("cannot read the archive: {e}")).into()),
        };
        file.write_all(&buffer[..count]).map_err(named("write a copy of the archive in", &settings.cache))?;
        total += count as u64;
    }
    if total > MOST_BYTES {
        return Err(OciError::TooLarge { what: "archive".to_owned(), limit: MOST_BYTES });
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

/// The archive as the tar reader sees it: no more than some bytes of headers at a time.
struct Headers {
    file: File,
    allowance: Rc<Cell<u64>>,
}

impl Read for Headers {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.allowance.get();
        if left == 0 && !buffer.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an entry has too many bytes of headers"));
        }
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read(&mut buffer[..room])?;
        self.allowance.set(left - count as u64);
        Ok(count)
    }
}

impl Seek for Headers {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}
