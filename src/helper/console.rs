//! `banger-console`: keeps what a monitor writes, bounded, so that a guest that floods its serial
//! port fills no disk and needs no daemon to be read.
//!
//! Standard input is the serial port, standard output its log; beside that log another file says when what stands in it
//! has come (`model::console_marks`). A second pair of descriptors is the monitor's own standard error. It runs as the VM's uid behind the stage and ends with the monitor.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;

use super::error::{Doing, HelperError, Result};
use super::sys;
use crate::model::console_marks::{Change, ConsoleMarks, Shortening};
use crate::os::clock::unix_nanos;

/// What a log keeps.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Largest size.
    most: u64,
    /// What stays of the beginning when it is full.
    head: u64,
    /// What stays of the end.
    tail: u64,
}

const SERIAL: Bounds = Bounds { most: 1 << 20, head: 64 << 10, tail: 512 << 10 };
const ERRORS: Bounds = Bounds { most: 64 << 10, head: 8 << 10, tail: 32 << 10 };

/// A log that never grows beyond its bounds.
struct Log {
    file: File,
    bounds: Bounds,
    size: u64,
    /// Bytes left out so far.
    dropped: u64,
    /// Length of the line that says so.
    marker: u64,
    times: Option<Times>,
}

/// When what stands in a log has come.
struct Times {
    file: File,
    marks: ConsoleMarks,
}

impl Times {
    fn write(&self, change: Change) -> io::Result<()> {
        match (change, self.marks.last_bytes()) {
            (Change::None, _) => Ok(()),
            (Change::Last, Some((at, bytes))) => self.file.write_all_at(&bytes, at),
            (Change::All, _) | (Change::Last, None) => {
                let bytes = self.marks.to_bytes();
                self.file.write_all_at(&bytes, 0)?;
                self.file.set_len(bytes.len() as u64)
            }
        }
    }
}

impl Log {
    fn new(file: File, bounds: Bounds) -> io::Result<Self> {
        // Writing at a place means appending while this flag is set (pwrite(2), BUGS).
        let flags = rustix::fs::fcntl_getfl(&file)?;
        rustix::fs::fcntl_setfl(&file, flags.difference(OFlags::APPEND))?;
        let size = file.metadata()?.len();
        Ok(Self { file, bounds, size, dropped: 0, marker: 0, times: None })
    }

    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.size + bytes.len() as u64 > self.bounds.most {
            self.shorten()?;
        }
        self.file.write_all_at(bytes, self.size)?;
        let place = self.size;
        self.size += bytes.len() as u64;
        self.note(|marks| marks.note(unix_nanos() / 1_000_000, place))
    }

    fn note(&mut self, noted: impl FnOnce(&mut ConsoleMarks) -> Change) -> io::Result<()> {
        let Some(times) = &mut self.times else { return Ok(()) };
        let change = noted(&mut times.marks);
        times.write(change)
    }

    /// Keeps the beginning and the end, and says between them how much is left out.
    fn shorten(&mut self) -> io::Result<()> {
        let Bounds { head, tail, .. } = self.bounds;
        let left_out = self.size.saturating_sub(head + self.marker + tail);
        if left_out == 0 {
            return Ok(());
        }
        let mut end = vec![0; tail as usize];
        self.file.read_exact_at(&mut end, self.size - tail)?;
        self.dropped += left_out;
        let how = Shortening { head, left_out: self.size - head - tail, put_in: 0 };
        let marker = format!("\n[banger: {} bytes left out]\n", self.dropped);
        self.marker = marker.len() as u64;
        self.file.write_all_at(marker.as_bytes(), head)?;
        self.file.write_all_at(&end, head + self.marker)?;
        self.size = head + self.marker + tail;
        self.file.set_len(self.size)?;
        let how = Shortening { put_in: self.marker, ..how };
        self.note(|marks| {
            marks.shorten(how);
            Change::All
        })
    }
}

/// A source and the log it goes to.
struct Lane {
    from: Option<File>,
    to: Log,
}

impl Lane {
    fn new(from: OwnedFd, to: OwnedFd, bounds: Bounds) -> Result<Self> {
        let to = Log::new(File::from(to), bounds).doing("look at a log")?;
        Ok(Self { from: Some(File::from(from)), to })
    }

    /// Moves what is there; the end of the source ends the lane.
    fn carry(&mut self) {
        let mut buffer = [0; 16 << 10];
        let Some(from) = &mut self.from else { return };
        match from.read(&mut buffer) {
            Ok(0) => self.from = None,
            // A full disk costs the lines, not the monitor, which would wait for this reader.
            Ok(count) => drop(self.to.add(&buffer[..count])),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.from = None,
        }
    }
}

/// Copies until both sources have ended.
pub fn keep(arguments: &[OsString]) -> Result<()> {
    let numbers: Vec<i32> = arguments.iter().filter_map(|a| a.to_str()?.parse().ok()).collect();
    let [times, from, to] = numbers[..] else {
        return Err(HelperError::Usage("it is started by bangerd-root and by nobody else".into()));
    };
    let own = |fd: io::Result<OwnedFd>| fd.doing("take over a descriptor");
    let serial = (own(io::stdin().as_fd().try_clone_to_owned())?, own(io::stdout().as_fd().try_clone_to_owned())?);
    let mut lanes =
        [Lane::new(serial.0, serial.1, SERIAL)?, Lane::new(own(sys::adopt(from))?, own(sys::adopt(to))?, ERRORS)?];
    lanes[0].to.times = Some(Times { file: File::from(own(sys::adopt(times))?), marks: ConsoleMarks::default() });
    while lanes.iter().any(|lane| lane.from.is_some()) {
        for at in ready(&lanes).doing("wait for output")? {
            lanes[at].carry();
        }
    }
    Ok(())
}

/// The lanes that have something, or have ended.
fn ready(lanes: &[Lane]) -> io::Result<Vec<usize>> {
    let open: Vec<(usize, &File)> =
        lanes.iter().enumerate().filter_map(|(at, lane)| Some((at, lane.from.as_ref()?))).collect();
    let mut waited: Vec<PollFd<'_>> = open.iter().map(|(_, file)| PollFd::new(*file, PollFlags::IN)).collect();
    match poll(&mut waited, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(e) => return Err(e.into()),
    }
    let ready = open.iter().zip(&waited).filter(|(_, polled)| !polled.revents().is_empty());
    Ok(ready.map(|((at, _), _)| *at).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Bounds = Bounds { most: 100, head: 10, tail: 20 };

    fn content(log: &Log) -> String {
        let mut bytes = vec![0; log.file.metadata().expect("there").len() as usize];
        log.file.read_exact_at(&mut bytes, 0).expect("read");
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn a_flood_leaves_the_beginning_the_end_and_a_line_between() {
        let mut log = Log::new(tempfile::tempfile().expect("a file"), SMALL).expect("opens");
        log.add(b"beginning\n").expect("added");
        for number in 0..1000 {
            log.add(format!("line {number:04}\n").as_bytes()).expect("added");
            assert!(content(&log).len() <= 100);
        }
        let text = content(&log);
        assert!(text.starts_with("beginning\n\n[banger: ") && text.ends_with("line 0999\n"), "{text}");
        let dropped: u64 = text.split(' ').nth(1).expect("a number").parse().expect("a number");
        let marker = text.lines().nth(2).expect("a marker").len() + 2;
        assert_eq!(dropped as usize + text.len() - marker, 10 + 1000 * 10);
    }

    #[test]
    fn times_stay_with_what_they_are_the_times_of_and_are_bounded() {
        let mut log = Log::new(tempfile::tempfile().expect("a file"), SMALL).expect("opens");
        log.times = Some(Times { file: tempfile::tempfile().expect("a file"), marks: ConsoleMarks::default() });
        let begun = unix_nanos() / 1_000_000;
        for number in 0..1000 {
            log.add(format!("line {number:04}\n").as_bytes()).expect("added");
        }
        let Some(times) = &log.times else { panic!("it has times") };
        let mut bytes = vec![0; times.file.metadata().expect("there").len() as usize];
        times.file.read_exact_at(&mut bytes, 0).expect("read");
        let marks = ConsoleMarks::from_bytes(&bytes);
        assert_eq!(marks, times.marks);
        assert!(!marks.is_empty() && bytes.len() <= ConsoleMarks::MAX * ConsoleMarks::MARK);
        assert_eq!(marks.start(begun, log.size), 0);
        assert_eq!(marks.start(begun + 3_600_000, log.size), log.size);
    }

    #[test]
    fn what_fits_is_kept_as_it_is_behind_what_was_there() {
        let file = tempfile::tempfile().expect("a file");
        file.write_all_at(b"old\n", 0).expect("written");
        let mut log = Log::new(file, SMALL).expect("opens");
        log.add(b"new\n").expect("added");
        assert_eq!(content(&log), "old\nnew\n");
    }
}
