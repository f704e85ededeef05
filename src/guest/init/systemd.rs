//! What the image's systemd must leave alone, told through `/run`, which vanishes with the boot.
//!
//! `HANDOVER.md` gives the reason for each unit.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::guest::error::{Doing, GuestError};
use crate::guest::power;

/// Before `/etc/systemd/system` in the search order (systemd.unit(5)), so a unit that an image
/// keeps in `/etc` is masked too.
const UNITS: &str = "/run/systemd/system.control";

/// Units that do not start.
const MASKED: [&str; 30] = [
    // The agent answers on port 22; a second server would fail to bind and remove `/run/sshd`.
    "ssh.service",
    "ssh.socket",
    "sshd.service",
    "sshd.socket",
    "sshd-unix-local.socket",
    // A tmpfs over `/tmp` would hide the files of the first command.
    "tmp.mount",
    // The console is a log, nobody types there; agetty would also hang it up.
    "serial-getty@ttyS0.service",
    "console-getty.service",
    "serial-getty@hvc0.service",
    "getty@tty1.service",
    // Hardware that a VM of banger's never has.
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    // The network is up before systemd starts.
    "systemd-networkd-wait-online.service",
    "NetworkManager-wait-online.service",
    // Would replace the identity that banger gave.
    "cloud-init-local.service",
    "cloud-init.service",
    "cloud-config.service",
    "cloud-final.service",
    "systemd-firstboot.service",
    // Rebuild caches that came with the image, at each first boot of each VM.
    "ldconfig.service",
    "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service",
    // Upkeep of machines that live for years; apt's also holds the lock that the user needs.
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "man-db.timer",
    "dpkg-db-backup.timer",
    "unattended-upgrades.service",
];

/// Overrides the distribution's file of the same name, whose `D /tmp` empties the folder at boot
/// (tmpfiles.d(5)).
const TMPFILES: &str = "d /tmp 1777 root root -\nd /var/tmp 1777 root root -\nd /run/sshd 0755 root root -\n";

/// Where images keep kmod.
const KMOD: [&str; 2] = ["bin/kmod", "usr/bin/kmod"];

/// Writes all instructions.
pub fn instruct() -> Result<(), GuestError> {
    instruct_below(Path::new("/"))
}

fn instruct_below(root: &Path) -> Result<(), GuestError> {
    let units = root.join(UNITS.trim_start_matches('/'));
    fs::create_dir_all(&units).doing(|| format!("create {UNITS}"))?;
    for unit in MASKED {
        mask(&units.join(unit)).doing(|| format!("mask {unit}"))?;
    }
    // An image without kmod loads no module; the unit would fail, and the system be degraded,
    // because banger brings the list of static nodes with the modules drive.
    if !KMOD.iter().any(|path| root.join(path).exists()) {
        mask(&units.join("kmod-static-nodes.service")).doing(|| "mask kmod-static-nodes.service".into())?;
    }
    if power::by_reset() {
        end_by_reset(&units)?;
    }
    let tmpfiles = root.join("run/tmpfiles.d");
    fs::create_dir_all(&tmpfiles)
        .and_then(|()| fs::write(tmpfiles.join("tmp.conf"), TMPFILES))
        .doing(|| "write /run/tmpfiles.d/tmp.conf".into())
}

/// Where only a reset ends the monitor, `poweroff` and `halt` end with one: a machine that halts would
/// stay for ever (systemd.unit(5), `SuccessAction=`).
fn end_by_reset(units: &Path) -> Result<(), GuestError> {
    for unit in ["systemd-poweroff.service", "systemd-halt.service"] {
        let folder = units.join(format!("{unit}.d"));
        fs::create_dir_all(&folder)
            .and_then(|()| fs::write(folder.join("banger.conf"), "[Unit]\nSuccessAction=reboot-force\n"))
            .doing(|| format!("instruct {unit}"))?;
    }
    Ok(())
}

fn mask(unit: &Path) -> io::Result<()> {
    match symlink("/dev/null", unit) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_reset_ends_the_monitor_a_power_off_is_one() {
        let units = tempfile::tempdir().expect("a folder");
        end_by_reset(units.path()).expect("given");
        end_by_reset(units.path()).expect("given again");
        let told = fs::read_to_string(units.path().join("systemd-poweroff.service.d/banger.conf"));
        assert!(told.expect("there").contains("reboot-force"));
    }

    #[test]
    fn instructions_can_be_given_twice() {
        let root = tempfile::tempdir().expect("a folder");
        instruct_below(root.path()).expect("given");
        instruct_below(root.path()).expect("given again");
        let mask = fs::read_link(root.path().join("run/systemd/system.control/ssh.service")).expect("a link");
        assert_eq!(mask, Path::new("/dev/null"));
        assert!(root.path().join("run/tmpfiles.d/tmp.conf").exists());
    }
}
