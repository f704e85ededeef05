//! The image `debian-bookworm`: mmdebstrap(1) writes a tar of a small Debian that boots, takes ssh, and
//! belongs to nobody yet.

use std::process::Command;

use super::super::ImageError;
use super::stream::Build;
use super::{apt, tool};

const KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.gpg", "/etc/apt/trusted.gpg.d/debian-archive-bookworm-stable.asc"];

/// Beside Debian's essential packages: an init, ssh, and what a person expects of a shell.
const PACKAGES: &str = "systemd,systemd-sysv,udev,dbus,libpam-systemd,kmod,openssh-server,sudo,git,ca-certificates,\
                        curl,tmux,iproute2,iputils-ping,netbase,procps,less,vim-tiny,xz-utils";

/// Documentation is left out, copyright files are kept, as their licences ask.
const DPKG_OPTIONS: [&str; 8] = [
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias",
    "path-exclude=/usr/share/lintian/*",
    "force-unsafe-io",
];

/// Takes out what would make all VMs the same machine, what came from this host, what would touch the
/// network that `init` sets up, and timers, whose chores a machine that lives for minutes does not need.
/// `$1` is the tree. Root has no password, but is not locked: sshd refuses keys for an account with `!`.
const IMPERSONAL: &str = r#"set -e
cd "$1"
rm -f etc/ssh/ssh_host_* etc/apt/apt.conf.d/99mmdebstrap etc/resolv.conf var/lib/dbus/machine-id
: > etc/machine-id
: > etc/resolv.conf
: > etc/fstab
echo debian > etc/hostname
printf '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n' > etc/hosts
mkdir -p etc/default && echo LANG=C.UTF-8 > etc/default/locale
sed -i 's/^root:[^:]*:/root:*:/' etc/shadow
sed -i '/force-unsafe-io/d' etc/dpkg/dpkg.cfg.d/99mmdebstrap
rm -f etc/systemd/system/*.wants/systemd-networkd* etc/systemd/system/*.wants/e2scrub* etc/systemd/system/timers.target.wants/*
rm -rf var/cache/apt/*.bin var/cache/debconf/*-old var/lib/dpkg/*-old var/log/apt var/log/*.log"#;

/// Starts building the image; the stream is a tar of the whole tree. Runs as root or, with user
/// namespaces, as anybody.
pub fn debian_image() -> Result<Build, ImageError> {
    let program = tool("mmdebstrap", "mmdebstrap")?;
    if !KEYRINGS.iter().any(|path| std::path::Path::new(path).exists()) {
        return Err(ImageError::MissingTool { program: "debian-archive-keyring", package: "debian-archive-keyring" });
    }
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        tool("newuidmap", "uidmap")?;
    }
    Build::of_command("mmdebstrap", &mut command(&program, is_root))
}

fn command(program: &std::path::Path, is_root: bool) -> Command {
    let mut command = Command::new(program);
    command
        .arg(if is_root { "--mode=root" } else { "--mode=unshare" })
        .args(["--variant=minbase", "--format=tar"])
        .arg(format!("--include={PACKAGES}"))
        .args(["--aptopt=Acquire::Languages \"none\"", "--aptopt=APT::Install-Recommends \"false\""])
        .args(apt::reach().iter().map(|line| format!("--aptopt={line}")))
        .args(DPKG_OPTIONS.iter().map(|option| format!("--dpkgopt={option}")))
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
