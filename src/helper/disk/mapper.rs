//! Device-mapper's devices, through its ioctl interface (linux/dm-ioctl.h).
//!
//! Neither udev nor `/dev/mapper` is needed: the kernel answers with major and minor. Its events
//! carry flags that keep every rule of udev away from a guest's bytes (libdevmapper.h, `DM_UDEV_*`).

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, major, minor};

use super::table::Line;
use super::{BlockDevice, node};
use crate::helper::error::{Doing, HelperError, Result};
use crate::helper::sys::dm::{self, Command, HEADER};
use crate::os::own_folder::OwnFolder;

/// The upper half of `event_nr`: no links, no rules of a subsystem, of disks and of others, no
/// fallback of the library, and that this event is the real one. The lower half, a semaphore to
/// signal, is 0: nobody waits.
const KEEP_OUT: u32 = (0x0001 | 0x0002 | 0x0004 | 0x0008 | 0x0020 | 0x0040) << 16;

const DM_READONLY_FLAG: u32 = 1;
const DM_BUFFER_FULL_FLAG: u32 = 1 << 8;
const DM_NOFLUSH_FLAG: u32 = 1 << 11;

/// `DM_NAME_LEN`, less the zero at its end.
const MAX_NAME: usize = 127;

/// Offsets in `struct dm_ioctl`, `struct dm_target_spec` and `struct dm_name_list`.
const DATA_START: usize = 16;
const TARGET_COUNT: usize = 20;
const FLAGS: usize = 28;
const EVENT: usize = 32;
const DEVICE: usize = 40;
const NAME: usize = 48;
const SPEC: usize = 40;
const LIST_NAME: usize = 12;

/// Room for an answer at first and at most.
const ROOM: [usize; 2] = [16 << 10, 4 << 20];

/// linux/miscdevice.h: `MAPPER_CTRL_MINOR`.
const CONTROL: BlockDevice = BlockDevice { major: 10, minor: 236 };

/// The opened control node.
#[derive(Debug)]
pub struct Mapper(OwnedFd);

impl Mapper {
    /// Opens the control node; the kernel loads device-mapper when that is a module.
    pub fn open(folder: &OwnFolder) -> Result<Self> {
        let seen = std::fs::read_to_string("/sys/class/misc/device-mapper/dev").ok();
        let device = seen.as_deref().and_then(node::parse_device).unwrap_or(CONTROL);
        let opened = node::open(folder, "/dev/mapper/control", FileType::CharacterDevice, device);
        Ok(Self(opened.doing("open /dev/mapper/control (is the kernel module `dm_mod` there?)")?))
    }

    /// `None` where device-mapper is not loaded, or may not be used (a container sees it in its host's
    /// `/sys`): then it has no devices of ours.
    pub fn open_if_loaded(folder: &OwnFolder) -> Result<Option<Self>> {
        if !std::path::Path::new("/sys/class/misc/device-mapper").exists() {
            return Ok(None);
        }
        match Self::open(folder) {
            Err(HelperError::System { source, .. }) if node::is_forbidden(&source) => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// Whether the kernel speaks version 4.
    pub fn check_version(&self) -> Result<()> {
        self.send(Command::Version, &mut Message::new("", HEADER)).doing("ask device-mapper for its version")
    }

    /// Whether the kernel has `target`; it loads the module.
    pub fn check_target(&self, target: &str) -> Result<(), String> {
        let mut message = Message::new(target, ROOM[0]);
        self.send(Command::TargetVersion, &mut message).map_err(|e| match e.kind() {
            io::ErrorKind::InvalidInput => format!("this kernel has no dm-{target}: modprobe dm-{target}"),
            _ => format!("device-mapper does not tell whether it has {target}: {e}"),
        })
    }

    /// Makes the device `name` with this table, and lets it work.
    pub fn create(&self, name: &str, lines: &[Line], read_only: bool) -> Result<BlockDevice> {
        let doing = format!("create device {name}");
        let mut message = Message::new(name, HEADER);
        self.send(Command::Create, &mut message).doing(&doing)?;
        let device = message.device();
        let begun = self.send(Command::Load, &mut Message::with_table(name, lines, read_only)).and_then(|()| {
            let mut resume = Message::new(name, HEADER);
            resume.set(EVENT, KEEP_OUT);
            self.send(Command::Resume, &mut resume)
        });
        if begun.is_err() {
            // The caller takes back all of this VM and says so if that fails.
            let _ = self.remove(name, Instant::now());
        }
        begun.doing(doing).map(|()| device)
    }

    /// Removes the device `name`; done when there is none.
    pub fn remove(&self, name: &str, deadline: Instant) -> Result<()> {
        loop {
            let mut message = Message::new(name, HEADER);
            message.set(EVENT, KEEP_OUT);
            match self.send(Command::Remove, &mut message) {
                Ok(()) => return Ok(()),
                Err(e) if e.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => return Ok(()),
                Err(e) if e.kind() != io::ErrorKind::ResourceBusy => return Err(e).doing(format!("remove {name}")),
                Err(_) if Instant::now() > deadline => return Err(HelperError::Busy(format!("device {name}"))),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// The names of all devices.
    pub fn names(&self) -> Result<Vec<String>> {
        let doing = "list the devices of device-mapper";
        let answer = self.ask(Command::ListDevices, "").doing(doing)?;
        Ok(answer.names())
    }

    /// The status of the first target of `name`; `None` when the device has gone.
    pub fn status(&self, name: &str) -> Result<Option<String>> {
        match self.ask(Command::Status, name) {
            Ok(answer) => Ok(answer.first_status()),
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => Ok(None),
            Err(e) => Err(e).doing(format!("ask for the state of {name}")),
        }
    }

    /// Asks with room enough for the answer.
    fn ask(&self, command: Command, name: &str) -> io::Result<Message> {
        let [mut room, most] = ROOM;
        loop {
            let mut message = Message::new(name, room);
            message.set(FLAGS, DM_NOFLUSH_FLAG);
            self.send(command, &mut message)?;
            if message.number(FLAGS) & DM_BUFFER_FULL_FLAG == 0 {
                return Ok(message);
            }
            room = room.saturating_mul(4);
            if room > most {
                return Err(io::Error::other("the answer is too long"));
            }
        }
    }

    fn send(&self, command: Command, message: &mut Message) -> io::Result<()> {
        dm::call(&self.0, command, &mut message.0)
    }
}

/// A `struct dm_ioctl` and what follows it.
#[derive(Debug)]
struct Message(Vec<u8>);

impl Message {
    fn new(name: &str, length: usize) -> Self {
        let mut message = Self(vec![0; length.max(HEADER)]);
        // DM_VERSION_MAJOR; a lower minor than the kernel's is always understood.
        message.set(0, 4);
        message.set(DATA_START, HEADER as u32);
        let name = &name.as_bytes()[..name.len().min(MAX_NAME)];
        message.put(NAME, name);
        message
    }

    fn with_table(name: &str, lines: &[Line], read_only: bool) -> Self {
        let mut message = Self::new(name, HEADER);
        message.set(TARGET_COUNT, lines.len() as u32);
        message.set(FLAGS, if read_only { DM_READONLY_FLAG } else { 0 });
        for line in lines {
            // The next one begins at a multiple of 8, and a zero ends the parameters.
            let length = (SPEC + line.parameters.len() + 1).next_multiple_of(8);
            let at = message.0.len();
            message.0.resize(at + length, 0);
            message.put(at, &line.start.to_ne_bytes());
            message.put(at + 8, &line.sectors.to_ne_bytes());
            message.set(at + 20, length as u32);
            message.put(at + 24, line.target.as_bytes());
            message.put(at + SPEC, line.parameters.as_bytes());
        }
        message
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(field) = self.0.get_mut(at..at + bytes.len()) {
            field.copy_from_slice(bytes);
        }
    }

    fn set(&mut self, at: usize, number: u32) {
        self.put(at, &number.to_ne_bytes());
    }

    fn number(&self, at: usize) -> u32 {
        let bytes = self.0.get(at..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
    }

    fn device(&self) -> BlockDevice {
        let bytes = self.0.get(DEVICE..).and_then(|rest| rest.first_chunk());
        let device = bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        BlockDevice { major: major(device), minor: minor(device) }
    }

    fn text(&self, at: usize) -> Option<String> {
        let rest = self.0.get(at..)?;
        let end = rest.iter().position(|b| *b == 0)?;
        Some(String::from_utf8_lossy(&rest[..end]).into_owned())
    }

    /// A list of `struct dm_name_list`; the empty one has the device 0.
    fn names(&self) -> Vec<String> {
        let (mut at, mut names) = (self.number(DATA_START) as usize, Vec::new());
        while let Some(name) = self.text(at + LIST_NAME).filter(|name| !name.is_empty()) {
            names.push(name);
            match self.number(at + 8) as usize {
                0 => break,
                next => at += next,
            }
        }
        names
    }

    fn first_status(&self) -> Option<String> {
        if self.number(TARGET_COUNT) == 0 { None } else { self.text(self.number(DATA_START) as usize + SPEC) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lies_in_the_message_as_the_kernel_reads_it() {
        let line = Line { start: 1, sectors: 2, target: "zero", parameters: "abc".into() };
        let message = Message::with_table("x", &[line.clone(), line], true);
        assert_eq!((message.number(0), message.number(TARGET_COUNT), message.number(FLAGS)), (4, 2, 1));
        assert_eq!(message.0.len(), HEADER + 2 * 48);
        assert_eq!((message.number(HEADER), message.number(HEADER + 8), message.number(HEADER + 20)), (1, 2, 48));
        assert_eq!(message.text(HEADER + 48 + 24).as_deref(), Some("zero"));
        assert_eq!(message.text(HEADER + 48 + SPEC).as_deref(), Some("abc"));
    }

    #[test]
    fn a_list_with_wild_offsets_ends() {
        let mut message = Message::new("", HEADER + 64);
        assert!(message.names().is_empty());
        message.put(HEADER + LIST_NAME, b"one");
        message.set(HEADER + 8, u32::MAX);
        assert_eq!(message.names(), ["one"]);
        message.set(DATA_START, u32::MAX);
        assert!(message.names().is_empty() && message.first_status().is_none());
    }
}
