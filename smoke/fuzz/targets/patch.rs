//! Patches out of a guest: whatever they are, reading them ends, and what is understood is checked without a panic.
#![no_main]

use banger::workspace::patch;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(changes) = patch::read(bytes) else { return };
    let top = std::path::Path::new("/nonexistent");
    let permitted = banger::workspace::permitted(top, &changes);
    for change in &changes {
        for path in change.paths() {
            let is_outside = path.starts_with(b"/") || path.split(|b| *b == b'/').any(|part| part == b".." || part == b".git");
            assert!(!is_outside || permitted.is_err(), "{}", String::from_utf8_lossy(path));
        }
    }
});
