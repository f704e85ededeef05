//! Command line to another machine's daemon: what two relays say to each other, one on each machine, over a stream
//! that ssh carries.
//!
//! The far one says [`PREAMBLE`], so that whatever a login shell has said before is told from it, and its `Hello`; the
//! near one answers with its own. From then on frames of [`RelayFrame`] go both ways. Each connection to the daemon is a
//! channel, and so is each descriptor that travels over one. Channels that the near side opens have odd numbers, the
//! far side's even ones; numbers only grow.

use super::Fault;
use crate::model::ProcessRef;

/// Begins the conversation. Frozen.
pub const PREAMBLE: &[u8] = b"\0banger relay\n\0";

/// What one of them says. Append-only.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum RelayFrame {
    /// From the far side, first and once: the process that the daemon sees as its client.
    Here {
        /// It.
        process: ProcessRef,
    },
    /// From the near side: a channel that is a new connection to the daemon.
    Dial {
        /// The channel.
        channel: u32,
    },
    /// From the far side: such a channel could not be made. Nothing follows on it from here.
    Failed {
        /// The channel.
        channel: u32,
        /// Why.
        fault: Fault,
    },
    /// A channel that stands for a descriptor; the next [`RelayFrame::Data`] that names it takes it along.
    Pass {
        /// The channel.
        channel: u32,
        /// What the descriptor is.
        kind: Passed,
    },
    /// Bytes.
    Data {
        /// The channel.
        channel: u32,
        /// At least one, at most 32 KiB, and no more than was granted.
        bytes: Vec<u8>,
        /// Channels whose descriptors stand beside the first byte.
        files: Vec<u32>,
    },
    /// Nothing more comes on a channel from this side.
    End {
        /// The channel.
        channel: u32,
    },
    /// Nothing more is taken on a channel by this side, which waits for the other's end.
    Stop {
        /// The channel.
        channel: u32,
    },
    /// So many more bytes may be sent.
    Grant {
        /// The channel.
        channel: u32,
        /// How many.
        bytes: u32,
    },
}

/// What a descriptor that travels is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Passed {
    /// A connected socket: bytes both ways, each way ends by itself.
    Stream,
    /// Something to be read to its end.
    Source,
    /// A file, as far as it is now: a copy of it is passed. From the near side only.
    File {
        /// Its length.
        bytes: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{FaultKind, frame};

    #[test]
    fn its_bytes_are_pinned() {
        let process = ProcessRef { pid: 7, start_time: 8, boot: 9 };
        let fault = Fault::new(FaultKind::Unavailable, "no");
        let pinned: [(RelayFrame, &[u8]); 10] = [
            (RelayFrame::Here { process }, &[0, 14, 8, 9]),
            (RelayFrame::Dial { channel: 1 }, &[1, 1]),
            (RelayFrame::Failed { channel: 1, fault }, &[2, 1, 9, 2, b'n', b'o', 0, 0]),
            (RelayFrame::Pass { channel: 2, kind: Passed::Stream }, &[3, 2, 0]),
            (RelayFrame::Pass { channel: 2, kind: Passed::Source }, &[3, 2, 1]),
            (RelayFrame::Pass { channel: 2, kind: Passed::File { bytes: 3 } }, &[3, 2, 2, 3]),
            (RelayFrame::Data { channel: 1, bytes: vec![65, 66], files: vec![2] }, &[4, 1, 2, 65, 66, 1, 2]),
            (RelayFrame::End { channel: 1 }, &[5, 1]),
            (RelayFrame::Stop { channel: 1 }, &[6, 1]),
            (RelayFrame::Grant { channel: 1, bytes: 5 }, &[7, 1, 5]),
        ];
        for (value, bytes) in pinned {
            assert_eq!(frame::encode(&value).expect("encodes")[frame::HEADER..], *bytes, "{value:?}");
            assert_eq!(frame::decode(bytes), Ok(value));
        }
    }
}
