//! From a signed manifest to a binary in a folder that only root can reach: sums, their signature, the tarball against
//! its digest while it comes, and out of it one file. Made anew each time; nothing outside of the folder is changed.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::Told;
use super::digest::{Digest, Hasher};
use super::download::{Fetcher, Place};
use super::error::UpdateError;
use super::key::{Key, MOST_SIGNATURE};
use super::manifest::{self, MOST_MANIFEST, Manifest, Release};
use super::sums::{self, MOST_SUMS};
use super::unpack::unpack;
use super::version::Version;
use crate::os::files::{ensure_dir, named, remove_tree};
use crate::os::own_folder::OwnFolder;

/// What lies at the end of an address that a signature is for.
const SIGNATURE: &str = ".sig";

/// Where releases come from, and whose they are.
pub struct Origin {
    /// Asks for files.
    pub fetcher: Fetcher,
    /// Where the manifest lies.
    pub manifest: Place,
    /// Who has signed it.
    pub key: Key,
}

impl Origin {
    /// All releases, as signed.
    pub fn manifest(&self) -> Result<Manifest, UpdateError> {
        let signature = match &self.manifest {
            Place::File(path) => Place::File(with_suffix(path)),
            Place::Web(url) => Place::parse(&format!("{url}{SIGNATURE}"), self.fetcher.is_local())?,
        };
        let bytes = self.signed("manifest", &self.manifest, &signature, MOST_MANIFEST)?;
        Ok(manifest::parse(&bytes)?)
    }

    /// The digest that the key vouches for, of the tarball of `release` for `arch`.
    fn digest(&self, release: &Release, arch: &str) -> Result<Digest, UpdateError> {
        let place = |address: &str| self.manifest.join(address, self.fetcher.is_local());
        let (sums, signature) = (place(&release.sums)?, place(&format!("{}{SIGNATURE}", release.sums))?);
        let text = self.signed("SHA256SUMS", &sums, &signature, MOST_SUMS)?;
        Ok(sums::find(&text, &release.version.tarball(arch))?)
    }

    fn signed(&self, what: &str, place: &Place, signature: &Place, limit: u64) -> Result<Vec<u8>, UpdateError> {
        let content = self.fetcher.document(place, what, limit)?;
        let signature = self.fetcher.document(signature, &format!("signature of the {what}"), MOST_SIGNATURE)?;
        self.key.verify(what, &content, &signature)?;
        Ok(content)
    }

    /// Brings `release` for `arch` into `staging`.
    pub fn stage(
        &self,
        release: &Release,
        arch: &str,
        staging: &Staging,
        tell: &mut dyn FnMut(Told),
    ) -> Result<Staged, UpdateError> {
        let tarball = release
            .tarballs
            .get(arch)
            .ok_or_else(|| super::Refusal::Arch { version: release.version, arch: arch.to_owned() })?;
        let name = release.version.tarball(arch);
        tell(Told::Stage(&format!("download v{}", release.version)));
        let expected = self.digest(release, arch)?;
        let place = self.manifest.join(&tarball.url, self.fetcher.is_local())?;
        let found = staging.download(&self.fetcher, &place, &name, tarball.size, tell)?;
        if found != expected {
            return Err(UpdateError::Digest { what: name, expected, found });
        }
        let digest = staging.unpack(arch)?;
        Ok(Staged { version: release.version, digest, path: staging.binary() })
    }
}

/// `x` is `x.sig`, whatever else its name ends with.
fn with_suffix(path: &Path) -> PathBuf {
    let mut text = path.as_os_str().to_owned();
    text.push(SIGNATURE);
    text.into()
}

/// A verified binary that is not installed yet.
#[derive(Debug, Clone)]
pub struct Staged {
    /// Its release.
    pub version: Version,
    /// Of the binary itself.
    pub digest: Digest,
    /// Where it lies.
    pub path: PathBuf,
}

/// The folder where a release is put together.
#[derive(Debug)]
pub struct Staging {
    folder: OwnFolder,
    path: PathBuf,
}

impl Staging {
    /// An empty one below `cache`, which is made if it is missing.
    pub fn begin(cache: &Path) -> Result<Self, UpdateError> {
        ensure_dir(cache, 0o700)?;
        let path = cache.join("update");
        remove_tree(&path)?;
        let folder = OwnFolder::open(&path, 0o700)?;
        Ok(Self { folder, path })
    }

    /// Removes it, and the cache where nothing else is in it.
    pub fn end(self) -> Result<(), UpdateError> {
        remove_tree(&self.path)?;
        if let Some(cache) = self.path.parent() {
            // Not empty: others use it.
            let _ = std::fs::remove_dir(cache);
        }
        Ok(())
    }

    fn tarball(&self) -> PathBuf {
        self.folder.at("release.tar.gz")
    }

    fn binary(&self) -> PathBuf {
        self.folder.at("banger")
    }

    fn download(
        &self,
        fetcher: &Fetcher,
        place: &Place,
        name: &str,
        size: u64,
        tell: &mut dyn FnMut(Told),
    ) -> Result<Digest, UpdateError> {
        let path = self.tarball();
        let mut file = create(&path, 0o600)?;
        let state = std::cell::RefCell::new((Hasher::default(), 0, &mut file));
        let mut begin = || {
            let (hasher, done, file) = &mut *state.borrow_mut();
            (*hasher, *done) = (Hasher::default(), 0);
            file.set_len(0).and_then(|()| io::Seek::rewind(file))
        };
        let mut take = |piece: &[u8]| {
            let (hasher, done, file) = &mut *state.borrow_mut();
            hasher.update(piece);
            *done += piece.len() as u64;
            tell(Told::Bytes { done: *done, total: size });
            file.write_all(piece).map_err(named("write", &self.path))
        };
        fetcher.file(place, name, size, &mut begin, &mut take)?;
        Ok(state.into_inner().0.finish())
    }

    fn unpack(&self, arch: &str) -> Result<Digest, UpdateError> {
        let archive = File::open(self.tarball()).map_err(named("open", &self.tarball()))?;
        // Executable by whoever has a descriptor of it: nobody else gets into the folder.
        let mut binary = create(&self.binary(), 0o755)?;
        let digest = unpack(archive, &mut binary, arch)?;
        binary.sync_all().map_err(named("write", &self.path))?;
        Ok(digest)
    }
}

fn create(path: &Path, mode: u32) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(named("create", path))?;
    // Independent of the umask.
    rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(mode)).map_err(io::Error::from)?;
    Ok(file)
}
