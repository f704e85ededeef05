//! What is known of images and kernels.

use super::launch::KernelArgs;
use super::{ImageName, InitMode, KernelName, Mib};

/// An image: one raw, sparse ext4 file, never written after it was made.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct ImageRecord {
    /// Its local name.
    pub name: ImageName,
    /// Size of the filesystem.
    pub size: Mib,
    /// Bytes it takes on the host's disk.
    pub used_bytes: u64,
    /// `sha256:` and 64 hexadecimal digits of what it was made of: the manifest of an OCI image, the tar
    /// stream of another; empty where nobody knows.
    pub digest: String,
    /// Where it came from, in words.
    pub source: String,
    /// Which init its VMs get unless asked otherwise.
    pub init: InitMode,
    /// Unix seconds.
    pub created_at: u64,
    /// The reference it was pulled by, complete: registry, repository and tag or digest.
    pub reference: Option<String>,
    /// How its programs are to be run.
    pub config: ImageConfig,
    /// The kernel that its VMs boot unless asked otherwise.
    pub kernel: Option<KernelName>,
    /// The file it is, where that is not banger's own.
    pub place: Option<Place>,
}

/// A file of somebody else's that is used where it is.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Place {
    /// Its path.
    pub path: String,
    /// When it was changed last, nanoseconds since the epoch: VMs of a file that changes under them break.
    pub changed_ns: i64,
}

/// How an image wants its programs run (OCI image spec, config.md, "config").
#[derive(Debug, Clone, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct ImageConfig {
    /// Variables, `NAME=VALUE`.
    pub env: Vec<String>,
    /// What stands before every command that runs by it.
    pub entrypoint: Vec<String>,
    /// The command where none is given.
    pub cmd: Vec<String>,
    /// Folder that commands start in; empty: the root.
    pub folder: String,
    /// User or uid, and perhaps `:` and group or gid; empty: root.
    pub user: String,
}

impl ImageConfig {
    /// Most bytes of all of it: it travels to the guest in one message.
    pub const MAX_BYTES: usize = 64 << 10;

    /// Bytes of all its texts.
    pub fn bytes(&self) -> usize {
        let lists = [&self.env, &self.entrypoint, &self.cmd];
        lists.iter().flat_map(|list| list.iter()).map(|text| text.len() + 1).sum::<usize>()
            + self.folder.len()
            + self.user.len()
    }
}

/// A kernel: an uncompressed ELF `vmlinux`, the modules its devices need, and a drive with the rest.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct KernelRecord {
    /// Its local name.
    pub name: KernelName,
    /// What `uname -r` says under it; names the folder below `/lib/modules`. Empty without modules.
    pub release: String,
    /// Arguments beside banger's own.
    pub boot_args: KernelArgs,
    /// True when a drive of all its modules was made.
    pub has_modules_drive: bool,
    /// Bytes all its files take on the host's disk.
    pub used_bytes: u64,
    /// Where it came from, in words.
    pub source: String,
    /// Unix seconds.
    pub created_at: u64,
}

impl KernelRecord {
    /// How the release of a kernel ends that `release/kernel` has built (`CONFIG_LOCALVERSION` of its configuration).
    const OWN: &str = "-banger";

    /// Whether it is banger's own: without modules, made for fast boots.
    pub fn is_own(&self) -> bool {
        !self.has_modules_drive && self.release.ends_with(Self::OWN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bangers_own_kernel_is_known_by_what_its_recipe_calls_it() {
        let recipe = include_str!("../../release/kernel.config");
        assert!(recipe.contains(&format!("CONFIG_LOCALVERSION=\"{}\"\n", KernelRecord::OWN)));
        let kernel = |release: &str, has_modules_drive| KernelRecord {
            name: "k".parse().expect("a name"),
            release: release.to_owned(),
            boot_args: crate::model::launch::KernelArgs::default(),
            has_modules_drive,
            used_bytes: 0,
            source: String::new(),
            created_at: 0,
        };
        assert!(kernel("6.1.192-banger", false).is_own());
        for (release, modules) in [("6.1.192-banger", true), ("6.1.192-banger-2", false), ("", false)] {
            assert!(!kernel(release, modules).is_own(), "{release}");
        }
    }
}
