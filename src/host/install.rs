//! The record of a system install, `/etc/banger/install.toml`: whose it is, and what it has brought to this host.

use std::io;
use std::path::{Path, PathBuf};

use super::paths::Environment;
use crate::os::files::read_limited;

/// Marks a system install.
pub const INSTALL_FILE: &str = "/etc/banger/install.toml";

/// Longest record that is read, in bytes.
const LIMIT: u64 = 64 << 10;

/// What a system install writes down.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct InstallRecord {
    /// Version of the binary, as `1.2.3`.
    pub version: String,
    /// Its commit.
    pub commit: String,
    /// The account that the VMs belong to.
    pub owner: String,
    /// Its uid.
    pub uid: u32,
    /// The binary.
    pub binary: PathBuf,
    /// What was not there before: uninstall removes it, in this order backwards.
    pub made: Vec<PathBuf>,
}

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The system refused.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is not a record.
    #[error("{} is not what `banger system install` writes", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<toml::de::Error>,
    },
}

impl InstallRecord {
    /// The record at `path`; `None` where there is none.
    pub fn read(path: &Path) -> Result<Option<Self>, RecordError> {
        let content = match read_limited(path, LIMIT) {
            Ok(content) => content,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let text = String::from_utf8_lossy(&content);
        let malformed = |e| RecordError::Malformed { path: path.to_owned(), source: Box::new(e) };
        toml::from_str(&text).map(Some).map_err(malformed)
    }

    /// This host's.
    pub fn of_this_host() -> Result<Option<Self>, RecordError> {
        Self::read(Path::new(INSTALL_FILE))
    }

    /// What is written.
    pub fn text(&self) -> String {
        let values = toml::to_string(self).unwrap_or_default();
        format!("# Written by `banger system install`; `banger system uninstall` reads it.\n{values}")
    }
}

/// The command after which daemon and helper are of one version.
pub fn restart_command() -> &'static str {
    match Environment::current().is_system() {
        true => "sudo banger system restart      (VMs go on running)",
        false => "banger daemon stop && banger daemon start      (VMs go on running)",
    }
}

/// The command that starts a daemon or a helper that does not run.
pub fn start_command() -> &'static str {
    if Environment::current().is_system() { "sudo banger system restart" } else { "sudo banger daemon start" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> InstallRecord {
        InstallRecord {
            version: "0.1.0".into(),
            commit: "12345678".into(),
            owner: "alice".into(),
            uid: 1000,
            binary: "/usr/local/bin/banger".into(),
            made: vec!["/etc/banger".into()],
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("install.toml");
        assert!(InstallRecord::read(&path).expect("no error").is_none());
        std::fs::write(&path, record().text()).expect("written");
        assert_eq!(InstallRecord::read(&path).expect("read"), Some(record()));
        // A newer banger's, after the way back to this one.
        std::fs::write(&path, format!("more = 1\n{}", record().text())).expect("written");
        assert_eq!(InstallRecord::read(&path).expect("read"), Some(record()));
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("install.toml");
        let whole = record().text();
        for text in ["", "owner = 1", &whole[..whole.len() / 2]] {
            std::fs::write(&path, text).expect("written");
            assert!(matches!(InstallRecord::read(&path), Err(RecordError::Malformed { .. })), "{text}");
        }
        std::fs::write(&path, vec![b'#'; LIMIT as usize + 1]).expect("written");
        assert!(matches!(InstallRecord::read(&path), Err(RecordError::Io(_))));
    }
}
