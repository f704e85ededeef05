//! How a daemon tells whoever started it that it answers.

use std::fs::OpenOptions;
use std::io::{self, Write};

use super::service;

/// Tells systemd where that has started this process. Else writes `ready` to standard output and lets go of it: from
/// here on it is `/dev/null`, so that the other end of a pipe sees the end as well.
pub fn announce() -> io::Result<()> {
    if service::is_one() {
        return service::tell_ready();
    }
    // Nobody may be listening, which is fine.
    let _ = io::stdout().write_all(b"ready\n").and_then(|()| io::stdout().flush());
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    Ok(rustix::stdio::dup2_stdout(&null)?)
}
