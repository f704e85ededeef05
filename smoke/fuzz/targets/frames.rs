//! Frames of the owner and root languages: whatever arrives, no panic and no more memory than a frame.
#![no_main]

use banger::protocol::owner::{Answer, Call};
use banger::protocol::root::{RootAnswer, RootCall};
use banger::protocol::{FrameBuffer, Hello, frame};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut buffer = FrameBuffer::default();
    for chunk in bytes.chunks(7) {
        buffer.push(chunk);
        while let Ok(Some(body)) = buffer.next_body() {
            let _ = frame::decode::<Hello>(&body);
            if let Ok(call) = frame::decode::<Call>(&body) {
                assert_eq!(frame::encode(&call).map(|f| f[frame::HEADER..].len() <= frame::MAX_FRAME), Ok(true));
            }
            let _ = frame::decode::<Answer>(&body);
            let _ = frame::decode::<RootCall>(&body);
            let _ = frame::decode::<RootAnswer>(&body);
        }
    }
});
