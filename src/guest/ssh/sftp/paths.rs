//! Names of files as clients say them: bytes, relative to root's home.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::os::accounts;

/// Where relative names begin.
pub fn home() -> PathBuf {
    let home = accounts::of_uid(0).map_or_else(|| "/root".into(), |account| account.home);
    if home.is_dir() { home } else { "/".into() }
}

/// The file that `name` means.
pub fn of(home: &Path, name: &[u8]) -> PathBuf {
    home.join(OsStr::from_bytes(name))
}

/// The same with `~` as a shell reads it; there is one user.
pub fn expand(home: &Path, name: &[u8]) -> PathBuf {
    match name.strip_prefix(b"~") {
        Some([]) => home.to_owned(),
        Some([b'/', rest @ ..]) => of(home, rest),
        _ => of(home, name),
    }
}

/// The path without links and dots, as far as it is there.
pub fn real(path: &Path) -> PathBuf {
    if let Ok(real) = path.canonicalize() {
        return real;
    }
    let plain = path.components().fold(PathBuf::new(), |mut done, part| {
        match part {
            Component::ParentDir => drop(done.pop()),
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => done.push(part),
        }
        done
    });
    let there = plain.parent().and_then(|folder| folder.canonicalize().ok());
    there.zip(plain.file_name()).map(|(folder, name)| folder.join(name)).unwrap_or(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_begin_at_home_and_tildes_are_it() {
        let home = Path::new("/home");
        assert_eq!(of(home, b"a\xff"), home.join(OsStr::from_bytes(b"a\xff")));
        assert_eq!(of(home, b"/etc"), Path::new("/etc"));
        assert_eq!(of(home, b""), Path::new("/home"));
        assert_eq!((expand(home, b"~"), expand(home, b"~/a")), ("/home".into(), "/home/a".into()));
        assert_eq!(expand(home, b"~bob"), Path::new("/home/~bob"));
        assert_eq!(real(Path::new("/no/such/../thing/./x")), Path::new("/no/thing/x"));
        assert_eq!(real(Path::new("/proc/../no-such")), Path::new("/no-such"));
    }
}
