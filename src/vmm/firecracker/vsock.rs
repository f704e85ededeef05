//! Connections from the host to a port of the guest's vsock (Firecracker, docs/vsock.md): on a
//! connection to its socket the monitor reads `CONNECT PORT`, answers `OK NUMBER` once the guest has
//! accepted, and carries bytes from then on. Where nobody listens in the guest it hangs up.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use smol::Async;
use smol::io::{AsyncReadExt, AsyncWriteExt};

use crate::vmm::deadline::within;

/// A guest that listens accepts at once.
const LIMIT: Duration = Duration::from_secs(10);

/// `OK ` and a number of 32 bits.
const MAX_ANSWER: usize = 16;

/// Has `socket`, a fresh connection to the monitor, become one to port `port` of the guest.
pub async fn connect(socket: OwnedFd, port: u32) -> io::Result<Async<UnixStream>> {
    let mut stream = Async::new(UnixStream::from(socket))?;
    let greeted = within(LIMIT, async {
        stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
        read_answer(&mut stream).await
    });
    let late = || Err(io::Error::new(io::ErrorKind::TimedOut, "the guest does not accept"));
    greeted.await.unwrap_or_else(late)?;
    Ok(stream)
}

/// Byte by byte: what follows the line is the guest's.
async fn read_answer(stream: &mut Async<UnixStream>) -> io::Result<()> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < MAX_ANSWER {
        if stream.read(&mut byte).await? == 0 {
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens on that port of the guest"));
        }
        match byte[0] {
            b'\n' if is_ok(&line) => return Ok(()),
            b'\n' => break,
            other => line.push(other),
        }
    }
    let said = String::from_utf8_lossy(&line).escape_debug().to_string();
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("the monitor answered {said}")))
}

fn is_ok(line: &[u8]) -> bool {
    let number = line.strip_prefix(b"OK ").and_then(|n| std::str::from_utf8(n).ok());
    number.is_some_and(|n| n.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn against(answer: &'static [u8]) -> (io::Result<Async<UnixStream>>, Vec<u8>) {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        theirs.write_all(answer).expect("answered");
        theirs.shutdown(std::net::Shutdown::Write).expect("closed");
        let connected = smol::block_on(connect(ours.into(), 1024));
        let mut asked = [0; 32];
        let count = theirs.read(&mut asked).expect("asked");
        (connected, asked[..count].to_vec())
    }

    #[test]
    fn what_follows_the_answer_is_left_to_the_connection() {
        let (connected, asked) = against(b"OK 1073741824\nhello");
        assert_eq!(asked, b"CONNECT 1024\n");
        let mut rest = String::new();
        smol::block_on(connected.expect("connected").read_to_string(&mut rest)).expect("read");
        assert_eq!(rest, "hello");
    }

    #[test]
    fn a_guest_that_does_not_listen_and_a_monitor_that_babbles_are_errors() {
        assert_eq!(against(b"").0.expect_err("refused").kind(), io::ErrorKind::ConnectionRefused);
        for bad in [&b"OK\n"[..], b"OK 99999999999\n", b"NO 1\n", b"OK 11111111111111111111111", b"OK -1\n"] {
            assert!(against(bad).0.is_err(), "{bad:?}");
        }
    }
}
