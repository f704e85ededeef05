//! Which modules a guest's devices need, in the order they are loaded.
//!
//! Reads `modules.dep`, `modules.builtin` and `modules.softdep` as depmod writes them
//! (modules.dep(5), modprobe.d(5)); knows nothing of files.

use std::collections::{HashMap, HashSet};

use super::ImageError;

/// What is loaded where the kernel has it, in this order: the buses, checksums (ext4 asks for them by
/// an alias, not as a dependency), the disk, the network, the control channels, randomness, the power button.
const WANTED: [&str; 11] = [
    "virtio_mmio",
    "virtio_pci",
    "crc32c_generic",
    "crc32c_intel",
    "virtio_blk",
    "ext4",
    "virtio_net",
    "virtio_console",
    "virtio_rng",
    "vmw_vsock_virtio_transport",
    "button",
];
/// Without one of these a guest cannot reach its disk.
const REQUIRED: [&str; 2] = ["virtio_blk", "ext4"];
/// Of these at least one: microvms have devices on the one, other machines on the other.
const BUSES: [&str; 2] = ["virtio_mmio", "virtio_pci"];

/// A set of modules by what depmod says of it.
pub(super) struct ModuleSet {
    /// Name → path of its file, and the paths of what it needs, nearest first.
    modules: HashMap<String, (String, Vec<String>)>,
    builtin: HashSet<String>,
    before: HashMap<String, Vec<String>>,
}

impl ModuleSet {
    /// From the texts of `modules.dep`, `modules.builtin` and `modules.softdep`.
    pub(super) fn parse(dep: &str, builtin: &str, softdep: &str) -> Self {
        Self {
            modules: dep.lines().filter_map(dependencies).collect(),
            builtin: builtin.lines().map(name_of).collect(),
            before: softdep.lines().filter_map(soft_dependencies).collect(),
        }
    }

    /// Paths of the modules to load, in order, each after what it needs.
    pub(super) fn load_order(&self) -> Result<Vec<String>, ImageError> {
        self.check()?;
        let mut order = Vec::new();
        for name in WANTED {
            self.add(name, &mut order, &mut HashSet::new());
        }
        Ok(order)
    }

    fn check(&self) -> Result<(), ImageError> {
        if let Some(missing) = REQUIRED.iter().find(|name| !self.has(name)) {
            return Err(ImageError::Modules(format!("`{missing}` is neither among them nor built in")));
        }
        if !BUSES.iter().any(|name| self.has(name)) {
            return Err(ImageError::Modules("neither `virtio_mmio` nor `virtio_pci` is among them or built in".into()));
        }
        Ok(())
    }

    fn has(&self, name: &str) -> bool {
        self.builtin.contains(name) || self.modules.contains_key(name)
    }

    fn add(&self, name: &str, order: &mut Vec<String>, entered: &mut HashSet<String>) {
        if self.builtin.contains(name) || !entered.insert(name.to_owned()) {
            return;
        }
        let Some((path, needed)) = self.modules.get(name) else { return };
        if order.contains(path) {
            return;
        }
        for softly in self.before.get(name).into_iter().flatten() {
            self.add(softly, order, entered);
        }
        // depmod lists the nearest first: "the last one is loaded first".
        for dependency in needed.iter().rev() {
            self.add(&name_of(dependency), order, entered);
        }
        order.push(path.clone());
    }
}

/// The name of the module in the file `path`:
/// `kernel/a/virtio-rng.ko.xz` → `virtio_rng`: dashes and underscores are the same in module names.
pub(super) fn name_of(path: &str) -> String {
    let file = path.trim().rsplit('/').next().unwrap_or_default();
    file.split(".ko").next().unwrap_or_default().replace('-', "_")
}

fn dependencies(line: &str) -> Option<(String, (String, Vec<String>))> {
    let (path, needed) = line.split_once(':')?;
    let needed = needed.split_ascii_whitespace().map(str::to_owned).collect();
    Some((name_of(path), (path.trim().to_owned(), needed)))
}

/// `softdep ext4 pre: crc32c post: x` → (`ext4`, [`crc32c`]).
fn soft_dependencies(line: &str) -> Option<(String, Vec<String>)> {
    let mut words = line.split_ascii_whitespace();
    if words.next()? != "softdep" {
        return None;
    }
    let name = words.next()?.replace('-', "_");
    let before = words
        .skip_while(|word| *word != "pre:")
        .skip(1)
        .take_while(|word| *word != "post:")
        .map(|word| word.replace('-', "_"))
        .collect();
    Some((name, before))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "\
kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/virtio/virtio_ring.ko:
kernel/drivers/virtio/virtio_mmio.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/block/virtio_blk.ko.xz: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/char/hw_random/virtio-rng.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/fs/jbd2/jbd2.ko:
kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko
kernel/arch/x86/crypto/crc32c-intel.ko:
kernel/crypto/crc32c_generic.ko:
kernel/lib/zlib_x.ko:
kernel/loop/a.ko: kernel/loop/a.ko
";

    fn names(dep: &str, builtin: &str, softdep: &str) -> Result<String, ImageError> {
        let order = ModuleSet::parse(dep, builtin, softdep).load_order()?;
        Ok(order.iter().map(|path| name_of(path)).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn every_module_comes_after_what_it_needs_and_once() {
        let softdep = "# comment\nsoftdep ext4 pre: crc32c_generic zlib-x post: zzz\nsoftdep broken\n";
        assert_eq!(
            names(DEP, "", softdep).expect("complete"),
            "virtio_ring virtio virtio_mmio crc32c_generic crc32c_intel virtio_blk zlib_x jbd2 ext4 virtio_rng"
        );
    }

    #[test]
    fn what_is_built_in_is_not_loaded() {
        let builtin = "kernel/fs/ext4/ext4.ko\nkernel/drivers/virtio/virtio.ko\nkernel/drivers/virtio/virtio_ring.ko\n";
        assert_eq!(
            names(DEP, builtin, "").expect("complete"),
            "virtio_mmio crc32c_generic crc32c_intel virtio_blk virtio_rng"
        );
    }

    #[test]
    fn a_set_that_cannot_reach_a_disk_is_refused() {
        let without =
            |part: &str| DEP.lines().filter(|l| !l.starts_with(part)).map(|l| format!("{l}\n")).collect::<String>();
        assert!(names(&without("kernel/fs/ext4"), "", "").is_err());
        assert!(names(&without("kernel/drivers/block"), "", "").is_err());
        assert!(names(&without("kernel/drivers/virtio/virtio_mmio"), "", "").is_err());
    }

    #[test]
    fn circles_end() {
        let softdep = "softdep ext4 pre: jbd2\nsoftdep jbd2 pre: ext4\n";
        assert!(names(DEP, "", softdep).is_ok());
    }
}
