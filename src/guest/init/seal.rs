//! Making an image of a disk again: what made its guest one particular VM is removed.
//!
//! Runs on a copy of a VM's disk, in a machine that starts nothing of it: the host never reads a guest's filesystem.
//! What goes is overwritten before its name goes, for a disk takes back whole clusters alone: an image that is passed on
//! shall carry no key in blocks that nobody uses. Other freed room is given back. Every piece must succeed; only then the host is told.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{IFlags, OFlags, ioctl_getflags, ioctl_setflags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount_remount};

use super::personal::{replace, without_line, without_marked_line};
use super::{disk, modules, switch, trust};
use crate::guest::console::say;
use crate::guest::error::{Doing, GuestError};
use crate::guest::sys;
use crate::model::identity::{SEALED, Seal};
use crate::os::files::{read_limited, remove_file, remove_tree};

/// Largest file that is changed: there are lists of hosts with millions of lines.
const LIMIT: u64 = 64 << 20;

/// Where ssh servers have their keys, and what the names of all of them begin with: those that somebody has made in the
/// guest are no less a host's own. The first is OpenSSH's, the second Dropbear's.
const HOST_KEYS: [(&str, &str); 2] = [("etc/ssh", "ssh_host_"), ("etc/dropbear", "dropbear_")];

/// What is kept for one machine: by systemd (systemd-random-seed(8), systemd-creds(1)), by the scripts of System V's init
/// and of Buildroot, and by seedrng of BusyBox and OpenRC.
const SECRETS: [&str; 6] = [
    "var/lib/systemd/random-seed",
    "var/lib/systemd/credential.secret",
    "var/lib/urandom/random-seed",
    "var/lib/misc/random-seed",
    "var/lib/seedrng/seed.credit",
    "var/lib/seedrng/seed.no-credit",
];

/// Removes all of it from the root disk.
pub fn run(seal: &Seal) -> Result<(), GuestError> {
    say(&format!("the disk of {} becomes an image", seal.name));
    modules::load_all();
    disk::mount_root()?;
    switch::switch_root()?;
    for (piece, removed) in clean(Path::new("/"), seal) {
        removed.doing(|| format!("remove the {piece}"))?;
        say(&format!("{piece} removed"));
    }
    // Only what is free for good may be given back.
    rustix::fs::sync();
    give_back()?;
    // Its journal is empty then.
    mount_remount("/", MountFlags::RDONLY, c"").doing(|| "end all writing to the disk".into())?;
    say(SEALED);
    Ok(())
}

/// Freed blocks read as zero from here on, where the disk can tell the host.
fn give_back() -> Result<(), GuestError> {
    let root = File::open("/").doing(|| "open /".into())?;
    match sys::trim(&root) {
        Ok(bytes) => say(&format!("{} MiB of free room given back", bytes >> 20)),
        Err(e) if e.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => say("free room cannot be given back"),
        Err(e) => return Err(e).doing(|| "give free room back".into()),
    }
    Ok(())
}

/// Each piece with its name; all are tried.
fn clean(root: &Path, seal: &Seal) -> Vec<(&'static str, io::Result<()>)> {
    vec![
        ("host keys", wipe_all(host_keys(root))),
        ("authorized key", authorized_key(root, &seal.authorized_key)),
        ("machine id", machine_id(root)),
        ("host name", host_name(root, seal.name.as_str())),
        ("line in hosts", rewrite(&root.join("etc/hosts"), without_marked_line)),
        ("resolver", empty(&root.join("etc/resolv.conf"), 0o644)),
        ("trusted authority", trust::distrust(root)),
        ("random seed", wipe_all(SECRETS.map(|path| Ok(root.join(path))))),
    ]
}

fn host_keys(root: &Path) -> Vec<io::Result<PathBuf>> {
    HOST_KEYS.iter().flat_map(|(folder, begin)| host_keys_in(&root.join(folder), begin)).collect()
}

fn host_keys_in(folder: &Path, begin: &str) -> Vec<io::Result<PathBuf>> {
    let is_key = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(begin.as_bytes());
    match fs::read_dir(folder) {
        Ok(entries) => entries.filter(|e| e.as_ref().map_or(true, is_key)).map(|e| Ok(e?.path())).collect(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(e) => vec![Err(e)],
    }
}

/// Somebody may have kept banger, or others, from changing a file (chattr(1)). Where the filesystem knows nothing of it, there
/// is nothing in the way either; where it does, what follows fails and says so.
fn loosen(file: &File) {
    let kept = IFlags::IMMUTABLE | IFlags::APPEND;
    if let Ok(flags) = ioctl_getflags(file)
        && flags.intersects(kept)
    {
        let _ = ioctl_setflags(file, flags - kept);
    }
}

fn wipe_all(paths: impl IntoIterator<Item = io::Result<PathBuf>>) -> io::Result<()> {
    paths.into_iter().try_for_each(|path| wipe(&path?))
}

fn wipe(path: &Path) -> io::Result<()> {
    // A folder is no key.
    if fs::symlink_metadata(path).is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    overwrite(path)?;
    remove_file(path)
}

/// Zeros over the content of a file, on the disk: ext4 writes in place. Nothing happens to what is no file.
fn overwrite(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    let no_link = OFlags::NOFOLLOW.bits() as i32;
    loosen(&OpenOptions::new().read(true).custom_flags(no_link).open(path)?);
    let mut file = OpenOptions::new().write(true).custom_flags(no_link).open(path)?;
    let length = file.metadata()?.len().min(LIMIT);
    io::copy(&mut io::Read::take(io::repeat(0), length), &mut file)?;
    file.flush()?;
    file.sync_all()
}

/// Other people's keys stay.
fn authorized_key(root: &Path, line: &str) -> io::Result<()> {
    let path = root.join("root/.ssh/authorized_keys");
    rewrite(&path, |text| without_line(text, line))?;
    match fs::metadata(&path) {
        Ok(about) if about.len() == 0 => remove_file(&path),
        _ => Ok(()),
    }
}

/// An empty file is what systemd takes for a machine that has no id yet, and no first boot (machine-id(5)).
/// The journal is that machine's: nobody else's shows it, and its folder has the id for its name.
fn machine_id(root: &Path) -> io::Result<()> {
    let path = root.join("etc/machine-id");
    let id = read(&path)?.unwrap_or_default();
    let id = id.trim();
    if id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()) {
        remove_tree(&root.join("var/log/journal").join(id))?;
    }
    empty(&path, 0o444)?;
    let of_dbus = root.join("var/lib/dbus/machine-id");
    let is_file = fs::symlink_metadata(&of_dbus).is_ok_and(|found| found.is_file());
    if is_file { remove_file(&of_dbus) } else { Ok(()) }
}

/// One that somebody has given it stays.
fn host_name(root: &Path, name: &str) -> io::Result<()> {
    let path = root.join("etc/hostname");
    match read(&path)? {
        Some(text) if text.trim() == name => empty(&path, 0o644),
        _ => Ok(()),
    }
}

fn empty(path: &Path, mode: u32) -> io::Result<()> {
    if fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    overwrite(path)?;
    replace(path, b"", mode)
}

fn rewrite(path: &Path, change: impl Fn(&str) -> String) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let Some(before) = read(path)? else { return Ok(()) };
    let after = change(&before);
    if after == before {
        return Ok(());
    }
    let mode = fs::metadata(path)?.permissions().mode() & 0o777;
    overwrite(path)?;
    replace(path, after.as_bytes(), mode)
}

/// `None` where there is none.
fn read(path: &Path) -> io::Result<Option<String>> {
    match read_limited(path, LIMIT) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal() -> Seal {
        Seal { name: "box".parse().expect("a name"), authorized_key: "ssh-ed25519 OURS".into() }
    }

    fn cleaned(root: &Path) {
        for (piece, removed) in clean(root, &seal()) {
            removed.unwrap_or_else(|e| panic!("{piece}: {e}"));
        }
    }

    #[test]
    fn what_is_bangers_goes_and_what_is_others_stays() {
        let root = tempfile::tempdir().expect("a folder");
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        };
        put("etc/ssh/ssh_host_ed25519_key", "secret");
        put("etc/ssh/ssh_host_rsa_key.pub", "public");
        put("etc/ssh/sshd_config", "theirs");
        put("etc/ssh/ssh_host_folder/theirs", "theirs");
        put("etc/dropbear/dropbear_rsa_host_key", "secret");
        put("root/.ssh/authorized_keys", "ssh-rsa THEIRS\nssh-ed25519 OURS\n");
        let id = "ba6e0000000000000000000000000abc";
        put("etc/machine-id", &format!("{id}\n"));
        put("var/lib/dbus/machine-id", &format!("{id}\n"));
        put(&format!("var/log/journal/{id}/system.journal"), "entries");
        put("var/log/journal/other/system.journal", "entries");
        put("etc/hostname", "box\n");
        put("etc/hosts", "127.0.0.1 localhost\n10.0.0.2 box.vm box # banger\n10.9.9.9 db\n");
        put("etc/resolv.conf", "nameserver 10.0.0.1\n");
        put("var/lib/systemd/random-seed", "seed");
        cleaned(root.path());
        let get = |path: &str| fs::read_to_string(root.path().join(path)).ok();
        assert_eq!((get("etc/ssh/ssh_host_ed25519_key"), get("etc/ssh/ssh_host_rsa_key.pub")), (None, None));
        assert_eq!(get("etc/dropbear/dropbear_rsa_host_key"), None);
        assert_eq!(get("etc/ssh/sshd_config").as_deref(), Some("theirs"));
        assert_eq!(get("etc/ssh/ssh_host_folder/theirs").as_deref(), Some("theirs"));
        assert_eq!(get("root/.ssh/authorized_keys").as_deref(), Some("ssh-rsa THEIRS\n"));
        assert_eq!((get("etc/machine-id").as_deref(), get("var/lib/dbus/machine-id")), (Some(""), None));
        assert_eq!((get("etc/hostname").as_deref(), get("etc/resolv.conf").as_deref()), (Some(""), Some("")));
        assert_eq!(get("etc/hosts").as_deref(), Some("127.0.0.1 localhost\n10.9.9.9 db\n"));
        assert_eq!(get("var/lib/systemd/random-seed"), None);
        let journals = fs::read_dir(root.path().join("var/log/journal")).expect("listed");
        assert_eq!(journals.map(|e| e.expect("an entry").file_name()).collect::<Vec<_>>(), ["other"]);
        // Once more: nothing is left to do, and nothing fails.
        cleaned(root.path());
    }

    #[test]
    fn an_empty_root_and_a_name_of_somebodys_own_are_left_alone() {
        let root = tempfile::tempdir().expect("a folder");
        cleaned(root.path());
        assert_eq!(fs::read_dir(root.path()).expect("listed").count(), 0);
        fs::create_dir(root.path().join("etc")).expect("made");
        fs::write(root.path().join("etc/hostname"), "mine\n").expect("written");
        cleaned(root.path());
        assert_eq!(fs::read_to_string(root.path().join("etc/hostname")).expect("read"), "mine\n");
    }

    #[test]
    fn only_our_key_and_the_file_goes_with_it() {
        let root = tempfile::tempdir().expect("a folder");
        let path = root.path().join("root/.ssh/authorized_keys");
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, "ssh-ed25519 OURS\n").expect("written");
        cleaned(root.path());
        assert!(!path.exists());
    }

    #[test]
    fn a_link_is_removed_and_what_it_leads_to_is_not_touched() {
        let root = tempfile::tempdir().expect("a folder");
        let (target, link) = (root.path().join("target"), root.path().join("link"));
        fs::write(&target, "theirs").expect("written");
        std::os::unix::fs::symlink(&target, &link).expect("linked");
        wipe(&link).expect("wiped");
        assert_eq!(fs::read_to_string(&target).expect("read"), "theirs");
        assert!(fs::symlink_metadata(&link).is_err());
    }
}
