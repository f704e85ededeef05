//! Files over ssh: version 3 of SFTP (draft-ietf-secsh-filexfer-02), which is what scp, sftp, sshfs and editors
//! speak, with those of OpenSSH's extensions that they ask for.
//!
//! Whoever gets here is root and may do everything, so there is nothing to keep them from; what they send
//! is bounded all the same. One request after the other, in a thread of its own, which may wait for a disk.

/// What is said of a file.
mod attributes;
/// What is open.
mod handles;
/// Names of files.
mod paths;
/// What is asked, and done.
mod requests;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use self::requests::Server;
use crate::guest::console::say;

/// Largest request: a write of 256 KiB, which is what OpenSSH bounds itself to.
const MAX_REQUEST: usize = (256 << 10) + 1024;

/// Serves until the client closes the channel or is not understood.
pub fn serve(channel: &UnixStream) {
    if let Err(error) = converse(channel, channel, &mut Server::new()) {
        say(&format!("ssh: files: {error}"));
    }
}

fn converse(mut requests: impl Read, mut replies: impl Write, server: &mut Server) -> io::Result<()> {
    let mut length = [0; 4];
    loop {
        match requests.read_exact(&mut length) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        let length = u32::from_be_bytes(length) as usize;
        if length == 0 || length > MAX_REQUEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a request has an impossible length"));
        }
        let mut request = vec![0; length];
        requests.read_exact(&mut request)?;
        let reply = server.answer(&request).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        let whole = [&(reply.len() as u32).to_be_bytes()[..], &reply].concat();
        match replies.write_all(&whole) {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer_to(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut replies = Vec::new();
        converse(bytes, &mut replies, &mut Server::new()).map(|()| replies)
    }

    #[test]
    fn a_version_is_agreed_on() {
        let reply = answer_to(&[0, 0, 0, 5, 1, 0, 0, 0, 6]).expect("answered");
        assert_eq!(&reply[4..9], [2, 0, 0, 0, 3]);
    }

    #[test]
    fn what_is_no_request_ends_it() {
        for bad in [&[0xff; 8][..], &[0; 4], &[0, 0, 0, 9, 1], &[0, 0, 0, 2, 3, 0]] {
            assert!(answer_to(bad).is_err(), "{bad:?}");
        }
        assert_eq!(answer_to(&[]).expect("nothing"), b"");
    }

    #[test]
    fn an_unknown_request_is_told_so() {
        let reply = answer_to(&[0, 0, 0, 5, 99, 0, 0, 0, 7]).expect("answered");
        assert_eq!(&reply[4..13], [101, 0, 0, 0, 7, 0, 0, 0, 8]);
    }
}
