//! What udev is told: to keep out of these devices.

use std::io;
use std::path::Path;

use crate::helper::authority::Root;
use crate::helper::error::{Doing, Result};
use crate::os::files;
use crate::protocol::root::Deed;

const RULE: &str = include_str!("../../../units/60-banger-blocks.rules");

/// Writes the rule where udev runs; it reads it with its next event.
pub fn ensure_udev_rule(_: &Root) -> Result<Deed> {
    ensure_below(Path::new("/run/udev"))
}

fn ensure_below(udev: &Path) -> Result<Deed> {
    let (folder, doing) = (udev.join("rules.d"), "tell udev to keep out of the VMs' disks");
    let path = folder.join("60-banger-blocks.rules");
    if !udev.join("control").exists() {
        return Ok(Deed::Unchanged);
    }
    match files::read_limited(&path, 64 << 10) {
        Ok(content) if content == RULE.as_bytes() => return Ok(Deed::Unchanged),
        Ok(_) => {}
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {}
        Err(e) => return Err(e).doing(doing),
    }
    match std::fs::create_dir(&folder) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e).doing(doing),
        Ok(()) | Err(_) => {}
    }
    files::write_atomic(&path, RULE.as_bytes(), 0o644).doing(doing)?;
    Ok(Deed::Changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_is_written_once_and_only_where_udev_runs() {
        let udev = tempfile::tempdir().expect("a folder");
        assert_eq!(ensure_below(udev.path()).expect("looked"), Deed::Unchanged);
        std::fs::write(udev.path().join("control"), "").expect("written");
        assert_eq!(ensure_below(udev.path()).expect("written"), Deed::Changed);
        assert_eq!(ensure_below(udev.path()).expect("there"), Deed::Unchanged);
    }

    #[test]
    fn it_knows_loops_by_the_mark_that_they_carry() {
        assert!(RULE.contains(&format!("ATTR{{loop/sizelimit}}==\"{}\"", super::super::loops::MARK)));
    }
}
