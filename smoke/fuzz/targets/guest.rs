//! What a guest may say, and what it is told.
#![no_main]

use banger::model::identity::Identity;
use banger::protocol::ear::Ear;
use banger::protocol::frame;
use banger::protocol::guest::{FromGuest, ToGuest};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut host = Ear::<FromGuest>::default();
    let mut guest = Ear::<ToGuest>::default();
    for chunk in bytes.chunks(13) {
        host.hear(chunk);
        guest.hear(chunk);
    }
    let _ = frame::decode::<Identity>(bytes);
});
