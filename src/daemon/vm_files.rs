//! The files of a VM: `STATE/vms/ID/`, 0700, the owner's.
//!
//! | file | what |
//! |---|---|
//! | `id_ed25519` | the key that may log in |
//! | `host_ed25519`, `host_ed25519.pub` | the host key that banger gives the guest, and pins |
//! | `secrets` | values of its secrets, and the certificate its guest trusts; only with secrets |
//! | `root.disk` | the copy-on-write disk |
//! | `console.log` | the serial console of the last boot, bounded |
//! | `console.marks` | when what stands in it has come |

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::model::{ConsoleMarks, VmId};
use crate::os::files::{ensure_dir, named, read_limited, remove_tree, write_all_atomic};

/// Most bytes of a key file.
const MAX_KEY: u64 = 16 << 10;

/// The last lines of a console that a failure shows.
const TAIL_LINES: usize = 8;

/// Most bytes read of a console for its last lines.
const TAIL_BYTES: u64 = 8 << 10;

/// How often marks are read at most until they are read twice alike.
const MARKS_READ: usize = 8;

/// The folder of one VM.
#[derive(Debug, Clone)]
pub(super) struct VmFiles {
    folder: PathBuf,
}

/// The keys of one VM.
pub(super) struct Keys {
    /// OpenSSH private key that may log in. Secret.
    pub client_private: String,
    /// Its public half, one line.
    pub client_public: String,
    /// The guest's host key. Secret.
    pub host_private: String,
    /// Its public half, one line.
    pub host_public: String,
}

impl VmFiles {
    /// The folder of the VM `id` below `vms`.
    pub(super) fn new(vms: &Path, id: &VmId) -> Self {
        Self { folder: vms.join(id.as_str()) }
    }

    /// The copy-on-write disk.
    pub(super) fn disk(&self) -> PathBuf {
        self.folder.join("root.disk")
    }

    /// The console's log.
    pub(super) fn console(&self) -> PathBuf {
        self.folder.join("console.log")
    }

    fn console_marks(&self) -> PathBuf {
        self.folder.join("console.marks")
    }

    /// The key that may log in.
    pub(super) fn identity(&self) -> PathBuf {
        self.folder.join("id_ed25519")
    }

    /// What is kept of its secrets.
    pub(super) fn secrets(&self) -> PathBuf {
        self.folder.join("secrets")
    }

    /// Makes the folder and its keys.
    pub(super) fn make(&self) -> io::Result<()> {
        ensure_dir(&self.folder, 0o700)?;
        let client = crate::ssh::generate().map_err(io::Error::other)?;
        let host = crate::ssh::generate().map_err(io::Error::other)?;
        let files = [
            ("id_ed25519", client.private.as_bytes()),
            ("id_ed25519.pub", client.public.as_bytes()),
            ("host_ed25519", host.private.as_bytes()),
            ("host_ed25519.pub", host.public.as_bytes()),
        ];
        write_all_atomic(&self.folder, &files, 0o600)
    }

    /// Removes the folder; done when it is gone. Under another name first, in one go: whoever is
    /// killed over it leaves a folder that the next start sweeps, and never half a VM.
    pub(super) fn remove(&self) -> io::Result<()> {
        let leaving = self.folder.with_extension("gone");
        remove_tree(&leaving)?;
        match std::fs::rename(&self.folder, &leaving) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(named("rename", &self.folder)(e)),
            Ok(()) => remove_tree(&leaving),
        }
    }

    /// Whether its files have been removed, or were never made.
    pub(super) fn are_gone(&self) -> io::Result<bool> {
        self.folder.try_exists().map(|there| !there).map_err(named("look for", &self.folder))
    }

    /// Reads the keys.
    pub(super) fn keys(&self) -> io::Result<Keys> {
        let read = |name: &str| -> io::Result<String> {
            let path = self.folder.join(name);
            let bytes = read_limited(&path, MAX_KEY)?;
            String::from_utf8(bytes).map_err(io::Error::other).map_err(named("read", &path))
        };
        Ok(Keys {
            client_private: read("id_ed25519")?,
            client_public: read("id_ed25519.pub")?.trim().to_owned(),
            host_private: read("host_ed25519")?,
            host_public: read("host_ed25519.pub")?.trim().to_owned(),
        })
    }

    /// Opens the console's log for a new boot, empty.
    pub(super) fn new_console(&self) -> io::Result<File> {
        open_empty(&self.console())
    }

    /// Opens the list of when what stands in it has come, empty.
    pub(super) fn new_console_marks(&self) -> io::Result<File> {
        open_empty(&self.console_marks())
    }

    /// When what stands in the console's log has come; nothing where its keeper is of an older banger. It may write
    /// meanwhile: what is read twice alike, but for marks behind it, is whole.
    pub(super) fn read_console_marks(&self) -> io::Result<ConsoleMarks> {
        let most = (ConsoleMarks::MAX * ConsoleMarks::MARK) as u64;
        let mut before = read_limited(&self.console_marks(), most)?;
        for _ in 0..MARKS_READ {
            let now = read_limited(&self.console_marks(), most)?;
            if now.starts_with(&before) {
                return Ok(ConsoleMarks::from_bytes(&now));
            }
            before = now;
        }
        Ok(ConsoleMarks::from_bytes(&before))
    }

    /// The console's last lines, for a failure's causes; empty when there is nothing to say.
    pub(super) fn console_tail(&self) -> Vec<String> {
        use std::io::{Read, Seek, SeekFrom};
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(self.console())?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
            let mut tail = Vec::new();
            file.take(TAIL_BYTES).read_to_end(&mut tail)?;
            Ok(tail)
        };
        // A console that cannot be read must not hide the failure it would explain.
        let tail = read().unwrap_or_default();
        let text = String::from_utf8_lossy(&tail);
        let clean = |line: &str| line.chars().filter(|c| !c.is_control()).take(200).collect::<String>();
        let lines: Vec<String> = text.lines().map(clean).filter(|l| !l.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].to_vec()
    }
}

fn open_empty(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true).mode(0o600);
    options.open(path).map_err(named("open", path))
}
