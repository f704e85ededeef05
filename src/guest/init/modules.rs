//! Kernel modules of the initramfs, in the order of its list.

use std::fs::File;
use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;
use rustix::system::finit_module;

use crate::guest::console::say;
use crate::guest::error::{Doing, GuestError, chain};
use crate::model::identity::MODULE_LIST_PATH;

/// Loads all; what failed is returned as text. A missing list is a kernel with all built in.
pub fn load_all() -> Vec<String> {
    let list = std::fs::read_to_string(Path::new("/").join(MODULE_LIST_PATH)).unwrap_or_default();
    let mut troubles = Vec::new();
    let mut loaded = 0;
    for line in list.lines().map(str::trim).filter(|l| !l.is_empty()) {
        match load(line) {
            Ok(()) => loaded += 1,
            Err(error) => troubles.push(chain(&error)),
        }
    }
    say(&format!("{loaded} modules loaded"));
    for trouble in &troubles {
        say(&format!("trouble: {trouble}"));
    }
    troubles
}

fn load(line: &str) -> Result<(), GuestError> {
    let path = inside(line).ok_or_else(|| GuestError::BadName { what: "a module's path", found: line.to_owned() })?;
    let file = File::open(&path).doing(|| format!("open the module {}", path.display()))?;
    match finit_module(&file, c"", 0) {
        // Already there: built in, or pulled in by another.
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(e).doing(|| format!("load the module {}", path.display())),
    }
}

/// The path below `/` that a line names; `None` when it would climb.
fn inside(line: &str) -> Option<PathBuf> {
    let relative = Path::new(line.trim_start_matches('/'));
    let plain = relative.components().all(|c| matches!(c, Component::Normal(_)));
    plain.then(|| Path::new("/").join(relative))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_named_by_a_path_that_does_not_climb() {
        assert_eq!(inside("modules/virtio.ko"), Some("/modules/virtio.ko".into()));
        assert_eq!(inside("/modules/virtio.ko"), Some("/modules/virtio.ko".into()));
        assert_eq!(inside("../x"), None);
        assert_eq!(inside("modules/../../x"), None);
    }
}
