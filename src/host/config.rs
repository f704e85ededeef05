//! `config.toml`: what the user configured, checked as a whole before anything uses it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::aliases::{Alias, AliasName};
use crate::model::choice::{Accel, VmmKind};
use crate::model::egress::Grant;
use crate::model::{IdleStop, ImageName, KernelName, Limits, Mib, Subnet, TimeSpan};

/// Most bytes of a configuration file.
const MAX_BYTES: u64 = 1 << 20;

/// A configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is there and cannot be read.
    #[error("{0}")]
    Unreadable(#[from] std::io::Error),
    /// Not TOML, an unknown key, or a value of the wrong kind.
    #[error("{path}:{line}: {message}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// A `BANGER_…` variable has a bad value.
    #[error("{variable}={value:?}: {message}")]
    Variable {
        /// Its name.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        message: String,
    },
}

impl ConfigError {
    /// What is wrong with `text`, which `path` holds.
    pub fn of_toml(path: &Path, text: &str, error: &toml::de::Error) -> Self {
        Self::at(path, text, error.span().map_or(0, |s| s.start), with_nearest(error.message()))
    }

    /// What is wrong with `text`, which `path` holds, at its byte `offset`.
    pub fn at(path: &Path, text: &str, offset: usize, message: impl Into<String>) -> Self {
        let before = &text.as_bytes()[..offset.min(text.len())];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        Self::Invalid { path: path.to_owned(), line, message: message.into() }
    }
}

/// Everything that can be configured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which monitor; absent: chosen by what the machine can do.
    pub vmm: VmmSetting,
    /// What it runs on; absent: chosen by what the machine can do.
    pub accel: AccelSetting,
    /// What carries commands into guests.
    pub exec: ExecSetting,
    /// Image where none is named.
    pub default_image: Option<ImageName>,
    /// Kernel where none is named.
    pub default_kernel: Option<KernelName>,
    /// What a VM gets where nothing is asked.
    pub vm_defaults: VmDefaultsSetting,
    /// The bridge's network.
    pub network: NetworkSetting,
    /// Where guests may go.
    pub egress: EgressSetting,
    /// What all VMs may use together.
    pub limits: LimitsSetting,
    /// Devices of Firecracker's machines.
    pub firecracker: FirecrackerSetting,
    /// Files of the owner's home that every new guest gets.
    pub file_sync: Vec<FileSync>,
    /// Where images come from.
    pub registries: RegistriesSetting,
    /// Where banger's own releases come from.
    pub update: UpdateSetting,
    /// Names of the user's own for commands.
    pub aliases: BTreeMap<AliasName, Alias>,
}

/// `[update]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpdateSetting {
    /// The https address of a signed `manifest.json`; absent: the one that the build knows.
    pub manifest_url: Option<String>,
}

/// `[registries]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistriesSetting {
    /// Registries, `HOST` or `HOST:PORT`, that may be spoken to without TLS. This machine always may.
    pub insecure: Vec<String>,
}

/// One `[[file_sync]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSync {
    /// In the home folder, or below it.
    pub from: String,
    /// In the guest: absolute, or below root's home.
    pub to: String,
    /// Octal, as text; absent: the file's own.
    #[serde(default, deserialize_with = "mode")]
    pub mode: Option<u32>,
}

/// `vmm = "auto" | "firecracker" | "qemu" | "fake"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VmmSetting {
    /// Chosen by what the machine can do.
    #[default]
    Auto,
    /// Firecracker.
    Firecracker,
    /// QEMU.
    Qemu,
    /// The monitor of the tests.
    Fake,
}

impl VmmSetting {
    /// The monitor asked for, unless it shall be chosen.
    pub fn asked(self) -> Option<VmmKind> {
        match self {
            Self::Auto => None,
            Self::Firecracker => Some(VmmKind::Firecracker),
            Self::Qemu => Some(VmmKind::Qemu),
            Self::Fake => Some(VmmKind::Fake),
        }
    }
}

/// `[firecracker] entropy = true, balloon = false`: devices that not every kernel wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FirecrackerSetting {
    /// The host's random numbers (virtio-rng).
    pub entropy: bool,
    /// Gives memory that the guest frees back to the host (virtio-balloon).
    pub balloon: bool,
}

impl Default for FirecrackerSetting {
    fn default() -> Self {
        Self { entropy: true, balloon: false }
    }
}

/// `accel = "auto" | "kvm" | "tcg"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccelSetting {
    /// Chosen by what the machine can do.
    #[default]
    Auto,
    /// The CPU.
    Kvm,
    /// Software emulation.
    Tcg,
}

impl AccelSetting {
    /// What was asked for, unless it shall be chosen.
    pub fn asked(self) -> Option<Accel> {
        match self {
            Self::Auto => None,
            Self::Kvm => Some(Accel::Kvm),
            Self::Tcg => Some(Accel::Tcg),
        }
    }
}

/// `exec = "auto" | "agent" | "ssh"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExecSetting {
    /// The agent where it is there, else ssh.
    #[default]
    Auto,
    /// banger's agent.
    Agent,
    /// ssh.
    Ssh,
}

/// `[vm_defaults]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VmDefaultsSetting {
    /// Virtual CPUs.
    pub vcpu: Option<u8>,
    /// Memory.
    #[serde(deserialize_with = "size")]
    pub memory: Option<Mib>,
    /// Root disk.
    #[serde(deserialize_with = "size")]
    pub disk_size: Option<Mib>,
    /// Whether its guest may go everywhere.
    pub nat: bool,
    /// After how long without use it is stopped; absent or `off`: it is not.
    #[serde(deserialize_with = "idle_stop")]
    pub idle_stop: Option<TimeSpan>,
}

/// `[network]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkSetting {
    /// The bridge's network; absent: chosen so that it meets no route of the host.
    #[serde(deserialize_with = "subnet")]
    pub subnet: Option<Subnet>,
    /// The servers that answer what guests ask of the internet; absent: the host's own.
    pub dns: Vec<IpAddr>,
}

/// `[egress]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EgressSetting {
    /// What every new VM is granted.
    pub allow: Vec<Grant>,
    /// Names for several grants at once, for `--allow @NAME`.
    pub sets: BTreeMap<String, Vec<Grant>>,
}

/// `[limits]`; what is absent is not limited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsSetting {
    /// VMs that exist.
    pub vms: Option<u32>,
    /// Memory of all VMs that run.
    #[serde(deserialize_with = "size")]
    pub memory: Option<Mib>,
    /// Sizes of all VMs' disks.
    #[serde(deserialize_with = "size")]
    pub disk: Option<Mib>,
}

impl LimitsSetting {
    /// The limits on a host with this much memory.
    pub fn on_host(&self, host_memory: Mib) -> Limits {
        Limits { vms: self.vms, memory: self.memory, disk: self.disk, host_memory }
    }
}

fn size<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Mib>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Mib(u32),
        Text(String),
    }
    match Written::deserialize(deserializer)? {
        Written::Mib(mib) => Ok(Some(Mib(mib))),
        Written::Text(text) => text.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

fn mode<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.map(Some).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no mode: write \"0600\"")))
}

fn idle_stop<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<TimeSpan>, D::Error> {
    let asked: IdleStop = String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)?;
    match asked.span() {
        Some(short) if short < IdleStop::LEAST => {
            Err(serde::de::Error::custom(format!("{short}: at least {} is possible", IdleStop::LEAST)))
        }
        span => Ok(span),
    }
}

fn subnet<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Subnet>, D::Error> {
    String::deserialize(deserializer)?.parse().map(Some).map_err(serde::de::Error::custom)
}

impl Config {
    /// Reads `path`, if it is there, and the `BANGER_…` variables, which override it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let mut config = match crate::os::files::read_limited(path, MAX_BYTES) {
            Ok(bytes) => Self::parse(path, &String::from_utf8_lossy(&bytes))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Self::default(),
            Err(e) => return Err(e.into()),
        };
        config.override_by(|name| std::env::var(name).ok())?;
        Ok(config)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| ConfigError::of_toml(path, text, &error))
    }

    fn override_by(&mut self, variable: impl Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
        fn set<T: serde::de::DeserializeOwned>(
            slot: &mut T,
            name: &'static str,
            value: Option<String>,
        ) -> Result<(), ConfigError> {
            let Some(value) = value else { return Ok(()) };
            *slot = T::deserialize(toml::Value::String(value.clone())).map_err(|e: toml::de::Error| {
                ConfigError::Variable { variable: name, value, message: e.message().to_owned() }
            })?;
            Ok(())
        }
        set(&mut self.vmm, "BANGER_VMM", variable("BANGER_VMM"))?;
        set(&mut self.accel, "BANGER_ACCEL", variable("BANGER_ACCEL"))?;
        set(&mut self.exec, "BANGER_EXEC", variable("BANGER_EXEC"))?;
        set(&mut self.default_image, "BANGER_DEFAULT_IMAGE", variable("BANGER_DEFAULT_IMAGE"))?;
        set(&mut self.default_kernel, "BANGER_DEFAULT_KERNEL", variable("BANGER_DEFAULT_KERNEL"))
    }
}

/// Adds the nearest known key to toml's "unknown field" message, which lists the known ones.
fn with_nearest(message: &str) -> String {
    let first = message.lines().next().unwrap_or_default();
    let mut quoted = first.split('`').skip(1).step_by(2);
    let Some(unknown) = quoted.next().filter(|_| first.starts_with("unknown field")) else {
        return first.to_owned();
    };
    match quoted.min_by_key(|known| distance(unknown, known)) {
        Some(nearest) => format!("unknown key `{unknown}`; did you mean `{nearest}`?"),
        None => format!("unknown key `{unknown}`"),
    }
}

/// How many letters must be put in, left out, replaced, or swapped with their neighbour to make `b` of `a` (the distance of
/// optimal string alignment).
pub fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before_last = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before_last[j - 2] + 1);
            }
            row.push(least);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("config.toml"), text).map_err(|e| e.to_string())
    }

    #[test]
    fn reads_what_the_manual_shows() {
        let text =
            "vmm = \"qemu\"\n[vm_defaults]\nmemory = \"2G\"\ndisk_size = 8192\n[network]\nsubnet = \"172.30.9.0/24\"\n";
        let config = parse(text).expect("parses");
        assert_eq!(config.vmm, VmmSetting::Qemu);
        assert_eq!(config.vm_defaults.memory, Some(Mib(2048)));
        assert_eq!(config.vm_defaults.disk_size, Some(Mib(8192)));
        assert!(config.network.subnet.is_some());
    }

    #[test]
    fn an_idle_vm_is_stopped_after_a_time_or_not() {
        let of =
            |text: &str| parse(&format!("[vm_defaults]\nidle_stop = \"{text}\"\n")).map(|c| c.vm_defaults.idle_stop);
        assert_eq!((of("30m"), of("off")), (Ok("1800".parse().ok()), Ok(None)));
        assert_eq!(of("5s"), Err("config.toml:2: 5s: at least 10s is possible".into()));
        assert!(of("never").is_err());
    }

    #[test]
    fn destinations_have_names_of_their_own() {
        let text =
            "[egress]\nallow = [\"deb.debian.org:80\"]\n[egress.sets]\npython = [\"pypi.org:443\", \"10.0.0.0/8\"]\n";
        let config = parse(text).expect("parses");
        assert_eq!((config.egress.allow.len(), config.egress.sets["python"].len()), (1, 2));
        let error = parse("[egress]\nallow = [\"10.0.0.1/8\"]\n").expect_err("refused");
        assert!(error.starts_with("config.toml:2: ") && error.contains("write 10.0.0.0/8"), "{error}");
        assert_eq!(parse("[network]\ndns = [\"192.0.2.1\"]\n").expect("parses").network.dns.len(), 1);
    }

    #[test]
    fn files_of_the_home_are_listed_with_octal_modes() {
        let text = "[[file_sync]]\nfrom = \"~/.netrc\"\nto = \"~/.netrc\"\nmode = \"0600\"\n[[file_sync]]\nfrom = \"a\"\nto = \"/b\"\n";
        let config = parse(text).expect("parses");
        assert_eq!(
            (config.file_sync.len(), config.file_sync[0].mode, config.file_sync[1].mode),
            (2, Some(0o600), None)
        );
        for bad in ["mode = \"0999\"", "mode = \"4755\"", "mode = 600", "mdoe = \"0600\""] {
            assert!(parse(&format!("[[file_sync]]\nfrom = \"a\"\nto = \"b\"\n{bad}\n")).is_err(), "{bad}");
        }
        assert!(parse("[[file_sync]]\nfrom = \"a\"\n").is_err());
    }

    #[test]
    fn an_unknown_key_names_the_nearest_and_its_line() {
        let error = parse("vmm = \"qemu\"\n[vm_defaults]\nmemroy = \"2G\"\n").expect_err("refused");
        assert_eq!(error, "config.toml:3: unknown key `memroy`; did you mean `memory`?");
    }

    #[test]
    fn swapped_letters_are_one_step() {
        for (a, b, steps) in [("rnu", "run", 1), ("run", "rm", 2), ("", "abc", 3), ("abc", "abc", 0), ("ca", "abc", 3)]
        {
            assert_eq!((distance(a, b), distance(b, a)), (steps, steps), "{a} {b}");
        }
    }

    #[test]
    fn aliases_are_words_of_commands_and_wrong_ones_have_their_line() {
        let config = parse("[aliases]\nt = \"vm run --rm --image 'python:3.12'\"\n").expect("parses");
        assert_eq!(config.aliases["t"].words(), ["vm", "run", "--rm", "--image", "python:3.12"]);
        for (bad, said) in [
            ("t = \"\"", "stands for the words"),
            ("t = 7", "invalid type"),
            ("\"a b\" = \"ps\"", "no name for an alias"),
            ("t = \"vm run 'x\"", "ends within quotes"),
        ] {
            let error = parse(&format!("[aliases]\n{bad}\n")).expect_err("refused");
            assert!(error.starts_with("config.toml:2: ") && error.contains(said), "{error}");
        }
        let error = parse("[aliases]\n[alias]\nt = \"ps\"\n").expect_err("refused");
        assert_eq!(error, "config.toml:2: unknown key `alias`; did you mean `aliases`?");
    }

    #[test]
    fn limits_are_sizes_and_numbers_and_what_is_absent_is_not_limited() {
        let limits = parse("[limits]\nvms = 16\nmemory = \"16G\"\n").expect("parses").limits.on_host(Mib(1));
        assert_eq!((limits.vms, limits.memory, limits.disk), (Some(16), Some(Mib(16 << 10)), None));
        assert!(parse("[limits]\nvms = -1\n").is_err());
        let error = parse("[limits]\ndisks = \"1T\"\n").expect_err("refused");
        assert_eq!(error, "config.toml:2: unknown key `disks`; did you mean `disk`?");
    }

    #[test]
    fn a_variable_overrides_and_is_checked() {
        let mut config = Config::default();
        config.override_by(|n| (n == "BANGER_VMM").then(|| "fake".into())).expect("known");
        assert_eq!(config.vmm, VmmSetting::Fake);
        let error = config.override_by(|n| (n == "BANGER_VMM").then(|| "xen".into())).expect_err("refused");
        assert!(error.to_string().contains("BANGER_VMM"));
    }
}
