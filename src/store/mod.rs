//! The store: what must survive every crash, in one redb file.
//!
//! Values are bincode of versioned rows (`codec`), the applied migrations stand in `meta` and,
//! mirrored for readers that cannot open a locked or uncleanly closed redb file, in `schema.json`
//! (`migrations`). Every public method is one transaction and blocks: the daemon calls them
//! outside its executor. Only the daemon opens the store.

/// Rows of images and kernels.
mod catalogue;
/// Rows and their versions.
mod codec;
/// Which schema a store has and how an older one is brought up.
pub mod migrations;
/// Rows of operations under way.
mod operations;
/// The store as it was before it was brought up.
pub mod previous;
/// Rows of VMs.
mod vms;

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::model::LimitError;

pub use operations::OperationRecord;
pub use vms::Reserved;

/// redb's page cache: the default of 1 GiB is for databases, not for a daemon's handful of rows.
const CACHE_BYTES: usize = 1 << 20;

type Rows = TableDefinition<'static, &'static str, &'static [u8]>;
const VMS: Rows = TableDefinition::new("vms");
/// The ids of those of `VMS` that run, derived from it and written with it: `ps` reads them alone, so it
/// costs the same whatever is stored. Filled anew at each opening, so no migration knows it.
const RUNNING: TableDefinition<'static, &'static str, ()> = TableDefinition::new("running");
const IMAGES: Rows = TableDefinition::new("images");
const KERNELS: Rows = TableDefinition::new("kernels");
const OPERATIONS: Rows = TableDefinition::new("operations");
const META: Rows = TableDefinition::new("meta");

/// The store failed or refused.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// redb's own errors.
    #[error("store {path}: {source}")]
    Database {
        /// The file.
        path: PathBuf,
        /// What redb says.
        source: Box<redb::Error>,
    },
    /// A file beside or under the store.
    #[error("store: {0}")]
    Io(#[from] io::Error),
    /// A row cannot be read.
    #[error("store: row `{key}` of table `{table}` is damaged: {why}")]
    Damaged {
        /// The table.
        table: &'static str,
        /// The row.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// A newer banger has written it.
    #[error("the store was written by a newer banger: it has migration `{0}`, unknown to this build")]
    Newer(String),
    /// Its mirror is there and it is not: an empty one in its place would disown every VM.
    #[error(
        "{path} is gone, though there was one here; put it back, or remove {mirror} to begin anew \
        (VMs, images and kernels are removed then)"
    )]
    Lost {
        /// The store.
        path: PathBuf,
        /// What says that there was one.
        mirror: PathBuf,
    },
    /// The name is taken.
    #[error("{what} '{name}' exists already")]
    NameTaken {
        /// VM, image or kernel.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// There is no such row.
    #[error("{what} '{name}' not found")]
    NotFound {
        /// VM, image or kernel.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Something refers to it.
    #[error("{what} '{name}' is used by VM {users}")]
    InUse {
        /// Image or kernel.
        what: &'static str,
        /// The name.
        name: String,
        /// The VMs, quoted, comma separated.
        users: String,
    },
    /// All places for running VMs are taken.
    #[error("all {} places for running VMs are taken", crate::model::Slot::COUNT)]
    NoSlot,
    /// A limit of the owner or of the host forbids it.
    #[error(transparent)]
    Limit(#[from] LimitError),
}

impl StoreError {
    /// Whether the store stays unusable until it is opened anew: after a write that failed, redb
    /// refuses everything (`redb::Error::PreviousIo`), even when the disk has room again.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Database { source, .. } => matches!(**source, redb::Error::Io(_) | redb::Error::PreviousIo),
            Self::Io(_)
            | Self::Damaged { .. }
            | Self::Newer(_)
            | Self::Lost { .. }
            | Self::NameTaken { .. }
            | Self::NotFound { .. }
            | Self::InUse { .. }
            | Self::NoSlot
            | Self::Limit(_) => false,
        }
    }
}

/// The open store.
#[derive(Debug)]
pub struct Store {
    db: Database,
    path: PathBuf,
    /// Counts what was written.
    state: AtomicU64,
}

impl Store {
    /// Opens `folder/banger.redb`, makes it if it is missing, and brings an older one up inside one
    /// transaction. A newer one is refused and not changed.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join("banger.redb");
        refuse_newer_by_mirror(folder)?;
        let mirror = migrations::mirror_path(folder);
        if mirror.exists() && !path.exists() {
            return Err(StoreError::Lost { path, mirror });
        }
        // redb would create it with the umask's mode.
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        if !mirror.exists() {
            clear_unborn(&path)?;
        }
        let wrap = |source: redb::Error| StoreError::Database { path: path.clone(), source: Box::new(source) };
        let db = Database::builder().set_cache_size(CACHE_BYTES).create(&path).map_err(|e| wrap(e.into()))?;
        let store = Self { db, path, state: AtomicU64::new(1) };
        let applied = store.applied()?;
        let pending = migrations::pending(&applied).map_err(StoreError::Newer)?;
        if !applied.is_empty() && !pending.is_empty() {
            previous::keep(folder, &applied)?;
            // Before it is done: of a store that was brought up and whose mirror does not say so an older build would
            // believe that it can use it.
            let coming = pending.iter().map(|migration| migration.id.to_owned());
            migrations::write_mirror(folder, &applied.iter().cloned().chain(coming).collect::<Vec<_>>())?;
        }
        let applied = store.migrate()?;
        migrations::write_mirror(folder, &applied)?;
        Ok(store)
    }

    /// A number that is another after anything was written: what was read is as it was while this is the
    /// same. Never 0.
    pub fn state(&self) -> u64 {
        self.state.load(Ordering::Acquire)
    }

    /// The ids of what was done to it so far; none in one that is new.
    fn applied(&self) -> Result<Vec<String>, StoreError> {
        self.read(|tx| {
            let meta = match tx.open_table(META) {
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                other => other?,
            };
            let row = meta.get("migrations")?;
            Ok(row.map(|row| codec::decode("meta", "migrations", row.value())).transpose()?.unwrap_or_default())
        })
    }

    fn migrate(&self) -> Result<Vec<String>, StoreError> {
        self.write(|tx| {
            for table in [VMS, IMAGES, KERNELS, OPERATIONS] {
                tx.open_table(table)?;
            }
            let mut meta = tx.open_table(META)?;
            let applied = match meta.get("migrations")? {
                Some(row) => codec::decode::<Vec<String>>("meta", "migrations", row.value())?,
                None => Vec::new(),
            };
            let pending = migrations::pending(&applied).map_err(StoreError::Newer)?;
            let mut now = applied;
            for migration in pending {
                (migration.apply)(tx)?;
                now.push(migration.id.to_owned());
            }
            meta.insert("migrations", codec::encode("meta", &now)?.as_slice())?;
            vms::index_running(tx)?;
            Ok(now)
        })
    }

    /// Runs `work` in one write transaction; its error takes all of it back.
    fn write<T>(&self, work: impl FnOnce(&redb::WriteTransaction) -> Result<T, Failure>) -> Result<T, StoreError> {
        let run = || -> Result<T, Failure> {
            let tx = self.db.begin_write()?;
            let value = work(&tx)?;
            tx.commit()?;
            self.state.fetch_add(1, Ordering::AcqRel);
            Ok(value)
        };
        run().map_err(|e| e.into_store(&self.path))
    }

    /// Runs `work` in one read transaction.
    fn read<T>(&self, work: impl FnOnce(&redb::ReadTransaction) -> Result<T, Failure>) -> Result<T, StoreError> {
        let run = || -> Result<T, Failure> { work(&self.db.begin_read()?) };
        run().map_err(|e| e.into_store(&self.path))
    }
}

/// A store whose very first opening was cut short has a size and no magic number yet, and redb takes
/// it for damaged for ever. Nothing was ever in it: the mirror is written after that.
fn clear_unborn(path: &Path) -> Result<(), StoreError> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut magic = [0; 9];
    let read = file.read_at(&mut magic, 0)?;
    if read == magic.len() && magic == [0; 9] {
        file.set_len(0)?;
    }
    Ok(())
}

fn refuse_newer_by_mirror(folder: &Path) -> Result<(), StoreError> {
    match migrations::check(folder)? {
        migrations::Compatibility::Incompatible(id) => Err(StoreError::Newer(id)),
        migrations::Compatibility::Compatible | migrations::Compatibility::WillMigrate => Ok(()),
    }
}

/// What can end a transaction: redb's many error types, or a refusal of ours.
enum Failure {
    Database(Box<redb::Error>),
    Refused(StoreError),
}

impl Failure {
    fn into_store(self, path: &Path) -> StoreError {
        match self {
            Self::Database(source) => StoreError::Database { path: path.to_owned(), source },
            Self::Refused(error) => error,
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

macro_rules! failure_from {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::Database(Box::new(error.into()))
            }
        })*
    };
}
failure_from!(redb::TransactionError, redb::TableError, redb::StorageError, redb::CommitError);

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_new_store_is_private_and_mirrored() {
        let folder = tempfile::tempdir().expect("a folder");
        Store::open(folder.path()).expect("opens");
        let mode = std::fs::metadata(folder.path().join("banger.redb")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(migrations::check(folder.path()).expect("reads"), migrations::Compatibility::Compatible);
        Store::open(folder.path()).expect("opens again");
    }

    #[test]
    fn a_newer_store_is_refused_and_unchanged() {
        let folder = tempfile::tempdir().expect("a folder");
        drop(Store::open(folder.path()).expect("opens"));
        migrations::write_mirror(folder.path(), &["0001-initial".into(), "9999-future".into()]).expect("written");
        let before = std::fs::read(folder.path().join("banger.redb")).expect("read");
        assert!(matches!(Store::open(folder.path()), Err(StoreError::Newer(id)) if id == "9999-future"));
        assert_eq!(std::fs::read(folder.path().join("banger.redb")).expect("read"), before);
    }

    #[test]
    fn a_newer_store_without_its_mirror_is_refused_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("opens");
        store
            .write(|tx| {
                let row = codec::encode("meta", &vec!["9999-future".to_owned()])?;
                tx.open_table(META)?.insert("migrations", row.as_slice())?;
                Ok(())
            })
            .expect("written");
        drop(store);
        std::fs::remove_file(folder.path().join("schema.json")).expect("removed");
        assert!(matches!(Store::open(folder.path()), Err(StoreError::Newer(_))));
    }

    #[test]
    fn a_store_of_version_one_is_brought_up_and_keeps_its_vms() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("opens");
        let old = codec::encode("vms", &codec::tests::row_of_version_one()).expect("encodes");
        let first = vec!["0001-initial".to_owned()];
        store
            .write(|tx| {
                tx.open_table(VMS)?.insert("0123456789ab", old.as_slice())?;
                tx.open_table(META)?.insert("migrations", codec::encode("meta", &first)?.as_slice())?;
                Ok(())
            })
            .expect("written");
        drop(store);
        migrations::write_mirror(folder.path(), &first).expect("written");
        assert_eq!(migrations::check(folder.path()).expect("reads").exit_code(), 1);
        let store = Store::open(folder.path()).expect("opens");
        assert_eq!(migrations::check(folder.path()).expect("reads").exit_code(), 0);
        assert_eq!(store.vms().expect("read"), [codec::tests::row_of_version_one().into()]);
        let version = store.read(|tx| Ok(tx.open_table(VMS)?.get("0123456789ab")?.map(|row| row.value()[0])));
        assert_eq!(version.expect("read"), Some(5), "the row is still of an older version");
    }

    #[test]
    fn a_lost_store_is_not_replaced_by_an_empty_one() {
        let folder = tempfile::tempdir().expect("a folder");
        drop(Store::open(folder.path()).expect("opens"));
        std::fs::remove_file(folder.path().join("banger.redb")).expect("removed");
        assert!(matches!(Store::open(folder.path()), Err(StoreError::Lost { .. })));
        std::fs::remove_file(folder.path().join("schema.json")).expect("removed");
        Store::open(folder.path()).expect("begins anew");
    }

    #[test]
    fn a_store_whose_first_opening_was_cut_short_is_begun_again() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("banger.redb"), vec![0; 70_000]).expect("written");
        Store::open(folder.path()).expect("begins anew");
    }

    #[test]
    fn a_file_that_is_no_store_is_an_error_not_a_panic() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("banger.redb"), vec![0x5a; 70_000]).expect("written");
        assert!(Store::open(folder.path()).is_err());
    }
}
