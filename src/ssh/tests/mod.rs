//! The carrier against a real OpenSSH server, which speaks over a socket pair (`sshd -i`): no
//! port, no network, no daemon. Where there is no sshd these tests say so and do nothing. What is true
//! of every carrier is tested in the room `carriers`.

mod commands;
mod hostile;
mod measure;
pub mod server;
pub mod signals;
pub mod streams;

use crate::shell::{Captured, Command, GuestShell, capture};

const LIMIT: u64 = 1 << 20;

/// Runs `script` in the guest's shell.
pub fn script(text: &str) -> Command {
    Command::new(["sh", "-c", text])
}

pub fn output(shell: &mut dyn GuestShell, command: &Command, stdin: &[u8]) -> Captured {
    capture(shell, command, stdin, LIMIT).expect("the command runs")
}
