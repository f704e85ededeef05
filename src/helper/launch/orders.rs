//! What the stage is told: which program, with which arguments and descriptors, sees what.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::Launching;
use crate::helper::error::{HelperError, Result};
use crate::helper::firecracker::Programs;
use crate::helper::qemu::{self, Numbers};
use crate::helper::stage::{JailOrder, Order, Program, View};
use crate::helper::tsc;
use crate::host::facts::{QEMU, find_program};
use crate::model::MacAddr;
use crate::model::choice::Accel;
use crate::model::launch::{FakeFailure, FakeLaunch, LaunchFile, QemuLaunch};

/// What a monitor listens on.
pub(super) struct Listeners {
    pub(super) control: OwnedFd,
    pub(super) agent: OwnedFd,
    /// For commands: none with a monitor that runs none.
    pub(super) shells: Vec<OwnedFd>,
}

/// What a monitor speaks through.
pub(super) struct Channels<'s> {
    pub(super) serial: &'s OwnedFd,
    pub(super) listeners: &'s Listeners,
}

impl<'s> Channels<'s> {
    fn all(&self) -> Vec<&'s OwnedFd> {
        let Listeners { control, agent, shells } = self.listeners;
        [self.serial, control, agent].into_iter().chain(shells).collect()
    }
}

impl Launching<'_> {
    pub(super) fn qemu_order(&self, launch: &QemuLaunch, tap: &OwnedFd, channels: &Channels<'_>) -> Result<Order> {
        let program = find_program(QEMU).ok_or(HelperError::Missing(QEMU))?;
        let file = |what| self.file(what).map(AsRawFd::as_raw_fd);
        let shells: Vec<RawFd> = channels.listeners.shells.iter().map(AsRawFd::as_raw_fd).collect();
        let numbers = Numbers {
            kernel: file(LaunchFile::Kernel)?,
            initramfs: file(LaunchFile::Initramfs)?,
            serial: channels.serial.as_raw_fd(),
            overlay: file(LaunchFile::Disk)?,
            image: file(LaunchFile::Image)?,
            modules: launch.modules_drive.then(|| file(LaunchFile::Modules)).transpose()?,
            tap: tap.as_raw_fd(),
            control: channels.listeners.control.as_raw_fd(),
            agent: channels.listeners.agent.as_raw_fd(),
            shells: shells.try_into().map_err(|_| self.missing())?,
        };
        let arguments = qemu::arguments(&self.site.id, MacAddr::of(self.slot), launch, numbers, tsc::kilohertz());
        let mut keep = channels.all();
        keep.push(tap);
        // All but the console's files, which are another process's to write.
        let is_its = |what: LaunchFile| !matches!(what, LaunchFile::Console | LaunchFile::ConsoleMarks);
        keep.extend(self.files.iter().filter(|(what, _)| is_its(*what)).map(|(_, file)| file));
        let view = if launch.accel == Accel::Kvm { View::SystemKvm } else { View::System };
        Ok(self.order(view, &keep, Program::Path(program), arguments))
    }

    /// The monitor of the tests holds its network, too, though it does nothing with it; in a jail it is
    /// held by being in it.
    pub(super) fn fake_order(&self, launch: &FakeLaunch, network: &OwnedFd, channels: &Channels<'_>) -> Result<Order> {
        let mut keep = channels.all();
        let Listeners { control, agent, .. } = channels.listeners;
        let mut arguments = Vec::new();
        for (flag, fd) in [("--qmp-fd", control), ("--agent-fd", agent), ("--console-fd", channels.serial)] {
            arguments.extend([flag.to_owned(), fd.as_raw_fd().to_string()]);
        }
        if let Some(failure) = launch.fail {
            arguments.extend(["--fail".to_owned(), failure_name(failure).to_owned()]);
        }
        let jail = launch.jail.as_ref().map(|_| self.jail_order(network)).transpose()?;
        if jail.is_none() {
            keep.push(network);
        }
        let order = self.order(View::Bare, &keep, Program::Own("banger-fake-vmm"), arguments);
        Ok(Order { jail, ..order })
    }

    pub(super) fn firecracker_order(&self, network: &OwnedFd) -> Result<Order> {
        let programs = Programs::find()?;
        let arguments = programs.arguments(&self.site.id, self.uid);
        let order = self.order(View::Bare, &[], Program::Jailer(programs.jailer), arguments);
        Ok(Order { jail: Some(self.jail_order(network)?), ..order })
    }

    fn jail_order(&self, network: &OwnedFd) -> Result<JailOrder> {
        let jail = self.made.jail.as_ref().ok_or_else(|| self.missing())?;
        Ok(JailOrder {
            id: self.site.id.clone(),
            mount: jail.mount.as_raw_fd(),
            network: network.as_raw_fd(),
            kernel: self.file(LaunchFile::Kernel)?.as_raw_fd(),
            initramfs: self.file(LaunchFile::Initramfs)?.as_raw_fd(),
        })
    }

    pub(super) fn order(&self, view: View, keep: &[&OwnedFd], program: Program, arguments: Vec<String>) -> Order {
        let joins = self.made.joins.iter().map(AsRawFd::as_raw_fd).collect();
        let keep = keep.iter().map(|file| file.as_raw_fd()).collect();
        Order { uid: self.uid, view, jail: None, joins, keep, waits: None, program, arguments }
    }
}

fn failure_name(failure: FakeFailure) -> &'static str {
    match failure {
        FakeFailure::AtSpawn => "at-spawn",
        FakeFailure::SilentGuest => "silent-guest",
        FakeFailure::AfterHello => "after-hello",
        FakeFailure::IgnoresShutdown => "ignores-shutdown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fake_failure_is_read_by_the_name_it_is_passed_as() {
        use FakeFailure::{AfterHello, AtSpawn, IgnoresShutdown, SilentGuest};
        for failure in [AtSpawn, SilentGuest, AfterHello, IgnoresShutdown] {
            assert_eq!(failure_name(failure).parse(), Ok(failure));
        }
    }
}
