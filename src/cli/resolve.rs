//! High arguments: what was typed, completed by what the machine says.

use super::args::{Allow, EgressFlags, ImageWish, VmFlags};
use super::report::Failure;
use super::{environment, names, secrets};
use crate::host::choose::{self, DEFAULT_IMAGE, DEFAULT_KERNEL};
use crate::host::config::Config;
use crate::host::facts::Facts;
use crate::host::paths::Paths;
use crate::model::choice::VmmChoice;
use crate::model::egress::Grant;
use crate::model::{Egress, IdleStop, ImageName, KernelName, Limits, Mib, Reach, Secret, VmName, VmSpec};
use crate::os::random;
use crate::protocol::owner::VmDefaults;
use crate::protocol::{Fault, FaultKind};

/// Refuses, before anybody is asked, what can never be: with the least of everything that was not
/// given, only what was given can be wrong.
pub fn check_alone(flags: &VmFlags, paths: &Paths) -> Result<VmSpec, Failure> {
    let least = VmDefaults {
        vcpus: 1,
        memory: VmSpec::MIN_MEMORY,
        disk: VmSpec::MIN_DISK,
        image: fixed::<ImageName>(DEFAULT_IMAGE)?,
        kernel: fixed::<KernelName>(DEFAULT_KERNEL)?,
    };
    spec(flags, &least, &config(paths)?)
}

/// The caller's configuration.
pub fn config(paths: &Paths) -> Result<Config, Failure> {
    Config::load(&paths.config).map_err(|e| Fault::of(FaultKind::BadRequest, &e).into())
}

/// Where the guest of `flags` may go: what is said, else what is configured.
fn egress(flags: &EgressFlags, config: &Config) -> Result<Egress, Failure> {
    let configured = if config.vm_defaults.nat { Reach::Nat } else { Reach::Granted };
    let mut egress = Egress { reach: flags.reach.unwrap_or(configured), ..Egress::default() };
    egress.grant(config.egress.allow.iter().cloned());
    egress.grant(grants(&flags.allow, config)?);
    Ok(egress)
}

/// What `--allow` means, its sets looked up.
pub fn grants(asked: &[Allow], config: &Config) -> Result<Vec<Grant>, Failure> {
    let mut grants = Vec::new();
    for allow in asked {
        match allow {
            Allow::Grant(grant) => grants.push(grant.clone()),
            Allow::Set(name) => match config.egress.sets.get(name) {
                Some(set) => grants.extend(set.iter().cloned()),
                None => return Err(no_set(name, config)),
            },
        }
    }
    Ok(grants)
}

fn no_set(name: &str, config: &Config) -> Failure {
    let known: Vec<String> = config.egress.sets.keys().map(|known| format!("@{known}")).collect();
    let failure = Failure::new(FaultKind::BadRequest, format!("no set '@{name}' is configured"));
    match known.as_slice() {
        [] => failure.hint("define it below [egress.sets] in config.toml"),
        known => failure.hint(format!("configured are {}", known.join(" "))),
    }
}

/// The VM of `flags`, completed by `defaults` and, for where it may go, by the caller's configuration.
pub fn spec(flags: &VmFlags, defaults: &VmDefaults, config: &Config) -> Result<VmSpec, Failure> {
    let spec = VmSpec {
        name: flags.name.clone().map_or_else(generated_name, Ok)?,
        image: match &flags.image {
            Some(ImageWish::Name(name) | ImageWish::Pinned(name, _)) => name.clone(),
            // Its local name is known once it is here.
            Some(ImageWish::Reference(_)) | None => defaults.image.clone(),
        },
        kernel: flags.kernel.clone().unwrap_or_else(|| defaults.kernel.clone()),
        vcpus: flags.vcpu.unwrap_or(defaults.vcpus),
        memory: flags.memory.unwrap_or(defaults.memory),
        disk: flags.disk_size.unwrap_or(defaults.disk),
        init: flags.init,
        egress: egress(&flags.egress, config)?,
        ports: flags.ports.clone(),
        secrets: secrets::named(&flags.secrets),
        environment: environment::variables(&flags.environment)?,
        idle_stop: flags.idle_stop.map_or(config.vm_defaults.idle_stop, IdleStop::span),
    };
    spec.check().map_err(|e| Fault::of(FaultKind::BadRequest, &e))?;
    Ok(spec)
}

fn generated_name() -> Result<VmName, Failure> {
    names::generate(random::number()).ok_or_else(|| {
        Failure::new(FaultKind::OperationFailed, "no name could be made up").hint("banger vm run --name box")
    })
}

fn fixed<T: std::str::FromStr<Err: std::error::Error>>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(|e: T::Err| Fault::of(FaultKind::OperationFailed, &e).into())
}

/// `spec: 2 vcpu | 2048 MiB | 8G disk | qemu/tcg`.
pub fn spec_line(spec: &VmSpec, vmm: &VmmChoice) -> String {
    let disk = match spec.disk.0 {
        mib if mib % 1024 == 0 => format!("{}G", mib / 1024),
        mib => format!("{mib}M"),
    };
    let network = match in_words(&spec.egress).as_str() {
        "none" => String::new(),
        words => format!(" | network: {words}"),
    };
    let secrets = match secrets_in_words(spec) {
        none if none.is_empty() => none,
        words => format!(" | secrets: {words}"),
    };
    format!("spec: {} vcpu | {} MiB | {disk} disk | {vmm}{network}{secrets}", spec.vcpus, spec.memory.0)
}

/// What stands in a guest by placeholders, and for whom.
pub fn secrets_in_words(spec: &VmSpec) -> String {
    let words = |secret: &Secret| {
        let hosts: Vec<String> = secret.hosts.iter().map(ToString::to_string).collect();
        format!("{} for {}", secret.name, hosts.join(" "))
    };
    spec.secrets.iter().map(words).collect::<Vec<_>>().join(", ")
}

/// Where a guest may go, in a few words.
pub fn in_words(egress: &Egress) -> String {
    let granted: Vec<String> = egress.grants.iter().map(Grant::to_string).collect();
    let granted = granted.join(" ");
    match (egress.reach, granted.is_empty()) {
        (Reach::Granted, true) => "none".to_owned(),
        (Reach::Granted, false) => granted,
        (Reach::Nat, true) => "everything".to_owned(),
        (Reach::Nat, false) => format!("everything, {granted}"),
        (Reach::Observe, true) => "everything, observed".to_owned(),
        (Reach::Observe, false) => format!("everything, observed, {granted}"),
    }
}

/// The end of the help of `vm run`: what a VM gets here where nothing is asked. Asks no daemon, and
/// has an answer on a broken machine too.
pub fn defaults_of_this_host() -> String {
    let config = match Config::load(&Paths::current().config) {
        Ok(config) => config,
        Err(e) => return format!("\nDefaults on this host:\n  unknown: {e}\n"),
    };
    let facts = Facts::see();
    let (vcpus, memory, disk) = choose::default_sizes(&config, &facts);
    let image = config.default_image.as_ref().map_or(DEFAULT_IMAGE, ImageName::as_str);
    let kernel = config.default_kernel.as_ref().map_or(DEFAULT_KERNEL, KernelName::as_str);
    let vmm = match choose::choose_vmm(&config, &facts) {
        Ok(choice) => format!("{choice}\n    {}", choice.reason),
        Err(none) => format!("none: {}\n    {}", none.message, none.hint),
    };
    format!(
        "\nDefaults on this host:\n  --vcpu {vcpus} --memory {}M --disk-size {}M\n  --image {image} --kernel {kernel}\n  monitor: {vmm}\n{}",
        memory.0,
        disk.0,
        limits_text(&config.limits.on_host(facts.memory))
    )
}

/// What all VMs may use together.
fn limits_text(limits: &Limits) -> String {
    let size = |limit: Option<Mib>| limit.map_or_else(|| "any".to_owned(), |l| l.to_string());
    let vms = limits.vms.map_or_else(|| "any number of".to_owned(), |n| n.to_string());
    format!(
        "\nLimits:\n  {vms} VMs; {} memory of those that run; {} disk in all\n  one VM: {} memory, what this host has\n  [limits] vms, memory, disk in config.toml; read when the daemon starts\n",
        size(limits.memory),
        size(limits.disk),
        limits.host_memory
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::choice::{Accel, VmmKind};

    fn flags() -> VmFlags {
        VmFlags::default()
    }

    #[test]
    fn what_can_never_be_is_refused_before_anybody_is_asked() {
        let bad = [
            VmFlags { vcpu: Some(0), ..flags() },
            VmFlags { memory: Some(Mib(1)), ..flags() },
            VmFlags { memory: Some(Mib(1024)), disk_size: Some(Mib(1)), ..flags() },
            VmFlags { disk_size: Some(Mib(u32::MAX)), ..flags() },
        ];
        for flags in bad {
            let failure = check_alone(&flags, &Paths::current()).expect_err("refused");
            assert_eq!(failure.exit_code(false), 2, "{flags:?}");
        }
        assert!(check_alone(&flags(), &Paths::current()).is_ok());
    }

    #[test]
    fn the_help_about_this_host_fits_a_terminal() {
        let text = defaults_of_this_host();
        assert!(text.contains("--vcpu") && text.lines().all(|l| l.chars().count() <= 80), "{text}");
    }

    #[test]
    fn the_line_is_as_documented() {
        let spec = VmSpec {
            name: "box".parse().expect("a name"),
            image: "i".parse().expect("a name"),
            kernel: "k".parse().expect("a name"),
            vcpus: 2,
            memory: Mib(2048),
            disk: Mib(8192),
            init: None,
            egress: Egress::default(),
            ports: Vec::new(),
            secrets: Vec::new(),
            environment: Vec::new(),
            idle_stop: None,
        };
        let vmm = VmmChoice { kind: VmmKind::Qemu, accel: Accel::Tcg, reason: String::new() };
        assert_eq!(spec_line(&spec, &vmm), "spec: 2 vcpu | 2048 MiB | 8G disk | qemu/tcg");
    }
}
