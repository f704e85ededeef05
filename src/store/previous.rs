//! The store as it was before it was brought up: `banger.redb.previous`, with its mirror beside it, written last and so
//! the proof that it is whole. The way back of an update needs it: the older binary cannot use what the newer one's first
//! start has made. It is kept until the next time that a store is brought up, and used only when somebody asks for it:
//! what was done since is lost then.

use std::path::{Path, PathBuf};

use super::migrations::{self, Compatibility};
use super::{StoreError, migrations::mirror_path};
use crate::os::content::replicate;
use crate::os::files::{named, read_limited, remove_file, sync_folder};

fn store(folder: &Path) -> PathBuf {
    folder.join("banger.redb.previous")
}

fn mirror(folder: &Path) -> PathBuf {
    folder.join("schema.json.previous")
}

/// Keeps the store in `folder`, to which `applied` was done and nobody writes just now.
pub(super) fn keep(folder: &Path, applied: &[String]) -> Result<(), StoreError> {
    remove_file(&mirror(folder))?;
    replicate(&folder.join("banger.redb"), &store(folder), None, &|_| Ok(()))?;
    migrations::write_mirror_at(&mirror(folder), applied)
}

/// Puts what was kept in the place of a store that this build cannot use, where it can use that; what it can use stays as
/// it is. A daemon that has the newer one open must end next: it writes into a file without a name.
pub fn restore(folder: &Path) -> Result<Compatibility, StoreError> {
    let found = migrations::check(folder)?;
    let Compatibility::Incompatible(id) = &found else { return Ok(found) };
    let kept = match read_limited(&mirror(folder), migrations::MAX_MIRROR) {
        Ok(bytes) => migrations::check_mirror(&bytes)?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(StoreError::Newer(id.clone())),
        Err(e) => return Err(e.into()),
    };
    if matches!(kept, Compatibility::Incompatible(_)) {
        return Ok(kept);
    }
    // The mirror last: cut in between, this is done again, and the store is there already.
    if store(folder).exists() {
        // What the newer one has made is not thrown away.
        if folder.join("banger.redb").exists() {
            rename(&folder.join("banger.redb"), &folder.join("banger.redb.newer"))?;
        }
        rename(&store(folder), &folder.join("banger.redb"))?;
    }
    rename(&mirror(folder), &mirror_path(folder))?;
    sync_folder(folder)?;
    Ok(kept)
}

fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    Ok(std::fs::rename(from, to).map_err(named("rename", from))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{META, Store, VMS, codec};

    /// A store with one migration and one VM.
    fn old_store(folder: &Path) {
        let store = Store::open(folder).expect("opens");
        let row = codec::encode("vms", &codec::tests::row_of_version_one()).expect("encodes");
        let first = vec!["0001-initial".to_owned()];
        store
            .write(|tx| {
                tx.open_table(VMS)?.insert("0123456789ab", row.as_slice())?;
                tx.open_table(META)?.insert("migrations", codec::encode("meta", &first)?.as_slice())?;
                Ok(())
            })
            .expect("written");
        drop(store);
        migrations::write_mirror(folder, &first).expect("written");
    }

    /// As if this build had a migration less than whoever has brought the store up.
    fn newer(folder: &Path) {
        let ids = ["0001-initial".to_owned(), "9999-future".to_owned()];
        migrations::write_mirror(folder, &ids).expect("written");
    }

    #[test]
    fn what_is_brought_up_is_kept_as_it_was_and_can_be_had_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        old_store(path);
        // Brought up; the daemon that has done so still has it open.
        let open = Store::open(path).expect("opens");
        assert_eq!(
            migrations::check_mirror(&std::fs::read(mirror(path)).expect("kept")).expect("reads").exit_code(),
            1
        );
        newer(path);
        assert!(matches!(Store::open(path), Err(StoreError::Newer(_))));
        assert_eq!(restore(path).expect("restored").exit_code(), 1);
        drop(open);
        let store = Store::open(path).expect("opens again");
        assert_eq!(store.vms().expect("read"), [codec::tests::row_of_version_one().into()]);
    }

    #[test]
    fn what_can_be_used_is_left_alone_and_what_was_not_kept_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        assert_eq!(restore(path).expect("nothing there").exit_code(), 0);
        drop(Store::open(path).expect("opens"));
        assert!(!store(path).exists(), "a new one has no past");
        assert_eq!(restore(path).expect("usable").exit_code(), 0);
        newer(path);
        assert!(matches!(restore(path), Err(StoreError::Newer(id)) if id == "9999-future"));
        migrations::write_mirror_at(&mirror(path), &["8888-too".into()]).expect("written");
        assert_eq!(restore(path).expect("judged").exit_code(), 2);
    }

    #[test]
    fn a_restoration_that_was_cut_is_done_again_and_a_keeping_that_was_cut_is_not_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        old_store(path);
        drop(Store::open(path).expect("opens"));
        newer(path);
        std::fs::rename(store(path), path.join("banger.redb")).expect("the first half");
        restore(path).expect("restored");
        assert_eq!(Store::open(path).expect("opens").vms().expect("read").len(), 1);
        // The second start has kept it again; without its mirror it is half of it.
        newer(path);
        std::fs::remove_file(mirror(path)).expect("cut");
        assert!(matches!(restore(path), Err(StoreError::Newer(_))));
    }
}
