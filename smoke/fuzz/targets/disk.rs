//! Disks that a monitor has written: read within their bounds, whatever they hold; nothing panics.
#![no_main]

use banger::model::Mib;
use banger::model::choice::Accel;
use banger::vmm::firecracker::Firecracker;
use banger::vmm::qemu::Qemu;
use banger::vmm::{DiskCopy, NewDisk, Vmm};

const SIZE: Mib = Mib(1);

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let folder = std::env::temp_dir().join(format!("banger-fuzz-{}", std::process::id()));
    let _ = std::fs::create_dir(&folder);
    let (image, disk, kept, to) = (folder.join("image"), folder.join("disk"), folder.join("kept"), folder.join("to"));
    std::fs::write(&image, [1; 4096]).expect("written");
    let new = NewDisk { path: &disk, size: SIZE, image: &image, accel: Accel::Tcg, snapshots: false, tell: &|_| {} };
    Qemu.make_disk(new).expect("made");
    // What follows the tables may be a second table and clusters.
    let mut overlay = std::fs::read(&disk).expect("read");
    overlay.resize(8 << 16, 0);
    // Of all zeros an empty disk is left.
    let places = [0, 3 << 16, 4 << 16].into_iter().zip(bytes.chunks(64));
    for (at, part) in places {
        part.iter().enumerate().for_each(|(n, byte)| overlay[at + n] ^= byte);
    }
    std::fs::write(&disk, overlay).expect("written");
    let _ = Qemu.flatten_disk(&disk, &image, SIZE, &to);
    std::fs::write(&kept, bytes).expect("written");
    let kept = std::fs::File::open(&kept).ok();
    let none = folder.join("none");
    let _ = Firecracker.copy_disk(DiskCopy { disk: &none, kept, image: &image, size: SIZE, to: &to });
});
