//! `vm logs`: the serial console, from the file that the daemon passes. Following waits for the
//! kernel to say that the file grew (inotify(7)).

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::super::args::{Tail, VmLogs};
use super::super::autostart;
use super::super::client::unexpected;
use super::super::render::{self, ConsoleFilter};
use super::super::report::Failure;
use crate::host::paths::Paths;
use crate::os::tty;
use crate::protocol::Fault;
use crate::protocol::owner::{OwnerReply, OwnerRequest};

/// Most bytes that one look at the end of a log takes.
const PIECE: u64 = 64 << 10;

/// Prints the console that was `asked` for, and where that is wanted goes on as it grows, until a signal or the end of
/// the reader.
pub fn logs(asked: &VmLogs) -> Result<(), Failure> {
    let mut client = autostart::connect(&Paths::current())?;
    let request = OwnerRequest::OpenConsole { name: asked.name.clone(), since: asked.since };
    let (reply, mut files) = client.call(request, Vec::new(), &mut |_| {})?;
    let (file, start) = match (reply, files.pop()) {
        (OwnerReply::Console { start }, Some(file)) => (File::from(file), start),
        (other, _) => return Err(unexpected(&other)),
    };
    drop(client);
    let at = beginning(&file, start, asked.tail).map_err(|e| Fault::failed("cannot read the console", &e))?;
    let mut printer = Printer { file, at, filter: for_terminal() };
    if asked.follow { printer.follow() } else { printer.catch_up() }
}

/// Where the last lines begin of what stands from `start` on; `start` itself is led back to the beginning of its line.
fn beginning(file: &File, start: u64, tail: Tail) -> io::Result<u64> {
    let size = file.metadata()?.len();
    let start = if start < size { line_of(file, start)? } else { size };
    let mut lines = match tail {
        Tail::All => return Ok(start),
        Tail::Lines(0) => return Ok(size),
        Tail::Lines(lines) => lines,
    };
    let mut end = size;
    while end > start {
        let from = end.saturating_sub(PIECE).max(start);
        for (at, byte) in read_at(file, from, end)?.into_iter().enumerate().rev() {
            let after = from + at as u64 + 1;
            // The one at the very end ends the last line and begins none.
            if byte == b'\n' && after < size {
                lines -= 1;
                if lines == 0 {
                    return Ok(after);
                }
            }
        }
        end = from;
    }
    Ok(start)
}

/// Where the line begins that the byte at `place` is in; a very long one begins there.
fn line_of(file: &File, place: u64) -> io::Result<u64> {
    let from = place.saturating_sub(4096);
    let before = read_at(file, from, place)?;
    Ok(match before.iter().rposition(|byte| *byte == b'\n') {
        Some(newline) => from + newline as u64 + 1,
        None if from == 0 => 0,
        None => place,
    })
}

/// What stands there, unless it was cut off meanwhile.
fn read_at(file: &File, from: u64, end: u64) -> io::Result<Vec<u8>> {
    let (mut file, mut piece) = (file, Vec::new());
    file.seek(SeekFrom::Start(from))?;
    file.take(end - from).read_to_end(&mut piece)?;
    Ok(piece)
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

    fn of(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(content).expect("written");
        file
    }

    #[test]
    fn the_last_lines_are_counted_from_the_end() {
        let starts =
            |content: &str, lines: u64| beginning(&of(content.as_bytes()), 0, Tail::Lines(lines)).expect("read");
        for (lines, start) in [(0, 12), (1, 8), (2, 4), (3, 0), (9, 0)] {
            assert_eq!(starts("one\ntwo\nsix\n", lines), start, "{lines}");
        }
        assert_eq!((starts("one\ntwo", 1), starts("one\ntwo", 2), starts("", 5)), (4, 0, 0));
        let long = "x\n".repeat(100_000);
        assert_eq!((starts(&long, 1), starts(&long, 99_999), starts(&long, 100_000)), (199_998, 2, 0));
    }

    #[test]
    fn what_is_since_a_time_begins_with_a_whole_line() {
        let starts = |start: u64, tail: Tail| beginning(&of(b"one\ntwo\nlogin: "), start, tail).expect("read");
        assert_eq!((starts(5, Tail::All), starts(4, Tail::All), starts(3, Tail::All)), (4, 4, 0));
        assert_eq!((starts(15, Tail::All), starts(99, Tail::All)), (15, 15), "nothing has come since");
        assert_eq!((starts(4, Tail::Lines(1)), starts(4, Tail::Lines(9))), (8, 4));
        assert_eq!(line_of(&of(&vec![b'x'; 9000]), 8000).expect("read"), 8000);
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
