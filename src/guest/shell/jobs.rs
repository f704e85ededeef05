//! Commands that run on when nobody is connected: `/run/banger/jobs/NUMBER/`.
//!
//! | file | what |
//! |---|---|
//! | `begin` | the command, as its frame |
//! | `log.CURSOR` | what it said from that byte on: records of output, length, bytes |
//! | `end` | how it ended, as its frame; there once it has |
//! | `lock` | held by its keeper for as long as that lives |
//!
//! Each job has a keeper, a process of banger's own that writes these, so that neither the agent's end
//! nor the daemon's is the job's. One without `end` whose lock is free is lost. The log is memory
//! (`/run`): the last [`SEGMENTS`] parts of it are kept.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::inotify;

use super::child::{self, Refusal};
use super::wire::poll_until;
use crate::guest::agent::SELF;
use crate::guest::console::say;
use crate::os::files::{Lock, ensure_dir, read_limited, write_atomic};
use crate::protocol::frame::{self, HEADER, MAX_FRAME};
use crate::protocol::shell::{Begin, CHUNK, Ending, Output, Program};

/// What the process of a job is started with; its number follows.
pub const FLAG: &str = "--job";

/// Most bytes of one part of a log, and how many parts of a job are kept.
const SEGMENT: u64 = 1 << 20;
const SEGMENTS: usize = 4;

/// All jobs' logs together take a quarter of `/run` at most, which is small in a small VM.
const SHARE: u64 = 4 * SEGMENTS as u64 * MAX_JOBS as u64;

/// Most jobs whose files are kept: the oldest that has ended goes for a new one.
const MAX_JOBS: usize = 32;

/// Bytes before those of a record: which output, and how many.
const RECORD: usize = 5;

/// Most of a job's words that the list shows.
const SHOWN: usize = 60;

fn folder() -> PathBuf {
    PathBuf::from("/run/banger/jobs")
}

/// Begins the job that standard input holds and says its number.
pub fn detach() -> io::Result<()> {
    let mut bytes = Vec::new();
    io::stdin().lock().take((MAX_FRAME + HEADER) as u64).read_to_end(&mut bytes)?;
    let body = bytes.get(HEADER..).unwrap_or_default();
    frame::decode::<Begin>(body).map_err(io::Error::other)?;
    let (number, job) = claim(&folder())?;
    if let Err(e) = write_atomic(&job.join("begin"), body, 0o600).and_then(|()| start_keeper(number)) {
        fs::remove_dir_all(&job)?;
        return Err(e);
    }
    writeln!(io::stdout(), "{number}")
}

/// Returns once it has its lock. Nobody waits for its end: pid 1 inherits it as soon as this process
/// has ended.
fn start_keeper(number: u32) -> io::Result<()> {
    let mut keeper = Command::new(SELF)
        .arg0("banger-agent")
        .arg(FLAG)
        .arg(number.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut word = Vec::new();
    keeper.stdout.take().map_or(Ok(0), |mut said| said.read_to_end(&mut word))?;
    if word == READY { Ok(()) } else { Err(io::Error::other("its keeper ended at once")) }
}

/// What a keeper says once it has its lock.
const READY: &[u8] = b"ready";

/// A folder for a new job. Two that come at once get two.
fn claim(folder: &Path) -> io::Result<(u32, PathBuf)> {
    ensure_dir(folder, 0o700)?;
    let known = numbers(folder)?;
    make_room(folder, &known)?;
    let mut number = known.last().copied().unwrap_or(0);
    loop {
        number += 1;
        let job = folder.join(number.to_string());
        match fs::create_dir(&job) {
            Ok(()) => return Ok((number, job)),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
}

/// Of the jobs that are kept, oldest first.
fn numbers(folder: &Path) -> io::Result<Vec<u32>> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut numbers: Vec<u32> = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn make_room(folder: &Path, known: &[u32]) -> io::Result<()> {
    if known.len() < MAX_JOBS {
        return Ok(());
    }
    let oldest = known.iter().map(|n| folder.join(n.to_string())).find(|job| !matches!(state(job), State::Running));
    let full = || io::Error::other(format!("{MAX_JOBS} jobs run already"));
    match fs::remove_dir_all(oldest.ok_or_else(full)?) {
        // Another that makes room at the same time was faster.
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// What became of a job.
enum State {
    Running,
    Ended(Ending),
    /// Its keeper ended without a word.
    Lost,
}

fn state(job: &Path) -> State {
    let ended = || read_frame(&job.join("end")).map(State::Ended);
    match (ended(), is_kept(job)) {
        (Ok(ended), _) => ended,
        (Err(_), true) => State::Running,
        // It may have ended between the two looks.
        (Err(_), false) => ended().unwrap_or(State::Lost),
    }
}

/// Whether its keeper lives. Only reads: closing a file that could be written would be an event for
/// whoever follows the job, this process too.
fn is_kept(job: &Path) -> bool {
    let lock = File::open(job.join("lock"));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// The process of job `number`: runs it to its end.
pub fn keep(number: &str) -> io::Result<()> {
    let job = folder().join(number.parse::<u32>().map_err(io::Error::other)?.to_string());
    // A session of its own: what ends the conversation that began it is not meant for it.
    rustix::process::setsid()?;
    let _lock = Lock::attempt(&job.join("lock"))?.ok_or_else(|| io::Error::other("somebody else keeps it"))?;
    // Its place in memory is taken now, when there is some.
    let end = job.join("end.part");
    fs::write(&end, [0; 16])?;
    let begin: Begin = read_frame(&job.join("begin"))?;
    let mut log = Log::open(&job, segment_size(&job))?;
    say_ready()?;
    let ending = match child::start(&begin) {
        Ok(started) => record(started, &mut log)?,
        Err(Refusal { code, text }) => {
            log.keep(Output::Stderr, text.as_bytes());
            Ending::Exited(code)
        }
    };
    let frame = frame::encode(&ending).map_err(io::Error::other)?;
    let mut file = OpenOptions::new().write(true).open(&end)?;
    file.write_all(&frame[HEADER..])?;
    file.set_len((frame.len() - HEADER) as u64)?;
    fs::rename(end, job.join("end"))
}

/// Says so, and closes standard output, which the one that started it reads to its end.
fn say_ready() -> io::Result<()> {
    io::stdout().write_all(READY)?;
    io::stdout().flush()?;
    let null = File::options().write(true).open("/dev/null")?;
    Ok(rustix::stdio::dup2_stdout(null)?)
}

/// Of one part of a log in `job`.
fn segment_size(job: &Path) -> u64 {
    let room = rustix::fs::statvfs(job).map_or(0, |about| about.f_blocks * about.f_frsize);
    (room / SHARE).clamp(4 << 10, SEGMENT)
}

fn read_frame<T: bincode::Decode<()>>(path: &Path) -> io::Result<T> {
    frame::decode(&read_limited(path, MAX_FRAME as u64)?).map_err(io::Error::other)
}

/// Keeps what a job says until it has ended and nobody holds its outputs any more.
fn record(mut started: child::Started, log: &mut Log) -> io::Result<Ending> {
    drop(started.stdin);
    let mut sources = vec![(Output::Stdout, started.stdout)];
    sources.extend(started.stderr.map(|stderr| (Output::Stderr, stderr)));
    let mut bytes = vec![0; CHUNK];
    while !sources.is_empty() {
        let mut fds: Vec<PollFd<'_>> = sources.iter().map(|(_, file)| PollFd::new(file, PollFlags::IN)).collect();
        poll_until(&mut fds, None)?;
        let mut ended = Vec::new();
        for (at, (output, file)) in sources.iter_mut().enumerate() {
            match file.read(&mut bytes) {
                Ok(0) => ended.push(at),
                Ok(count) => log.keep(*output, &bytes[..count]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => ended.push(at),
            }
        }
        ended.iter().rev().for_each(|at| drop(sources.remove(*at)));
    }
    Ok(super::running::ending_of(started.child.wait()?))
}

/// A job's log, at its end.
struct Log {
    job: PathBuf,
    file: File,
    /// Most bytes of one part.
    most: u64,
    cursor: u64,
    /// Bytes of the present part, those before the records too.
    size: u64,
}

impl Log {
    fn open(job: &Path, most: u64) -> io::Result<Self> {
        Ok(Self { job: job.to_owned(), file: segment(job, 0)?, most, cursor: 0, size: 0 })
    }

    /// What cannot be kept is lost, and the command goes on.
    fn keep(&mut self, output: Output, bytes: &[u8]) {
        if let Err(e) = self.add(output, bytes) {
            say(&format!("trouble: output of a job is not kept: {e}"));
        }
    }

    fn add(&mut self, output: Output, bytes: &[u8]) -> io::Result<()> {
        if self.size >= self.most {
            self.file = segment(&self.job, self.cursor)?;
            self.size = 0;
            let kept = segments(&self.job)?;
            for old in &kept[..kept.len().saturating_sub(SEGMENTS)] {
                fs::remove_file(segment_path(&self.job, *old))?;
            }
        }
        let mut record = vec![output as u8];
        record.extend((bytes.len() as u32).to_le_bytes());
        record.extend(bytes);
        self.cursor += bytes.len() as u64;
        self.size += record.len() as u64;
        self.file.write_all(&record)
    }
}

fn segment_path(job: &Path, cursor: u64) -> PathBuf {
    job.join(format!("log.{cursor}"))
}

fn segment(job: &Path, cursor: u64) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(segment_path(job, cursor))
}

/// Where each part of the log begins, oldest first.
fn segments(job: &Path) -> io::Result<Vec<u64>> {
    let cursor = |e: fs::DirEntry| e.file_name().to_str()?.strip_prefix("log.")?.parse().ok();
    let mut found: Vec<u64> = fs::read_dir(job)?.flatten().filter_map(cursor).collect();
    found.sort_unstable();
    Ok(found)
}

/// Says what job `number` says from byte `from` on; ends as it ends, or, without `follow`, at what
/// there is now with 0.
pub fn attach(number: u32, from: u64, follow: bool) -> io::Result<u8> {
    let job = folder().join(number.to_string());
    let events = inotify::init(inotify::CreateFlags::CLOEXEC)?;
    // The end of the keeper closes its lock.
    let written = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
    let watched = written | inotify::WatchFlags::CLOSE_WRITE;
    inotify::add_watch(&events, &job, watched).map_err(|e| match e {
        rustix::io::Errno::NOENT => io::Error::other(format!("there is no job {number}")),
        other => other.into(),
    })?;
    let mut reader = Reader::new(job.clone(), from);
    loop {
        // Looked at first: what was said before the end is there by then.
        let state = state(&job);
        reader.say_what_is_there(&mut io::stdout().lock(), &mut io::stderr().lock())?;
        match state {
            State::Running => {}
            State::Ended(Ending::Exited(code)) => return Ok(code),
            State::Ended(Ending::Signaled(number)) => return Ok(number.saturating_add(128)),
            State::Lost => return Err(io::Error::other("its keeper was killed; how it ended is unknown")),
        }
        if !follow {
            return Ok(0);
        }
        let mut buffer = [0; 4096];
        rustix::io::read(&events, &mut buffer)?;
    }
}

/// Reads a log while it grows.
struct Reader {
    job: PathBuf,
    file: Option<File>,
    /// Where the part begins that is being read.
    begun: u64,
    /// The next byte of the job's outputs in the file.
    cursor: u64,
    /// The first byte that is wanted.
    from: u64,
    rest: Vec<u8>,
}

impl Reader {
    fn new(job: PathBuf, from: u64) -> Self {
        Self { job, file: None, begun: 0, cursor: 0, from, rest: Vec::new() }
    }

    fn say_what_is_there(&mut self, stdout: &mut impl Write, stderr: &mut impl Write) -> io::Result<()> {
        while self.open_next(stderr)? {
            self.say_segment(stdout, stderr)?;
            if segments(&self.job)?.last().is_none_or(|last| *last <= self.begun) {
                break;
            }
            // Complete: nothing is added to a part once there is a later one, but it may have been
            // between the reading and the look.
            self.say_segment(stdout, stderr)?;
            self.file = None;
        }
        stdout.flush()
    }

    /// The part that holds the cursor; false while there is none.
    fn open_next(&mut self, stderr: &mut impl Write) -> io::Result<bool> {
        if self.file.is_some() {
            return Ok(true);
        }
        let all = segments(&self.job)?;
        let wanted = self.cursor.max(self.from);
        let holds = all.iter().rev().find(|begun| **begun <= wanted).or(all.first());
        let Some(begun) = holds.copied() else { return Ok(false) };
        self.file = match File::open(segment_path(&self.job, begun)) {
            Ok(file) => Some(file),
            // It made room for later ones meanwhile: another look says so.
            Err(e) if e.kind() == ErrorKind::NotFound => return self.open_next(stderr),
            Err(e) => return Err(e),
        };
        if begun > wanted {
            writeln!(stderr, "banger: {} bytes before are no longer kept", begun - wanted)?;
        }
        (self.begun, self.cursor) = (begun, begun);
        Ok(true)
    }

    fn say_segment(&mut self, stdout: &mut impl Write, stderr: &mut impl Write) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut bytes = vec![0; CHUNK];
        loop {
            let count = file.read(&mut bytes)?;
            if count == 0 {
                return Ok(());
            }
            self.rest.extend_from_slice(&bytes[..count]);
            let mut taken = 0;
            while let Some((output, said)) = record_in(&self.rest[taken..]) {
                let skip = self.from.saturating_sub(self.cursor).min(said.len() as u64) as usize;
                match output {
                    Output::Stdout => stdout.write_all(&said[skip..])?,
                    Output::Stderr => stderr.write_all(&said[skip..])?,
                }
                self.cursor += said.len() as u64;
                taken += RECORD + said.len();
            }
            self.rest.drain(..taken);
        }
    }
}

/// The first record, if it is whole.
fn record_in(bytes: &[u8]) -> Option<(Output, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<RECORD>()?;
    let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
    let output = if head[0] == Output::Stderr as u8 { Output::Stderr } else { Output::Stdout };
    Some((output, rest.get(..length)?))
}

/// How many run.
pub fn running() -> io::Result<u32> {
    let runs = |number: &u32| matches!(state(&folder().join(number.to_string())), State::Running);
    Ok(numbers(&folder())?.iter().filter(|number| runs(number)).count() as u32)
}

/// Says which jobs there are.
pub fn list() -> io::Result<()> {
    let mut out = io::stdout().lock();
    for number in numbers(&folder())? {
        let job = folder().join(number.to_string());
        let state = match state(&job) {
            State::Ended(Ending::Exited(code)) => format!("exited {code}"),
            State::Ended(Ending::Signaled(signal)) => format!("signal {signal}"),
            State::Running => "running".to_owned(),
            State::Lost => "lost".to_owned(),
        };
        let words = read_frame::<Begin>(&job.join("begin")).map(|begin| words_of(&begin)).unwrap_or_default();
        writeln!(out, "{number}\t{state}\t{words}")?;
    }
    Ok(())
}

fn words_of(begin: &Begin) -> String {
    let text = match &begin.program {
        Program::Argv(words) | Program::As { words, .. } => String::from_utf8_lossy(&words.join(&b' ')).into_owned(),
        Program::Login => "(login shell)".to_owned(),
        Program::Tool(_) => "(tool)".to_owned(),
    };
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(job: &Path, from: u64) -> (String, String) {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        Reader::new(job.to_owned(), from).say_what_is_there(&mut stdout, &mut stderr).expect("read");
        (String::from_utf8(stdout).expect("text"), String::from_utf8(stderr).expect("text"))
    }

    #[test]
    fn a_log_is_read_from_any_byte_with_its_outputs_apart() {
        let job = tempfile::tempdir().expect("a folder");
        let mut log = Log::open(job.path(), SEGMENT).expect("opened");
        log.add(Output::Stdout, b"one ").expect("kept");
        log.add(Output::Stderr, b"two ").expect("kept");
        log.add(Output::Stdout, b"three").expect("kept");
        assert_eq!(said(job.path(), 0), ("one three".into(), "two ".into()));
        assert_eq!(said(job.path(), 2), ("e three".into(), "two ".into()));
        assert_eq!(said(job.path(), 9), ("hree".into(), String::new()));
        assert_eq!(said(job.path(), 99), (String::new(), String::new()));
    }

    #[test]
    fn a_long_log_keeps_its_end_and_says_what_is_gone() {
        let job = tempfile::tempdir().expect("a folder");
        let mut log = Log::open(job.path(), SEGMENT).expect("opened");
        let block = vec![b'x'; CHUNK];
        for _ in 0..(6 * SEGMENT as usize / CHUNK) {
            log.add(Output::Stdout, &block).expect("kept");
        }
        let (stdout, stderr) = said(job.path(), 0);
        let (kept, all) = (stdout.len() as u64, 6 * SEGMENT);
        assert!((3 * SEGMENT..=SEGMENTS as u64 * SEGMENT).contains(&kept), "{kept}");
        assert!(stderr.contains(&format!("{} bytes before", all - kept)), "{stderr}");
    }

    #[test]
    fn a_reader_follows_a_log_that_grows_into_its_next_part() {
        let job = tempfile::tempdir().expect("a folder");
        let mut log = Log::open(job.path(), SEGMENT).expect("opened");
        let mut reader = Reader::new(job.path().to_owned(), 0);
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let mut added = 0;
        while added < 3 * SEGMENT as usize {
            log.add(Output::Stdout, &vec![b'y'; 100_000]).expect("kept");
            added += 100_000;
            reader.say_what_is_there(&mut stdout, &mut stderr).expect("read");
        }
        assert_eq!((stdout.len(), stderr.len()), (added, 0));
    }

    #[test]
    fn a_record_that_is_not_whole_waits() {
        let whole = [&[1, 3, 0, 0, 0][..], b"abc"].concat();
        for cut in 0..whole.len() {
            assert_eq!(record_in(&whole[..cut]), None);
        }
        assert_eq!(record_in(&whole), Some((Output::Stderr, &b"abc"[..])));
    }

    #[test]
    fn numbers_count_up_and_the_oldest_that_has_ended_makes_room() {
        let folder = tempfile::tempdir().expect("a folder");
        for wanted in 1..=MAX_JOBS as u32 {
            assert_eq!(claim(folder.path()).expect("claimed").0, wanted);
        }
        let locks =
            folder.path().read_dir().expect("listed").flatten().map(|job| Lock::attempt(&job.path().join("lock")));
        let mut held: Vec<_> = locks.map(|lock| lock.expect("locked").expect("free")).collect();
        assert!(claim(folder.path()).is_err(), "all run");
        let ended = frame::encode(&Ending::Exited(0)).expect("encodes");
        fs::write(folder.path().join("7/end"), &ended[HEADER..]).expect("written");
        assert_eq!(claim(folder.path()).expect("claimed").0, MAX_JOBS as u32 + 1);
        assert!(!folder.path().join("7").exists());
        held.clear();
        claim(folder.path()).expect("one that was lost makes room, too");
    }
}
