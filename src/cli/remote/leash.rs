//! `banger-leash PARENT PROGRAM ARGUMENTS`: becomes a program that ends when its parent does, however that ends, and
//! that Ctrl-C on their common terminal leaves alone: what it means is for the parent to say.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use super::super::report::Failure;
use crate::protocol::{Fault, FaultKind};

/// A shell's way to have signals ignored that an `exec` does not undo (XCU, trap). ssh leaves ignored what was.
const DEAF: &str = "trap '' INT QUIT HUP; exec \"$@\"";

/// Does so; returns only when it could not.
pub fn leash(arguments: &[OsString]) -> Failure {
    let [parent, program @ ..] = arguments else {
        return Failure::new(FaultKind::BadRequest, "banger-leash takes PARENT PROGRAM...: banger calls it");
    };
    if let Err(e) = set_parent_process_death_signal(Some(Signal::TERM)) {
        return Fault::failed("cannot end with the parent", &std::io::Error::from(e)).into();
    }
    // It may have ended before it was asked to tell.
    let current = getppid().map(|pid| pid.as_raw_nonzero().get());
    if current.map(|pid| pid.to_string().into()).as_ref() != Some(parent) {
        return Failure::Said(1);
    }
    let error = Command::new("/bin/sh").args(["-c", DEAF, "sh"]).args(program).exec();
    Fault::failed("cannot start a program", &error).into()
}
