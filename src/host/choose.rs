//! Which monitor runs new VMs and why, and what they get by default. Pure: facts and settings in,
//! decision out.

use super::config::Config;
use super::facts::{Facts, QEMU};
use crate::model::choice::{Accel, VmmChoice, VmmKind};
use crate::model::{Mib, VmSpec};

/// Image where none is named.
pub const DEFAULT_IMAGE: &str = "debian-bookworm";

/// Kernel where none is named.
pub const DEFAULT_KERNEL: &str = "debian-bookworm";

/// Root disk where none is named.
const DEFAULT_DISK: Mib = Mib(8192);

/// No monitor can be chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NoVmm {
    /// What is missing.
    pub message: String,
    /// What to type.
    pub hint: String,
}

/// The monitor for new VMs.
pub fn choose_vmm(config: &Config, facts: &Facts) -> Result<VmmChoice, NoVmm> {
    match config.vmm.asked() {
        Some(VmmKind::Fake) => Ok(VmmChoice { kind: VmmKind::Fake, accel: Accel::Tcg, reason: "vmm = fake".into() }),
        Some(VmmKind::Qemu) | None => choose_qemu(config, facts),
        Some(VmmKind::Firecracker) => Err(NoVmm {
            message: "vmm = firecracker: this build drives QEMU only".into(),
            hint: "set vmm = \"auto\" in the configuration".into(),
        }),
    }
}

fn choose_qemu(config: &Config, facts: &Facts) -> Result<VmmChoice, NoVmm> {
    if facts.qemu.is_none() {
        return Err(NoVmm {
            message: format!("{QEMU} is not installed"),
            hint: "apt-get install qemu-system-x86".into(),
        });
    }
    let (accel, reason) = match (config.accel.asked(), facts.kvm_opens, facts.cpu_virtualises) {
        (Some(Accel::Tcg), _, _) => (Accel::Tcg, "accel = tcg".to_owned()),
        (Some(Accel::Kvm), false, _) => {
            return Err(NoVmm {
                message: "accel = kvm: /dev/kvm cannot be opened".into(),
                hint: "set accel = \"auto\" in the configuration".into(),
            });
        }
        (Some(Accel::Kvm), true, _) => (Accel::Kvm, "accel = kvm".to_owned()),
        (None, true, true) => (Accel::Kvm, "the CPU virtualises and /dev/kvm opens".to_owned()),
        (None, true, false) => {
            (Accel::Tcg, "/dev/kvm opens, but the CPU shows neither vmx nor svm: software emulation".to_owned())
        }
        (None, false, _) => (Accel::Tcg, "no usable /dev/kvm: software emulation".to_owned()),
    };
    Ok(VmmChoice { kind: VmmKind::Qemu, accel, reason })
}

/// Virtual CPUs, memory and disk where nothing is asked: a quarter of the host's CPUs up to 4, an
/// eighth of its memory up to 8 GiB and not below 1 GiB.
pub fn default_sizes(config: &Config, facts: &Facts) -> (u8, Mib, Mib) {
    let asked = &config.vm_defaults;
    let vcpus = (facts.cpus / 4).clamp(1, 4) as u8;
    let memory = Mib((facts.memory.0 / 8 / 256 * 256).clamp(1024, 8192));
    (
        asked.vcpu.unwrap_or(vcpus).clamp(1, VmSpec::MAX_VCPUS),
        asked.memory.unwrap_or(memory),
        asked.disk_size.unwrap_or(DEFAULT_DISK),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            cpus: 2,
            memory: Mib(24_103),
            kvm_opens: true,
            cpu_virtualises: false,
            qemu: Some("/usr/bin/qemu-system-x86_64".into()),
            firecracker: None,
            jailer: None,
        }
    }

    #[test]
    fn an_open_kvm_on_a_cpu_that_does_not_virtualise_is_not_used() {
        let choice = choose_vmm(&Config::default(), &facts()).expect("a choice");
        assert_eq!(choice.to_string(), "qemu/tcg");
        let choice = choose_vmm(&Config::default(), &Facts { cpu_virtualises: true, ..facts() }).expect("a choice");
        assert_eq!(choice.to_string(), "qemu/kvm");
    }

    #[test]
    fn without_qemu_the_hint_says_what_to_install() {
        let error = choose_vmm(&Config::default(), &Facts { qemu: None, ..facts() }).expect_err("none");
        assert!(error.hint.contains("qemu-system-x86"));
    }

    #[test]
    fn defaults_follow_the_host_within_bounds() {
        assert_eq!(default_sizes(&Config::default(), &facts()), (1, Mib(2816), Mib(8192)));
        let small = Facts { cpus: 1, memory: Mib(512), ..facts() };
        assert_eq!(default_sizes(&Config::default(), &small), (1, Mib(1024), Mib(8192)));
        let large = Facts { cpus: 128, memory: Mib(1 << 20), ..facts() };
        assert_eq!(default_sizes(&Config::default(), &large), (4, Mib(8192), Mib(8192)));
    }
}
