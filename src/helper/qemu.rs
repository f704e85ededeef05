//! QEMU's command line: typed launch and descriptor numbers in, arguments out. Pure.
//!
//! Every file is a descriptor: the kernel and the initramfs as `/proc/self/fd/N` (QEMU opens them
//! once, by path), everything else in a set that QEMU opens as `/dev/fdset/K` (qemu(1), `-add-fd`).
//! Nothing in here is text of the caller's but the kernel arguments, and those are one argument.

use std::os::fd::RawFd;

use crate::model::choice::Accel;
use crate::model::launch::QemuLaunch;
use crate::model::{MacAddr, VmId};
use crate::protocol::guest::PORT_NAME;
use crate::protocol::shell::{CHANNELS, channel_name};

/// The numbers under which the monitor finds what it was given.
#[derive(Debug, Clone, Copy)]
pub struct Numbers {
    /// Kernel.
    pub kernel: RawFd,
    /// Initramfs.
    pub initramfs: RawFd,
    /// Where serial output goes: the writing end of a pipe.
    pub serial: RawFd,
    /// qcow2 overlay, read and write.
    pub overlay: RawFd,
    /// Image below it, read only.
    pub image: RawFd,
    /// Modules drive, read only.
    pub modules: Option<RawFd>,
    /// The tap.
    pub tap: RawFd,
    /// Listening socket for QMP.
    pub control: RawFd,
    /// Listening socket for the guest's agent.
    pub agent: RawFd,
    /// Listening sockets for the channels of commands.
    pub shells: [RawFd; CHANNELS as usize],
}

/// What the guest's kernel is told of its clock, where it cannot find out by itself.
fn clock_arguments(accel: Accel, tsc_khz: Option<u32>) -> String {
    match (accel, tsc_khz) {
        (Accel::Tcg, Some(khz)) => format!(" tsc_early_khz={khz} tsc=reliable"),
        (Accel::Tcg, None) | (Accel::Kvm, _) => String::new(),
    }
}

/// What the kernel is told always: output on the serial port; a reboot or a panic ends the monitor
/// (a triple fault under `-no-reboot`); no probing for a keyboard controller that is not there; the
/// CPU's own random numbers are trusted, as nothing else is there yet; boot-time self-tests and slow
/// grace periods are skipped.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 reboot=t panic=-1 quiet 8250.nr_uarts=1 i8042.noaux i8042.nomux \
    i8042.dumbkbd random.trust_cpu=on cryptomgr.notests rcupdate.rcu_expedited=1";

/// The arguments behind the program's name.
pub fn arguments(id: &VmId, mac: MacAddr, launch: &QemuLaunch, fds: Numbers, tsc_khz: Option<u32>) -> Vec<String> {
    let mut words = Words(Vec::new());
    machine(&mut words, id, launch, tsc_khz.is_some());
    boot(&mut words, launch, fds, tsc_khz);
    console(&mut words, fds);
    disks(&mut words, fds);
    words.pair("-netdev", format!("tap,id=net,fd={}", fds.tap));
    words.pair("-device", format!("virtio-net-device,netdev=net,mac={mac}"));
    words.pair("-object", "rng-builtin,id=rng");
    words.pair("-device", "virtio-rng-device,rng=rng");
    channels(&mut words, fds);
    words.0
}

struct Words(Vec<String>);

impl Words {
    fn flag(&mut self, flag: &str) {
        self.0.push(flag.to_owned());
    }

    fn pair(&mut self, flag: &str, value: impl Into<String>) {
        self.flag(flag);
        self.0.push(value.into());
    }

    /// Makes descriptor `fd` the set `number`.
    fn set(&mut self, number: u8, fd: RawFd) {
        self.pair("-add-fd", format!("fd={fd},set={number}"));
    }
}

/// Old timer and interrupt controller are there only where the kernel needs them to find out how
/// fast time passes (probing them costs most of a second in software); one of the two newer
/// controllers is enough for eight devices.
fn machine(words: &mut Words, id: &VmId, launch: &QemuLaunch, clock_known: bool) {
    words.pair("-name", id.as_str());
    let old = if launch.accel == Accel::Kvm || clock_known { "off" } else { "on" };
    words.pair("-M", format!("microvm,acpi=on,rtc=on,isa-serial=on,ioapic2=off,pit={old},pic={old}"));
    // No memory of a monitor is both written and executed: its unit forbids it.
    let (accel, cpu) = match launch.accel {
        Accel::Kvm => ("kvm", "host"),
        Accel::Tcg => ("tcg,thread=multi,tb-size=256,split-wx=on", "max"),
    };
    words.pair("-accel", accel);
    words.pair("-cpu", cpu);
    words.pair("-smp", launch.vcpus.to_string());
    words.pair("-m", format!("{}M", launch.memory.0));
    for flag in ["-nodefaults", "-no-user-config", "-no-reboot"] {
        words.flag(flag);
    }
    words.pair("-display", "none");
    words.pair("-global", "virtio-mmio.force-legacy=false");
    words.pair("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
}

fn boot(words: &mut Words, launch: &QemuLaunch, fds: Numbers, tsc_khz: Option<u32>) {
    words.pair("-kernel", format!("/proc/self/fd/{}", fds.kernel));
    words.pair("-initrd", format!("/proc/self/fd/{}", fds.initramfs));
    let extra = launch.boot_args.as_str();
    let clock = clock_arguments(launch.accel, tsc_khz);
    let space = if extra.is_empty() { "" } else { " " };
    words.pair("-append", format!("{KERNEL_ARGUMENTS}{clock}{space}{extra}"));
}

/// Serial output only ever leaves: what is in the pipe is kept by `banger-console`.
fn console(words: &mut Words, fds: Numbers) {
    words.set(4, fds.serial);
    // Appending, or QEMU truncates what it opens, and a pipe cannot be truncated.
    words.pair("-chardev", "file,id=serial,path=/dev/fdset/4,append=on");
    words.pair("-serial", "chardev:serial");
}

/// The overlay names no file that it lies over: the image is given as a node, so that nothing in a
/// disk decides what is opened. Serial numbers tell the guest which disk is which.
fn disks(words: &mut Words, fds: Numbers) {
    words.set(1, fds.overlay);
    words.set(2, fds.image);
    words.pair("-blockdev", "driver=file,node-name=image-file,filename=/dev/fdset/2,read-only=on");
    words.pair("-blockdev", "driver=raw,node-name=image,file=image-file,read-only=on");
    words.pair("-blockdev", "driver=file,node-name=overlay-file,filename=/dev/fdset/1,discard=unmap");
    words.pair("-blockdev", "driver=qcow2,node-name=root,file=overlay-file,backing=image,discard=unmap");
    words.pair("-device", "virtio-blk-device,drive=root,serial=root");
    if let Some(modules) = fds.modules {
        words.set(3, modules);
        words.pair("-blockdev", "driver=file,node-name=modules-file,filename=/dev/fdset/3,read-only=on");
        words.pair("-blockdev", "driver=raw,node-name=modules,file=modules-file,read-only=on");
        words.pair("-device", "virtio-blk-device,drive=modules,serial=modules");
    }
}

/// All sockets listen, so that a restarted daemon, and each command, gets a fresh connection.
fn channels(words: &mut Words, fds: Numbers) {
    words.pair("-device", "virtio-serial-device");
    words.pair("-chardev", format!("socket,id=agent,fd={},server=on,wait=off", fds.agent));
    words.pair("-device", format!("virtserialport,chardev=agent,name={PORT_NAME}"));
    for (number, fd) in (0..).zip(fds.shells) {
        words.pair("-chardev", format!("socket,id=shell{number},fd={fd},server=on,wait=off"));
        words.pair("-device", format!("virtserialport,chardev=shell{number},name={}", channel_name(number)));
    }
    words.pair("-chardev", format!("socket,id=qmp,fd={},server=on,wait=off", fds.control));
    words.pair("-mon", "chardev=qmp,mode=control");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::launch::KernelArgs;
    use crate::model::{Mib, Slot};

    const FDS: Numbers = Numbers {
        kernel: 10,
        initramfs: 11,
        serial: 12,
        overlay: 13,
        image: 14,
        modules: Some(15),
        tap: 16,
        control: 17,
        agent: 18,
        shells: [20, 21, 22, 23, 24, 25, 26, 27],
    };

    fn line(launch: &QemuLaunch, fds: Numbers) -> Vec<String> {
        arguments(&VmId::from_random(1), MacAddr::of(Slot::new(3).expect("a slot")), launch, fds, Some(2_000_000))
    }

    fn launch(accel: Accel, boot_args: &str) -> QemuLaunch {
        let boot_args: KernelArgs = boot_args.parse().expect("arguments");
        QemuLaunch { accel, vcpus: 2, memory: Mib(512), boot_args, modules_drive: true }
    }

    fn values<'a>(line: &'a [String], flag: &str) -> Vec<&'a str> {
        line.windows(2).filter(|w| w[0] == flag).map(|w| w[1].as_str()).collect()
    }

    #[test]
    fn software_and_hardware_differ_in_accelerator_cpu_and_clock_alone() {
        let (tcg, kvm) = (line(&launch(Accel::Tcg, ""), FDS), line(&launch(Accel::Kvm, ""), FDS));
        let differing: Vec<_> = tcg.iter().zip(&kvm).filter(|(a, b)| a != b).map(|(_, b)| b.as_str()).collect();
        assert_eq!(differing, ["kvm", "host", KERNEL_ARGUMENTS]);
        assert_eq!(values(&tcg, "-accel"), ["tcg,thread=multi,tb-size=256,split-wx=on"]);
    }

    #[test]
    fn a_guest_in_software_is_told_how_fast_its_counter_is() {
        let told = line(&launch(Accel::Tcg, "x"), FDS);
        assert!(values(&told, "-append")[0].ends_with(" tsc_early_khz=2000000 tsc=reliable x"));
        assert!(values(&told, "-M")[0].ends_with("pit=off,pic=off"));
        let (id, mac) = (VmId::from_random(1), MacAddr::of(Slot::new(3).expect("a slot")));
        let untold = arguments(&id, mac, &launch(Accel::Tcg, ""), FDS, None);
        assert_eq!(values(&untold, "-append"), [KERNEL_ARGUMENTS]);
        assert!(values(&untold, "-M")[0].ends_with("pit=on,pic=on"));
    }

    #[test]
    fn all_four_denies_are_on() {
        let line = line(&launch(Accel::Tcg, ""), FDS);
        let sandbox = values(&line, "-sandbox")[0];
        for deny in ["obsolete", "elevateprivileges", "spawn", "resourcecontrol"] {
            assert!(sandbox.contains(&format!("{deny}=deny")), "{sandbox}");
        }
    }

    #[test]
    fn files_are_descriptors() {
        let line = line(&launch(Accel::Tcg, ""), FDS);
        assert_eq!(values(&line, "-kernel"), ["/proc/self/fd/10"]);
        assert_eq!(values(&line, "-initrd"), ["/proc/self/fd/11"]);
        assert_eq!(values(&line, "-add-fd"), ["fd=12,set=4", "fd=13,set=1", "fd=14,set=2", "fd=15,set=3"]);
        assert_eq!(values(&line, "-netdev"), ["tap,id=net,fd=16"]);
        let paths = line.iter().filter(|w| w.contains('/') && !w.contains("/dev/fdset/"));
        assert_eq!(paths.count(), 2, "{line:?}");
    }

    #[test]
    fn the_modules_drive_is_there_only_when_asked_for() {
        let line = line(&launch(Accel::Tcg, ""), Numbers { modules: None, ..FDS });
        assert!(!line.iter().any(|w| w.contains("modules")), "{line:?}");
    }

    #[test]
    fn kernel_arguments_stay_one_argument_whatever_they_hold() {
        let hostile = "a=b,c -kernel /etc/shadow \"x' ,file=/etc";
        let line = line(&launch(Accel::Tcg, hostile), FDS);
        let append = values(&line, "-append");
        assert_eq!(append.len(), 1);
        assert!(append[0].ends_with(&format!(" {hostile}")));
        assert_eq!(values(&line, "-kernel").len(), 1);
    }
}
