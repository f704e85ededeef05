//! Loop devices, known by the name that they carry (loop(4)).
//!
//! udev cannot see that name. It sees the size limit: a number that no file reaches limits nothing,
//! and marks a loop as banger's in `/sys/block/loopN/loop/sizelimit` from its first event on.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::fs::FileType;

use super::{BlockDevice, node};
use crate::helper::error::{Doing, HelperError, Result};
use crate::helper::sys::loop_device::{self, Setting};
use crate::os::own_folder::OwnFolder;

/// `banger` in ASCII, then two zeros: 6.1 EiB.
pub const MARK: u64 = u64::from_be_bytes(*b"banger\0\0");

/// How often another may be faster at taking a free loop.
const ATTEMPTS: usize = 64;

/// linux/major.h and linux/miscdevice.h: `MISC_MAJOR`, `LOOP_CTRL_MINOR`.
const CONTROL: BlockDevice = BlockDevice { major: 10, minor: 237 };

/// All loops of the host.
#[derive(Debug)]
pub struct Loops<'f> {
    folder: &'f OwnFolder,
}

impl<'f> Loops<'f> {
    /// `folder` is where a missing node is made.
    pub fn new(folder: &'f OwnFolder) -> Self {
        Self { folder }
    }

    /// Makes a loop over `file` that carries `name`.
    pub fn attach(&self, name: &str, file: &OwnedFd, read_only: bool) -> Result<BlockDevice> {
        let doing = format!("attach a loop device as {name}");
        let control = node::open(self.folder, "/dev/loop-control", FileType::CharacterDevice, CONTROL);
        let control = control.doing("open /dev/loop-control (is the kernel module `loop` there?)")?;
        let setting = Setting { name, size_limit: MARK, read_only };
        for _ in 0..ATTEMPTS {
            let number = loop_device::find_free(&control).doing(&doing)?;
            let Some((device, opened)) = self.open(number).doing(&doing)? else { continue };
            match loop_device::configure(&opened, file, setting) {
                Ok(()) => return Ok(device),
                // Somebody else has taken it since.
                Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {}
                Err(e) => return Err(e).doing(doing),
            }
        }
        Err(HelperError::Busy("every free loop device".into()))
    }

    /// Lets go of the loops with these names; done when there is none.
    pub fn detach(&self, names: &[String], deadline: Instant) -> Result<()> {
        loop {
            let mut left = None;
            for number in marked()? {
                let doing = format!("detach /dev/loop{number}");
                let Some((_, opened)) = self.open(number).doing(&doing)? else { continue };
                if let Some(name) = loop_device::name(&opened).doing(&doing)?.filter(|n| names.contains(n)) {
                    loop_device::clear(&opened).doing(&doing)?;
                    left = Some(format!("/dev/loop{number} ({name})"));
                }
            }
            // It goes with its last user, so it is looked for again, once more than it was found.
            match left {
                None => return Ok(()),
                Some(busy) if Instant::now() > deadline => return Err(HelperError::Busy(busy)),
                Some(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    /// The names of all loops of banger.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for number in marked()? {
            let doing = format!("look at /dev/loop{number}");
            if let Some((_, opened)) = self.open(number).doing(&doing)? {
                names.extend(loop_device::name(&opened).doing(&doing)?);
            }
        }
        Ok(names)
    }

    /// `None` when it has gone meanwhile.
    fn open(&self, number: u32) -> io::Result<Option<(BlockDevice, OwnedFd)>> {
        let device = match std::fs::read_to_string(format!("/sys/block/loop{number}/dev")) {
            Ok(text) => node::parse_device(&text).ok_or(io::ErrorKind::InvalidData)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        match node::open(self.folder, &format!("/dev/loop{number}"), FileType::BlockDevice, device) {
            Ok(opened) => Ok(Some((device, opened))),
            // Being let go of, or removed (drivers/block/loop.c, `lo_open`); or of the host of this container.
            Err(e) if node::is_forbidden(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// The numbers of the loops with banger's mark.
fn marked() -> Result<Vec<u32>> {
    let entries = match std::fs::read_dir("/sys/block") {
        Ok(entries) => entries,
        Err(e) => return Err(e).doing("list /sys/block"),
    };
    let number = |name: &str| name.strip_prefix("loop")?.parse::<u32>().ok();
    let numbers = entries.filter_map(|e| number(e.ok()?.file_name().to_str()?));
    Ok(numbers.filter(|n| is_marked(*n)).collect())
}

fn is_marked(number: u32) -> bool {
    // A loop without a file has no such attribute.
    let limit = std::fs::read_to_string(format!("/sys/block/loop{number}/loop/sizelimit"));
    limit.is_ok_and(|text| text.trim_end().parse() == Ok(MARK))
}
