//! A terminal, what is typed into it, and what a program writes to it.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::world::World;

/// How long something may take to appear.
const LIMIT: Duration = Duration::from_secs(20);

/// A program with a terminal of its own.
pub struct Terminal {
    keyboard: File,
    program: Child,
    screen: Arc<Screen>,
}

#[derive(Default)]
struct Screen {
    written: Mutex<Vec<u8>>,
    changed: Condvar,
}

impl Terminal {
    /// Starts `program` in this world, on a terminal of 24 lines.
    pub fn start(world: &World, program: &str, arguments: &[&str], columns: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("it can be opened");
        tcsetwinsize(&master, Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).expect("a size");
        let name = ptsname(&master, Vec::new()).expect("its name").into_string().expect("text");
        let open = || File::options().read(true).write(true).open(&name).expect("its other end");
        // Only a session's leader can have a terminal for its own.
        let words = [&["--ctty", program], arguments].concat();
        let mut command: Command = world.command("setsid", &words);
        command.env("TERM", "xterm").stdin(open()).stdout(open()).stderr(open());
        let program = command.spawn().unwrap_or_else(|e| panic!("cannot start {program}: {e}"));
        let keyboard = File::from(master);
        let screen = Arc::new(Screen::default());
        let (mut reader, shared) = (keyboard.try_clone().expect("a copy"), screen.clone());
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            // Its last user's end is an error of a terminal.
            while let Ok(count @ 1..) = reader.read(&mut piece) {
                shared.written.lock().expect("no reader panics").extend_from_slice(&piece[..count]);
                shared.changed.notify_all();
            }
        });
        Self { keyboard, program, screen }
    }

    /// Presses the keys of `text`.
    pub fn press(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).expect("typed");
    }

    /// How much was written so far; what comes later stands behind it.
    pub fn now(&self) -> usize {
        self.screen.written.lock().expect("no reader panics").len()
    }

    /// Waits until `found` finds what it looks for in what was written since `from`, without control sequences.
    #[track_caller]
    pub fn wait_for<T>(&self, from: usize, what: &str, found: impl Fn(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + LIMIT;
        let mut written = self.screen.written.lock().expect("no reader panics");
        loop {
            let text = plain(&written[from..]);
            if let Some(found) = found(&text) {
                return found;
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            assert!(!rest.is_zero(), "{what} never came:\n{text}");
            written = self.screen.changed.wait_timeout(written, rest).expect("no reader panics").0;
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

/// Without escape sequences (ECMA-48: `ESC [`, parameters, a letter; `ESC ]` to its end) and carriage returns.
fn plain(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut characters = String::from_utf8_lossy(bytes).into_owned().chars().collect::<Vec<_>>().into_iter().peekable();
    while let Some(c) = characters.next() {
        match (c, characters.peek()) {
            ('\x1b', Some('[')) => {
                characters.by_ref().skip(1).find(|c| ('@'..='~').contains(c));
            }
            ('\x1b', Some(']')) => {
                characters.by_ref().find(|c| matches!(c, '\x07' | '\\'));
            }
            ('\x1b', Some('(')) => drop(characters.nth(1)),
            ('\x1b', _) => drop(characters.next()),
            ('\r' | '\x0e' | '\x0f', _) => {}
            (c, _) => text.push(c),
        }
    }
    text
}
