//! `[[file_sync]]`: files of the caller's home that every new guest gets. Read by the command line, which is the
//! caller; the daemon never looks into anybody's home.

use std::io::{self, PipeWriter};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::client::Client;
use super::commands::way::{Way, failure};
use super::render;
use super::report::Failure;
use crate::host::config::{Config, FileSync};
use crate::model::VmName;
use crate::os::archive::{Text, pack_listed};
use crate::os::files::read_limited;
use crate::protocol::{Fault, FaultKind};
use crate::workspace::WorkspaceError;

/// Most bytes of a file.
const MAX_FILE: u64 = 16 << 20;

/// Where relative paths lead in a guest.
const GUEST_HOME: &str = "root";

/// Copies what is configured into a VM that has just been made.
pub fn copy(client: &mut Client, name: &VmName, config: &Config) -> Result<(), Failure> {
    if config.file_sync.is_empty() {
        return Ok(());
    }
    let home = home()?;
    let mut files = Vec::new();
    for entry in &config.file_sync {
        files.extend(read(entry, &home)?);
    }
    if files.is_empty() {
        return Ok(());
    }
    let send = move |out: PipeWriter| -> Result<(), WorkspaceError> {
        let texts: Vec<Text<'_>> =
            files.iter().map(|f| Text { name: &f.name, content: &f.content, mode: f.mode }).collect();
        Ok(pack_listed(Path::new("/"), [], &texts, io::BufWriter::new(out)).map(drop)?)
    };
    let mut way = Way::open(client, name)?;
    way.unpack("copy the files of [[file_sync]]", "/", send).map_err(|e| failure(&e))
}

/// The caller's home, without links.
fn home() -> Result<PathBuf, Failure> {
    let named = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let found = named.as_ref().and_then(|home| home.canonicalize().ok());
    found.ok_or_else(|| refused("file_sync: there is no home folder: HOME is not set, or leads nowhere".to_owned()))
}

struct Synced {
    name: String,
    content: Vec<u8>,
    mode: u32,
}

/// The file of `entry`; one that is not there is said and left out.
fn read(entry: &FileSync, home: &Path) -> Result<Option<Synced>, Failure> {
    let named = home.join(entry.from.strip_prefix("~/").unwrap_or(&entry.from));
    let path = match named.canonicalize() {
        Ok(path) => path,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            render::note(&format!("banger: warning: file_sync: {} is not there: left out", named.display()));
            return Ok(None);
        }
        Err(e) => return Err(unreadable(&named, &e)),
    };
    if !path.starts_with(home) {
        return Err(refused(format!("file_sync: {} is not in {}", path.display(), home.display())));
    }
    let about = path.metadata().map_err(|e| unreadable(&path, &e))?;
    if !about.is_file() {
        return Err(refused(format!("file_sync: {} is no file", path.display())));
    }
    let content = read_limited(&path, MAX_FILE).map_err(|e| unreadable(&path, &e))?;
    Ok(Some(Synced { name: target(&entry.to)?, content, mode: entry.mode.unwrap_or(about.mode() & 0o777) }))
}

/// Where it goes, below the guest's `/`.
fn target(to: &str) -> Result<String, Failure> {
    let path = match (to.strip_prefix("~/"), to.strip_prefix('/')) {
        (Some(rest), _) => Path::new(GUEST_HOME).join(rest),
        (None, Some(rest)) => PathBuf::from(rest),
        (None, None) => Path::new(GUEST_HOME).join(to),
    };
    let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    let is_named = !to.is_empty() && !to.ends_with('/');
    match (is_plain && is_named, path.to_str()) {
        (true, Some(text)) => Ok(text.to_owned()),
        _ => Err(refused(format!("file_sync: {to:?} is no file of a guest: write /etc/x, or ~/x"))),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Fault::failed(format!("file_sync: cannot read {}", path.display()), error).into()
}

fn refused(message: String) -> Failure {
    Failure::new(FaultKind::BadRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_file_of_the_guest() {
        for (to, name) in [("~/.netrc", "root/.netrc"), (".x", "root/.x"), ("/etc/a/b", "etc/a/b")] {
            assert_eq!(target(to).expect("a target"), name);
        }
        for bad in ["", "/", "~/", "../x", "/a/../b", "a/"] {
            assert!(target(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_files_of_the_home_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = folder.path().join("home").canonicalize().unwrap_or_else(|_| {
            std::fs::create_dir(folder.path().join("home")).expect("made");
            folder.path().join("home").canonicalize().expect("there")
        });
        std::fs::write(home.join("f"), "content").expect("written");
        std::fs::write(folder.path().join("secret"), "no").expect("written");
        std::os::unix::fs::symlink("../secret", home.join("link")).expect("made");
        let entry = |from: &str| FileSync { from: from.into(), to: "x".into(), mode: Some(0o600) };
        let read = |from: &str| read(&entry(from), &home);
        let found = read("~/f").expect("read").expect("there");
        assert_eq!((found.content.as_slice(), found.mode, found.name.as_str()), (&b"content"[..], 0o600, "root/x"));
        assert!(read("no-such").expect("left out").is_none());
        for bad in ["link", "../secret", "/etc/passwd", "."] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
