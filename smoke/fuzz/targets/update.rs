//! Releases: manifests, sums, signatures, keys, archives and versions, whatever is in them.
#![no_main]

use banger::update::fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::documents(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        fuzz::version(text);
    }
});
