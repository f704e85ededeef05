//! `banger-stage`: between the helper and a monitor. One thread, run once: it gives up, in this
//! order, what the monitor must not have, checks that it is gone, and becomes the monitor.
//!
//! Descriptors that were not passed on; the helper's cgroup and session; its mounts, network,
//! IPC; resource limits; groups, capabilities, uid and gid; the way back (no_new_privs).
//! Then it waits until its helper has written it down. Of a monitor that has a jailer, that one makes
//! the jail the root and gives up the uid, with just the capabilities for it.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit, setrlimit, setsid, umask};
use rustix::thread::{CapabilitySet, Gid, LinkNameSpaceType, Uid, UnshareFlags, move_into_link_name_space};

use super::authority::Root;
use super::error::{Doing, HelperError, Result};
use super::firecracker::NEEDED;
use super::{jail, powers, sys, view};
use crate::model::VmId;

/// Open descriptors a monitor may have at most.
const MAX_FILES: u64 = 4096;

/// What a stage shall become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Uid and gid of the VM.
    pub uid: u32,
    /// Which files of the host it sees.
    pub view: View,
    /// The jail that it runs in instead, with the network that is there.
    pub jail: Option<JailOrder>,
    /// Descriptors of `cgroup.procs` to join.
    pub joins: Vec<RawFd>,
    /// Descriptors that the program keeps.
    pub keep: Vec<RawFd>,
    /// Descriptor on which one byte says that it may begin, and the end that it may not.
    pub waits: Option<RawFd>,
    /// What to run.
    pub program: Program,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// A jail, and what is put into it; descriptors that the program does not keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JailOrder {
    /// The VM, after which the jail's folder is named.
    pub id: VmId,
    /// The jail's mount.
    pub mount: RawFd,
    /// The network namespace to enter.
    pub network: RawFd,
    /// The kernel.
    pub kernel: RawFd,
    /// The initramfs.
    pub initramfs: RawFd,
}

impl JailOrder {
    fn numbers(&self) -> [RawFd; 4] {
        [self.mount, self.network, self.kernel, self.initramfs]
    }
}

/// Which files of the host a program sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// None: `/proc` and nothing else.
    Bare,
    /// Programs and libraries, read only.
    System,
    /// The same and `/dev/kvm`.
    SystemKvm,
}

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// An installed program.
    Path(PathBuf),
    /// This one, under another name.
    Own(&'static str),
    /// An installed program that puts the monitor into its jail, and needs privileges for that.
    Jailer(PathBuf),
}

/// What is before the path of a jailer.
const JAILER_MARK: &str = "jailer:";

/// Names that this program may be started under behind a stage.
const OWN: [&str; 2] = ["banger-console", "banger-fake-vmm"];

impl Order {
    /// As the stage reads it.
    pub fn arguments(&self) -> Vec<OsString> {
        let jail = self.jail.as_ref().map(|jail| format!("{}:{}", jail.id, numbers(&jail.numbers())));
        let view = match self.view {
            View::Bare => "bare",
            View::System => "system",
            View::SystemKvm => "system-kvm",
        };
        let program = match &self.program {
            Program::Path(path) => path.clone().into_os_string(),
            Program::Own(name) => OsString::from(*name),
            Program::Jailer(path) => [OsStr::new(JAILER_MARK), path.as_os_str()].into_iter().collect(),
        };
        let waits = numbers(self.waits.as_slice());
        let (joins, keep) = (numbers(&self.joins), numbers(&self.keep));
        let head = [self.uid.to_string(), view.to_owned(), jail.unwrap_or_default(), joins, keep, waits];
        let mut words: Vec<OsString> = head.into_iter().map(OsString::from).collect();
        words.push(program);
        words.extend(self.arguments.iter().map(OsString::from));
        words
    }

    /// Reads what [`Order::arguments`] wrote.
    pub fn parse(words: &[OsString]) -> Option<Self> {
        let [uid, view, jail, joins, keep, waits, program, arguments @ ..] = words else { return None };
        let view = match view.to_str()? {
            "bare" => View::Bare,
            "system" => View::System,
            "system-kvm" => View::SystemKvm,
            _ => return None,
        };
        let program = match OWN.into_iter().find(|name| OsStr::new(name) == program) {
            Some(name) => Program::Own(name),
            None => parse_path(program)?,
        };
        let uid = uid.to_str()?.parse().ok().filter(|uid| *uid != 0)?;
        let arguments: Option<Vec<String>> = arguments.iter().map(|a| a.to_str().map(str::to_owned)).collect();
        let waits = parse_numbers(waits)?;
        if waits.len() > 1 {
            return None;
        }
        Some(Self {
            uid,
            view,
            jail: parse_jail(jail)?,
            joins: parse_numbers(joins)?,
            keep: parse_numbers(keep)?,
            waits: waits.first().copied(),
            program,
            arguments: arguments?,
        })
    }

    /// What is run, for messages.
    pub fn name(&self) -> String {
        match &self.program {
            Program::Path(path) | Program::Jailer(path) => path.display().to_string(),
            Program::Own(name) => (*name).to_owned(),
        }
    }

    /// All descriptors that the stage needs, whether the program keeps them or not.
    pub fn descriptors(&self) -> Vec<RawFd> {
        let jail = self.jail.iter().flat_map(JailOrder::numbers);
        self.keep.iter().chain(&self.joins).copied().chain(self.waits).chain(jail).collect()
    }
}

fn parse_path(word: &OsStr) -> Option<Program> {
    let absolute = |path: PathBuf| Some(path).filter(|p| p.is_absolute());
    match word.to_str().and_then(|w| w.strip_prefix(JAILER_MARK)) {
        Some(path) => absolute(path.into()).map(Program::Jailer),
        None => absolute(word.into()).map(Program::Path),
    }
}

/// `None` when it makes no sense; an empty word is no jail.
fn parse_jail(word: &OsStr) -> Option<Option<JailOrder>> {
    if word.is_empty() {
        return Some(None);
    }
    let (id, fds) = word.to_str()?.split_once(':')?;
    let [mount, network, kernel, initramfs] = parse_numbers(OsStr::new(fds))?.try_into().ok()?;
    Some(Some(JailOrder { id: id.parse().ok()?, mount, network, kernel, initramfs }))
}

fn numbers(list: &[RawFd]) -> String {
    list.iter().map(|n| n.to_string()).collect::<Vec<_>>().join(",")
}

fn parse_numbers(word: &OsStr) -> Option<Vec<RawFd>> {
    let words = word.to_str()?.split(',').filter(|w| !w.is_empty());
    words.map(|w| w.parse().ok().filter(|n| *n > 2)).collect()
}

/// Becomes what the arguments say. Returns only when it cannot.
pub fn become_monitor(arguments: &[OsString]) -> Result<Infallible> {
    let order = Order::parse(arguments)
        .ok_or_else(|| HelperError::Usage("it is started by bangerd-root and by nobody else".into()))?;
    let root = Root::claim()?;
    close_all_but(&order).doing("close what was not passed on")?;
    join(&root, &order.joins).doing("join the VM's cgroup")?;
    setsid().doing("begin a session")?;
    let own = rustix::fs::open("/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).doing("open itself")?;
    match &order.jail {
        None => leave_for_view(&root, &order)?,
        Some(jail) => {
            // Now already: what is put into the jail counts as the VM's memory only once it is in its
            // cgroup, and the helper sees to that before it lets anything begin.
            wait_to_begin(order.waits)?;
            leave_for_jail(&root, &order, jail)?;
        }
    }
    limit().doing("set resource limits")?;
    match &order.program {
        Program::Jailer(_) => keep_capabilities(&root, NEEDED).doing("give up capabilities")?,
        Program::Path(_) | Program::Own(_) => {
            drop_privileges(root, order.uid).doing(format!("become uid {}", order.uid))?;
            check_powerless(order.uid)?;
        }
    }
    if order.jail.is_none() {
        wait_to_begin(order.waits)?;
    }
    Err(run(&order, &own)).doing(format!("run {}", order.name()))
}

/// An own network namespace without a link in it: the tap is a descriptor and works from anywhere.
fn leave_for_view(root: &Root, order: &Order) -> Result<()> {
    sys::unshare(UnshareFlags::NEWNS | UnshareFlags::NEWNET).doing("leave the host's namespaces")?;
    leave_ipc()?;
    view::enter(root, order.view, order.uid)
}

/// The helper's unit forbids such namespaces, and with them all that they keep apart.
fn leave_ipc() -> Result<()> {
    match sys::unshare(UnshareFlags::NEWIPC) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied && sys::ipc_is_forbidden() => Ok(()),
        left => left.doing("leave the host's IPC namespace"),
    }
}

/// The network namespace has the tap in it. A jailer makes the jail the root, else it is done here.
fn leave_for_jail(root: &Root, order: &Order, jail: &JailOrder) -> Result<()> {
    let [mount, network, kernel, initramfs] = jail.numbers().map(sys::adopt);
    let network = network.doing("take over the network namespace")?;
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).doing("enter the VM's network")?;
    sys::unshare(UnshareFlags::NEWNS).doing("leave the host's namespaces")?;
    leave_ipc()?;
    view::make_private(root)?;
    let doing = "take over what is put into the jail";
    jail::settle(root, &jail.id, &mount.doing(doing)?, kernel.doing(doing)?, initramfs.doing(doing)?)?;
    match &order.program {
        Program::Jailer(_) => Ok(()),
        Program::Path(_) | Program::Own(_) => view::enter_jail(root, &jail::root_of(&jail.id)),
    }
}

/// Closes, at the start of the program, every descriptor that it is not to keep.
fn close_all_but(order: &Order) -> io::Result<()> {
    let open: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number > 2)
        .collect();
    for number in open {
        match sys::inherit(number, order.keep.contains(&number)) {
            // The one that listed them.
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::BADF.raw_os_error()) => {}
            other => other?,
        }
    }
    Ok(())
}

fn join(_: &Root, joins: &[RawFd]) -> io::Result<()> {
    for number in joins {
        io::Write::write_all(&mut File::from(sys::adopt(*number)?), b"0")?;
    }
    Ok(())
}

fn limit() -> io::Result<()> {
    let exactly = |n| Rlimit { current: Some(n), maximum: Some(n) };
    setrlimit(Resource::Core, exactly(0))?;
    setrlimit(Resource::Nofile, exactly(MAX_FILES))?;
    umask(Mode::from_raw_mode(0o077));
    Ok(())
}

/// Takes the token: nothing is root's behind this.
fn drop_privileges(_: Root, uid: u32) -> io::Result<()> {
    use rustix::thread as this;
    bound_to(CapabilitySet::empty())?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(uid));
    this::set_thread_res_gid(gid, gid, gid)?;
    this::set_thread_res_uid(uid, uid, uid)?;
    let none = CapabilitySet::empty();
    this::set_capabilities(None, this::CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(this::set_no_new_privs(true)?)
}

/// No groups, and from the next program on no capability but those of `kept`.
fn bound_to(kept: CapabilitySet) -> io::Result<()> {
    use rustix::thread as this;
    this::set_thread_groups(&[])?;
    this::clear_ambient_capability_set()?;
    for capability in CapabilitySet::all().difference(kept).iter() {
        match this::remove_capability_from_bounding_set(capability) {
            // One that this kernel does not know.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Stays root for a jailer, with `kept` and no way to more.
fn keep_capabilities(_: &Root, kept: CapabilitySet) -> io::Result<()> {
    bound_to(kept)?;
    Ok(rustix::thread::set_no_new_privs(true)?)
}

/// Waits until the helper has written this process down: what no record names must not live on
/// when the helper is killed.
fn wait_to_begin(waits: Option<RawFd>) -> Result<()> {
    let Some(number) = waits else { return Ok(()) };
    let told = sys::adopt(number).and_then(|pipe| io::Read::read_exact(&mut File::from(pipe), &mut [0; 1]));
    told.doing("begin: the helper ended, or its launch failed")
}

/// Looks instead of trusting: a stage that kept anything runs nothing.
fn check_powerless(uid: u32) -> Result<()> {
    let status = std::fs::read_to_string("/proc/self/status").doing("look at itself")?;
    if powers::are_gone(&status, uid) {
        return Ok(());
    }
    Err(HelperError::Usage("privileges were not given up, so nothing is run".into()))
}

fn run(order: &Order, own: &OwnedFd) -> io::Error {
    let (program, name) = match &order.program {
        Program::Path(path) | Program::Jailer(path) => (path.clone(), path.as_os_str()),
        Program::Own(name) => (format!("/proc/self/fd/{}", own.as_fd().as_raw_fd()).into(), OsStr::new(name)),
    };
    Command::new(program).arg0(name).args(&order.arguments).env_clear().exec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> Order {
        Order {
            uid: 1_900_000_001,
            view: View::System,
            jail: None,
            joins: vec![9, 10],
            keep: vec![],
            waits: Some(11),
            program: Program::Path("/usr/bin/qemu".into()),
            arguments: vec!["-M".into(), "a b,c".into(), String::new()],
        }
    }

    #[test]
    fn an_order_is_read_as_it_was_written() {
        let own =
            Order { program: Program::Own("banger-console"), view: View::Bare, keep: vec![4], waits: None, ..order() };
        let jail = JailOrder { id: VmId::from_random(1), mount: 20, network: 21, kernel: 22, initramfs: 23 };
        let jailed = Order { program: Program::Jailer("/usr/bin/jailer".into()), jail: Some(jail), ..order() };
        assert_eq!(jailed.descriptors(), [9, 10, 11, 20, 21, 22, 23]);
        for order in [order(), own, jailed, Order { view: View::SystemKvm, ..order() }] {
            assert_eq!(Order::parse(&order.arguments()), Some(order));
        }
    }

    #[test]
    fn an_order_for_root_or_a_relative_program_is_refused() {
        assert_eq!(Order::parse(&Order { uid: 0, ..order() }.arguments()), None);
        assert_eq!(Order::parse(&Order { program: Program::Path("sh".into()), ..order() }.arguments()), None);
        assert_eq!(Order::parse(&Order { keep: vec![2], ..order() }.arguments()), None);
        assert_eq!(Order::parse(&Order { waits: Some(2), ..order() }.arguments()), None);
        assert_eq!(Order::parse(&Order { program: Program::Jailer("jailer".into()), ..order() }.arguments()), None);
        let mut words = order().arguments();
        for bad in ["000000000001:20,21,22", "x:20,21,22,23", "000000000001:1,21,22,23", "000000000001"] {
            words[2] = bad.into();
            assert_eq!(Order::parse(&words), None, "{bad}");
        }
        assert_eq!(Order::parse(&[]), None);
    }
}
