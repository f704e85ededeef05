//! The image `debian-bookworm`: mmdebstrap(1) writes a tar of a small Debian that boots, takes ssh, and
//! belongs to nobody yet.

use std::path::PathBuf;
use std::process::Command;

use super::super::ImageError;
use super::stream::Build;
use super::{apt, tool};

const KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.gpg", "/etc/apt/trusted.gpg.d/debian-archive-bookworm-stable.asc"];

/// Beside Debian's essential packages: an init, ssh, and what a person expects of a shell. One a line; these
/// three files are those of `release/image` too.
const PACKAGES: &str = include_str!("debian/packages");

/// Documentation is left out, copyright files are kept, as their licences ask.
const DPKG_OPTIONS: &str = include_str!("debian/dpkg-options");

/// Takes out what would make all VMs the same machine, what came from this host, what would touch the
/// network that `init` sets up, and timers, whose chores a machine that lives for minutes does not need.
/// `$1` is the tree. Root has no password, but is not locked: sshd refuses keys for an account with `!`.
const IMPERSONAL: &str = include_str!("debian/impersonal.sh");

/// Starts building the image; the stream is a tar of the whole tree. Runs as root or, with user
/// namespaces, as anybody.
pub(super) fn debian_image() -> Result<Build, ImageError> {
    let is_root = rustix::process::geteuid().is_root();
    Build::of_command("mmdebstrap", &mut command(&check()?, is_root))
}

/// Whether it can be built here; mmdebstrap's path.
pub(super) fn check() -> Result<PathBuf, ImageError> {
    let program = tool("mmdebstrap", "mmdebstrap")?;
    if !KEYRINGS.iter().any(|path| std::path::Path::new(path).exists()) {
        return Err(ImageError::MissingTool { program: "debian-archive-keyring", package: "debian-archive-keyring" });
    }
    if !rustix::process::geteuid().is_root() {
        tool("newuidmap", "uidmap")?;
    }
    Ok(program)
}

fn command(program: &std::path::Path, is_root: bool) -> Command {
    let mut command = Command::new(program);
    command
        .arg(if is_root { "--mode=root" } else { "--mode=unshare" })
        .args(["--variant=minbase", "--format=tar"])
        .arg(format!("--include={}", PACKAGES.lines().collect::<Vec<_>>().join(",")))
        .args(["--aptopt=Acquire::Languages \"none\"", "--aptopt=APT::Install-Recommends \"false\""])
        .args(apt::reach().iter().map(|line| format!("--aptopt={line}")))
        .args(DPKG_OPTIONS.lines().map(|option| format!("--dpkgopt={option}")))
        .arg(format!("--customize-hook={IMPERSONAL}"))
        .args(["bookworm", "-"])
        .args(apt::bookworm_sources())
        .env("LC_ALL", "C.UTF-8")
        .env("SOURCE_DATE_EPOCH", epoch());
    command
}

/// Now: mmdebstrap lowers every time stamp to this, so that none lies in a guest's future.
fn epoch() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |d| d.as_secs()).to_string()
}
