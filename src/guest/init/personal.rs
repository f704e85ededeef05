//! Writing the identity into the guest's files.
//!
//! Runs inside the guest's own root, so no path can lead out of it. A file is replaced by rename
//! and only when it differs: a second boot writes nothing. Nothing is synced: what a crash loses
//! here, the next boot writes again.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::time::{ClockId, Timespec, clock_settime};

use super::machine_id;
use crate::guest::agent::sshd;
use crate::guest::error::{Doing, GuestError};
use crate::guest::ssh;
use crate::model::identity::IdentityV1;
use crate::os::clock;

/// Ends the line that is banger's in a file that is not.
const MARK: &str = "# banger";

/// Each piece with its name; one that fails does not stop the others.
pub fn write_all(identity: &IdentityV1) -> Vec<(&'static str, Result<(), GuestError>)> {
    vec![
        ("clock", set_clock_if_behind(identity.now_ns)),
        ("hostname", hostname(identity)),
        ("hosts", hosts(identity)),
        ("machine id", write("/etc/machine-id", &format!("{}\n", machine_id(&identity.id)), 0o444)),
        ("resolver", write("/etc/resolv.conf", &format!("nameserver {}\n", identity.gateway), 0o644)),
    ]
    .into_iter()
    .chain(keys(identity))
    .collect()
}

/// The keys of the image's ssh server where it has one, in the files that it reads; else those of ours, and
/// nothing is written into the image.
fn keys(identity: &IdentityV1) -> Vec<(&'static str, Result<(), GuestError>)> {
    if !sshd::is_in_image() {
        let written = ssh::keys::write(&identity.host_key, &identity.authorized_key);
        return vec![("keys of banger's ssh server", written.doing(|| "write the keys of banger's ssh server".into()))];
    }
    vec![
        ("authorized key", authorized_key(&identity.authorized_key)),
        ("host key", write("/etc/ssh/ssh_host_ed25519_key", &with_newline(&identity.host_key), 0o600)),
        ("root's account", unlock_root()),
    ]
}

/// Sets the clock to `now_ns` since the epoch.
pub fn set_clock(now_ns: u64) -> Result<(), GuestError> {
    let time = Timespec { tv_sec: (now_ns / 1_000_000_000) as i64, tv_nsec: (now_ns % 1_000_000_000) as _ };
    clock_settime(ClockId::Realtime, time).doing(|| "set the clock".into())
}

/// A clock that is ahead was set by better hardware than a message that has been on its way.
fn set_clock_if_behind(now_ns: u64) -> Result<(), GuestError> {
    if clock::unix_nanos() < now_ns { set_clock(now_ns) } else { Ok(()) }
}

fn hostname(identity: &IdentityV1) -> Result<(), GuestError> {
    rustix::system::sethostname(identity.name.as_str().as_bytes()).doing(|| "set the host name".into())?;
    write("/etc/hostname", &format!("{}\n", identity.name), 0o644)
}

fn hosts(identity: &IdentityV1) -> Result<(), GuestError> {
    let path = Path::new("/etc/hosts");
    let before = fs::read_to_string(path).unwrap_or_else(|_| "127.0.0.1 localhost\n::1 localhost\n".to_owned());
    let own = format!("{} {name}.vm {name} {MARK}", identity.address, name = identity.name);
    write("/etc/hosts", &with_marked_line(&before, &own), 0o644)
}

/// `text` with `own` as its only marked line.
fn with_marked_line(text: &str, own: &str) -> String {
    format!("{}{own}\n", without_marked_line(text))
}

/// `text` without the line that is banger's.
pub(super) fn without_marked_line(text: &str) -> String {
    text.lines().filter(|l| !l.trim_end().ends_with(MARK)).map(|l| format!("{l}\n")).collect()
}

/// sshd demands that nobody else can write the file or its folder (sshd(8), StrictModes).
fn authorized_key(line: &str) -> Result<(), GuestError> {
    crate::os::files::ensure_dir(Path::new("/root/.ssh"), 0o700).doing(|| "prepare root's .ssh".into())?;
    let path = "/root/.ssh/authorized_keys";
    let before = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(e).doing(|| format!("read {path}")),
    };
    write(path, &with_line(&before, line), 0o600)
}

/// `text` with `line` in it, once: what the guest's user has added stays.
fn with_line(text: &str, line: &str) -> String {
    if text.lines().any(|l| l == line) {
        return text.to_owned();
    }
    let separator = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{separator}{line}\n")
}

/// `text` without `line`.
pub(super) fn without_line(text: &str, line: &str) -> String {
    text.split_inclusive('\n').filter(|l| l.trim_end_matches('\n') != line).collect()
}

/// Without PAM sshd refuses an account whose password field begins with `!` even to a key
/// (sshd(8), AUTHENTICATION); `*` admits no password either, but a key.
fn unlock_root() -> Result<(), GuestError> {
    let path = Path::new("/etc/shadow");
    let Ok(before) = fs::read_to_string(path) else { return Ok(()) };
    let mode = fs::metadata(path).map_or(0o640, |m| m.permissions().mode() & 0o777);
    write_owned_like(path, &with_root_unlocked(&before), mode)
}

fn with_root_unlocked(shadow: &str) -> String {
    let line = |line: &str| match line.strip_prefix("root:").and_then(|rest| rest.split_once(':')) {
        Some((password, rest)) if password.starts_with('!') => format!("root:*:{rest}\n"),
        _ => format!("{line}\n"),
    };
    shadow.lines().map(line).collect()
}

fn with_newline(text: &str) -> String {
    format!("{}\n", text.trim_end())
}

fn write(path: &str, content: &str, mode: u32) -> Result<(), GuestError> {
    let path = Path::new(path);
    replace(path, content.as_bytes(), mode).doing(|| format!("write {}", path.display()))
}

/// Like [`write`], and the file keeps its owner and group (`root:shadow`).
fn write_owned_like(path: &Path, content: &str, mode: u32) -> Result<(), GuestError> {
    use std::os::unix::fs::MetadataExt;
    let owner = fs::metadata(path).doing(|| format!("look at {}", path.display()))?;
    replace(path, content.as_bytes(), mode).doing(|| format!("write {}", path.display()))?;
    std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid()))
        .doing(|| format!("set the owner of {}", path.display()))
}

/// A link at `path` is replaced, not followed: `/etc/resolv.conf` of many images leads into
/// `/run`, to a file of a resolver that does not run.
pub(super) fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    if is_already(path, content, mode) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let temporary = path.with_extension("banger-new");
    let _ = fs::remove_file(&temporary);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(content)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    fs::rename(&temporary, path)
}

fn is_already(path: &Path, content: &[u8], mode: u32) -> bool {
    let found = fs::symlink_metadata(path);
    found.is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o7777 == mode && m.len() == content.len() as u64)
        && fs::read(path).is_ok_and(|c| c == content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_were_added_in_the_guest_stay() {
        assert_eq!(with_line("", "ours"), "ours\n");
        assert_eq!(with_line("theirs", "ours"), "theirs\nours\n");
        assert_eq!(with_line("ours\ntheirs\n", "ours"), "ours\ntheirs\n");
        assert_eq!(without_line("ours\ntheirs", "ours"), "theirs");
        assert_eq!(without_line("theirs, not ours\n", "ours"), "theirs, not ours\n");
    }

    #[test]
    fn hosts_keeps_what_is_not_bangers_and_holds_one_line_of_its_own() {
        let first = with_marked_line("127.0.0.1 localhost", "10.0.0.2 a.vm a # banger");
        assert_eq!(first, "127.0.0.1 localhost\n10.0.0.2 a.vm a # banger\n");
        let second = with_marked_line(&first, "10.0.0.3 b.vm b # banger");
        assert_eq!(second, "127.0.0.1 localhost\n10.0.0.3 b.vm b # banger\n");
    }

    #[test]
    fn only_a_locked_root_is_unlocked() {
        let shadow = "root:!:1:0:9:7:::\nbob:!:1:0:9:7:::\n";
        assert_eq!(with_root_unlocked(shadow), "root:*:1:0:9:7:::\nbob:!:1:0:9:7:::\n");
        assert_eq!(with_root_unlocked("root:!*:1::::::\n"), "root:*:1::::::\n");
        let free = "root:$y$hash:1:0:9:7:::\n";
        assert_eq!(with_root_unlocked(free), free);
        assert_eq!(with_root_unlocked("root\nroot:\n"), "root\nroot:\n");
    }

    #[test]
    fn a_link_is_replaced_and_its_target_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let (target, link) = (folder.path().join("target"), folder.path().join("resolv.conf"));
        fs::write(&target, "old").expect("written");
        std::os::unix::fs::symlink(&target, &link).expect("linked");
        replace(&link, b"new", 0o644).expect("replaced");
        assert_eq!(fs::read_to_string(&target).expect("read"), "old");
        assert_eq!(fs::read_to_string(&link).expect("read"), "new");
        assert!(fs::symlink_metadata(&link).expect("there").is_file());
    }

    #[test]
    fn an_equal_file_is_not_written_again_but_a_loose_mode_is_mended() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        replace(&path, b"secret", 0o600).expect("written");
        assert!(is_already(&path, b"secret", 0o600));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
        replace(&path, b"secret", 0o600).expect("written");
        assert!(is_already(&path, b"secret", 0o600));
    }
}
