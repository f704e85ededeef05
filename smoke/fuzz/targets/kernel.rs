//! Compressed kernels.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = banger::image::extract_vmlinux(bytes);
});
