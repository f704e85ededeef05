//! What other threads ask of a relay that runs.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use crate::protocol::Fault;

/// Why a connection has ended, where that is known.
#[derive(Debug, Default)]
pub struct Lost(Mutex<Option<Fault>>);

impl Lost {
    /// Why.
    pub fn fault(&self) -> Option<Fault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first reason is the cause.
    pub fn set(&self, fault: Fault) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(fault);
    }
}

/// What is asked.
#[derive(Debug)]
pub(super) enum Order {
    /// A connection to the daemon, whose end here is `socket`.
    Dial { socket: UnixStream, lost: Arc<Lost> },
    /// A connection that the other side has asked for.
    Dialled { channel: u32, dialled: Result<UnixStream, Fault> },
    /// To come to an end.
    Finish,
}

/// Asks a relay.
#[derive(Debug, Clone)]
pub struct Handle {
    orders: Sender<Order>,
    wake: Arc<UnixStream>,
}

impl Handle {
    /// One, and what the relay waits on.
    pub(super) fn new() -> io::Result<(Self, Receiver<Order>, UnixStream)> {
        let (orders, receiver) = channel();
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        Ok((Self { orders, wake: Arc::new(wake) }, receiver, woken))
    }

    /// A connection to the daemon, and where its end is explained; `None` when the relay has ended.
    pub fn dial(&self) -> io::Result<Option<(UnixStream, Arc<Lost>)>> {
        let (ours, theirs) = UnixStream::pair()?;
        theirs.set_nonblocking(true)?;
        let lost = Arc::new(Lost::default());
        let is_heard = self.order(Order::Dial { socket: theirs, lost: lost.clone() });
        Ok(is_heard.then_some((ours, lost)))
    }

    /// Says what became of a connection that the other side has asked for.
    pub fn dialled(&self, channel: u32, dialled: Result<UnixStream, Fault>) {
        // A relay that has ended needs none.
        self.order(Order::Dialled { channel, dialled });
    }

    /// Asks for the end, after what was said until now.
    pub fn finish(&self) {
        self.order(Order::Finish);
    }

    fn order(&self, order: Order) -> bool {
        let is_sent = self.orders.send(order).is_ok();
        // A full buffer wakes as well as one more byte.
        is_sent && (&*self.wake).write(&[0]).map_or_else(|e| e.kind() == io::ErrorKind::WouldBlock, |_| true)
    }
}
