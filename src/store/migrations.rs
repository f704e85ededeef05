//! Which schema a store has and how an older one is brought up.
//!
//! The applied ids are mirrored in `schema.json` beside the store, because a redb file is locked
//! by its writer and cannot be read after an unclean close without being repaired: the mirror lets
//! `bangerd --check-migrations` answer while the daemon runs and after a crash.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Failure, StoreError};

/// One step of the schema's history. Never changed once released.
pub(super) struct Migration {
    pub id: &'static str,
    pub apply: fn(&redb::WriteTransaction) -> Result<(), Failure>,
}

/// All steps, oldest first.
const HISTORY: [Migration; 7] = [
    Migration { id: "0001-initial", apply: |_| Ok(()) },
    Migration { id: "0002-vm-expiry", apply: super::vms::rewrite_rows },
    Migration { id: "0003-vm-egress", apply: super::vms::rewrite_rows },
    Migration { id: "0004-vm-secrets", apply: super::vms::rewrite_rows },
    Migration { id: "0005-vm-workspace", apply: super::vms::rewrite_rows },
    Migration { id: "0006-image-config", apply: super::catalogue::rewrite_images },
    Migration { id: "0007-vm-idle-stop", apply: super::vms::rewrite_rows },
];

/// Most bytes of `schema.json`.
pub(super) const MAX_MIRROR: u64 = 1 << 16;

/// Whether this build can use a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compatibility {
    /// As it is (or there is none yet).
    Compatible,
    /// After bringing it up at the first start.
    WillMigrate,
    /// Not at all: it has this migration, which this build does not know.
    Incompatible(String),
}

impl Compatibility {
    /// Exit code of `bangerd --check-migrations`.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Compatible => 0,
            Self::WillMigrate => 1,
            Self::Incompatible(_) => 2,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Mirror {
    migrations: Vec<String>,
}

/// The steps that `applied` lacks; `Err` names one that this build does not know.
pub(super) fn pending(applied: &[String]) -> Result<Vec<&'static Migration>, String> {
    if let Some(unknown) = applied.iter().find(|id| !HISTORY.iter().any(|m| m.id == id.as_str())) {
        return Err(unknown.clone());
    }
    Ok(HISTORY.iter().filter(|m| !applied.iter().any(|id| id == m.id)).collect())
}

/// Where the applied ids are mirrored.
pub(super) fn mirror_path(folder: &Path) -> PathBuf {
    folder.join("schema.json")
}

/// Judges the store in `folder` by its mirror, changing nothing.
pub fn check(folder: &Path) -> Result<Compatibility, StoreError> {
    let path = mirror_path(folder);
    match crate::os::files::read_limited(&path, MAX_MIRROR) {
        Ok(bytes) => check_mirror(&bytes),
        // No mirror beside a store: it was made but its first start was cut short.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let there = folder.join("banger.redb").exists();
            Ok(if there { Compatibility::WillMigrate } else { Compatibility::Compatible })
        }
        Err(e) => Err(e.into()),
    }
}

/// Judges a store by what its mirror holds: so whoever may not look at the store can be asked, as a binary is that is not
/// trusted yet. `bytes` are at most 64 KiB; none: there is no store.
pub fn check_mirror(bytes: &[u8]) -> Result<Compatibility, StoreError> {
    if bytes.is_empty() {
        return Ok(Compatibility::Compatible);
    }
    let damaged = |why: String| StoreError::Damaged { table: "schema.json", key: "migrations".into(), why };
    if bytes.len() as u64 > MAX_MIRROR {
        return Err(damaged("it is too large".into()));
    }
    let mirror = serde_json::from_slice::<Mirror>(bytes).map_err(|e| damaged(e.to_string()))?;
    Ok(match pending(&mirror.migrations) {
        Err(unknown) => Compatibility::Incompatible(unknown),
        Ok(steps) if steps.is_empty() => Compatibility::Compatible,
        Ok(_) => Compatibility::WillMigrate,
    })
}

/// Writes the mirror.
pub(super) fn write_mirror(folder: &Path, applied: &[String]) -> Result<(), StoreError> {
    write_mirror_at(&mirror_path(folder), applied)
}

/// The same for a store that has another name.
pub(super) fn write_mirror_at(path: &Path, applied: &[String]) -> Result<(), StoreError> {
    let mirror = Mirror { migrations: applied.to_vec() };
    let text = serde_json::to_vec_pretty(&mirror).map_err(std::io::Error::from)?;
    Ok(crate::os::files::write_atomic(path, &text, 0o600)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_zero_one_and_two() {
        let folder = tempfile::tempdir().expect("a folder");
        let code = || check(folder.path()).map(|c| c.exit_code()).expect("reads");
        assert_eq!(code(), 0);
        write_mirror(folder.path(), &[]).expect("written");
        assert_eq!(code(), 1);
        write_mirror(folder.path(), &["0001-initial".into()]).expect("written");
        assert_eq!(code(), 1);
        let all: Vec<String> = HISTORY.iter().map(|m| m.id.to_owned()).collect();
        write_mirror(folder.path(), &all).expect("written");
        assert_eq!(code(), 0);
        write_mirror(folder.path(), &["0001-initial".into(), "0999-from-tomorrow".into()]).expect("written");
        assert_eq!(code(), 2);
    }

    #[test]
    fn a_mirror_alone_is_enough_and_none_is_no_store() {
        let code = |text: &str| check_mirror(text.as_bytes()).map(|c| c.exit_code()).map_err(|e| e.to_string());
        assert_eq!(code(""), Ok(0));
        assert_eq!(code("{\"migrations\":[]}"), Ok(1));
        assert_eq!(code("{\"migrations\":[\"9999-future\"]}"), Ok(2));
        for bad in ["{", "[]", "\0", &" ".repeat(1 << 17)] {
            code(bad).expect_err(bad);
        }
    }

    #[test]
    fn rubbish_in_the_mirror_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("schema.json"), "{").expect("written");
        assert!(check(folder.path()).is_err());
    }
}
