//! `vm logs`: the serial console, from the file that the daemon passes. Following waits for the
//! kernel to say that the file grew (inotify(7)).

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::super::autostart;
use super::super::client::unexpected;
use super::super::render::{self, ConsoleFilter};
use super::super::report::Failure;
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

/// Least that is kept of a log that became full: 64 KiB of its beginning, 512 KiB of its end. A shorter
/// one is that of a new boot.
const LEAST_KEPT: u64 = (64 + 512) << 10;

/// Stands for what a log that was shortened meanwhile does not have any more.
const LEFT_OUT: &[u8] = b"\n[... left out]\n";

struct Printer {
    file: File,
    at: u64,
    filter: Option<ConsoleFilter>,
}

impl Printer {
    /// Prints what is new.
    fn catch_up(&mut self) -> Result<(), Failure> {
        let failed = |e: io::Error| Failure::from(Fault::failed("cannot read the console", &e));
        let mut piece = vec![0; 64 << 10];
        loop {
            if self.skip_to_end_of_shortened().map_err(failed)? {
                self.show(LEFT_OUT)?;
            }
            match self.read(&mut piece).map_err(failed)? {
                0 => return Ok(()),
                count => self.show(&piece[..count])?,
            }
        }
    }

    /// A log that was shortened holds, at other places, what was printed already; whether it was. One
    /// that a new boot has emptied is read from its beginning.
    fn skip_to_end_of_shortened(&mut self) -> io::Result<bool> {
        let size = self.file.metadata()?.len();
        let (has_shrunk, is_of_new_boot) = (size < self.at, size < LEAST_KEPT);
        if has_shrunk {
            self.at = if is_of_new_boot { 0 } else { size };
        }
        Ok(has_shrunk && !is_of_new_boot)
    }

    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        self.file.seek(SeekFrom::Start(self.at))?;
        let count = self.file.read(piece)?;
        self.at += count as u64;
        Ok(count)
    }

    fn show(&mut self, piece: &[u8]) -> Result<(), Failure> {
        match &mut self.filter {
            Some(filter) => render::bytes(&filter.pass(piece)),
            None => render::bytes(piece),
        }
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
            if wait_for_change(watch.as_fd(), io::stdout().as_fd()).map_err(failed)? == Waited::ReaderGone {
                return Err(Failure::ReaderGone);
            }
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

#[derive(Debug, PartialEq, Eq)]
enum Waited {
    Changed,
    ReaderGone,
}

/// Waits until the watch tells something. A guest can be silent for ever: when whoever reads `out` goes
/// away meanwhile (POLLERR, pipe(7)), nobody has to wait for it.
fn wait_for_change(watch: BorrowedFd<'_>, out: BorrowedFd<'_>) -> io::Result<Waited> {
    loop {
        let mut fds =
            [PollFd::from_borrowed_fd(watch, PollFlags::IN), PollFd::from_borrowed_fd(out, PollFlags::empty())];
        match poll(&mut fds, None) {
            Ok(_) if !fds[1].revents().is_empty() => return Ok(Waited::ReaderGone),
            Ok(_) if !fds[0].revents().is_empty() => return Ok(Waited::Changed),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn printer(path: &std::path::Path) -> Printer {
        Printer { file: File::open(path).expect("opens"), at: 0, filter: None }
    }

    /// What a follower would print now, and whether it would say that something is left out.
    fn news(printer: &mut Printer) -> (bool, Vec<u8>) {
        let mut piece = vec![0; 4 << 20];
        let skipped = printer.skip_to_end_of_shortened().expect("looked");
        let count = printer.read(&mut piece).expect("read");
        piece.truncate(count);
        (skipped, piece)
    }

    #[test]
    fn a_console_of_a_new_boot_begins_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("console");
        std::fs::write(&path, "first boot").expect("written");
        let mut printer = printer(&path);
        assert_eq!(news(&mut printer), (false, b"first boot".to_vec()));
        assert_eq!(news(&mut printer), (false, vec![]));
        let mut writer = File::create(&path).expect("cut");
        writer.write_all(b"second").expect("written");
        assert_eq!(news(&mut printer), (false, b"second".to_vec()));
        File::create(&path).expect("emptied");
        assert_eq!(news(&mut printer), (false, vec![]));
        assert!(!printer.is_deleted().expect("seen"));
        std::fs::remove_file(&path).expect("removed");
        assert!(printer.is_deleted().expect("seen"));
    }

    #[test]
    fn a_console_that_was_shortened_is_not_printed_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("console");
        std::fs::write(&path, vec![b'x'; 1 << 20]).expect("written");
        let mut printer = printer(&path);
        assert_eq!(news(&mut printer).1.len(), 1 << 20);
        let mut writer = File::options().append(true).open(&path).expect("opens");
        writer.set_len(LEAST_KEPT + 30).expect("shortened");
        assert_eq!(news(&mut printer), (true, vec![]));
        writer.write_all(b"new").expect("written");
        assert_eq!(news(&mut printer), (false, b"new".to_vec()));
    }

    #[test]
    fn a_reader_that_goes_away_ends_the_wait_for_a_silent_guest() {
        let (silent, writer) = io::pipe().expect("a pipe");
        let (reader, out) = io::pipe().expect("a pipe");
        let waiting = std::thread::spawn(move || wait_for_change(silent.as_fd(), out.as_fd()).expect("waits"));
        drop(reader);
        assert_eq!(waiting.join().expect("joined"), Waited::ReaderGone);
        drop(writer);
    }

    #[test]
    fn a_change_ends_the_wait() {
        let (watch, mut writer) = io::pipe().expect("a pipe");
        let (_reader, out) = io::pipe().expect("a pipe");
        writer.write_all(b"x").expect("written");
        assert_eq!(wait_for_change(watch.as_fd(), out.as_fd()).expect("waits"), Waited::Changed);
    }
}
