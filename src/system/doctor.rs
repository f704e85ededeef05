//! `doctor`: what was seen of the machine becomes rows, each with the next command to type. Pure: whoever
//! asks has looked.

use std::path::{Path, PathBuf};

use self::installation::{InstallSeen, SocketSeen};
use self::stock::{StockSeen, StoreSeen};
use crate::host::choose::{check_firecracker, choose_vmm, default_sizes};
use crate::host::config::Config;
use crate::host::facts::Facts;
use crate::host::install::{restart_command, start_command};
use crate::model::VmName;
use crate::model::address::DNS_LOOPBACK;
use crate::model::choice::VmmKind;
use crate::model::size::human;
use crate::system::ssh_config::Standing;

/// The system's installation.
pub mod installation;
/// What a VM is made of.
pub mod stock;

/// Less room than this for the state is worth a warning; with less than the second no VM is made.
const LITTLE_ROOM: u64 = 4 << 30;
const NO_ROOM: u64 = 512 << 20;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and something may be better.
    Warning,
    /// Something will not work.
    Failed,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Row {
    /// What was looked at.
    pub check: &'static str,
    /// How it came out.
    pub verdict: Verdict,
    /// What was seen.
    pub seen: String,
    /// What to type next.
    pub hint: Option<String>,
    /// What `doctor --fix` may do about it.
    #[serde(skip)]
    pub cure: Option<Cure>,
}

/// Something safe that makes a row better.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cure {
    /// What it does, as a command to whoever is asked.
    pub what: String,
    /// The program and its arguments; as root.
    pub argv: Vec<String>,
}

impl Cure {
    fn new(what: &str, argv: &[&str]) -> Self {
        Self { what: what.to_owned(), argv: argv.iter().map(|word| (*word).to_owned()).collect() }
    }

    fn module(name: &str) -> Self {
        Self::new(&format!("load the kernel's module {name}"), &["modprobe", name])
    }
}

impl Row {
    fn cured(self, cure: Cure) -> Self {
        Self { cure: Some(cure), ..self }
    }

    fn ok(check: &'static str, seen: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, seen: seen.into(), hint: None, cure: None }
    }

    fn warning(check: &'static str, seen: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warning, seen: seen.into(), hint: Some(hint.into()), cure: None }
    }

    fn failed(check: &'static str, seen: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Failed, seen: seen.into(), hint: Some(hint.into()), cure: None }
    }
}

/// What whoever asks has looked at.
#[derive(Debug)]
pub struct Seen {
    /// The configuration.
    pub config: Config,
    /// The machine.
    pub facts: Facts,
    /// Whether there is a `/dev/net/tun`.
    pub has_tun: bool,
    /// What resolves names for this host's programs.
    pub resolver: Resolver,
    /// Programs that were looked for.
    pub programs: Vec<ProgramSeen>,
    /// This program's build.
    pub build: String,
    /// The folder of the state, and bytes that are free there.
    pub room: Option<(PathBuf, u64)>,
    /// What the daemon says; why not, when it does not.
    pub daemon: Result<DaemonSeen, String>,
    /// The system's installation, where there is one.
    pub install: Option<InstallSeen>,
    /// This program's commit and version.
    pub this: (&'static str, &'static str),
    /// Sockets that are there, and whose they should be.
    pub sockets: (Vec<SocketSeen>, u32),
    /// Default image and kernel.
    pub stock: Vec<StockSeen>,
    /// The store; `None` where there is none yet, or it cannot be looked at.
    pub store: Option<StoreSeen>,
    /// This host's routes, destinations with their prefix.
    pub routes: Vec<(std::net::Ipv4Addr, u8)>,
    /// Whether the account that asks could use `/dev/kvm`, and its name.
    pub account: String,
}

/// What resolves names for a host's programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolver {
    /// systemd-resolved: it is told of VMs.
    Resolved,
    /// dnsmasq, perhaps NetworkManager's.
    Dnsmasq,
    /// Something else.
    Other,
}

/// What the daemon says.
#[derive(Debug)]
pub struct DaemonSeen {
    /// Its build.
    pub build: String,
    /// The helper's build, or why it does not answer.
    pub helper: Result<String, String>,
    /// The network of the bridge, where there is one.
    pub subnet: Option<String>,
    /// Why the kernel makes no disk snapshots; `None` when it does or the helper could not be asked.
    pub no_snapshots: Option<String>,
    /// Chains of other firewalls that drop what guests send, as `FAMILY TABLE CHAIN HOOK`.
    pub obstacles: Vec<String>,
    /// Disks of VMs that are snapshots.
    pub disks: Vec<DiskSeen>,
    /// How many more there are that belong to no VM.
    pub unknown: u32,
    /// Where disks of that kind lie, and bytes that are free there.
    pub folder: Option<(PathBuf, u64)>,
}

/// A VM's snapshot.
#[derive(Debug)]
pub struct DiskSeen {
    /// The VM.
    pub vm: VmName,
    /// What differs from the image, and what there is room for, in bytes; `None` when it is lost.
    pub fill: Option<(u64, u64)>,
}

/// Whether ssh knows VMs; that it does not is nobody's fault.
pub fn ssh_config(seen: &Result<Standing, String>) -> Row {
    const INSTALL: &str = "banger ssh-config --install";
    match seen {
        Ok(Standing::Installed) => Row::ok("ssh-config", "installed: ssh NAME.vm"),
        Ok(Standing::Absent) => Row::ok("ssh-config", format!("not installed; `{INSTALL}` has `ssh NAME.vm` work")),
        Ok(Standing::Stale(why)) => Row::warning("ssh-config", format!("stale: {why}"), INSTALL),
        Err(why) => Row::warning("ssh-config", why, INSTALL),
    }
}

/// All rows.
pub fn examine(seen: &Seen) -> Vec<Row> {
    let mut rows = vec![monitor(seen), kvm(seen), firecracker(seen), tun(seen)];
    rows.extend(seen.programs.iter().map(program));
    rows.push(resolver(seen));
    rows.extend(room(seen));
    rows.extend(seen.store.map(stock::store));
    rows.extend(seen.stock.iter().map(stock::stock));
    let subnet = seen.daemon.as_ref().ok().and_then(|daemon| daemon.subnet.as_deref());
    rows.push(stock::network(&seen.config, &seen.routes, subnet));
    let (vcpus, memory, disk) = default_sizes(&seen.config, &seen.facts);
    rows.extend(stock::defaults(&seen.config, (vcpus, human(memory.bytes()), human(disk.bytes()))));
    let (commit, version) = seen.this;
    rows.extend(installation::rows(seen.install.as_ref(), commit, version));
    rows.extend(installation::sockets(&seen.sockets.0, seen.sockets.1));
    rows.extend(daemon(seen));
    rows
}

fn monitor(seen: &Seen) -> Row {
    match choose_vmm(&seen.config, &seen.facts) {
        Ok(choice) => Row::ok("monitor", format!("{choice}: {}", choice.reason)),
        Err(no) => Row::failed("monitor", no.message, no.hint),
    }
}

fn kvm(seen: &Seen) -> Row {
    match (seen.facts.has_kvm, seen.facts.cpu_virtualises) {
        (true, true) if !seen.facts.kvm_opens && !uses_firecracker(seen) => Row::warning(
            "kvm",
            format!("/dev/kvm is there, and {} may not open it", seen.account),
            format!("sudo usermod -aG kvm {}", seen.account),
        )
        .cured(Cure::new(
            &format!("make {} a member of the group kvm", seen.account),
            &["usermod", "-aG", "kvm", &seen.account],
        )),
        (true, true) => Row::ok("kvm", "/dev/kvm, and the CPU virtualises"),
        (true, false) => Row::ok("kvm", "/dev/kvm is there, but the CPU shows neither vmx nor svm: software emulation"),
        (false, true) => Row::warning(
            "kvm",
            "the CPU virtualises, but there is no /dev/kvm",
            "sudo modprobe kvm_intel || sudo modprobe kvm_amd",
        )
        .cured(Cure::new("load the kernel's module kvm", &["sh", "-c", "modprobe kvm_intel || modprobe kvm_amd"])),
        (false, false) => Row::ok("kvm", "no hardware virtualisation: software emulation"),
    }
}

/// Not having it is fine where it is not asked for; one that cannot be used is worth a word.
fn firecracker(seen: &Seen) -> Row {
    let asked = seen.config.vmm.asked() == Some(VmmKind::Firecracker);
    let installed = seen.facts.firecracker.is_some() || seen.facts.jailer.is_some();
    match (check_firecracker(&seen.facts), asked, installed) {
        (Ok(()), ..) => {
            let version = seen.facts.firecracker.as_ref().and_then(|f| f.version);
            let version = version.map(|v| v.to_string()).unwrap_or_default();
            Row::ok("firecracker", format!("{version}, with its jailer"))
        }
        (Err(_), false, false) => Row::ok("firecracker", "not installed: QEMU runs the VMs"),
        (Err(why), true, _) => Row::failed("firecracker", why, "set vmm = \"auto\" in the configuration"),
        (Err(why), false, true) => {
            Row::warning("firecracker", why, "install firecracker and jailer of one release in /usr/local/bin")
        }
    }
}

fn tun(seen: &Seen) -> Row {
    match seen.has_tun {
        true => Row::ok("tun", "/dev/net/tun"),
        false => Row::failed("tun", "there is no /dev/net/tun", "sudo modprobe tun").cured(Cure::module("tun")),
    }
}

/// A program of this host.
#[derive(Debug)]
pub struct ProgramSeen {
    /// Its name.
    pub name: &'static str,
    /// The package that brings it.
    pub package: &'static str,
    /// What does not work without it, unless nothing does.
    pub only_for: Option<&'static str>,
    /// Where it is.
    pub path: Option<PathBuf>,
}

fn program(program: &ProgramSeen) -> Row {
    let install = || format!("sudo apt-get install {}", program.package);
    match (&program.path, program.only_for) {
        (Some(path), _) => Row::ok(program.name, path.display().to_string()),
        (None, Some(only_for)) => Row {
            hint: Some(install()),
            ..Row::ok(program.name, format!("not installed: needed {only_for}, and for nothing else"))
        },
        (None, None) => Row::failed(program.name, "it is not installed", install()),
    }
}

/// A host without systemd-resolved works; its programs do not know `NAME.vm` before it is told.
fn resolver(seen: &Seen) -> Row {
    let not_told = format!("`NAME.vm` is answered at {DNS_LOOPBACK}, and nothing of this host asks there");
    let told_by = |hint: String| Row { hint: Some(hint), ..Row::ok("resolver", not_told.clone()) };
    match seen.resolver {
        Resolver::Resolved => Row::ok("resolver", "systemd-resolved: `NAME.vm` is resolved while VMs run"),
        Resolver::Dnsmasq => told_by(format!(
            "echo server=/vm/{DNS_LOOPBACK} | sudo tee /etc/NetworkManager/dnsmasq.d/banger.conf      (or below /etc/dnsmasq.d)"
        )),
        Resolver::Other => told_by("banger vm hosts | sudo tee -a /etc/hosts      (as of now)".to_owned()),
    }
}

fn room(seen: &Seen) -> Vec<Row> {
    let kept = seen.daemon.as_ref().ok().and_then(|daemon| daemon.folder.as_ref());
    let places = seen.room.iter().chain(kept.filter(|_| uses_firecracker(seen)));
    places.map(|(folder, free)| room_of(folder, *free)).collect()
}

fn room_of(folder: &Path, free: u64) -> Row {
    let text = format!("{} free for {}", human(free), folder.display());
    let hint = "banger vm prune      (deletes all VMs that do not run)";
    match free {
        0..NO_ROOM => Row::failed("room", text, hint),
        NO_ROOM..LITTLE_ROOM => Row::warning("room", text, hint),
        LITTLE_ROOM.. => Row::ok("room", text),
    }
}

fn uses_firecracker(seen: &Seen) -> bool {
    choose_vmm(&seen.config, &seen.facts).is_ok_and(|choice| choice.kind == VmmKind::Firecracker)
}

fn daemon(seen: &Seen) -> Vec<Row> {
    let daemon = match &seen.daemon {
        Ok(daemon) => daemon,
        Err(why) => {
            let start = if seen.install.is_some() { start_command() } else { "banger daemon start" };
            return vec![Row::warning("daemon", why.clone(), start)];
        }
    };
    let mut rows = vec![same_build("daemon", &daemon.build, &seen.build)];
    match &daemon.helper {
        Ok(build) => rows.push(same_build("helper", build, &seen.build)),
        Err(why) => rows.push(Row::failed("helper", why.clone(), start_command())),
    }
    rows.push(snapshots(seen, daemon));
    rows.extend(daemon.obstacles.iter().map(|chain| firewall(chain)));
    rows.extend(daemon.disks.iter().map(disk));
    if let (1.., Some((folder, _))) = (daemon.unknown, &daemon.folder) {
        let seen = format!("{} in {} belong to no VM of this store", daemon.unknown, folder.display());
        rows.push(Row::warning(
            "disk",
            seen,
            format!("sudo ls -l {}      (another store's, or lost ones)", folder.display()),
        ));
    }
    rows
}

fn same_build(check: &'static str, theirs: &str, ours: &str) -> Row {
    match theirs == ours {
        true => Row::ok(check, theirs),
        false => Row::warning(check, format!("it is banger {theirs}, this is {ours}"), restart_command()),
    }
}

/// What another firewall drops no rule of banger's own can let pass: its owner must.
fn firewall(obstacle: &str) -> Row {
    let (chain, hook) = obstacle.rsplit_once(' ').unwrap_or((obstacle, ""));
    let accept = |way: &str| format!("sudo nft insert rule {chain} {way} br-banger accept");
    let hint = match (chain.split(' ').collect::<Vec<_>>().as_slice(), hook) {
        ([_, "firewalld", _], _) => "sudo firewall-cmd --zone=trusted --add-interface=br-banger".to_owned(),
        (["ip", "filter", "FORWARD" | "INPUT"], _) => {
            "sudo apt-get install iptables      (banger then adds the rules that pass it)".to_owned()
        }
        (_, "forward") => format!("{} && {}", accept("iifname"), accept("oifname")),
        (_, _) => accept("iifname"),
    };
    Row::warning("firewall", format!("`{chain}` drops what VMs send ({hook})"), hint)
}

/// Only Firecracker's VMs have disks of that kind.
fn snapshots(seen: &Seen, daemon: &DaemonSeen) -> Row {
    match (&daemon.no_snapshots, uses_firecracker(seen)) {
        (None, _) => Row::ok("snapshots", "device-mapper"),
        (Some(why), false) => Row::ok("snapshots", format!("not used by this monitor ({why})")),
        (Some(why), true) => Row::warning(
            "snapshots",
            format!("{why}: each new VM copies its image, or shares its blocks where the filesystem can"),
            "sudo modprobe dm-snapshot",
        )
        .cured(Cure::module("dm-snapshot")),
    }
}

fn disk(disk: &DiskSeen) -> Row {
    let vm = &disk.vm;
    match disk.fill {
        None => Row::failed(
            "disk",
            format!("the disk of VM '{vm}' is lost: what it wrote could not be stored"),
            format!("banger vm delete {vm}"),
        ),
        Some((used, total)) => {
            // A full one is a disk on which every block was written: there is room for all of it.
            Row::ok("disk", format!("VM '{vm}' has changed {} of {}", human(used), human(total)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::config::VmmSetting;
    use crate::host::facts::Installed;
    use crate::host::firecracker::Version;
    use crate::model::Mib;

    fn seen() -> Seen {
        let facts = Facts {
            cpus: 2,
            memory: Mib(4096),
            kvm_opens: false,
            has_kvm: false,
            cpu_virtualises: false,
            qemu: Some("/usr/bin/qemu".into()),
            firecracker: None,
            jailer: None,
        };
        let daemon = DaemonSeen {
            build: "1".into(),
            helper: Ok("1".into()),
            subnet: None,
            no_snapshots: None,
            obstacles: vec![],
            disks: vec![],
            unknown: 0,
            folder: Some(("/root-state".into(), 0)),
        };
        Seen {
            config: Config::default(),
            facts,
            has_tun: true,
            resolver: Resolver::Other,
            programs: vec![nft(Some("/usr/sbin/nft"))],
            build: "1".into(),
            room: Some(("/state".into(), 1 << 40)),
            daemon: Ok(daemon),
            install: None,
            this: ("12345678", "1"),
            sockets: (vec![], 1000),
            stock: vec![],
            store: Some(StoreSeen::Compatible),
            routes: vec![],
            account: "alice".into(),
        }
    }

    fn nft(path: Option<&str>) -> ProgramSeen {
        ProgramSeen { name: "nft", package: "nftables", only_for: None, path: path.map(PathBuf::from) }
    }

    #[test]
    fn a_program_that_is_for_one_thing_only_is_no_failure() {
        let row = program(&ProgramSeen { only_for: Some("to make images"), ..nft(None) });
        assert!(row.verdict == Verdict::Ok && row.hint.is_some());
        assert_eq!(program(&nft(None)).verdict, Verdict::Failed);
    }

    fn worst(seen: &Seen) -> Vec<&'static str> {
        examine(seen).iter().filter(|row| row.verdict != Verdict::Ok).map(|row| row.check).collect()
    }

    #[test]
    fn a_healthy_host_has_nothing_to_say() {
        assert!(worst(&seen()).is_empty());
    }

    #[test]
    fn whatever_is_wrong_comes_with_what_to_type() {
        let mut bad = seen();
        bad.has_tun = false;
        bad.facts.qemu = None;
        bad.programs = vec![nft(None)];
        bad.room = Some(("/state".into(), 1));
        bad.daemon = Ok(DaemonSeen {
            build: "0".into(),
            helper: Err("silence".into()),
            subnet: None,
            no_snapshots: None,
            obstacles: vec!["inet filter gate forward".into()],
            disks: vec![DiskSeen { vm: "lost".parse().expect("a name"), fill: None }],
            unknown: 2,
            folder: Some(("/root-state".into(), 0)),
        });
        assert_eq!(worst(&bad), ["monitor", "tun", "nft", "room", "daemon", "helper", "firewall", "disk", "disk"]);
        assert!(examine(&bad).iter().all(|row| row.verdict == Verdict::Ok || row.hint.is_some()));
        bad.daemon = Err("it does not run".into());
        assert!(worst(&bad).contains(&"daemon"));
    }

    #[test]
    fn what_doctor_may_do_is_a_command_of_the_system() {
        let mut host = seen();
        (host.has_tun, host.facts.has_kvm, host.facts.cpu_virtualises) = (false, true, true);
        let cures: Vec<Vec<String>> = examine(&host).into_iter().filter_map(|row| row.cure).map(|c| c.argv).collect();
        assert_eq!(cures, [vec!["usermod", "-aG", "kvm", "alice"], vec!["modprobe", "tun"]]);
        host.facts.has_kvm = false;
        assert!(
            examine(&host)[1].cure.as_ref().is_some_and(|cure| cure.argv.iter().any(|word| word.contains("kvm_amd")))
        );
    }

    #[test]
    fn a_host_that_does_not_know_vms_is_fine_and_is_told_how_it_could() {
        let row = |resolver| super::resolver(&Seen { resolver, ..seen() });
        assert!(row(Resolver::Resolved).hint.is_none());
        for (resolver, cure) in [(Resolver::Dnsmasq, "server=/vm/127.0.98.103"), (Resolver::Other, "/etc/hosts")] {
            let row = row(resolver);
            assert!(row.verdict == Verdict::Ok && row.hint.is_some_and(|hint| hint.contains(cure)));
        }
    }

    #[test]
    fn a_firecracker_that_cannot_be_driven_is_refused_by_name_and_version() {
        let version = Some(Version { major: 0, minor: 25, patch: 0 });
        let old = |name: &str| Some(Installed { path: format!("/usr/bin/{name}").into(), version });
        let mut host = seen();
        (host.facts.firecracker, host.facts.jailer) = (old("firecracker"), old("jailer"));
        let row = firecracker(&host);
        assert!(row.verdict == Verdict::Warning && row.seen.contains("0.25.0"), "{row:?}");
        host.config.vmm = VmmSetting::Firecracker;
        assert_eq!(firecracker(&host).verdict, Verdict::Failed);
    }
}
