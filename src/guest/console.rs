//! Lines on the guest's console, which the host keeps as the VM's log.
//!
//! The console is opened for each line: a `vhangup` by some getty would make a kept descriptor
//! useless for ever (vhangup(2)), and a line is rare.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

/// Writes `text` as one line with the time since the kernel's start.
pub fn say(text: &str) {
    let line = line(uptime(), text);
    if let Some(mut console) = open() {
        // A console that takes no line has nowhere to be reported.
        let _ = console.write_all(line.as_bytes());
    }
}

/// The console for writing; `None` before `/dev` is there.
pub fn open() -> Option<File> {
    let no_controlling_terminal = rustix::fs::OFlags::NOCTTY.bits() as i32;
    OpenOptions::new().write(true).custom_flags(no_controlling_terminal).open("/dev/console").ok()
}

/// Time since the kernel's start.
pub fn uptime() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(now.tv_sec.try_into().unwrap_or(0), now.tv_nsec.try_into().unwrap_or(0))
}

fn line(uptime: Duration, text: &str) -> String {
    // Control characters would let what an image says paint over other lines of the log.
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("[{:>5}.{:03}] banger: {clean}\n", uptime.as_secs(), uptime.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_whatever_it_holds() {
        let line = line(Duration::from_millis(1_234), "a\nb\x1b[2J");
        assert_eq!(line, "[    1.234] banger: a b [2J\n");
    }
}
