//! Firecracker's command line, behind its jailer's, and what both must be before root runs them. Pure
//! but for the looks at the two files.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::thread::CapabilitySet;

use super::error::{Doing, HelperError, Result};
use super::jail::BASE;
use crate::host::facts::{FIRECRACKER, JAILER, find_program};
use crate::model::VmId;
use crate::model::jail::{API_SOCKET, LOG};

/// What the jailer needs: namespaces and mounts, device nodes, their owners, the VM's uid and gid, and
/// folders that are no longer root's. All of it is gone with its uid.
pub const NEEDED: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::DAC_OVERRIDE);

/// The two programs.
#[derive(Debug)]
pub struct Programs {
    /// Run as root.
    pub jailer: PathBuf,
    /// Copied into the jail.
    firecracker: PathBuf,
}

impl Programs {
    /// Finds both and looks at them.
    pub fn find() -> Result<Self> {
        let (jailer, firecracker) = (find_owned(JAILER)?, find_owned(FIRECRACKER)?);
        check_static(&firecracker)?;
        Ok(Self { jailer, firecracker })
    }

    /// The jailer's arguments. Not `--daemonize`: it would hide why the monitor cannot be run. Not
    /// `--new-pid-ns`: the process that was written down would not be the monitor. The monitor's
    /// console is its standard output.
    pub fn arguments(&self, id: &VmId, uid: u32) -> Vec<String> {
        let uid = uid.to_string();
        let program = self.firecracker.display().to_string();
        let (api, log) = (format!("/{API_SOCKET}"), format!("/{LOG}"));
        let jailer = ["--id", id.as_str(), "--exec-file", &program, "--uid", &uid, "--gid", &uid];
        let base = ["--chroot-base-dir", BASE, "--"];
        let monitor = ["--api-sock", &api, "--log-path", &log, "--level", "Warning"];
        jailer.into_iter().chain(base).chain(monitor).map(str::to_owned).collect()
    }
}

/// The program where it really lies: what a link on the way leads to must be root's as well.
fn find_owned(name: &'static str) -> Result<PathBuf> {
    let found = find_program(name).ok_or(HelperError::Missing(name))?;
    let program = found.canonicalize().doing(format!("look at {}", found.display()))?;
    check_owned(&program)?;
    Ok(program)
}

/// Root runs no program that somebody else could have written or put in its place.
fn check_owned(program: &Path) -> Result<()> {
    for path in program.ancestors() {
        let seen = std::fs::metadata(path).doing(format!("look at {}", path.display()))?;
        if seen.uid() != 0 || seen.mode() & 0o022 != 0 {
            let why = "is not root's, or can be written by others";
            return Err(HelperError::Program {
                doing: format!("run {}", program.display()),
                said: format!("{} {why}", path.display()),
            });
        }
    }
    Ok(())
}

/// There is no loader and no library in a jail.
fn check_static(program: &Path) -> Result<()> {
    let doing = || format!("run {} in a jail", program.display());
    match is_static(File::open(program).doing(doing())?).doing(doing())? {
        true => Ok(()),
        false => Err(HelperError::Program {
            doing: doing(),
            said: "it needs shared libraries, which a jail does not have: install the static build of Firecracker's release".into(),
        }),
    }
}

/// Whether a 64-bit ELF program asks for no interpreter (elf(5), `PT_INTERP`).
fn is_static(mut file: impl Read + io::Seek) -> io::Result<bool> {
    const PT_INTERP: u32 = 3;
    /// Bytes of a file header and of a program header.
    const HEADER: usize = 64;
    const ENTRY: usize = 56;
    let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("it is not a 64-bit ELF program: {why}"));
    let mut header = [0; HEADER];
    file.read_exact(&mut header).map_err(|_| bad("it is too short"))?;
    if header[..5] != *b"\x7fELF\x02" {
        return Err(bad("its first bytes are others"));
    }
    let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let offset = header[32..40].iter().rev().fold(0, |n: u64, byte| n << 8 | u64::from(*byte));
    if usize::from(half(54)) != ENTRY {
        return Err(bad("its program headers have another size"));
    }
    file.seek(io::SeekFrom::Start(offset))?;
    for _ in 0..half(56) {
        let mut entry = [0; ENTRY];
        file.read_exact(&mut entry).map_err(|_| bad("it ends within its program headers"))?;
        if u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]) == PT_INTERP {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn the_monitors_arguments_are_behind_the_jailers_and_hold_nothing_of_the_callers() {
        let programs = Programs { jailer: "/usr/bin/jailer".into(), firecracker: "/usr/bin/firecracker".into() };
        let line = programs.arguments(&VmId::from_random(1), 1_900_000_001).join(" ");
        let wanted = "--id 000000000001 --exec-file /usr/bin/firecracker --uid 1900000001 --gid 1900000001 \
            --chroot-base-dir /tmp -- --api-sock /api.sock --log-path /log.fifo --level Warning";
        assert_eq!(line, wanted);
    }

    fn elf(kinds: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..5].copy_from_slice(b"\x7fELF\x02");
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = kinds.len() as u8;
        for kind in kinds {
            bytes.extend(kind.to_le_bytes());
            bytes.extend([0; 52]);
        }
        bytes
    }

    #[test]
    fn a_program_with_an_interpreter_is_not_static_and_rubbish_is_neither() {
        assert!(is_static(Cursor::new(elf(&[1, 6, 2]))).expect("read"));
        assert!(!is_static(Cursor::new(elf(&[6, 3]))).expect("read"));
        let whole = elf(&[1, 2]);
        for cut in 0..whole.len() {
            assert!(is_static(Cursor::new(&whole[..cut])).is_err(), "{cut}");
        }
        assert!(is_static(Cursor::new(b"#!/bin/sh".repeat(20))).is_err());
        assert!(!is_static(File::open("/bin/sh").expect("opens")).expect("read"));
    }

    #[test]
    fn a_program_that_others_can_write_is_not_run() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        // The folder is below one that everybody can write to.
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("jailer");
        std::fs::write(&program, "").expect("written");
        assert!(check_owned(&program).is_err());
        check_owned(Path::new("/usr/bin/env")).expect("the system's");
    }
}
