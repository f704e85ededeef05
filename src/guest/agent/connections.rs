//! The agent's line where the monitor has a vsock: one connection of the host after the other, which
//! together are like a port whose host comes and goes.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::mouth::Mouth;
use super::requests::Worker;
use super::serve::{Line, serve};
use super::start;
use crate::guest::console::say;
use crate::guest::error::{Doing, GuestError, chain};
use crate::guest::vsock::{self, Listener};
use crate::protocol::guest::VSOCK_PORT;

/// Listens, says so, and talks for as long as the guest lives.
pub fn talk(mouth: &Arc<Mouth>, worker: &Worker) -> Result<(), GuestError> {
    let listener = Listener::bind(VSOCK_PORT).doing(|| format!("listen on vsock port {VSOCK_PORT}"))?;
    if let Err(error) = vsock::ring(VSOCK_PORT) {
        // Nobody waits for it: the host was restarted, and asks by itself.
        say(&format!("the host is not rung: {error}"));
    }
    let voice = Voice::default();
    let (speaker, mut speaking) = (mouth.clone(), voice.clone());
    start("port writer", move || {
        if let Err(error) = speaker.speak(&mut speaking).doing(|| "write to the host".into()) {
            say(&format!("trouble: {}", chain(&error)));
        }
    });
    serve(&mut Connections { listener, present: None, voice }, mouth, worker).doing(|| "listen to the host".into())
}

/// Where what is said goes at present. Without a host it goes nowhere: the next greeting says it anew.
#[derive(Debug, Default, Clone)]
struct Voice(Arc<Mutex<Option<Arc<File>>>>);

impl Voice {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<File>>> {
        // A thread that panicked has ended the process (`panic = "abort"`).
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Voice {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Not held while it writes: a host that does not read must not keep the next from coming.
        let present = self.lock().clone();
        match present.map(|host| (&*host).write(bytes)) {
            Some(Ok(count)) if count > 0 => Ok(count),
            Some(Err(e)) if e.kind() == io::ErrorKind::Interrupted => Err(e),
            // It has gone; its reader will notice.
            Some(_) | None => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Connections {
    listener: Listener,
    present: Option<Arc<File>>,
    voice: Voice,
}

impl Line for Connections {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(host) = &self.present else { return Ok(0) };
        match (&**host).read(buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Err(e),
            // Reset is a way of going.
            Err(_) => Ok(0),
            read => read,
        }
    }

    fn wait_for_host(&mut self) -> io::Result<bool> {
        (self.present, *self.voice.lock()) = (None, None);
        let host = Arc::new(File::from(self.listener.accept()?));
        (self.present, *self.voice.lock()) = (Some(host.clone()), Some(host));
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_without_a_host_goes_nowhere_and_holds_up_nobody() {
        let mut voice = Voice::default();
        voice.write_all(b"to nobody").expect("said");
        let (host, heard) = std::os::unix::net::UnixStream::pair().expect("a pair");
        *voice.lock() = Some(Arc::new(File::from(std::os::fd::OwnedFd::from(host))));
        voice.write_all(b"hello").expect("said");
        drop(heard);
        voice.write_all(b"to one who has gone").expect("said");
    }
}
