//! Real loops, and real snapshots where the kernel has device-mapper.

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};

use super::*;
use crate::os::need::is_met;

struct Ground {
    root: Root,
    disks: Disks,
    folder: tempfile::TempDir,
}

/// `None`, and said, where there are no loops, or no snapshots when those are needed.
fn ground(needs_snapshots: bool) -> Option<Ground> {
    let folder = tempfile::tempdir().expect("a folder");
    ground_at(folder, needs_snapshots)
}

fn ground_at(folder: tempfile::TempDir, needs_snapshots: bool) -> Option<Ground> {
    let root = Root::claim().ok();
    let opens = std::fs::File::open("/dev/loop-control").is_ok();
    if !is_met("/dev/loop-control", "run as root; modprobe loop", root.is_some() && opens) {
        return None;
    }
    let own = OwnFolder::open(&folder.path().join("disks"), 0o700).expect("a folder");
    let (root, disks) = (root?, Disks::new(own, crate::os::random::number()));
    if needs_snapshots {
        let answer = disks.snapshots(&root);
        let cure = format!("modprobe dm-snapshot ({answer:?})");
        if !is_met("dm-snapshot", &cure, answer.is_ok()) {
            return None;
        }
    }
    Some(Ground { root, disks, folder })
}

impl Ground {
    fn image(&self, bytes: u64) -> std::fs::File {
        let path = self.folder.path().join("image");
        let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.expect("an image");
        file.set_len(bytes).expect("sparse");
        file.write_all_at(b"image", 0).expect("written");
        file
    }

    fn open(&self, device: BlockDevice) -> std::fs::File {
        let node = node::open(&self.disks.folder, "/nonexistent", FileType::BlockDevice, device);
        node.expect("the device opens").into()
    }

    fn read_only(&self) -> OwnedFd {
        let path = self.folder.path().join("image");
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).expect("opens")
    }

    fn nothing_left(&self) {
        assert!(self.disks.attached(&self.root).expect("listed").is_empty());
    }
}

fn id(number: u64) -> VmId {
    VmId::from_random(number)
}

fn first(device: &std::fs::File, at: u64) -> [u8; 5] {
    let mut bytes = [0; 5];
    device.read_exact_at(&mut bytes, at).expect("read");
    bytes
}

#[test]
fn names_are_read_back_and_only_this_installations() {
    let folder = tempfile::tempdir().expect("a folder");
    let own = OwnFolder::open(&folder.path().join("disks"), 0o700).expect("a folder");
    let disks = Disks::new(own, u64::MAX);
    let name = disks.name(&id(7), "modules");
    assert!(name.len() <= 63, "{name}");
    assert_eq!(disks.parse(&name), Some((id(7), "modules")));
    for other in ["", "banger-", "banger-0000000000000000-000000000007-root", "banger-ffffffffffffffff-x-root"] {
        assert_eq!(disks.parse(other), None, "{other}");
    }
}

#[test]
fn a_file_becomes_a_device_and_goes_again() {
    let Some(ground) = ground(false) else { return };
    ground.image(1 << 20);
    let device = ground.disks.attach_file(&ground.root, &id(1), DiskRole::Modules, ground.read_only(), true);
    let device = device.expect("attached");
    let again = ground.disks.attach_file(&ground.root, &id(1), DiskRole::Modules, ground.read_only(), true);
    let again = ground.open(again.expect("attached again"));
    assert_eq!(&first(&again, 0), b"image");
    assert_eq!(ground.disks.attached(&ground.root).expect("listed"), [id(1)].into());
    assert_eq!(loops_of(device).len(), 1);
    drop(again);
    ground.disks.detach(&ground.root, &id(1)).expect("detached");
    ground.disks.detach(&ground.root, &id(1)).expect("gone already");
    ground.nothing_left();
}

fn loops_of(device: BlockDevice) -> Vec<String> {
    let name = std::fs::read_link(format!("/sys/dev/block/{}:{}", device.major, device.minor));
    name.iter().filter_map(|n| n.file_name()?.to_str().map(str::to_owned)).collect()
}

#[test]
fn a_device_that_somebody_uses_is_said_to_be_busy_and_goes_with_the_user() {
    let Some(ground) = ground(false) else { return };
    ground.image(1 << 20);
    let attached = ground.disks.attach_file(&ground.root, &id(2), DiskRole::Root, ground.read_only(), true);
    let user = ground.open(attached.expect("attached"));
    let error = ground.disks.detach(&ground.root, &id(2)).expect_err("busy");
    assert!(error.line().contains("stays in use"), "{}", error.line());
    drop(user);
    ground.disks.detach(&ground.root, &id(2)).expect("detached");
    ground.nothing_left();
}

#[test]
fn an_image_that_is_no_disk_is_refused() {
    let Some(ground) = ground(false) else { return };
    for length in [0, 511, 513, (1 << 20) + 1] {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(length).expect("sized");
        let refused = ground.disks.attach_snapshot(&ground.root, OpId::BACKGROUND, &id(3), file.into(), Mib(64));
        assert!(matches!(refused, Err(HelperError::Files(_))), "{length}");
    }
    let larger = ground.image(128 << 20);
    let refused = ground.disks.attach_snapshot(&ground.root, OpId::BACKGROUND, &id(3), larger.into(), Mib(64));
    assert!(matches!(refused, Err(HelperError::Files(_))));
    assert!(ground.disks.kept().expect("listed").is_empty());
}

#[test]
#[ignore = "needs a kernel with device-mapper; the scenario `snapshots` plays it in a guest"]
fn fifty_snapshots_of_one_image_are_apart_and_the_image_stays() {
    let Some(ground) = ground(true) else { return };
    ground.image(64 << 20);
    let ids: Vec<VmId> = (1..=50).map(id).collect();
    let mut devices = Vec::new();
    for (n, id) in ids.iter().enumerate() {
        let device = ground.disks.attach_snapshot(&ground.root, OpId::BACKGROUND, id, ground.read_only(), Mib(128));
        let device = ground.open(device.expect("attached"));
        device.write_all_at(format!("vm{n:03}").as_bytes(), 4096).expect("written");
        device.write_all_at(b"beyond", 100 << 20).expect("written");
        device.sync_all().expect("on the disk");
        devices.push(device);
    }
    for (n, device) in devices.iter().enumerate() {
        assert_eq!(&first(device, 0), b"image");
        assert_eq!(&first(device, 4096), format!("vm{n:03}").as_bytes());
    }
    let fill = ground.disks.fill(&ground.root).expect("told");
    assert_eq!(fill.len(), 50);
    assert!(fill.iter().all(|f| matches!(f.state, DiskFill::Sectors { used: 1.., .. })), "{fill:?}");
    drop(devices);
    for id in &ids {
        ground.disks.detach(&ground.root, id).expect("detached");
    }
    ground.nothing_left();
    let image = ground.image(64 << 20);
    assert_eq!((&first(&image, 0), &first(&image, 4096)), (b"image", &[0; 5]));
    assert_eq!(ground.disks.kept().expect("listed").len(), 50);
    for id in &ids {
        assert_eq!(ground.disks.remove(&ground.root, id).expect("removed"), Deed::Changed);
    }
}

#[test]
#[ignore = "needs a kernel with device-mapper; the scenario `snapshots` plays it in a guest"]
fn a_disk_is_kept_over_a_stop_and_grows() {
    let Some(ground) = ground(true) else { return };
    ground.image(64 << 20);
    for (size, at) in [(64, 1 << 20), (64, 2 << 20), (256, 200 << 20)] {
        let attach =
            || ground.disks.attach_snapshot(&ground.root, OpId::BACKGROUND, &id(1), ground.read_only(), Mib(size));
        attach().expect("attached");
        // As after a crash: it is there already.
        let device = ground.open(attach().expect("attached again"));
        if at > 1 << 20 {
            assert_eq!(&first(&device, 1 << 20), b"kept!");
        }
        device.write_all_at(b"kept!", at).expect("written");
        device.sync_all().expect("on the disk");
        drop(device);
        ground.disks.detach(&ground.root, &id(1)).expect("detached");
    }
    ground.nothing_left();
}

#[test]
#[ignore = "needs a kernel with device-mapper; the scenario `snapshots` plays it in a guest"]
fn making_one_takes_the_same_time_for_1_and_20_gib() {
    let Some(ground) = ground(true) else { return };
    let took = |gib: u64| {
        ground.image(gib << 30);
        let (begin, size) = (Instant::now(), Mib((gib as u32) << 10));
        let made = ground.disks.attach_snapshot(&ground.root, OpId::BACKGROUND, &id(gib), ground.read_only(), size);
        made.expect("attached");
        let took = begin.elapsed();
        ground.disks.detach(&ground.root, &id(gib)).expect("detached");
        ground.disks.remove(&ground.root, &id(gib)).expect("removed");
        took
    };
    // In turn, so that what else the machine does meets both; the least, for the same reason.
    let times: Vec<_> = (0..25).map(|_| (took(1), took(20))).collect();
    let small = times.iter().map(|t| t.0).min().unwrap_or_default();
    let large = times.iter().map(|t| t.1).min().unwrap_or_default();
    let line = format!("1 GiB {small:?}, 20 GiB {large:?}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    // In an emulated guest the least of 25 still varies by half; 20 times the size would show.
    assert!(large < small * 3, "{line}");
    ground.nothing_left();
}

#[test]
#[ignore = "needs a kernel with device-mapper; the scenario `snapshots` plays it in a guest"]
fn a_full_filesystem_below_is_reported_and_the_disk_is_lost() {
    let Some(ground) = ground(true) else { return };
    let small = tempfile::tempdir().expect("a folder");
    let mounted = rustix::mount::mount("tmpfs", small.path(), "tmpfs", rustix::mount::MountFlags::empty(), c"size=4m");
    mounted.expect("a small filesystem");
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| overflow(&ground, small.path())));
    rustix::mount::unmount(small.path(), rustix::mount::UnmountFlags::DETACH).expect("unmounted");
    outcome.expect("reported");
}

fn overflow(ground: &Ground, small: &Path) {
    ground.image(64 << 20);
    let own = OwnFolder::open(&small.join("disks"), 0o700).expect("a folder");
    let disks = Disks::new(own, crate::os::random::number());
    let attach = || disks.attach_snapshot(&ground.root, OpId::BACKGROUND, &id(1), ground.read_only(), Mib(64));
    let device = ground.open(attach().expect("attached"));
    let filled =
        (0..16).try_for_each(|n| device.write_all_at(&vec![7; 1 << 20], n << 20)).and_then(|()| device.sync_all());
    assert!(filled.is_err(), "more was written than there is room for");
    let fill = disks.fill(&ground.root).expect("told");
    assert_eq!(fill, [Fill { id: id(1), state: DiskFill::Invalid }]);
    drop(device);
    disks.detach(&ground.root, &id(1)).expect("detached");
    assert!(matches!(attach(), Err(HelperError::DiskLost(_))));
    assert!(disks.attached(&ground.root).expect("listed").is_empty());
}
