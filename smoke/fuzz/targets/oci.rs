//! Registries: references, documents and headers, whatever is in them.
#![no_main]

use banger::image::oci::fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::documents(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        fuzz::reference(text);
        fuzz::headers(text);
    }
});
