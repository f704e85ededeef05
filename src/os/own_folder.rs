//! A folder that nobody else can change, reached by descriptor: opened once, checked by what was
//! opened, and everything below it reached through that. A parent may belong to somebody else, who
//! can rename it or put a link in its place; then the check fails, or it changes nothing.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// Why a folder is not used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The system refused.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Somebody else could change what is in it.
    #[error("{path} {defect}")]
    Unsafe {
        /// The folder.
        path: String,
        /// What is wrong with it.
        defect: &'static str,
    },
}

/// The opened folder.
#[derive(Debug)]
pub struct OwnFolder {
    /// Its descriptor.
    pub directory: OwnedFd,
}

impl OwnFolder {
    /// Opens the folder at `path`, which is made if it is missing, and gives it `mode`; its parent
    /// must be there. No link is followed in its last part, and it must be the caller's own and
    /// writable by nobody else.
    pub fn open(path: &Path, mode: u32) -> Result<Self, FolderError> {
        let failed = |doing: &str, e: rustix::io::Errno| super::files::named(doing, path)(e.into());
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(refused(path, "is not a folder below another"));
        };
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = rustix::fs::open(parent, flags, Mode::empty()).map_err(|e| failed("open the parent of", e))?;
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(mode)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(failed("create folder", e).into()),
        }
        let directory = rustix::fs::openat(&parent, name, flags | OFlags::NOFOLLOW, Mode::empty())
            .map_err(|e| failed("open", e))?;
        let seen = rustix::fs::fstat(&directory).map_err(|e| failed("look at", e))?;
        if seen.st_uid != rustix::process::geteuid().as_raw() {
            return Err(refused(path, "is owned by another user"));
        }
        if seen.st_mode & 0o022 != 0 {
            return Err(refused(path, "can be written by others"));
        }
        // Independent of the umask.
        rustix::fs::fchmod(&directory, Mode::from_raw_mode(mode)).map_err(|e| failed("set the mode of", e))?;
        Ok(Self { directory })
    }

    /// A path below the folder that leads through its descriptor. It is short, too: a socket's
    /// address has at most 107 bytes (unix(7)).
    pub fn at(&self, below: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{below}", self.directory.as_raw_fd()))
    }
}

fn refused(path: &Path, defect: &'static str) -> FolderError {
    FolderError::Unsafe { path: path.display().to_string(), defect }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn it_is_made_with_its_mode_and_found_again() {
        let parent = tempfile::tempdir().expect("a folder");
        let path = parent.path().join("run");
        let folder = OwnFolder::open(&path, 0o755).expect("made");
        std::fs::write(folder.at("file"), "x").expect("written");
        assert!(path.join("file").exists());
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o755);
        OwnFolder::open(&path, 0o700).expect("found");
    }

    #[test]
    fn a_link_in_its_place_is_refused_and_its_target_left_alone() {
        let parent = tempfile::tempdir().expect("a folder");
        let target = parent.path().join("target");
        std::fs::create_dir(&target).expect("made");
        std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o700)).expect("set");
        let link = parent.path().join("run");
        symlink(&target, &link).expect("linked");
        assert!(OwnFolder::open(&link, 0o755).is_err());
        assert_eq!(std::fs::metadata(&target).expect("there").permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_folder_that_others_can_change_is_refused() {
        let parent = tempfile::tempdir().expect("a folder");
        let path = parent.path().join("loose");
        std::fs::create_dir(&path).expect("made");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).expect("set");
        let refused = OwnFolder::open(&path, 0o755);
        assert!(matches!(refused, Err(FolderError::Unsafe { defect: "can be written by others", .. })));
    }

    #[test]
    fn a_folder_of_somebody_else_is_refused() {
        let parent = tempfile::tempdir().expect("a folder");
        let foreign = parent.path().join("foreign");
        std::fs::create_dir(&foreign).expect("made");
        if std::os::unix::fs::chown(&foreign, Some(65_534), None).is_err() {
            // Only root can give a folder away; then another's is at hand.
            let refused = OwnFolder::open(Path::new("/usr/bin"), 0o755);
            return assert!(matches!(refused, Err(FolderError::Unsafe { defect: "is owned by another user", .. })));
        }
        let refused = OwnFolder::open(&foreign, 0o755);
        assert!(matches!(refused, Err(FolderError::Unsafe { defect: "is owned by another user", .. })));
    }
}
