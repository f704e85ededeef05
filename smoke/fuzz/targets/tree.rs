//! Trees in tar streams: nothing leaves the target, nothing panics.
#![no_main]

use banger::image::{Ext4Options, tar_to_ext4};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let target = std::env::temp_dir().join(format!("banger-fuzz-{}.ext4", std::process::id()));
    let options = Ext4Options { max_bytes: 1 << 20, max_entries: 100, ..Ext4Options::read_only("fuzz") };
    let _ = tar_to_ext4(&mut &*bytes, &target, &options, &mut |_| Ok(()));
    let _ = std::fs::remove_file(&target);
});
