//! Starting a child that keeps only what it is given.
//!
//! The child is this same program as `banger-stage`, with typed arguments. Descriptors are passed
//! by number: they are marked to stay open just around the start, which is safe because the helper
//! is one thread; the stage checks again that nothing else is open.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use super::authority::Root;
use super::error::{Doing, Result};
use super::stage::Order;
use super::sys;

/// Where a child's standard input and output go. Its standard error is `errors`.
#[derive(Debug)]
pub struct Streams {
    /// Standard input.
    pub input: Stdio,
    /// Standard output.
    pub output: Stdio,
    /// Standard error.
    pub errors: Stdio,
}

/// Starts `order`, whose descriptors the caller holds open.
pub fn start(_: &Root, order: &Order, streams: Streams) -> Result<Child> {
    let arguments: Vec<OsString> = order.arguments();
    let doing = format!("start {}", order.name());
    let numbers: Vec<RawFd> = order.descriptors();
    mark(&numbers, true).doing(&doing)?;
    let child = Command::new("/proc/self/exe")
        .arg0("banger-stage")
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .stdin(streams.input)
        .stdout(streams.output)
        .stderr(streams.errors)
        .spawn();
    mark(&numbers, false).doing(&doing)?;
    child.doing(doing)
}

fn mark(numbers: &[RawFd], stays: bool) -> std::io::Result<()> {
    numbers.iter().try_for_each(|number| sys::inherit(*number, stays))
}
