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
const HISTORY: [Migration; 6] = [
    Migration { id: "0001-initial", apply: |_| Ok(()) },
    Migration { id: "0002-vm-expiry", apply: super::vms::rewrite_rows },
    Migration { id: "0003-vm-egress", apply: super::vms::rewrite_rows },
    Migration { id: "0004-vm-secrets", apply: super::vms::rewrite_rows },
    Migration { id: "0005-vm-workspace", apply: super::vms::rewrite_rows },
    Migration { id: "0006-image-config", apply: super::catalogue::rewrite_images },
];

/// Most bytes of `schema.json`.
const MAX_MIRROR: u64 = 1 << 16;

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
    let applied = match crate::os::files::read_limited(&path, MAX_MIRROR) {
        Ok(bytes) => {
            serde_json::from_slice::<Mirror>(&bytes)
                .map_err(|e| StoreError::Damaged {
                    table: "schema.json",
                    key: "migrations".into(),
                    why: e.to_string(),
                })?
                .migrations
        }
        // No mirror beside a store: it was made but its first start was cut short.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let there = folder.join("banger.redb").exists();
            return Ok(if there { Compatibility::WillMigrate } else { Compatibility::Compatible });
        }
        Err(e) => return Err(e.into()),
    };
    Ok(match pending(&applied) {
        Err(unknown) => Compatibility::Incompatible(unknown),
        Ok(steps) if steps.is_empty() => Compatibility::Compatible,
        Ok(_) => Compatibility::WillMigrate,
    })
}

/// Writes the mirror.
pub(super) fn write_mirror(folder: &Path, applied: &[String]) -> Result<(), StoreError> {
    let mirror = Mirror { migrations: applied.to_vec() };
    let text = serde_json::to_vec_pretty(&mirror).map_err(std::io::Error::from)?;
    Ok(crate::os::files::write_atomic(&mirror_path(folder), &text, 0o600)?)
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
    fn rubbish_in_the_mirror_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("schema.json"), "{").expect("written");
        assert!(check(folder.path()).is_err());
    }
}
