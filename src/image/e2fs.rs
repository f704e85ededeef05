//! e2fsprogs: what the formatter cannot do.
//!
//! The formatter writes one gapless run of blocks without journal, folder indexes or backup
//! superblocks, under `sparse_super2`, a feature with which Linux refuses to grow a mounted
//! filesystem (`ext4_resize_begin`, fs/ext4/resize.c). So the superblock is rewritten to ask for the
//! ordinary layout (backups where `sparse_super` has them, a reserve of descriptor blocks for growth,
//! folder indexes), and e2fsck makes it true: it moves the few blocks that lie where the backups
//! belong and rebuilds folders. Counting inodes afterwards proves that it removed nothing.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::host::facts::find_program;
use crate::model::Mib;
use crate::os::files::named;

use super::ImageError;

/// Offset of the superblock (`EXT4_SB` … Documentation/filesystems/ext4/super.rst).
const SUPERBLOCK: u64 = 1024;
/// Descriptor blocks for later growth. The formatter leaves 32 blocks after the first superblock: one
/// is in use from the start, and all of them describe 512 GiB.
const RESERVED_GDT_BLOCKS: u16 = 31;
/// Journal of a root filesystem, MiB: what mke2fs gives a filesystem of a few GiB.
const JOURNAL_MIB: u32 = 32;

const COMPAT_RESIZE_INODE: u32 = 0x10;
const COMPAT_DIR_INDEX: u32 = 0x20;
const COMPAT_SPARSE_SUPER2: u32 = 0x200;
const RO_COMPAT_SPARSE_SUPER: u32 = 0x1;

/// The programs, found.
pub(super) struct Tools {
    e2fsck: PathBuf,
    tune2fs: PathBuf,
    resize2fs: PathBuf,
}

impl Tools {
    pub(super) fn find() -> Result<Self, ImageError> {
        let find = |program| find_program(program).ok_or(ImageError::MissingTool { program, package: "e2fsprogs" });
        Ok(Self { e2fsck: find("e2fsck")?, tune2fs: find("tune2fs")?, resize2fs: find("resize2fs")? })
    }

    /// Gives the fresh filesystem at `path` the ordinary layout.
    pub(super) fn settle(&self, path: &Path) -> Result<(), ImageError> {
        ask_for_ordinary_layout(path)?;
        // 1: errors were corrected, which is what it was asked for (e2fsck(8)).
        run(Command::new(&self.e2fsck).arg("-fyD").arg(path), &[0, 1])
    }

    /// Makes it `size` large.
    pub(super) fn grow(&self, path: &Path, size: Mib) -> Result<(), ImageError> {
        run(Command::new(&self.resize2fs).arg(path).arg(format!("{}M", size.0)), &[0])
    }

    /// Adds a journal.
    pub(super) fn add_journal(&self, path: &Path) -> Result<(), ImageError> {
        run(Command::new(&self.tune2fs).arg("-J").arg(format!("size={JOURNAL_MIB}")).arg(path), &[0])
    }

    /// Proves that it is clean and holds `expected` inodes beside root and the reserved ones.
    pub(super) fn verify(&self, path: &Path, expected: u64) -> Result<(), ImageError> {
        run(Command::new(&self.e2fsck).arg("-fn").arg(path), &[0])?;
        let found = Superblock::read(path)?.used_inodes();
        // Inodes 1 to 10 are reserved, the root (2) among them.
        let expected = expected + 10;
        if found != expected {
            return Err(ImageError::Damaged { expected, found });
        }
        Ok(())
    }
}

/// Room that the journal takes.
pub(super) fn journal_bytes() -> u64 {
    u64::from(JOURNAL_MIB) << 20
}

/// Blocks in use, in bytes.
pub(super) fn used_bytes(path: &Path) -> Result<u64, ImageError> {
    let superblock = Superblock::read(path)?;
    let used = u64::from(superblock.word(0x04)).saturating_sub(u64::from(superblock.word(0x0c)));
    Ok(used * 4096)
}

struct Superblock([u8; 1024]);

impl Superblock {
    fn read(path: &Path) -> Result<Self, ImageError> {
        let file = std::fs::File::open(path).map_err(named("open", path))?;
        let mut bytes = [0; 1024];
        file.read_exact_at(&mut bytes, SUPERBLOCK).map_err(named("read", path))?;
        Ok(Self(bytes))
    }

    fn word(&self, at: usize) -> u32 {
        let mut word = [0; 4];
        word.copy_from_slice(&self.0[at..at + 4]);
        u32::from_le_bytes(word)
    }

    fn set(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn used_inodes(&self) -> u64 {
        u64::from(self.word(0x00)).saturating_sub(u64::from(self.word(0x10)))
    }
}

fn ask_for_ordinary_layout(path: &Path) -> Result<(), ImageError> {
    let mut superblock = Superblock::read(path)?;
    let compat = superblock.word(0x5c) & !COMPAT_SPARSE_SUPER2 | COMPAT_RESIZE_INODE | COMPAT_DIR_INDEX;
    let ro_compat = superblock.word(0x64) | RO_COMPAT_SPARSE_SUPER;
    superblock.set(0x5c, &compat.to_le_bytes());
    superblock.set(0x64, &ro_compat.to_le_bytes());
    // s_creator_os: Linux.
    superblock.set(0x48, &0u32.to_le_bytes());
    superblock.set(0xce, &RESERVED_GDT_BLOCKS.to_le_bytes());
    // s_hash_seed, s_def_hash_version (half MD4), s_flags (signed characters): for folder indexes.
    superblock.set(0xec, &crate::os::random::number().to_le_bytes());
    superblock.set(0xf4, &crate::os::random::number().to_le_bytes());
    superblock.set(0xfc, &[1]);
    superblock.set(0x160, &1u32.to_le_bytes());
    // s_log_groups_per_flex: 16 groups, as mke2fs.
    superblock.set(0x174, &[4]);
    let file = OpenOptions::new().write(true).open(path).map_err(named("open", path))?;
    file.write_all_at(&superblock.0, SUPERBLOCK).map_err(named("write", path))?;
    Ok(())
}

/// Runs `command`; its exit status must be one of `good`.
fn run(command: &mut Command, good: &[i32]) -> Result<(), ImageError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .env("LC_ALL", "C")
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(named("start", Path::new(&program)))?;
    if output.status.code().is_some_and(|code| good.contains(&code)) {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(ImageError::Tool { program, status: output.status.to_string(), output: last_lines(&text) })
}

fn last_lines(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(6)..].join("; ")
}
