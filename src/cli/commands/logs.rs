//! `vm logs`: the serial console, from the file that the daemon passes. Following waits for the
//! kernel to say that the file grew (inotify(7)).

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::super::client::unexpected;
use super::super::render::{self, ConsoleFilter};
use super::super::report::Failure;
use super::super::{autostart, interrupt};
use crate::host::paths::Paths;
use crate::model::VmName;
use crate::os::tty;
use crate::protocol::Fault;
use crate::protocol::owner::{OwnerReply, OwnerRequest};

/// Prints the console of `name`; with `follow` goes on as it grows, until a signal or the end of
/// the reader.
pub fn logs(name: &VmName, follow: bool) -> Result<(), Failure> {
    let mut client = autostart::connect(&Paths::current())?;
    let request = OwnerRequest::OpenConsole { name: name.clone() };
    let (reply, mut files) = client.call(request, Vec::new(), &mut |_| {})?;
    let file = match (reply, files.pop()) {
        (OwnerReply::Console, Some(file)) => File::from(file),
        (other, _) => return Err(unexpected(&other)),
    };
    drop(client);
    let mut printer = Printer { file, at: 0, filter: for_terminal() };
    if follow { printer.follow() } else { printer.catch_up() }
}

/// A terminal obeys what it is shown, and a console's text is the guest's; a file gets every byte.
fn for_terminal() -> Option<ConsoleFilter> {
    tty::is_terminal(io::stdout().as_fd()).then(ConsoleFilter::default)
}

struct Printer {
    file: File,
    at: u64,
    filter: Option<ConsoleFilter>,
}

impl Printer {
    /// Prints what is new; a file that became shorter begins anew.
    fn catch_up(&mut self) -> Result<(), Failure> {
        let mut piece = vec![0; 64 << 10];
        loop {
            let count = self.read(&mut piece).map_err(|e| Fault::failed("cannot read the console", &e))?;
            match (count, &mut self.filter) {
                (0, _) => return Ok(()),
                (_, Some(filter)) => render::bytes(&filter.pass(&piece[..count]))?,
                (_, None) => render::bytes(&piece[..count])?,
            }
        }
    }

    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        if self.file.metadata()?.len() < self.at {
            self.at = 0;
        }
        self.file.seek(SeekFrom::Start(self.at))?;
        let count = self.file.read(piece)?;
        self.at += count as u64;
        Ok(count)
    }

    fn follow(&mut self) -> Result<(), Failure> {
        let failed = |e: io::Error| Failure::from(Fault::failed("cannot follow the console", &e));
        // Watched before it is read: what is written in between is not missed. The descriptor's own
        // name in /proc leads to the file even when its folder cannot be entered (proc(5)).
        let watch = inotify::init(CreateFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let changes = WatchFlags::MODIFY | WatchFlags::ATTRIB | WatchFlags::DELETE_SELF;
        inotify::add_watch(&watch, path, changes).map_err(|e| failed(e.into()))?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&watch, &mut buffer);
        loop {
            self.catch_up()?;
            if self.is_deleted().map_err(failed)? {
                return Ok(());
            }
            interrupt::wait_readable(watch.as_fd(), None, None).map_err(failed)?;
            while let Ok(_event) = events.next() {
                if events.is_buffer_empty() {
                    break;
                }
            }
        }
    }

    /// The VM was deleted: its console has no name any more, and nothing will come.
    fn is_deleted(&self) -> io::Result<bool> {
        use std::os::unix::fs::MetadataExt;
        Ok(self.file.metadata()?.nlink() == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_console_that_was_cut_begins_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("console");
        std::fs::write(&path, "first boot").expect("written");
        let mut printer = Printer { file: File::open(&path).expect("opens"), at: 0, filter: None };
        let mut piece = [0; 64];
        assert_eq!(printer.read(&mut piece).expect("read"), 10);
        assert_eq!(printer.read(&mut piece).expect("read"), 0);
        let mut writer = File::create(&path).expect("cut");
        writer.write_all(b"second").expect("written");
        assert_eq!(printer.read(&mut piece).expect("read"), 6);
        assert_eq!(&piece[..6], b"second");
        assert!(!printer.is_deleted().expect("seen"));
        std::fs::remove_file(&path).expect("removed");
        assert!(printer.is_deleted().expect("seen"));
    }
}
