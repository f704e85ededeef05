//! Commands with input, output and a limit. Nothing here waits without one.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use banger::os::process;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// How long a command may take where nothing is said.
const LIMIT: Duration = Duration::from_secs(60);

/// A command about to be run.
pub struct Run {
    command: Command,
    input: Vec<u8>,
    /// In the place of `input`.
    file: Option<File>,
    limit: Duration,
}

impl Run {
    /// `command` without input, with the usual limit.
    pub fn new(command: Command) -> Self {
        Self { command, input: Vec::new(), file: None, limit: LIMIT }
    }

    /// Bytes for its standard input, which is then closed.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// What its standard input is.
    pub fn with_stdin(mut self, file: File) -> Self {
        self.file = Some(file);
        self
    }

    /// Another limit.
    pub fn limit(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn output(self) -> Output {
        self.spawn().wait()
    }

    /// Starts it, as the leader of a process group.
    #[track_caller]
    pub fn spawn(mut self) -> Running {
        let shown = format!(
            "{:?}",
            self.command.get_args().fold(vec![self.command.get_program()], |mut all, a| {
                all.push(a);
                all
            })
        );
        let stdin = self.file.map_or_else(Stdio::piped, Stdio::from);
        let piped = self.command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.process_group(0).spawn().unwrap_or_else(|e| panic!("cannot start {shown}: {e}"));
        if let Some(mut stdin) = child.stdin.take() {
            let input = self.input;
            // A command that does not read its input is no error here.
            std::thread::spawn(move || stdin.write_all(&input).is_ok());
        }
        let stdout = Captured::of(child.stdout.take().expect("stdout is a pipe"));
        let stderr = Captured::of(child.stderr.take().expect("stderr is a pipe"));
        Running { child, stdout, stderr, shown, deadline: Instant::now() + self.limit }
    }
}

/// A command that runs.
pub struct Running {
    child: Child,
    stdout: Arc<Captured>,
    stderr: Arc<Captured>,
    shown: String,
    deadline: Instant,
}

impl Running {
    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Sends it a signal, and only it.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid()).expect("a pid");
        kill_process(pid, signal).expect("the command can be signalled");
    }

    /// Waits until its standard output contains `text`.
    #[track_caller]
    pub fn wait_for_output(&self, text: &str) {
        if !self.stdout.wait(self.deadline, |s| s.contains_text(text)) {
            panic!("{} never wrote {text:?}\nstdout: {}\nstderr: {}", self.shown, self.stdout, self.stderr);
        }
    }

    /// Waits until it has written `count` lines of standard error, or has ended.
    pub fn wait_for_lines(&self, count: usize) {
        let reached = |s: &Stream| s.bytes.iter().filter(|b| **b == b'\n').count() >= count;
        self.stderr.wait(self.deadline, reached);
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(mut self) -> Output {
        let rest = self.deadline.saturating_duration_since(Instant::now());
        let pidfd = process::reference(self.pid()).ok().and_then(|r| process::open(r).ok().flatten());
        let ended = pidfd.is_none_or(|p| process::wait_for_end(&p, rest).expect("pidfd can be polled"));
        if !ended {
            let group = Pid::from_raw(self.pid()).expect("a pid");
            kill_process_group(group, Signal::KILL).expect("its group can be killed");
            panic!("{} did not end in time\nstdout: {}\nstderr: {}", self.shown, self.stdout, self.stderr);
        }
        let status = self.child.wait().expect("it can be reaped");
        let closing = Instant::now() + Duration::from_secs(10);
        for stream in [&self.stdout, &self.stderr] {
            let closed = stream.wait(closing, |s| s.ended);
            assert!(closed, "{} has ended, but something it started keeps its output open", self.shown);
        }
        let code = status.code().unwrap_or_else(|| -status.signal().unwrap_or(0));
        Output { code, stdout: self.stdout.bytes(), stderr: self.stderr.to_string(), shown: self.shown }
    }
}

/// What a command left.
pub struct Output {
    /// Its exit code; the negative number of the signal that ended it.
    pub code: i32,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error, as text.
    pub stderr: String,
    shown: String,
}

impl Output {
    /// Its standard output as text, without the last newline.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end_matches('\n').to_owned()
    }

    /// It has ended with 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.ends(0)
    }

    /// It has ended with `code`.
    #[track_caller]
    pub fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\nstdout: {}\nstderr: {}", self.shown, shorten(&self.stdout), self.stderr);
        self
    }

    /// It has refused, saying each of `words` on standard error.
    #[track_caller]
    pub fn refuses(self, words: &[&str]) -> Self {
        assert!(self.code > 0, "{} was not refused: {}", self.shown, self.code);
        for word in words {
            assert!(self.stderr.contains(word), "{} does not say {word:?}: {}", self.shown, self.stderr);
        }
        self
    }

    /// Its standard output as JSON, and nothing beside it.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|e| panic!("{} printed no JSON ({e}): {}", self.shown, shorten(&self.stdout)))
    }
}

fn shorten(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4096)]);
    if bytes.len() > 4096 { format!("{text}… ({} bytes)", bytes.len()) } else { text.into_owned() }
}

/// What a stream has brought so far.
struct Captured {
    state: Mutex<Stream>,
    changed: Condvar,
}

#[derive(Default)]
struct Stream {
    bytes: Vec<u8>,
    ended: bool,
}

impl Stream {
    fn contains_text(&self, text: &str) -> bool {
        self.bytes.windows(text.len()).any(|w| w == text.as_bytes())
    }
}

impl Captured {
    fn of(mut stream: impl Read + Send + 'static) -> Arc<Self> {
        let captured = Arc::new(Self { state: Mutex::default(), changed: Condvar::new() });
        let shared = captured.clone();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            loop {
                // An error ends the stream as its end does: what came is what can be compared.
                let count = stream.read(&mut buffer).unwrap_or(0);
                let mut state = shared.state.lock().expect("no reader panics");
                state.bytes.extend_from_slice(&buffer[..count]);
                state.ended = count == 0;
                shared.changed.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        captured
    }

    fn wait(&self, deadline: Instant, reached: impl Fn(&Stream) -> bool) -> bool {
        let mut state = self.state.lock().expect("no reader panics");
        while !reached(&state) {
            let rest = deadline.saturating_duration_since(Instant::now());
            if rest.is_zero() || state.ended {
                return reached(&state);
            }
            state = self.changed.wait_timeout(state, rest).expect("no reader panics").0;
        }
        true
    }

    fn bytes(&self) -> Vec<u8> {
        self.state.lock().expect("no reader panics").bytes.clone()
    }
}

impl std::fmt::Display for Captured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.bytes()))
    }
}
