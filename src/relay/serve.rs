//! One side of a relay at work: the stream to the other side and the descriptors of all channels, in one thread that
//! waits in one place.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, OnceLock};

use rustix::event::{PollFd, PollFlags, poll};

use super::channels::{Channels, News, Side, Violation};
use super::ends::{End, Inflow, Outflow, hand_over, receive, rewound};
use super::handle::{Handle, Lost, Order};
use crate::model::ProcessRef;
use crate::protocol::relay::{Passed, RelayFrame};
use crate::protocol::{Fault, FaultKind, FrameBuffer, frame};

/// Nothing more is read for the other side while so many bytes wait to be sent to it.
const ENOUGH: usize = 256 << 10;

/// What is read of the stream at once.
const PIECE: usize = 64 << 10;

/// Connects to the daemon for a channel, and tells the handle.
pub type Dialer = Box<dyn Fn(u32, Handle) + Send>;

/// How it came to its end.
#[derive(Debug)]
pub enum Ending {
    /// It was asked to.
    Finished,
    /// The stream has ended.
    Cut,
    /// The stream is of no use.
    Broken(String),
}

/// A channel's descriptor here.
#[derive(Debug)]
struct Held {
    end: End,
    /// What is handed over in the place of a descriptor of the other side.
    offer: Option<OwnedFd>,
    is_finished: bool,
}

impl Held {
    fn new(end: End, offer: Option<OwnedFd>) -> Self {
        Self { end, offer, is_finished: false }
    }
}

/// What can be said of a descriptor that is to be handed over.
enum Offer<'a> {
    Ready(BorrowedFd<'a>),
    NotYet,
    Never,
}

/// One side.
pub struct Relay {
    channels: Channels,
    held: BTreeMap<u32, Held>,
    input: File,
    output: Option<File>,
    heard: FrameBuffer,
    handle: Handle,
    orders: Receiver<Order>,
    woken: UnixStream,
    dialer: Option<Dialer>,
    here: Arc<OnceLock<ProcessRef>>,
    is_finishing: bool,
    /// The channel that had its turn last.
    last: u32,
}

impl Relay {
    /// The side where the command line is. `heard` is what has come behind the greeting; `here` learns which process
    /// the daemon sees.
    pub fn near(
        input: OwnedFd,
        output: OwnedFd,
        heard: FrameBuffer,
        here: Arc<OnceLock<ProcessRef>>,
    ) -> io::Result<(Self, Handle)> {
        let relay = Self::new(Side::Near, input, output, heard)?;
        let handle = relay.handle.clone();
        Ok((Self { here, ..relay }, handle))
    }

    /// The side where the daemon is, which sees `process`.
    pub fn far(
        input: OwnedFd,
        output: OwnedFd,
        heard: FrameBuffer,
        process: ProcessRef,
        dialer: Dialer,
    ) -> io::Result<Self> {
        let mut relay = Self::new(Side::Far, input, output, heard)?;
        relay.channels.here(process).map_err(io::Error::other)?;
        Ok(Self { dialer: Some(dialer), ..relay })
    }

    fn new(side: Side, input: OwnedFd, output: OwnedFd, heard: FrameBuffer) -> io::Result<Self> {
        for fd in [&input, &output] {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        let (handle, orders, woken) = Handle::new()?;
        Ok(Self {
            channels: Channels::new(side),
            held: BTreeMap::new(),
            input: input.into(),
            output: Some(output.into()),
            heard,
            handle,
            orders,
            woken,
            dialer: None,
            here: Arc::default(),
            is_finishing: false,
            last: 0,
        })
    }

    /// Works to the end. All connections are closed then; `explain` says why they are, where it was not asked for.
    pub fn run(mut self, explain: impl FnOnce(&Ending) -> Fault) -> Ending {
        let ending = match self.work() {
            Ok(Ending::Cut) if self.is_finishing => Ending::Finished,
            Ok(ending) => ending,
            Err(e) => Ending::Broken(e.to_string()),
        };
        self.abandon(explain(&ending));
        ending
    }

    fn work(&mut self) -> io::Result<Ending> {
        // Some of it may have come right behind the greeting.
        self.hear_all()?;
        loop {
            if let Some(ending) = self.turn()? {
                return Ok(ending);
            }
        }
    }

    /// Connections first: whoever reads a stream beside one must not take its end for the real one.
    fn abandon(&mut self, fault: Fault) {
        while let Ok(order) = self.orders.try_recv() {
            if let Order::Dial { lost, .. } = order {
                lost.set(fault.clone());
            }
        }
        for held in self.held.values_mut() {
            if let End::Connection { lost, .. } = &held.end {
                lost.iter().for_each(|lost| lost.set(fault.clone()));
                held.end = End::Closed;
            }
        }
        self.held.clear();
    }

    fn turn(&mut self) -> io::Result<Option<Ending>> {
        let ready = self.wait()?;
        if ready.woken {
            self.take_orders().map_err(broken)?;
        }
        if ready.input && !self.listen()? {
            return Ok(Some(Ending::Cut));
        }
        for (channel, events) in ready.channels {
            self.serve(channel, events).map_err(broken)?;
        }
        self.speak()?;
        Ok(None)
    }

    fn wait(&self) -> io::Result<Ready> {
        let mut fds = vec![PollFd::new(&self.woken, PollFlags::IN), PollFd::new(&self.input, PollFlags::IN)];
        let output = self.output.as_ref().filter(|_| !self.channels.waiting().is_empty());
        fds.extend(output.map(|output| PollFd::new(output, PollFlags::OUT)));
        let first = fds.len();
        let mut watched = Vec::new();
        // In turns, for what waits to be sent may be enough after the first of them.
        let (before, behind) = (self.held.range(..=self.last), self.held.range(self.last.saturating_add(1)..));
        for (channel, held) in behind.chain(before) {
            if let (Some(events), Some(fd)) = (self.interest(*channel, held), held.end.fd()) {
                watched.push(*channel);
                fds.push(PollFd::from_borrowed_fd(fd, events));
            }
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let events = fds[first..].iter().map(PollFd::revents);
        let channels = watched.into_iter().zip(events).filter(|(_, events)| !events.is_empty()).collect();
        Ok(Ready { woken: is_ready(&fds[0]), input: is_ready(&fds[1]), channels })
    }

    /// What to wait for; `None`: for nothing, not even its end.
    fn interest(&self, channel: u32, held: &Held) -> Option<PollFlags> {
        let mut events = PollFlags::empty();
        let may_send = self.channels.room(channel) > 0 && self.channels.waiting().len() < ENOUGH;
        if held.end.is_read() && may_send {
            events |= PollFlags::IN;
        }
        if self.is_deliverable(channel) {
            events |= PollFlags::OUT;
        }
        let has_ended = self.channels.has_ended(channel);
        let is_watched = !events.is_empty() || matches!(held.end, End::Sink(_)) || (held.end.is_socket() && has_ended);
        is_watched.then_some(events)
    }

    fn is_deliverable(&self, channel: u32) -> bool {
        let is_here = |file: &u32| !matches!(self.offer(*file), Offer::NotYet);
        self.channels.front(channel).is_some_and(|chunk| chunk.files().iter().all(is_here))
    }

    fn take_orders(&mut self) -> Result<(), Violation> {
        let mut bytes = [0; 64];
        while matches!((&self.woken).read(&mut bytes), Ok(1..)) {}
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Dial { lost, .. } if !self.channels.has_room() => {
                    lost.set(Fault::new(FaultKind::Refused, "too many connections to the other machine at once"));
                }
                Order::Dial { socket, lost } => {
                    let channel = self.channels.dial()?;
                    self.held.insert(channel, Held::new(End::Connection { socket, lost: Some(lost) }, None));
                }
                Order::Dialled { channel, dialled } => self.dialled(channel, dialled)?,
                Order::Finish => self.is_finishing = true,
            }
        }
        Ok(())
    }

    fn dialled(&mut self, channel: u32, dialled: Result<UnixStream, Fault>) -> Result<(), Violation> {
        let Some(held) = self.held.get_mut(&channel) else { return Ok(()) };
        let unblocked = dialled.and_then(|socket| match socket.set_nonblocking(true) {
            Ok(()) => Ok(socket),
            Err(e) => Err(Fault::failed("cannot use the connection to the daemon", &e)),
        });
        match unblocked {
            Ok(socket) => {
                held.end = End::Connection { socket, lost: None };
                self.deliver(channel)
            }
            Err(fault) => {
                self.held.remove(&channel);
                let orphans = self.channels.fail(channel, fault)?;
                self.forget(orphans)
            }
        }
    }

    /// Takes what the other side has said; false at its end.
    fn listen(&mut self) -> io::Result<bool> {
        let mut piece = vec![0; PIECE];
        match self.input.read(&mut piece) {
            Ok(0) => return Ok(false),
            Ok(count) => self.heard.push(&piece[..count]),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => return Ok(true),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
            Err(e) => return Err(e),
        }
        self.hear_all().map(|()| true)
    }

    fn hear_all(&mut self) -> io::Result<()> {
        while let Some(body) = self.heard.next_body().map_err(broken)? {
            let said = frame::decode(&body).map_err(broken)?;
            self.hear(said).map_err(broken)?;
        }
        Ok(())
    }

    fn hear(&mut self, said: RelayFrame) -> Result<(), Violation> {
        let about = channel_of(&said);
        match self.channels.hear(said)? {
            None => {}
            Some(News::Here(process)) => drop(self.here.set(process)),
            Some(News::Dial(channel)) => {
                self.held.insert(channel, Held::new(End::Awaited, None));
                if let Some(dialer) = &self.dialer {
                    dialer(channel, self.handle.clone());
                }
            }
            Some(News::Failed(channel, fault)) => self.close(channel, Some(fault))?,
            Some(News::Passed(channel, kind)) => self.accept(channel, kind)?,
            Some(News::Stopped(channel)) => self.channels.end(channel)?,
            Some(News::Orphans(files)) => self.forget(files)?,
        }
        about.map_or(Ok(()), |channel| self.deliver(channel))
    }

    fn accept(&mut self, channel: u32, kind: Passed) -> Result<(), Violation> {
        if kind != Passed::Stream {
            self.channels.end(channel)?;
        }
        match receive(kind) {
            Ok((end, offer)) => drop(self.held.insert(channel, Held::new(end, offer))),
            // Whatever takes it along ends then.
            Err(_) => self.close(channel, None)?,
        }
        Ok(())
    }

    /// Descriptors that nobody takes along.
    fn forget(&mut self, files: Vec<u32>) -> Result<(), Violation> {
        files.into_iter().try_for_each(|file| {
            self.held.remove(&file);
            self.close(file, None)
        })
    }

    /// Ends a channel both ways.
    fn close(&mut self, channel: u32, fault: Option<Fault>) -> Result<(), Violation> {
        if let (Some(Held { end: End::Connection { lost: Some(lost), .. }, .. }), Some(fault)) =
            (self.held.get(&channel), fault)
        {
            lost.set(fault);
        }
        self.held.remove(&channel);
        self.channels.end(channel)?;
        let orphans = self.channels.stop(channel)?;
        self.forget(orphans)
    }

    fn serve(&mut self, channel: u32, events: PollFlags) -> Result<(), Violation> {
        self.last = channel;
        self.draw(channel, events)?;
        self.deliver(channel)?;
        let Some(held) = self.held.get(&channel) else { return Ok(()) };
        let is_hung_up = events.intersects(PollFlags::HUP | PollFlags::ERR);
        let is_sink = matches!(held.end, End::Sink(_));
        // Its other end is closed whole, and all that came from it was read.
        if is_hung_up && (is_sink || (held.end.is_socket() && self.channels.has_ended(channel))) {
            return self.give_up(channel);
        }
        Ok(())
    }

    /// Nobody takes what comes on this channel.
    fn give_up(&mut self, channel: u32) -> Result<(), Violation> {
        let orphans = self.channels.stop(channel)?;
        self.forget(orphans)?;
        self.finish(channel)
    }

    /// Reads once for the other side.
    fn draw(&mut self, channel: u32, events: PollFlags) -> Result<(), Violation> {
        let room = self.channels.room(channel);
        let Some(held) = self.held.get_mut(&channel).filter(|held| held.end.is_read()) else { return Ok(()) };
        let is_readable = events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR);
        if room == 0 || !is_readable || self.channels.waiting().len() >= ENOUGH {
            return Ok(());
        }
        match held.end.read(room) {
            Inflow::Nothing => Ok(()),
            Inflow::Over => self.channels.end(channel),
            Inflow::Bytes(bytes, files) => {
                let mut passed = Vec::with_capacity(files.len());
                for fd in files {
                    match self.hand_over(fd)? {
                        Ok(file) => passed.push(file),
                        Err(fault) => {
                            self.forget(passed)?;
                            return self.close(channel, Some(fault));
                        }
                    }
                }
                self.channels.send(channel, bytes, passed)
            }
        }
    }

    /// The channel by which a descriptor travels, or why it does not.
    fn hand_over(&mut self, fd: OwnedFd) -> Result<Result<u32, Fault>, Violation> {
        if !self.channels.has_room() {
            return Ok(Err(Fault::new(FaultKind::Refused, "too many descriptors on their way to another machine")));
        }
        match hand_over(fd) {
            Ok((kind, _)) if !self.channels.side().may_pass(kind) => {
                Ok(Err(Fault::new(FaultKind::Refused, "files of the daemon's machine stay there")))
            }
            Ok((kind, end)) => {
                let channel = self.channels.pass(kind)?;
                self.held.insert(channel, Held::new(end, None));
                Ok(Ok(channel))
            }
            Err(e) => Ok(Err(Fault::failed("cannot pass a descriptor to another machine", &e))),
        }
    }

    /// Writes what has come on a channel, as much as is taken now.
    fn deliver(&mut self, channel: u32) -> Result<(), Violation> {
        while let Some(chunk) = self.channels.front(channel) {
            let files = chunk.files().to_vec();
            let mut beside = Vec::with_capacity(files.len());
            for file in &files {
                match self.offer(*file) {
                    Offer::Ready(fd) => beside.push(fd.try_clone_to_owned()),
                    Offer::NotYet => return Ok(()),
                    Offer::Never => return self.close(channel, None),
                }
            }
            let Ok(beside) = beside.into_iter().collect::<io::Result<Vec<OwnedFd>>>() else {
                return self.close(channel, None);
            };
            let borrowed: Vec<_> = beside.iter().map(AsFd::as_fd).collect();
            let Some(held) = self.held.get_mut(&channel) else { break };
            match held.end.write(chunk.bytes(), &borrowed) {
                Outflow::Nothing => return Ok(()),
                Outflow::Gone => return self.give_up(channel),
                Outflow::Bytes(count) => {
                    self.channels.take(channel, count)?;
                    files.into_iter().for_each(|file| self.handed_over(file));
                }
            }
        }
        self.finish(channel)
    }

    /// All has come: its reader learns of the end, and whoever waits for a copy gets it.
    fn finish(&mut self, channel: u32) -> Result<(), Violation> {
        let is_drained = self.channels.is_drained(channel);
        if let Some(held) = self.held.get_mut(&channel).filter(|held| is_drained && !held.is_finished) {
            held.is_finished = true;
            held.end.finish();
            if let End::Copy { file, missing } = &held.end {
                held.offer = rewound(file).ok().filter(|_| *missing == 0);
                held.end = End::Closed;
                let waiting = |number: &u32| self.channels.front(*number).is_some_and(|c| c.files().contains(&channel));
                let waiting: Vec<u32> = self.held.keys().copied().filter(waiting).collect();
                waiting.into_iter().try_for_each(|number| self.deliver(number))?;
            }
        }
        self.retire(channel);
        Ok(())
    }

    fn offer(&self, file: u32) -> Offer<'_> {
        match self.held.get(&file) {
            Some(Held { end: End::Copy { .. }, .. }) => Offer::NotYet,
            Some(Held { offer: Some(offer), .. }) => Offer::Ready(offer.as_fd()),
            Some(_) | None => Offer::Never,
        }
    }

    /// The other end of what travels is its reader's now.
    fn handed_over(&mut self, file: u32) {
        if let Some(held) = self.held.get_mut(&file) {
            held.offer = None;
        }
        self.retire(file);
    }

    /// Closes what is over, and forgets it once nobody waits for it.
    fn retire(&mut self, channel: u32) {
        let is_over = self.channels.has_ended(channel) && self.channels.is_drained(channel);
        let Some(held) = self.held.get_mut(&channel).filter(|_| is_over) else { return };
        if !matches!(held.end, End::Copy { .. }) {
            held.end = End::Closed;
        }
        // A copy that failed stays, so that whoever waits for it learns that.
        if held.offer.is_none() && !matches!(held.end, End::Copy { .. }) {
            self.held.remove(&channel);
        }
    }

    /// Sends what waits, as much as is taken now.
    fn speak(&mut self) -> io::Result<()> {
        while let Some(output) = self.output.as_mut().filter(|_| !self.channels.waiting().is_empty()) {
            match output.write(self.channels.waiting()) {
                Ok(count) => self.channels.sent(count),
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => return Ok(()),
                // What it has said until its end is still to be heard.
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => self.output = None,
                Err(e) => return Err(e),
            }
        }
        if self.is_finishing {
            self.output = None;
        }
        Ok(())
    }
}

/// What can be done without waiting.
struct Ready {
    woken: bool,
    input: bool,
    channels: Vec<(u32, PollFlags)>,
}

fn broken(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn channel_of(said: &RelayFrame) -> Option<u32> {
    match said {
        RelayFrame::Here { .. } => None,
        RelayFrame::Dial { channel }
        | RelayFrame::Failed { channel, .. }
        | RelayFrame::Pass { channel, .. }
        | RelayFrame::Data { channel, .. }
        | RelayFrame::End { channel }
        | RelayFrame::Stop { channel }
        | RelayFrame::Grant { channel, .. } => Some(*channel),
    }
}

impl Lost {
    /// Nothing is known but this.
    pub fn unexplained() -> Fault {
        Fault::new(FaultKind::Unavailable, "the connection to the other machine has ended")
    }
}
