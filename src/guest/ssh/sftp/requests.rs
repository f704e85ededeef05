//! What is asked, and done: sections 6 and 7 of the draft, and OpenSSH's own (its PROTOCOL, section 4).

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::attributes::{self, Attributes};
use super::handles::{Handles, Open};
use super::paths;
use crate::guest::ssh::data::{Reader, Writer};
use crate::guest::ssh::error::SessionError;

const VERSION: u32 = 3;

const INIT: u8 = 1;
const VERSION_REPLY: u8 = 2;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRS: u8 = 105;

/// Most bytes of one read: what OpenSSH's own server gives at most.
const MAX_READ: u32 = (256 << 10) - 1024;

/// Entries of a folder in one answer.
const MAX_ENTRIES: usize = 100;

/// What of OpenSSH's there is, with its version.
const EXTENSIONS: [(&str, &str); 5] = [
    ("posix-rename@openssh.com", "1"),
    ("hardlink@openssh.com", "1"),
    ("fsync@openssh.com", "1"),
    ("lsetstat@openssh.com", "1"),
    ("expand-path@openssh.com", "1"),
];

/// What an answer is about, and why there is none.
enum Failure {
    /// Nothing more.
    End,
    /// The system said no.
    Io(io::Error),
    /// There is no such request here.
    Unsupported,
    /// The request is not understood: the conversation ends.
    Garbled(SessionError),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        Self::Garbled(error)
    }
}

/// What is asked of the file system, answered; `None` is a plain yes.
type Answer = Result<Option<Writer>, Failure>;

/// One client's server.
#[derive(Debug)]
pub struct Server {
    home: PathBuf,
    handles: Handles,
}

impl Server {
    /// For a client that begins at root's home.
    pub fn new() -> Self {
        Self { home: paths::home(), handles: Handles::default() }
    }

    /// The answer to one request.
    pub fn answer(&mut self, request: &[u8]) -> Result<Vec<u8>, SessionError> {
        let mut reader = Reader::new(request);
        let (kind, id) = (reader.byte()?, reader.number()?);
        if kind == INIT {
            let hello = Writer::message(VERSION_REPLY).number(VERSION);
            return Ok(EXTENSIONS
                .iter()
                .fold(hello, |hello, (name, version)| hello.string(name).string(version))
                .done());
        }
        let status = |code: u32, text: &str| Writer::message(STATUS).number(id).number(code).string(text).string("");
        Ok(match self.perform(kind, id, reader) {
            Ok(Some(reply)) => reply.done(),
            Ok(None) => status(0, "done").done(),
            Err(Failure::End) => status(1, "the end").done(),
            Err(Failure::Io(error)) => status(code_of(&error), &error.to_string()).done(),
            Err(Failure::Unsupported) => status(8, "this server does not do that").done(),
            Err(Failure::Garbled(error)) => return Err(error),
        })
    }

    fn perform(&mut self, kind: u8, id: u32, mut reader: Reader<'_>) -> Answer {
        match kind {
            3 => self.open(id, &mut reader),
            4 => self.handles.remove(reader.string()?).map(|_| None).ok_or_else(no_handle),
            5 => self.read(id, &mut reader),
            6 => self.write(&mut reader),
            7 => self.about(id, fs::symlink_metadata(self.path(&mut reader)?)),
            8 => {
                let about = self.handles.file(reader.string()?).ok_or_else(no_handle)?.metadata();
                self.about(id, about)
            }
            9 => self.change(&mut reader, false),
            10 => {
                let handle = reader.string()?;
                let attributes = Attributes::read(&mut reader)?;
                yes(attributes.change_file(self.handles.file(handle).ok_or_else(no_handle)?))
            }
            11 => {
                let folder = fs::read_dir(self.path(&mut reader)?)?;
                self.keep(id, Open::Folder(folder))
            }
            12 => self.list(id, reader.string()?),
            13 => yes(fs::remove_file(self.path(&mut reader)?)),
            14 => {
                let path = self.path(&mut reader)?;
                let mode = Attributes::read(&mut reader)?.mode.unwrap_or(0o777);
                yes(DirBuilder::new().mode(mode).create(path))
            }
            15 => yes(fs::remove_dir(self.path(&mut reader)?)),
            16 => named(id, &paths::real(&self.path(&mut reader)?)),
            17 => self.about(id, fs::metadata(self.path(&mut reader)?)),
            18 => {
                let (from, to) = (self.path(&mut reader)?, self.path(&mut reader)?);
                // In this version nothing is overwritten by a rename.
                yes(renameat_with(CWD, &from, CWD, &to, RenameFlags::NOREPLACE).map_err(io::Error::from))
            }
            19 => named(id, &fs::read_link(self.path(&mut reader)?)?),
            20 => {
                // OpenSSH says the target first, and with it everybody else.
                let (target, link) = (reader.string()?, reader.string()?);
                yes(symlink(std::ffi::OsStr::from_bytes(target), paths::of(&self.home, link)))
            }
            200 => self.extended(id, reader),
            _ => Err(Failure::Unsupported),
        }
    }

    fn path(&self, reader: &mut Reader<'_>) -> Result<PathBuf, Failure> {
        Ok(paths::of(&self.home, reader.string()?))
    }

    fn keep(&mut self, id: u32, open: Open) -> Answer {
        let handle = self.handles.add(open).ok_or_else(|| io::Error::other("too much is open"))?;
        Ok(Some(Writer::message(HANDLE).number(id).string(handle)))
    }

    fn open(&mut self, id: u32, reader: &mut Reader<'_>) -> Answer {
        let path = self.path(reader)?;
        let flags = reader.number()?;
        let attributes = Attributes::read(reader)?;
        let has = |flag: u32| flags & flag != 0;
        let (is_new, is_created) = (has(8) && has(32), has(8));
        let mut options = OpenOptions::new();
        options.read(has(1)).write(has(2)).append(has(4)).create(is_created).create_new(is_new);
        options.truncate(has(16) && has(2)).mode(attributes.mode.unwrap_or(0o666));
        self.keep(id, Open::File(options.open(path)?))
    }

    fn read(&mut self, id: u32, reader: &mut Reader<'_>) -> Answer {
        let (handle, offset, length) = (reader.string()?, reader.long()?, reader.number()?);
        let file = self.handles.file(handle).ok_or_else(no_handle)?;
        let mut bytes = vec![0; length.min(MAX_READ) as usize];
        let count = read_at(file, &mut bytes, offset)?;
        if count == 0 && length > 0 {
            return Err(Failure::End);
        }
        Ok(Some(Writer::message(DATA).number(id).string(&bytes[..count])))
    }

    fn write(&mut self, reader: &mut Reader<'_>) -> Answer {
        let (handle, offset, bytes) = (reader.string()?, reader.long()?, reader.string()?);
        yes(self.handles.file(handle).ok_or_else(no_handle)?.write_all_at(bytes, offset))
    }

    fn about(&self, id: u32, about: io::Result<fs::Metadata>) -> Answer {
        Ok(Some(attributes::write(Writer::message(ATTRS).number(id), &about?)))
    }

    fn change(&self, reader: &mut Reader<'_>, is_link: bool) -> Answer {
        let path = self.path(reader)?;
        yes(Attributes::read(reader)?.change_path(&path, is_link))
    }

    fn list(&mut self, id: u32, handle: &[u8]) -> Answer {
        let Some(Open::Folder(folder)) = self.handles.get(handle) else { return Err(no_handle()) };
        let (mut entries, mut count) = (Writer::default(), 0);
        for entry in folder.take(MAX_ENTRIES) {
            let entry = entry?;
            // One that was removed meanwhile is no longer there to be told of.
            let Ok(about) = entry.metadata() else { continue };
            let name = entry.file_name();
            let line = attributes::line(&name.to_string_lossy(), &about);
            entries = attributes::write(entries.string(name.as_bytes()).string(line), &about);
            count += 1;
        }
        if count == 0 {
            return Err(Failure::End);
        }
        Ok(Some(Writer::message(NAME).number(id).number(count).bytes(&entries.done())))
    }

    fn extended(&mut self, id: u32, mut reader: Reader<'_>) -> Answer {
        match reader.string()? {
            b"posix-rename@openssh.com" => yes(fs::rename(self.path(&mut reader)?, self.path(&mut reader)?)),
            b"hardlink@openssh.com" => yes(fs::hard_link(self.path(&mut reader)?, self.path(&mut reader)?)),
            b"fsync@openssh.com" => yes(self.handles.file(reader.string()?).ok_or_else(no_handle)?.sync_all()),
            b"lsetstat@openssh.com" => self.change(&mut reader, true),
            b"expand-path@openssh.com" => named(id, &paths::real(&paths::expand(&self.home, reader.string()?))),
            _ => Err(Failure::Unsupported),
        }
    }
}

fn yes(done: io::Result<()>) -> Answer {
    Ok(done.map(|()| None)?)
}

fn no_handle() -> Failure {
    Failure::Io(io::Error::new(ErrorKind::InvalidInput, "no such handle"))
}

/// One name, without attributes (sections 6.10 and 6.11 of the draft have them as dummies).
fn named(id: u32, path: &Path) -> Answer {
    let name = path.as_os_str().as_bytes();
    Ok(Some(Writer::message(NAME).number(id).number(1).string(name).string(name).number(0)))
}

/// As much as there is, where the system may give less: many clients take a short read for the end.
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut count = 0;
    while count < bytes.len() {
        match file.read_at(&mut bytes[count..], offset.saturating_add(count as u64)) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(count)
}

fn code_of(error: &io::Error) -> u32 {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => 2,
        ErrorKind::PermissionDenied => 3,
        _ => 4,
    }
}
