//! What a client of `banger mcp` sends: lines are the same however they arrive, and each is a message or refused.
#![no_main]

use banger::mcp::{Batch, Line, Lines, Message, parse};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let at_once = Lines::default().hear(bytes);
    let mut lines = Lines::default();
    let apart: Vec<Line> = bytes.chunks(7).flat_map(|chunk| lines.hear(chunk)).collect();
    assert_eq!(at_once, apart);
    for line in at_once {
        let Line::Whole(line) = line else { continue };
        let messages = match parse(&line) {
            Batch::One(message) => vec![message],
            Batch::Many(messages) => messages,
        };
        for message in messages {
            if let Message::Request { id, .. } = message {
                assert!(id.is_string() || id.is_number(), "{id} cannot be sent back");
            }
        }
    }
});
