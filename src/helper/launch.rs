//! One boot: tap, rules, cgroup, sockets, processes, in named steps; undone backwards when one fails.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use rustix::pipe::{PipeFlags, pipe_with};

use super::cgroup::Limits;
use super::error::{Doing, HelperError, Result};
use super::greeting::{Spoken, wait_for_answer};
use super::ledger::Record;
use super::monitor::Role;
use super::qemu::{self, Numbers};
use super::site::{Site, guests};
use super::spawn::{self, Streams};
use super::stage::{Order, Program, View};
use super::undo::{Failure, Step, carry_out};
use super::{rules, tap, tsc};
use crate::host::facts::{QEMU, find_program};
use crate::model::choice::Accel;
use crate::model::launch::{FakeFailure, FakeLaunch, Launch, QemuLaunch};
use crate::model::{MacAddr, ProcessRef, Slot, Subnet, TapName, VmId};
use crate::net::rules::{self as text, Guest};
use crate::os::process;
use crate::protocol::shell::CHANNELS;

/// How long a monitor may take until it answers. Beyond it the launch goes on, because others wait:
/// the daemon has the pidfd, and the end of a slow one is logged with what it said.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// Names of the sockets in a VM's folder.
const CONTROL: &str = "qmp.sock";
const AGENT: &str = "agent.sock";

fn shell_socket(channel: u8) -> String {
    format!("shell-{channel}.sock")
}

/// What a launch needs and collects.
pub struct Launching<'a> {
    site: Site<'a>,
    slot: Slot,
    subnet: Subnet,
    uid: u32,
    launch: Launch,
    /// In the order of `FILES`, checked.
    files: Vec<OwnedFd>,
    tap: Option<OwnedFd>,
    joins: Vec<OwnedFd>,
    listeners: Option<Listeners>,
    console: Option<ProcessRef>,
    /// The ends that the monitor writes to while it is being started.
    pipes: Option<[OwnedFd; 2]>,
    process: Option<ProcessRef>,
    /// What the monitor waits for before it begins.
    leave: Option<OwnedFd>,
    connected: Option<[OwnedFd; 2]>,
}

/// What a monitor listens on.
struct Listeners {
    control: OwnedFd,
    agent: OwnedFd,
    /// For commands: none with a monitor that runs none.
    shells: Vec<OwnedFd>,
}

/// A running monitor's process and its two sockets, connected.
pub type Attached = (ProcessRef, [OwnedFd; 2]);

impl<'a> Launching<'a> {
    /// A launch of `site`'s VM; `files` were checked.
    pub fn new(site: Site<'a>, slot: Slot, subnet: Subnet, uid: u32, launch: Launch, files: Vec<OwnedFd>) -> Self {
        let (tap, joins, listeners, connected) = (None, Vec::new(), None, None);
        let (console, pipes, process, leave) = (None, None, None, None);
        Self {
            site,
            slot,
            subnet,
            uid,
            launch,
            files,
            tap,
            joins,
            listeners,
            console,
            pipes,
            process,
            leave,
            connected,
        }
    }

    /// Does all of it, or nothing.
    pub fn run(mut self) -> Result<Attached> {
        let steps = [
            Step { name: "launch record", act: Self::record, undo: |l| l.site.forget() },
            Step { name: "launch tap", act: Self::make_tap, undo: Self::drop_tap },
            Step { name: "launch rules", act: Self::admit, undo: |l| l.site.dismiss() },
            Step { name: "launch cgroup", act: Self::make_cgroup, undo: |l| l.site.remove_cgroup() },
            Step { name: "launch sockets", act: Self::listen, undo: |_| Ok(()) },
            Step { name: "launch console", act: Self::start_console, undo: Self::end_console },
            Step { name: "launch process", act: Self::start_monitor, undo: |l| l.site.end() },
            Step { name: "launch note", act: Self::note, undo: |_| Ok(()) },
            Step { name: "launch scope", act: Self::adopt, undo: |l| l.site.remove_cgroup() },
            Step { name: "launch leave", act: Self::let_begin, undo: |_| Ok(()) },
            Step { name: "launch answer", act: Self::await_answer, undo: |_| Ok(()) },
        ];
        let (op, id, faults) = (self.site.op, self.site.id.clone(), self.site.faults);
        let point = |step: &str, moment| faults.pass(step, moment).doing(format!("go on with VM {id}"));
        if let Err(Failure { step, error, undone }) = carry_out(&mut self, &steps, point) {
            log::warn!("[{op}] launch of VM {id} failed at {step}, {} undos failed", undone.len());
            return Err(match undone.is_empty() {
                true => error,
                false => HelperError::Undone { source: Box::new(error), failures: undone },
            });
        }
        self.process.zip(self.connected).ok_or(HelperError::NotRunning(id))
    }

    fn record(&mut self) -> Result<()> {
        let id = self.site.id.clone();
        let record = Record { id, slot: self.slot, kind: self.launch.kind(), process: None, console: None };
        self.site.ledger.write(self.site.folder, record)
    }

    fn make_tap(&mut self) -> Result<()> {
        self.tap = Some(tap::create(self.site.root, self.site.netlink, TapName::of(self.slot))?);
        Ok(())
    }

    fn drop_tap(&mut self) -> Result<()> {
        self.tap = None;
        self.site.remove_tap()
    }

    /// One guest more; the whole of the rules when somebody removed them.
    fn admit(&mut self) -> Result<()> {
        let (root, doing) = (self.site.root, "add a guest to the rules");
        let guest = Guest::new(self.subnet, self.slot);
        if rules::apply(root, &text::admit(guest), doing).is_ok() {
            return Ok(());
        }
        let guests = guests(self.site.ledger, self.subnet, |_| true);
        rules::apply(root, &text::base(self.subnet.gateway(), &guests), doing)
    }

    fn make_cgroup(&mut self) -> Result<()> {
        let Site { root, op, id, cgroups, .. } = &self.site;
        self.joins = cgroups.create(root, *op, id, self.limits());
        Ok(())
    }

    /// Where they did not join one: while the monitor waits to begin.
    fn adopt(&mut self) -> Result<()> {
        let Site { root, op, id, cgroups, .. } = &self.site;
        let processes: Vec<ProcessRef> = self.console.into_iter().chain(self.process).collect();
        cgroups.adopt(root, *op, id, &processes, self.limits())
    }

    fn limits(&self) -> Limits {
        Limits { memory: self.launch.memory(), vcpus: self.launch.vcpus() }
    }

    /// The sockets listen before the monitor exists, in a folder that only root can reach.
    fn listen(&mut self) -> Result<()> {
        let listen = |name: &str| {
            let path = self.site.folder.of_vm(&self.site.id, name);
            let made = crate::os::files::remove_file(&path).and_then(|()| UnixListener::bind(&path));
            made.map(OwnedFd::from).doing(format!("make {name}"))
        };
        let channels = match &self.launch {
            Launch::Qemu(_) => CHANNELS,
            Launch::Fake(_) => 0,
        };
        let shells = (0..channels).map(|channel| listen(&shell_socket(channel))).collect::<Result<_>>()?;
        self.listeners = Some(Listeners { control: listen(CONTROL)?, agent: listen(AGENT)?, shells });
        Ok(())
    }

    /// Starts what keeps the output.
    fn start_console(&mut self) -> Result<()> {
        let ((serial, serial_in), (errors, errors_in)) = (pipe()?, pipe()?);
        let kept = open_errors(&self.site)?;
        let log = self.files[self.console_index()].try_clone().doing("keep the console's log")?;
        let arguments = vec![errors.as_raw_fd().to_string(), kept.as_raw_fd().to_string()];
        let order = self.order(View::Bare, vec![&errors, &kept], Program::Own("banger-console"), arguments);
        let streams = Streams { input: serial.into(), output: log.into(), errors: Stdio::null() };
        let child = spawn::start(self.site.root, &order, &[&errors, &kept], streams)?;
        self.console = self.site.monitors.adopt(&self.site.id, Role::Console, child)?.ok();
        self.pipes = Some([serial_in, errors_in]);
        Ok(())
    }

    /// It ends by itself once nobody can write to it any more.
    fn end_console(&mut self) -> Result<()> {
        self.pipes = None;
        self.site.end()
    }

    /// Starts what becomes the monitor once it is told to. From here on only that process holds what
    /// it was given: its end is the end of the pipes, of the tap, and of the listening.
    fn start_monitor(&mut self) -> Result<()> {
        let missing = || HelperError::NotRunning(self.site.id.clone());
        let [serial, errors] = self.pipes.take().ok_or_else(missing)?;
        let listeners = self.listeners.take().ok_or_else(missing)?;
        let channels = Channels { serial: &serial, listeners: &listeners };
        let (order, keep) = match &self.launch {
            Launch::Qemu(launch) => self.qemu_order(launch, &channels)?,
            Launch::Fake(launch) => self.fake_order(launch, &channels)?,
        };
        let (told, leave) = pipe()?;
        let order = Order { waits: Some(told.as_raw_fd()), ..order };
        let streams = Streams { input: Stdio::null(), output: Stdio::null(), errors: errors.into() };
        let child = spawn::start(self.site.root, &order, &keep, streams)?;
        let id = self.site.id.clone();
        let process = self.site.monitors.adopt(&id, Role::Monitor, child)?;
        self.process = Some(process.map_err(|status| self.ended(status))?);
        (self.tap, self.leave) = (None, Some(leave));
        self.files.clear();
        self.joins.clear();
        Ok(())
    }

    /// Writes both processes down before the monitor exists: should this helper be killed here, the
    /// one that waits ends with it, and the next helper knows of it.
    fn note(&mut self) -> Result<()> {
        let (id, kind) = (self.site.id.clone(), self.launch.kind());
        let record = Record { id, slot: self.slot, kind, process: self.process, console: self.console };
        self.site.ledger.write(self.site.folder, record)
    }

    /// Has the process become the monitor.
    fn let_begin(&mut self) -> Result<()> {
        let Some(leave) = self.leave.take() else { return Ok(()) };
        match rustix::io::write(&leave, b"!") {
            // It has ended already: its answer, which is waited for next, will not come.
            Ok(_) | Err(rustix::io::Errno::PIPE) => Ok(()),
            Err(e) => Err(e).doing("have the monitor begin"),
        }
    }

    fn qemu_order<'s>(&'s self, launch: &QemuLaunch, channels: &Channels<'s>) -> Result<(Order, Vec<&'s OwnedFd>)> {
        let program = find_program(QEMU).ok_or(HelperError::Missing(QEMU))?;
        let tap = self.tap.as_ref().ok_or_else(|| HelperError::NotRunning(self.site.id.clone()))?;
        let file = |at: usize| self.files[at].as_raw_fd();
        let shells: Vec<RawFd> = channels.listeners.shells.iter().map(AsRawFd::as_raw_fd).collect();
        let shells = shells.try_into().map_err(|_| HelperError::NotRunning(self.site.id.clone()))?;
        let numbers = Numbers {
            kernel: file(0),
            initramfs: file(1),
            serial: channels.serial.as_raw_fd(),
            overlay: file(3),
            image: file(4),
            modules: launch.modules_drive.then(|| file(5)),
            tap: tap.as_raw_fd(),
            control: channels.listeners.control.as_raw_fd(),
            agent: channels.listeners.agent.as_raw_fd(),
            shells,
        };
        let arguments = qemu::arguments(&self.site.id, MacAddr::of(self.slot), launch, numbers, tsc::kilohertz());
        let mut keep = channels.all();
        keep.push(tap);
        keep.extend(self.files.iter().enumerate().filter(|(at, _)| *at != self.console_index()).map(|(_, f)| f));
        let view = if launch.accel == Accel::Kvm { View::SystemKvm } else { View::System };
        Ok((self.order(view, keep.clone(), Program::Path(program), arguments), keep))
    }

    /// The monitor of the tests holds its tap, too, though it does nothing with it.
    fn fake_order<'s>(&'s self, launch: &FakeLaunch, channels: &Channels<'s>) -> Result<(Order, Vec<&'s OwnedFd>)> {
        let tap = self.tap.as_ref().ok_or_else(|| HelperError::NotRunning(self.site.id.clone()))?;
        let mut keep = channels.all();
        keep.push(tap);
        let Listeners { control, agent, .. } = channels.listeners;
        let mut arguments = Vec::new();
        for (flag, fd) in [("--qmp-fd", control), ("--agent-fd", agent), ("--console-fd", channels.serial)] {
            arguments.extend([flag.to_owned(), fd.as_raw_fd().to_string()]);
        }
        if let Some(failure) = launch.fail {
            arguments.extend(["--fail".to_owned(), failure_name(failure).to_owned()]);
        }
        Ok((self.order(View::Bare, keep.clone(), Program::Own("banger-fake-vmm"), arguments), keep))
    }

    fn order(&self, view: View, keep: Vec<&OwnedFd>, program: Program, arguments: Vec<String>) -> Order {
        let numbers =
            |files: &mut dyn Iterator<Item = &OwnedFd>| -> Vec<RawFd> { files.map(|f| f.as_raw_fd()).collect() };
        let (joins, keep) = (numbers(&mut self.joins.iter()), numbers(&mut keep.into_iter()));
        Order { uid: self.uid, view, joins, keep, waits: None, program, arguments }
    }

    fn console_index(&self) -> usize {
        match &self.launch {
            Launch::Qemu(_) => 2,
            Launch::Fake(_) => 0,
        }
    }

    /// A monitor that does not like what it was given ends at once; one that does answers. Whoever
    /// gets the connections afterwards gets fresh ones, with the greeting.
    fn await_answer(&mut self) -> Result<()> {
        let id = self.site.id.clone();
        let control = connect_one(&self.site, CONTROL);
        let Some((pidfd, _)) = self.site.monitors.monitor(&id) else { return Err(self.reap()) };
        match wait_for_answer(control?.into(), pidfd, ANSWER_LIMIT).doing("wait for the monitor")? {
            Spoken::Answers => {}
            Spoken::Silent => log::warn!("[{}] the monitor of VM {id} does not answer yet", self.site.op),
            Spoken::Ended => {
                // Its sockets are closed a little before its pidfd says that it ended.
                process::wait_for_end(pidfd, Duration::from_secs(1)).doing("wait for the monitor")?;
                return Err(self.reap());
            }
        }
        self.connected = Some(connect(&self.site)?);
        Ok(())
    }

    /// Why the monitor ended.
    fn reap(&mut self) -> HelperError {
        match self.site.monitors.end(self.site.root, &self.site.id) {
            Ok(ended) => self.ended(ended.into_iter().next().map(|e| e.status).unwrap_or_default()),
            Err(error) => error,
        }
    }

    fn ended(&mut self, status: String) -> HelperError {
        let id = self.site.id.clone();
        self.site.monitors.settle(&id);
        HelperError::Ended { said: self.site.said(), id, status }
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe_with(PipeFlags::CLOEXEC).doing("make a pipe")
}

/// What a monitor speaks through.
struct Channels<'s> {
    serial: &'s OwnedFd,
    listeners: &'s Listeners,
}

impl<'s> Channels<'s> {
    fn all(&self) -> Vec<&'s OwnedFd> {
        let Listeners { control, agent, shells } = self.listeners;
        [self.serial, control, agent].into_iter().chain(shells).collect()
    }
}

/// The monitor's standard error, as far as it is kept.
fn open_errors(site: &Site<'_>) -> Result<OwnedFd> {
    let path = site.folder.of_vm(&site.id, "errors");
    let file: std::io::Result<File> =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path);
    Ok(file.doing(format!("make a file for the errors of VM {}", site.id))?.into())
}

/// Fresh connections to a running monitor's two sockets.
pub fn connect(site: &Site<'_>) -> Result<[OwnedFd; 2]> {
    Ok([connect_one(site, CONTROL)?, connect_one(site, AGENT)?])
}

/// A fresh connection to a running monitor's channel for a command.
pub fn connect_channel(site: &Site<'_>, channel: u8) -> Result<OwnedFd> {
    connect_one(site, &shell_socket(channel))
}

fn connect_one(site: &Site<'_>, name: &str) -> Result<OwnedFd> {
    let doing = format!("connect to {name} of VM {}", site.id);
    let address = SocketAddrUnix::new(site.folder.of_vm(&site.id, name)).doing(&doing)?;
    // Does not wait: a monitor whose guest took it over may have filled its own queue, and every other
    // VM needs this thread. A full queue is an error then (`EAGAIN`, connect(2)).
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).doing(&doing)?;
    rustix::net::connect(&socket, &address).doing(&doing)?;
    Ok(socket)
}

fn failure_name(failure: FakeFailure) -> &'static str {
    match failure {
        FakeFailure::AtSpawn => "at-spawn",
        FakeFailure::SilentGuest => "silent-guest",
        FakeFailure::AfterHello => "after-hello",
        FakeFailure::IgnoresShutdown => "ignores-shutdown",
    }
}

/// The uid of the VM in `slot`: from 1,900,000,000 on, 256 for each installation, which its
/// random number chooses, so that two do not share uids.
pub fn uid(installation: u64, slot: Slot) -> u32 {
    1_900_000_000 + (installation % 100_000) as u32 * 256 + u32::from(slot.number())
}

/// What the bridge of an installation is marked with.
pub fn alias(installation: u64) -> String {
    format!("banger:{installation:016x}")
}

/// Who is refused: the VM runs, or its slot is taken.
pub fn check_free(site: &Site<'_>, id: &VmId, slot: Slot) -> Result<()> {
    if site.monitors.monitor(id).is_some() {
        return Err(HelperError::Running(id.clone()));
    }
    match site.ledger.in_slot(slot) {
        Some(other) if other.id != *id => Err(HelperError::SlotTaken { slot, by: other.id.clone() }),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_are_apart_and_below_two_to_the_31() {
        let slot = |n| Slot::new(n).expect("a slot");
        assert_eq!(uid(0, slot(1)), 1_900_000_001);
        assert_ne!(uid(1, slot(1)), uid(0, slot(250)));
        assert!(uid(u64::MAX, slot(250)) < 1 << 31);
    }

    #[test]
    fn a_fake_failure_is_read_by_the_name_it_is_passed_as() {
        use FakeFailure::{AfterHello, AtSpawn, IgnoresShutdown, SilentGuest};
        for failure in [AtSpawn, SilentGuest, AfterHello, IgnoresShutdown] {
            assert_eq!(failure_name(failure).parse(), Ok(failure));
        }
    }
}
