//! Running builds: their stream, their children, their last words.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::os::files::named;

use super::super::ImageError;

/// Lines of a child that are kept for its epitaph.
const LAST_LINES: usize = 12;

/// A tar stream that is being built. Read it, or hand its descriptor on; then [`Build::finish`] it:
/// a stream that ended is not yet a build that succeeded. Dropped unfinished, it is called off.
#[derive(Debug)]
pub struct Build {
    name: String,
    stream: Option<File>,
    work: Option<Work>,
    lines: Lines,
}

#[derive(Debug)]
enum Work {
    /// A program that writes the stream.
    Child { child: Child, listener: JoinHandle<()> },
    /// A thread that does.
    Thread(JoinHandle<Result<(), ImageError>>),
}

/// The last lines that the builder said, shared with the thread that listens.
#[derive(Debug, Clone, Default)]
struct Lines(Arc<Mutex<VecDeque<String>>>);

impl Lines {
    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LAST_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    fn last(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).back().cloned()
    }

    fn all(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(String::as_str).collect::<Vec<_>>().join("; ")
    }
}

impl Build {
    /// Starts `command`, whose standard output is the stream.
    pub(super) fn of_command(name: &str, command: &mut Command) -> Result<Self, ImageError> {
        let program = command.get_program().to_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(named("start", program.as_ref()))?;
        let stream = child.stdout.take().map(|out| File::from(OwnedFd::from(out)));
        let lines = Lines::default();
        let listener = listen(child.stderr.take(), lines.clone());
        Ok(Self { name: name.to_owned(), stream, work: Some(Work::Child { child, listener }), lines })
    }

    /// Runs `write` in a thread; what it writes is the stream.
    pub(super) fn of_thread(
        name: &str,
        write: impl FnOnce(File) -> Result<(), ImageError> + Send + 'static,
    ) -> Result<Self, ImageError> {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(io::Error::from)?;
        let thread = std::thread::spawn(move || write(File::from(writer)));
        Ok(Self {
            name: name.to_owned(),
            stream: Some(File::from(reader)),
            work: Some(Work::Thread(thread)),
            lines: Lines::default(),
        })
    }

    /// What is built, in words.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The last line that the builder said.
    pub fn last_line(&self) -> Option<String> {
        self.lines.last()
    }

    /// Gives the stream away, once. Whoever has it must close it when they want no more of it, and
    /// before the build is finished or dropped.
    pub fn take_stream(&mut self) -> Option<OwnedFd> {
        self.stream.take().map(OwnedFd::from)
    }

    /// The stream, to hand on while keeping it.
    pub fn stream(&self) -> Option<BorrowedFd<'_>> {
        self.stream.as_ref().map(AsFd::as_fd)
    }

    /// Waits until the builder has ended; its failure is the error, with its last words.
    pub fn finish(mut self) -> Result<(), ImageError> {
        self.stream = None;
        match self.work.take() {
            Some(Work::Child { mut child, listener }) => {
                let status = child.wait()?;
                // Ends with the child's last write; all it can fail with is a panic.
                let _ = listener.join();
                if status.success() { Ok(()) } else { Err(self.failure(status.to_string())) }
            }
            Some(Work::Thread(thread)) => match thread.join() {
                Ok(result) => result,
                Err(_) => Err(self.failure("panicked".into())),
            },
            None => Ok(()),
        }
    }

    fn failure(&self, status: String) -> ImageError {
        ImageError::Tool { program: self.name.clone(), status, output: self.lines.all() }
    }
}

impl Read for Build {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.stream {
            Some(stream) => stream.read(buffer),
            None => Ok(0),
        }
    }
}

impl Drop for Build {
    fn drop(&mut self) {
        // A writer without a reader stops by itself; a child may be busy with other things for long.
        self.stream = None;
        match self.work.take() {
            Some(Work::Child { mut child, listener }) => {
                // TERM, not KILL: mmdebstrap then takes down its mounts and its folder.
                if let Some(pid) = rustix::process::Pid::from_raw(child.id().cast_signed()) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
                }
                let _ = child.wait();
                let _ = listener.join();
            }
            // Waited for, or the process ends before its folder is removed.
            Some(Work::Thread(thread)) => drop(thread.join()),
            None => {}
        }
    }
}

fn listen(stderr: Option<ChildStderr>, lines: Lines) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let Some(stderr) = stderr else { return };
        // A progress bar redraws its line with carriage returns; each drawing is a line here.
        for chunk in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
            let text = String::from_utf8_lossy(&chunk).into_owned();
            if let Some(line) = text.split('\r').rfind(|line| !line.trim().is_empty()) {
                lines.push(line.trim().chars().take(400).collect());
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Build {
        Build::of_command("a test", Command::new("sh").arg("-c").arg(script)).expect("starts")
    }

    #[test]
    fn a_build_is_read_and_then_finished() {
        let mut build = shell("printf abc; echo working >&2");
        let mut text = String::new();
        build.read_to_string(&mut text).expect("read");
        assert_eq!(text, "abc");
        build.finish().expect("succeeded");
    }

    #[test]
    fn a_failure_repeats_the_last_words() {
        let mut build = shell("printf partial; echo no space >&2; exit 3");
        io::copy(&mut build, &mut io::sink()).expect("read");
        let error = build.finish().expect_err("failed").to_string();
        assert!(error.contains("a test") && error.contains("no space") && error.contains('3'), "{error}");
    }

    #[test]
    fn a_dropped_build_is_called_off() {
        let started = std::time::Instant::now();
        drop(shell("exec sleep 60"));
        assert!(started.elapsed().as_secs() < 30);
    }

    /// Tells when it is dropped, like a folder that has to be removed first.
    struct Slow(std::sync::mpsc::Sender<()>);

    impl Drop for Slow {
        fn drop(&mut self) {
            std::thread::yield_now();
            let _ = self.0.send(());
        }
    }

    #[test]
    fn a_dropped_thread_has_tidied_up() {
        for _ in 0..50 {
            let (told, tell) = std::sync::mpsc::channel();
            let slow = Slow(told);
            let endless = move |mut out: File| {
                let _slow = slow;
                Ok(io::copy(&mut io::repeat(7), &mut out).map(drop)?)
            };
            drop(Build::of_thread("t", endless).expect("starts"));
            tell.try_recv().expect("it has ended");
        }
    }

    #[test]
    fn a_thread_builds_too() {
        let mut build = Build::of_thread("t", |mut out| Ok(io::Write::write_all(&mut out, b"xyz")?)).expect("starts");
        let mut text = String::new();
        build.read_to_string(&mut text).expect("read");
        build.finish().expect("succeeded");
        assert_eq!(text, "xyz");
    }
}
