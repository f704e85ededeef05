//! What one relay hears of another: whatever comes, no panic, no more kept than was granted, and what is taken is
//! granted anew.
#![no_main]

use banger::protocol::relay::RelayFrame;
use banger::protocol::{FrameBuffer, frame};
use banger::relay::{Channels, MAX_CHANNELS, News, Side, WINDOW, hear_greeting};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let side = if first & 1 == 0 { Side::Near } else { Side::Far };
    let takes = first & 2 == 0;
    let _ = hear_greeting(&mut &*bytes, side == Side::Near);
    let (mut channels, mut buffer) = (Channels::new(side), FrameBuffer::default());
    let mut sent = 0;
    if side == Side::Near {
        channels.dial().expect("the first");
    }
    for chunk in bytes.chunks(11) {
        buffer.push(chunk);
        while let Ok(Some(body)) = buffer.next_body() {
            let Ok(said) = frame::decode::<RelayFrame>(&body) else { return };
            match channels.hear(said) {
                Ok(Some(News::Stopped(channel))) => channels.end(channel).expect("said"),
                Ok(_) => {}
                Err(_) => return,
            }
            for channel in 0..16 {
                let length = channels.front(channel).map_or(0, |chunk| chunk.bytes().len());
                assert!(length <= WINDOW as usize);
                if takes && length > 0 {
                    channels.take(channel, length).expect("said");
                }
                if channels.room(channel) > 0 {
                    channels.send(channel, vec![0], Vec::new()).expect("granted");
                }
            }
            sent += channels.waiting().len();
            channels.sent(channels.waiting().len());
        }
    }
    assert!(sent <= (bytes.len() + MAX_CHANNELS) * 1024, "much is said for little");
});
