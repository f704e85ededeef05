//! Which monitor runs new VMs and why, and what they get by default. Pure: facts and settings in,
//! decision out.

use super::config::Config;
use super::facts::{FIRECRACKER, Facts, Installed, JAILER, QEMU};
use super::firecracker::{LOWEST, TOO_HIGH, Version};
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
        Some(VmmKind::Fake) => {
            let accel = config.accel.asked().unwrap_or(Accel::Tcg);
            Ok(VmmChoice { kind: VmmKind::Fake, accel, reason: "vmm = fake".into() })
        }
        Some(VmmKind::Qemu) => choose_qemu(config, facts),
        Some(VmmKind::Firecracker) => match check_firecracker(facts) {
            Ok(()) => Ok(firecracker("vmm = firecracker")),
            Err(message) => Err(NoVmm {
                message: format!("vmm = firecracker: {message}"),
                hint: "set vmm = \"auto\" in the configuration".into(),
            }),
        },
        None if config.accel.asked() == Some(Accel::Tcg) => choose_qemu(config, facts),
        None => match check_firecracker(facts) {
            // An open /dev/kvm proves nothing: some hosts have one on which no kernel ever boots.
            Ok(()) if facts.cpu_virtualises => Ok(firecracker("the CPU virtualises and Firecracker is installed")),
            Ok(()) | Err(_) => choose_qemu(config, facts),
        },
    }
}

fn firecracker(reason: &str) -> VmmChoice {
    VmmChoice { kind: VmmKind::Firecracker, accel: Accel::Kvm, reason: reason.into() }
}

/// Whether Firecracker can be run; else why not.
pub fn check_firecracker(facts: &Facts) -> Result<(), String> {
    let [firecracker, jailer] = [(&facts.firecracker, FIRECRACKER), (&facts.jailer, JAILER)].map(check_installed);
    let (firecracker, jailer) = (firecracker?, jailer?);
    if firecracker != jailer {
        return Err(format!("firecracker is {firecracker} and its jailer {jailer}: install both of one release"));
    }
    if facts.has_kvm { Ok(()) } else { Err("there is no /dev/kvm".into()) }
}

fn check_installed((program, name): (&Option<Installed>, &str)) -> Result<Version, String> {
    let folders = "/usr/local/bin, /usr/bin or their sbin";
    let installed = program.as_ref().ok_or_else(|| format!("{name} is not in {folders}"))?;
    let path = installed.path.display();
    let version = installed.version.ok_or_else(|| format!("{path} does not say its version"))?;
    match version.is_supported() {
        true => Ok(version),
        false => Err(format!("{path} is {version}: from {LOWEST} on and below {TOO_HIGH} is supported")),
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
    use crate::host::config::{AccelSetting, VmmSetting};

    fn facts() -> Facts {
        Facts {
            cpus: 2,
            memory: Mib(24_103),
            kvm_opens: true,
            cpu_virtualises: false,
            qemu: Some("/usr/bin/qemu-system-x86_64".into()),
            has_kvm: true,
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

    fn with_firecracker(firecracker: &str, jailer: &str) -> Facts {
        let installed = |name: &str, version: &str| {
            let mut parts = version.split('.').map(|n| n.parse().expect("a number"));
            let mut next = || parts.next().expect("three numbers");
            let version = Some(Version { major: next(), minor: next(), patch: next() });
            Some(Installed { path: format!("/usr/bin/{name}").into(), version })
        };
        let (firecracker, jailer) = (installed("firecracker", firecracker), installed("jailer", jailer));
        Facts { firecracker, jailer, ..facts() }
    }

    #[test]
    fn firecracker_is_taken_by_itself_only_where_the_cpu_virtualises() {
        let usable = with_firecracker("1.17.0", "1.17.0");
        assert_eq!(choose_vmm(&Config::default(), &usable).expect("a choice").kind, VmmKind::Qemu);
        let virtualising = Facts { cpu_virtualises: true, ..usable.clone() };
        assert_eq!(choose_vmm(&Config::default(), &virtualising).expect("a choice").to_string(), "firecracker/kvm");
        let asked = Config { vmm: VmmSetting::Firecracker, ..Config::default() };
        assert_eq!(choose_vmm(&asked, &usable).expect("a choice").kind, VmmKind::Firecracker);
        let software = Config { accel: AccelSetting::Tcg, ..Config::default() };
        assert_eq!(choose_vmm(&software, &virtualising).expect("a choice").to_string(), "qemu/tcg");
    }

    #[test]
    fn a_firecracker_that_cannot_be_driven_is_named_with_the_reason() {
        let asked = Config { vmm: VmmSetting::Firecracker, ..Config::default() };
        let refused = |facts: &Facts| choose_vmm(&asked, facts).expect_err("refused").message;
        assert!(refused(&facts()).contains("firecracker is not in"));
        assert!(refused(&with_firecracker("1.6.9", "1.6.9")).contains("from 1.7.0 on"));
        assert!(refused(&with_firecracker("2.0.0", "2.0.0")).contains("below 2.0.0"));
        assert!(refused(&with_firecracker("1.8.0", "1.9.0")).contains("both of one release"));
        assert!(refused(&Facts { has_kvm: false, ..with_firecracker("1.9.0", "1.9.0") }).contains("/dev/kvm"));
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
