//! One boot: network, rules, cgroup, sockets, jail, disks, processes, in named steps; undone backwards
//! when one fails. What is run in the end, and how, is `orders`.

/// What the stage is told, by monitor.
mod orders;

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};

use self::orders::{Channels, Listeners};
use super::cgroup::Limits;
use super::conntrack::{self, Which};
use super::contact::{self, AGENT, CONTROL, shell_socket};
use super::disk::DiskRole;
use super::error::{Doing, HelperError, Result};
use super::greeting::{Spoken, wait_for_answer};
use super::jail::Jail;
use super::ledger::Record;
use super::monitor::{Ended, Role};
use super::site::{Site, admission, guests};
use super::spawn::{self, Streams};
use super::stage::{Order, Program, View};
use super::undo::{Failure, Step, carry_out};
use super::{netns, passage, powers, rules, tap};
use crate::model::egress::Passage;
use crate::model::launch::{JailDisk, Launch, LaunchFile};
use crate::model::{ProcessRef, PublishedPort, Slot, Subnet, TapName, VmId};
use crate::net::rules as text;
use crate::os::process;
use crate::protocol::shell::CHANNELS;

/// How long a monitor may take until it answers. Beyond it the launch goes on, because others wait:
/// the daemon has the pidfd, and the end of a slow one is logged with what it said.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// How long Firecracker may take until its API is there: kernel and initramfs are put into the jail and the
/// jailer does its work meanwhile, on a busy host from a cold disk. Beyond it the launch is taken back.
const API_LIMIT: Duration = Duration::from_secs(15);

/// What is asked for.
pub struct Boot {
    /// What to run.
    pub launch: Launch,
    /// Where its guest may go.
    pub passage: Passage,
    /// Ports of the host that lead to it.
    pub ports: Vec<PublishedPort>,
}

/// What a launch needs and collects.
pub struct Launching<'a> {
    site: Site<'a>,
    slot: Slot,
    subnet: Subnet,
    uid: u32,
    launch: Launch,
    passage: Passage,
    ports: Vec<PublishedPort>,
    /// Checked.
    files: Vec<(LaunchFile, OwnedFd)>,
    made: Made,
    console: Option<ProcessRef>,
    process: Option<ProcessRef>,
    connected: Option<[OwnedFd; 2]>,
}

/// What was made for the monitor and is passed on to it.
#[derive(Default)]
struct Made {
    /// The tap, or the network namespace that it is in.
    network: Option<OwnedFd>,
    joins: Vec<OwnedFd>,
    listeners: Option<Listeners>,
    jail: Option<Jail>,
    /// Where the guest's agent rings.
    bell: Option<UnixListener>,
    /// The ends that the monitor writes to: serial output and errors.
    pipes: Option<[OwnedFd; 2]>,
    /// What the monitor waits for before it begins.
    leave: Option<OwnedFd>,
}

/// A running monitor's process and its two sockets, connected.
pub type Attached = (ProcessRef, [OwnedFd; 2]);

impl<'a> Launching<'a> {
    /// A launch of `site`'s VM; `files` were checked.
    pub fn new(
        site: Site<'a>,
        slot: Slot,
        subnet: Subnet,
        uid: u32,
        Boot { launch, passage, ports }: Boot,
        files: Vec<(LaunchFile, OwnedFd)>,
    ) -> Self {
        let (made, console, process, connected) = (Made::default(), None, None, None);
        Self { site, slot, subnet, uid, launch, passage, ports, files, made, console, process, connected }
    }

    /// Does all of it, or nothing.
    pub fn run(mut self) -> Result<Attached> {
        let steps = [
            Step { name: "launch record", act: Self::record, undo: |l| l.site.forget() },
            Step { name: "launch tap", act: Self::make_network, undo: Self::drop_network },
            Step { name: "launch ports", act: Self::hold_ports, undo: |l| l.site.give_back_ports() },
            Step { name: "launch rules", act: Self::admit, undo: |l| l.site.dismiss() },
            Step { name: "launch cgroup", act: Self::make_cgroup, undo: |l| l.site.remove_cgroup() },
            Step { name: "launch sockets", act: Self::listen, undo: |_| Ok(()) },
            Step { name: "launch jail", act: Self::make_jail, undo: Self::drop_jail },
            Step { name: "launch disks", act: Self::attach_disks, undo: |l| l.site.detach_disks() },
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

    /// Something that an earlier step must have left is not there.
    fn missing(&self) -> HelperError {
        HelperError::NotRunning(self.site.id.clone())
    }

    fn file(&self, what: LaunchFile) -> Result<&OwnedFd> {
        let found = self.files.iter().find(|(kind, _)| *kind == what);
        found.map(|(_, file)| file).ok_or_else(|| HelperError::Files(format!("there is no descriptor for {what:?}")))
    }

    fn share(&self, what: LaunchFile) -> Result<OwnedFd> {
        self.file(what)?.try_clone().doing(format!("keep the descriptor for {what:?}"))
    }

    fn record(&mut self) -> Result<()> {
        self.site.ledger.write(self.site.folder, self.as_record())
    }

    fn as_record(&self) -> Record {
        Record {
            id: self.site.id.clone(),
            slot: self.slot,
            kind: self.launch.kind(),
            process: self.process,
            console: self.console,
            passage: self.passage.clone(),
            // Without them there is no guest.
            is_applied: true,
            ports: self.ports.clone(),
        }
    }

    /// A monitor in a jail opens its tap by name, in a network of its own.
    fn make_network(&mut self) -> Result<()> {
        let (root, tap) = (self.site.root, TapName::of(self.slot));
        self.made.network = Some(match self.launch.jail() {
            Some(_) => netns::create(root, self.site.netlink, tap, self.uid)?,
            None => tap::create(root, self.site.netlink, tap)?,
        });
        Ok(())
    }

    fn drop_network(&mut self) -> Result<()> {
        self.made.network = None;
        self.site.remove_tap()
    }

    fn hold_ports(&mut self) -> Result<()> {
        self.site.ports.hold(self.site.root, &self.site.id, &self.ports)
    }

    /// One guest more; the whole of the rules when somebody removed them.
    fn admit(&mut self) -> Result<()> {
        let admission = admission(&self.as_record(), self.subnet);
        passage::prepare(&self.site, &admission.passage, &admission.ports)?;
        let (root, doing) = (self.site.root, "add a guest to the rules");
        // Whoever had this address before, and went when nobody could have it forgotten.
        conntrack::forget(root, admission.guest.address, Which::All)?;
        if rules::apply(root, &text::admit(&admission), doing).is_ok() {
            return Ok(());
        }
        let guests = guests(self.site.ledger, self.subnet, |_| true);
        rules::apply(root, &text::base(self.subnet, &guests), doing)
    }

    fn make_cgroup(&mut self) -> Result<()> {
        let Site { root, op, id, cgroups, .. } = &self.site;
        self.made.joins = cgroups.create(root, *op, id, self.limits());
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

    /// The sockets listen before the monitor exists, in a folder that only root can reach. Firecracker
    /// makes its own, in its jail.
    fn listen(&mut self) -> Result<()> {
        let channels = match &self.launch {
            Launch::Qemu(_) => CHANNELS,
            Launch::Fake(_) => 0,
            Launch::Firecracker(_) => return Ok(()),
        };
        let listen = |name: &str| {
            let path = self.site.folder.of_vm(&self.site.id, name);
            let made = crate::os::files::remove_file(&path).and_then(|()| UnixListener::bind(&path));
            made.map(OwnedFd::from).doing(format!("make {name}"))
        };
        let shells = (0..channels).map(|channel| listen(&shell_socket(channel))).collect::<Result<_>>()?;
        self.made.listeners = Some(Listeners { control: listen(CONTROL)?, agent: listen(AGENT)?, shells });
        Ok(())
    }

    fn make_jail(&mut self) -> Result<()> {
        if self.launch.jail().is_none() {
            return Ok(());
        }
        let size = |what| -> Result<u64> {
            let seen = rustix::fs::fstat(self.file(what)?).doing("look at a descriptor")?;
            Ok(seen.st_size as u64)
        };
        let content = size(LaunchFile::Kernel)? + size(LaunchFile::Initramfs)?;
        let jail = Jail::make(self.site.root, &self.site.id, self.uid, content)?;
        self.made.bell = Some(jail.add_bell(self.site.root)?);
        self.made.jail = Some(jail);
        Ok(())
    }

    /// It goes with its descriptors.
    fn drop_jail(&mut self) -> Result<()> {
        (self.made.jail, self.made.bell) = (None, None);
        Ok(())
    }

    fn attach_disks(&mut self) -> Result<()> {
        let Some(launch) = self.launch.jail() else { return Ok(()) };
        let Site { root, op, id, disks, .. } = &self.site;
        let jail = self.made.jail.as_ref().ok_or_else(|| self.missing())?;
        let device = match launch.disk {
            JailDisk::Whole => disks.attach_file(root, id, DiskRole::Root, self.share(LaunchFile::Disk)?, false)?,
            JailDisk::Snapshot { size } => {
                disks.attach_snapshot(root, *op, id, self.share(LaunchFile::Image)?, size)?
            }
        };
        jail.add_disk(root, false, device)?;
        if launch.modules_drive {
            let modules = self.share(LaunchFile::Modules)?;
            jail.add_disk(root, true, disks.attach_file(root, id, DiskRole::Modules, modules, true)?)?;
        }
        Ok(())
    }

    /// Starts what keeps the output. In a jail the monitor's errors come through a pipe with a name: its
    /// log is opened by that.
    fn start_console(&mut self) -> Result<()> {
        let (serial, serial_in) = pipe()?;
        let (errors, errors_in) = match &self.made.jail {
            Some(jail) => jail.add_log(self.site.root)?,
            None => pipe()?,
        };
        let kept = open_errors(&self.site)?;
        let log = self.share(LaunchFile::Console)?;
        let marks = self.share(LaunchFile::ConsoleMarks)?;
        let arguments = [&marks, &errors, &kept].map(|file| file.as_raw_fd().to_string()).to_vec();
        let order = self.order(View::Bare, &[&marks, &errors, &kept], Program::Own("banger-console"), arguments);
        let streams = Streams { input: serial.into(), output: log.into(), errors: Stdio::null() };
        let child = spawn::start(self.site.root, &order, streams)?;
        self.console = self.site.monitors.adopt(&self.site.id, Role::Console, child)?.ok();
        self.made.pipes = Some([serial_in, errors_in]);
        Ok(())
    }

    /// It ends by itself once nobody can write to it any more.
    fn end_console(&mut self) -> Result<()> {
        self.made.pipes = None;
        self.site.end()
    }

    /// Starts what becomes the monitor once it is told to. From here on only that process holds what
    /// it was given: its end is the end of the pipes, of the network, of the jail and of the listening.
    fn start_monitor(&mut self) -> Result<()> {
        let [serial, errors] = self.made.pipes.take().ok_or_else(|| self.missing())?;
        let order = self.monitor_order(&serial)?;
        let (told, leave) = pipe()?;
        let order = Order { waits: Some(told.as_raw_fd()), ..order };
        let output = match &self.launch {
            // Its console is what it prints.
            Launch::Firecracker(_) => serial.try_clone().doing("share the console")?.into(),
            Launch::Qemu(_) | Launch::Fake(_) => Stdio::null(),
        };
        let child =
            spawn::start(self.site.root, &order, Streams { input: Stdio::null(), output, errors: errors.into() })?;
        let id = self.site.id.clone();
        let process = self.site.monitors.adopt(&id, Role::Monitor, child)?;
        self.process = Some(process.map_err(|ended| self.ended(ended))?);
        self.made = Made {
            leave: Some(leave),
            // Its folder is where the API is waited for.
            jail: self.made.jail.take(),
            bell: self.made.bell.take(),
            ..Made::default()
        };
        self.files.clear();
        Ok(())
    }

    fn monitor_order(&self, serial: &OwnedFd) -> Result<Order> {
        let network = self.made.network.as_ref().ok_or_else(|| self.missing())?;
        let channels = self.made.listeners.as_ref().map(|listeners| Channels { serial, listeners });
        match (&self.launch, channels) {
            (Launch::Qemu(launch), Some(channels)) => self.qemu_order(launch, network, &channels),
            (Launch::Fake(launch), Some(channels)) => self.fake_order(launch, network, &channels),
            (Launch::Firecracker(_), _) => self.firecracker_order(network),
            (Launch::Qemu(_) | Launch::Fake(_), None) => Err(self.missing()),
        }
    }

    /// Writes both processes down before the monitor exists: should this helper be killed here, the
    /// one that waits ends with it, and the next helper knows of it.
    fn note(&mut self) -> Result<()> {
        self.site.ledger.write(self.site.folder, self.as_record())
    }

    /// Has the process become the monitor.
    fn let_begin(&mut self) -> Result<()> {
        let Some(leave) = self.made.leave.take() else { return Ok(()) };
        match rustix::io::write(&leave, b"!") {
            // It has ended already: its answer, which is waited for next, will not come.
            Ok(_) | Err(rustix::io::Errno::PIPE) => Ok(()),
            Err(e) => Err(e).doing("have the monitor begin"),
        }
    }

    /// A monitor that does not like what it was given ends at once; one that does answers. Whoever
    /// gets the connections afterwards gets fresh ones, with the greeting.
    fn await_answer(&mut self) -> Result<()> {
        self.connected = Some(match &self.launch {
            Launch::Qemu(_) | Launch::Fake(_) => self.await_qmp()?,
            Launch::Firecracker(_) => self.await_api()?,
        });
        Ok(())
    }

    fn await_qmp(&mut self) -> Result<[OwnedFd; 2]> {
        let id = self.site.id.clone();
        let control = contact::connect_one(&self.site, CONTROL);
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
        contact::connect(&self.site)
    }

    /// Firecracker listens once the jailer has confined it, which is looked at. Its filters of system calls
    /// come thread by thread, the last just before the guest starts (its docs/seccomp.md): not looked at.
    fn await_api(&mut self) -> Result<[OwnedFd; 2]> {
        let (jail, bell) = self.made.jail.take().zip(self.made.bell.take()).ok_or_else(|| self.missing())?;
        let Some((pidfd, process)) = self.site.monitors.monitor(&self.site.id) else { return Err(self.reap()) };
        let Some(api) = jail.await_api(pidfd, API_LIMIT)? else {
            let ended = process::wait_for_end(pidfd, Duration::ZERO).doing("wait for the monitor")?;
            return Err(if ended { self.reap() } else { HelperError::Mute(self.site.id.clone()) });
        };
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid)).doing("look at the monitor")?;
        if !powers::are_given_up(&status, self.uid) {
            return Err(HelperError::NotConfined(self.site.id.clone()));
        }
        Ok([api, bell.into()])
    }

    /// Why the monitor ended.
    fn reap(&mut self) -> HelperError {
        match self.site.monitors.end(self.site.root, &self.site.id) {
            Ok(ended) => match ended.into_iter().next() {
                Some(Ended { status, .. }) => self.ended(status),
                None => self.missing(),
            },
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

/// The monitor's standard error, as far as it is kept.
fn open_errors(site: &Site<'_>) -> Result<OwnedFd> {
    let path = site.folder.of_vm(&site.id, "errors");
    let file: std::io::Result<File> =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path);
    Ok(file.doing(format!("make a file for the errors of VM {}", site.id))?.into())
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
}
