//! Handing pid 1 to the image's own init.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::guest::console::say;
use crate::guest::error::GuestError;

/// The search path of everything that is started here.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where an image keeps its init, in order.
const CANDIDATES: [&str; 3] = ["/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd"];

/// Whether the image's own init is systemd, by where its link leads.
pub fn image_has_systemd() -> bool {
    let first = CANDIDATES.iter().find_map(|path| std::fs::canonicalize(path).ok());
    first.is_some_and(|path| path.file_name().is_some_and(|name| name == "systemd"))
}

/// Executes the first that can be; comes back only when none can.
pub fn become_image_init() -> GuestError {
    say("handing over to the image's init");
    for path in CANDIDATES {
        let error = Command::new(path).env_clear().env("PATH", PATH).env("TERM", "linux").exec();
        if error.kind() != io::ErrorKind::NotFound {
            say(&format!("trouble: cannot execute {path}: {error}"));
        }
    }
    GuestError::NoImageInit(CANDIDATES.join(", "))
}
