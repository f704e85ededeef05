//! What a guest may say, and what it is told.
#![no_main]

use banger::model::identity::Identity;
use banger::protocol::guest::{FromGuest, GuestHello, PREAMBLE, ToGuest};
use banger::protocol::{FrameBuffer, frame};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut buffer = FrameBuffer::default();
    buffer.push(bytes);
    buffer.skip_past(PREAMBLE);
    while let Ok(Some(body)) = buffer.next_body() {
        let _ = frame::decode::<FromGuest>(&body);
        let _ = frame::decode::<ToGuest>(&body);
        let _ = frame::decode::<GuestHello>(&body);
    }
    let _ = frame::decode::<Identity>(bytes);
});
