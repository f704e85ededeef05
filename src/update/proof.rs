//! The staged binary shows what it is before anything trusts it: it runs as nobody, without capabilities, environment and
//! files, for a limited time, and says its version and whether it can use this host's store.
//!
//! The state's folder is its owner's alone, so nobody can look into it. The list of what was done to the store so far
//! (`schema.json`) is read here instead, as carefully as a file of somebody else has to be, and given to it on standard input.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use super::stage::Staged;
use super::version::Version;
use crate::os::child::{self, Bounds, Credentials, Ended};
use crate::os::files::named;
use crate::os::memfd;

/// Each answer comes at once, unless something is wrong.
const BOUNDS: Bounds = Bounds { time: Duration::from_secs(20), output: 16 << 10 };

/// Most bytes of `schema.json`.
const MOST_SCHEMA: u64 = 64 << 10;

/// A store that has a file and no list yet: nothing was done to it.
const EMPTY_SCHEMA: &[u8] = b"{\"migrations\":[]}";

/// Why the new binary does not do.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// It could not be run to its end.
    #[error("cannot run the new banger as nobody")]
    Run(#[source] io::Error),
    /// It is of another version.
    #[error("the new banger says {said:?} where v{wanted} should be")]
    Version {
        /// What it says.
        said: String,
        /// What it was to be.
        wanted: Version,
    },
    /// It cannot use this host's store.
    #[error("the new banger cannot use the store of this host: {said}")]
    Store {
        /// What it says.
        said: String,
    },
    /// The list of what was done to the store cannot be read.
    #[error("cannot tell what was done to the store of this host")]
    Schema(#[source] io::Error),
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// The first start of the new daemon brings the store up.
    pub will_migrate: bool,
}

/// Has `staged` prove itself for the store below `state`, which belongs to `owner`.
pub fn prove(staged: &Staged, state: &Path, owner: u32) -> Result<Proof, ProofError> {
    let schema = read_schema(state, owner).map_err(ProofError::Schema)?;
    let program = Program::open(&staged.path).map_err(ProofError::Run)?;
    judge_version(&program.run(&["--version"], b"")?, staged.version)?;
    // An older release may be gone back to, and does not know every word of this one; but each knows these.
    let words = ["--as", "bangerd", "--check-migrations", "--schema-on-stdin"];
    judge_store(&program.run(&words, &schema)?)
}

fn judge_version(ended: &Ended, wanted: Version) -> Result<(), ProofError> {
    let said = String::from_utf8_lossy(&ended.output);
    if ended.status.success() && said.starts_with(&format!("banger v{wanted} (")) {
        return Ok(());
    }
    Err(ProofError::Version { said: first_words(ended), wanted })
}

/// 0 and 1 are the answers that allow it (`store::migrations`).
fn judge_store(ended: &Ended) -> Result<Proof, ProofError> {
    match ended.status.code() {
        Some(0) => Ok(Proof { will_migrate: false }),
        Some(1) => Ok(Proof { will_migrate: true }),
        _ => Err(ProofError::Store { said: first_words(ended) }),
    }
}

/// The first line that it said, without what could drive a terminal; how it ended where it said nothing.
fn first_words(ended: &Ended) -> String {
    let said = if ended.errors.is_empty() { &ended.output } else { &ended.errors };
    let line: String = String::from_utf8_lossy(said).lines().next().unwrap_or_default().chars().take(200).collect();
    if line.trim().is_empty() { ended.status.to_string() } else { line }
}

/// The binary, open: nobody can run it though its folder is closed, and what runs is what was verified.
struct Program {
    file: File,
}

impl Program {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::open(path).map_err(named("open", path))? })
    }

    fn run(&self, words: &[&str], input: &[u8]) -> Result<Ended, ProofError> {
        match run_open(&self.file, words, input) {
            // A cache on a filesystem without programs (`noexec`, mount(8)): then from memory.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                let copy = self.in_memory().map_err(ProofError::Run)?;
                run_open(&copy, words, input).map_err(ProofError::Run)
            }
            other => other.map_err(ProofError::Run),
        }
    }

    fn in_memory(&self) -> io::Result<File> {
        let mut copy = memfd::create("banger")?;
        let mut source = &self.file;
        source.rewind()?;
        io::copy(&mut source, &mut copy)?;
        // What is open for writing cannot be run (execve(2), ETXTBSY).
        File::open(descriptor_path(&copy))
    }
}

fn run_open(file: &File, words: &[&str], input: &[u8]) -> io::Result<Ended> {
    let mut command = Command::new(descriptor_path(file));
    command.arg0("banger").args(words).env_clear().current_dir("/");
    child::run(&mut command, Some(&Credentials::nobody()), input, BOUNDS)
}

/// A path that leads to the open file itself, whoever may walk to it by name (proc_pid_fd(5)).
fn descriptor_path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// What was done to the store below `state`; empty where there is no store.
fn read_schema(state: &Path, owner: u32) -> io::Result<Vec<u8>> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::PATH;
    let folder = match rustix::fs::open(state, flags, Mode::empty()) {
        Ok(folder) => folder,
        Err(rustix::io::Errno::NOENT) => return Ok(Vec::new()),
        Err(e) => return Err(named("open", state)(e.into())),
    };
    let at = |name: &str| PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()));
    let path = state.join("schema.json");
    // The owner may have put a link or a pipe there: neither is followed nor waited for.
    let custom = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    match OpenOptions::new().read(true).custom_flags(custom).open(at("schema.json")) {
        Ok(file) => read_own(&file, owner).map_err(named("read", &path)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let there = at("banger.redb").symlink_metadata().is_ok();
            Ok(if there { EMPTY_SCHEMA.to_vec() } else { Vec::new() })
        }
        Err(e) => Err(named("open", &path)(e)),
    }
}

fn read_own(file: &File, owner: u32) -> io::Result<Vec<u8>> {
    let about = file.metadata()?;
    if !about.is_file() || about.uid() != owner || about.nlink() != 1 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a file of the owner's"));
    }
    let mut content = Vec::new();
    file.take(MOST_SCHEMA + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MOST_SCHEMA {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too large"));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    fn ended(code: i32, output: &str, errors: &str) -> Ended {
        let status = ExitStatus::from_raw(code << 8);
        Ended { status, output: output.as_bytes().to_vec(), errors: errors.as_bytes().to_vec() }
    }

    #[test]
    fn it_must_be_the_version_that_was_asked_for() {
        let wanted = "0.2.0".parse().expect("a version");
        let judge = |code, said: &str| judge_version(&ended(code, said, ""), wanted);
        judge(0, "banger v0.2.0 (commit 1, built 2026-01-01)\n").expect("it is");
        for (code, said) in [
            (0, "banger v0.2.1 (commit 1)\n"),
            (0, "banger v0.2.0-rc.1 (commit 1)\n"),
            (0, "banger v0.2.0\n"),
            (0, "x banger v0.2.0 (\n"),
            (0, ""),
            (1, "banger v0.2.0 (commit 1)\n"),
        ] {
            judge(code, said).expect_err(said);
        }
    }

    #[test]
    fn only_zero_and_one_say_that_it_can_use_the_store() {
        assert_eq!(judge_store(&ended(0, "", "")).expect("can"), Proof { will_migrate: false });
        assert_eq!(judge_store(&ended(1, "", "")).expect("can"), Proof { will_migrate: true });
        let error = judge_store(&ended(2, "", "bangerd: newer\nmore")).expect_err("cannot");
        assert_eq!(error.to_string(), "the new banger cannot use the store of this host: bangerd: newer");
        let killed = Ended { status: ExitStatus::from_raw(9), output: vec![], errors: vec![] };
        assert!(judge_store(&killed).expect_err("killed").to_string().contains("signal: 9"));
    }

    #[test]
    fn a_program_runs_as_nobody_out_of_a_folder_that_nobody_can_enter() {
        if !crate::os::need::is_met("root", "run as root", rustix::process::geteuid().is_root()) {
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("id");
        std::fs::copy("/usr/bin/id", &path).expect("copied");
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("closed");
        let program = Program::open(&path).expect("opened");
        let said = program.run(&["-u"], b"").expect("ran").output;
        assert_eq!(said, b"65534\n");
        let copy = program.in_memory().expect("copied");
        assert_eq!(run_open(&copy, &["-u"], b"").expect("ran from memory").output, b"65534\n");
    }

    #[test]
    fn the_schema_is_read_as_a_file_of_somebody_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let (state, own) = (folder.path().join("state"), rustix::process::geteuid().as_raw());
        let read = || read_schema(&state, own).map_err(|e| e.to_string());
        assert_eq!(read(), Ok(vec![]), "no state");
        std::fs::create_dir(&state).expect("made");
        assert_eq!(read(), Ok(vec![]), "no store");
        std::fs::write(state.join("banger.redb"), "x").expect("written");
        assert_eq!(read(), Ok(EMPTY_SCHEMA.to_vec()), "no list beside a store");
        let schema = state.join("schema.json");
        std::fs::write(&schema, "{}").expect("written");
        assert_eq!(read(), Ok(b"{}".to_vec()));
        assert!(read_schema(&state, own + 1).is_err(), "somebody else's");
        std::fs::write(&schema, vec![b' '; MOST_SCHEMA as usize + 1]).expect("written");
        assert!(read().expect_err("large").contains("too large"));
        std::fs::hard_link(&schema, state.join("second")).expect("linked");
        assert!(read().expect_err("two names").contains("not a file of the owner's"));
        std::fs::remove_file(&schema).expect("removed");
        std::os::unix::fs::symlink("/etc/passwd", &schema).expect("linked");
        read().expect_err("a link");
        std::fs::remove_file(&schema).expect("removed");
        rustix::fs::mknodat(rustix::fs::CWD, &schema, rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0)
            .expect("made");
        assert!(read().expect_err("a pipe").contains("not a file of the owner's"));
    }
}
