//! Kernel and image: made once by banger itself, then given to each scenario.
//!
//! Image and kernel files are never written after they were made, so a scenario gets hard links
//! where the file systems allow it. What was made is kept for the next run with the same binary: an
//! initramfs contains it.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use banger::model::{Mib, VmSpec};

use crate::runner::tested_binary;
use crate::world::World;

/// What both are called in the catalogue.
pub const NAME: &str = "debian-bookworm";

/// A VM called `name` of both, small, with nothing more than it must have.
pub fn spec(name: &str, memory: Mib) -> VmSpec {
    VmSpec {
        name: name.parse().expect("a name"),
        image: NAME.parse().expect("a name"),
        kernel: NAME.parse().expect("a name"),
        vcpus: 1,
        memory,
        disk: Mib(8192),
        init: None,
        egress: Default::default(),
        ports: Vec::new(),
        secrets: Vec::new(),
        environment: Vec::new(),
        idle_stop: None,
    }
}

/// Says which binary made the base.
const MADE_BY: &str = "made-by";

/// What of a state folder is given to a scenario: not the VMs, not the sockets.
const GIVEN: [&str; 4] = ["banger.redb", "schema.json", "images", "kernels"];

/// Where is kept what the next run needs as well.
pub fn cache() -> PathBuf {
    std::env::var_os("SMOKE_CACHE")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/smoke"), PathBuf::from)
}

fn folder() -> PathBuf {
    cache().join("base")
}

/// `kernel pull` and `image pull`, unless this binary has done so before.
pub fn make(world: &World) {
    let digest = digest_of(&tested_binary());
    let marker = folder().join(MADE_BY);
    if std::fs::read_to_string(&marker).is_ok_and(|by| by == digest) {
        return;
    }
    // Daemon and helper live in the scenario's namespace; the builders need the real network.
    world.start();
    let binary = world.binary().to_str().expect("a plain path");
    for what in ["kernel", "image"] {
        let pulled = outside(world, &[binary, "--as", "banger", what, "pull", NAME]).limit(600).output().ok();
        assert_eq!(pulled.text(), NAME, "progress belongs on standard error");
        let listed = world.banger(&[what, "list", "--json"]).output().ok().json();
        assert!(listed.to_string().contains(NAME), "{what} {NAME} is not listed: {listed}");
    }
    world.banger(&["daemon", "stop"]).output().ok();
    if folder().exists() {
        std::fs::remove_dir_all(folder()).expect("the old base can be removed");
    }
    std::fs::create_dir_all(folder()).expect("the base's folder can be created");
    give(&world.home().join("state"), &folder()).expect("what was made can be kept");
    std::fs::write(marker, digest).expect("the marker can be written");
}

/// The kernel's vmlinux, and its modules as files below the world's folder, in a folder called as its `release`.
pub fn kernel_files(world: &World, release: &str) -> (String, String) {
    let kernel = world.home().join("state/kernels").join(NAME);
    let modules = world.folder().join("modules").join(release);
    std::fs::create_dir_all(&modules).expect("a folder for the modules");
    let dump = format!("rdump / {}", modules.display());
    world.tool("debugfs", &["-R", &dump, kernel.join("modules.ext4").to_str().expect("plain")]).output().ok();
    assert!(modules.join("modules.dep").exists(), "no modules came out of the drive");
    (kernel.join("vmlinux").display().to_string(), modules.display().to_string())
}

/// A command in the network namespace of the runner, this process's parent: the real one.
pub fn outside(world: &World, command: &[&str]) -> crate::command::Run {
    let namespace = format!("--net=/proc/{}/ns/net", std::os::unix::process::parent_id());
    let mut all = vec![namespace.as_str()];
    all.extend(command);
    world.tool("nsenter", &all)
}

/// Puts kernel and image into the empty state folder `state`.
pub fn clone_into(state: &Path) -> io::Result<()> {
    if !folder().join(MADE_BY).exists() {
        return Err(io::Error::other("scenario `base` has not made them"));
    }
    std::fs::create_dir_all(state)?;
    std::fs::set_permissions(state, std::fs::Permissions::from_mode(0o700))?;
    give(&folder(), state)
}

fn give(from: &Path, to: &Path) -> io::Result<()> {
    for name in GIVEN {
        let may_be_shared = matches!(name, "images" | "kernels");
        copy(&from.join(name), &to.join(name), may_be_shared)?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path, share: bool) -> io::Result<()> {
    let about = std::fs::metadata(from).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", from.display())))?;
    if !about.is_dir() {
        return if share && std::fs::hard_link(from, to).is_ok() { Ok(()) } else { copy_file(from, to) };
    }
    std::fs::create_dir(to)?;
    std::fs::set_permissions(to, about.permissions())?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()), share)?;
    }
    Ok(())
}

/// A copy that keeps holes: images are mostly holes.
fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let status = Command::new("cp").args(["-p", "--sparse=always", "--reflink=auto"]).args([from, to]).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("cp of {} failed", from.display()))) }
}

/// Gives kernel and image to the state folder of another user: copies, which are then theirs.
pub fn clone_for(state: &Path, uid: u32, gid: u32) -> io::Result<()> {
    std::fs::create_dir_all(state)?;
    for name in GIVEN {
        copy(&folder().join(name), &state.join(name), false)?;
    }
    crate::census::walk(state, &mut |path, _| {
        std::os::unix::fs::chown(path, Some(uid), Some(gid)).expect("root can give files away");
    });
    std::os::unix::fs::chown(state, Some(uid), Some(gid))
}

fn digest_of(file: &Path) -> String {
    let bytes = std::fs::read(file).expect("the binary can be read");
    let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
    digest.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}
