//! The channels of one side: what the other side says is checked and kept, what this side says becomes bytes. Pure.
//!
//! Each side may send on a channel what the other has granted, at first [`WINDOW`] bytes; what is taken is granted
//! anew. So a reader that does not read holds up its own channel only, and nobody keeps more than a window for it.
//!
//! A channel is over when each side has said `End`. Who does not take any more says `Stop`, and what comes until the
//! other's `End` is dropped: so no frame ever names a channel that is not there.

use std::collections::{BTreeMap, VecDeque};

use crate::model::ProcessRef;
use crate::os::socket::MAX_FILES;
use crate::protocol::relay::{Passed, RelayFrame};
use crate::protocol::{Fault, frame};

/// Bytes that a channel may be ahead of whoever reads it.
pub const WINDOW: u32 = 512 << 10;

/// Most bytes of a frame.
pub const CHUNK: usize = 32 << 10;

/// Most channels at once, those of descriptors included.
pub const MAX_CHANNELS: usize = 128;

/// Taken bytes are granted anew when they are this many.
const STEP: u32 = WINDOW / 4;

/// Most bytes that wait to be sent. What is waiting is little more than one turn's data and the grants for what has
/// come: a peer that sends and does not listen comes here.
const MAX_WAITING: usize = 4 << 20;

/// Which of the two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Where the command line is.
    Near,
    /// Where the daemon is.
    Far,
}

impl Side {
    /// Whether this side may pass a descriptor of this kind on. What comes from the daemon's machine fills no disk here.
    pub fn may_pass(self, kind: Passed) -> bool {
        self == Self::Near || !matches!(kind, Passed::File { .. })
    }

    fn other(self) -> Self {
        match self {
            Self::Near => Self::Far,
            Self::Far => Self::Near,
        }
    }
}

/// The other side does not keep to the language.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A channel that is not there, or already is, or is not that side's to open.
    #[error("channel {0} cannot be meant")]
    Channel(u32),
    /// More than was granted.
    #[error("channel {0} brings more than was asked for")]
    Flood(u32),
    /// More channels than there may be.
    #[error("more than {MAX_CHANNELS} channels at once")]
    Crowd,
    /// Something at a time when it makes no sense.
    #[error("{0} at this point makes no sense")]
    Untimely(&'static str),
    /// It does not listen.
    #[error("it does not take what is said to it")]
    Deaf,
    /// No frame.
    #[error(transparent)]
    Frame(#[from] frame::FrameError),
}

/// What the owner of the descriptors has to know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// The process that the daemon sees.
    Here(ProcessRef),
    /// A connection to the daemon is wanted.
    Dial(u32),
    /// It could not be made.
    Failed(u32, Fault),
    /// A descriptor will travel.
    Passed(u32, Passed),
    /// The other side takes nothing more on a channel.
    Stopped(u32),
    /// Descriptors of these channels will go nowhere.
    Orphans(Vec<u32>),
}

/// Bytes that have come, and what stands beside the first of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    bytes: Vec<u8>,
    taken: usize,
    files: Vec<u32>,
}

impl Chunk {
    /// What was not taken yet.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    /// The channels of the descriptors beside the first byte, until that is taken.
    pub fn files(&self) -> &[u32] {
        &self.files
    }
}

#[derive(Debug)]
struct Channel {
    /// Whether it is a connection to the daemon: only over such a one descriptors travel.
    is_connection: bool,
    /// Whether it stands for a descriptor of the other side that nothing has taken along yet.
    is_waiting: bool,
    /// Bytes that may be sent.
    granted: u32,
    has_ended: bool,
    /// Bytes that may come.
    allowed: u32,
    /// Bytes that were taken since the last grant.
    owed: u32,
    inbox: VecDeque<Chunk>,
    has_heard_end: bool,
    has_stopped: bool,
}

impl Channel {
    fn new(is_connection: bool) -> Self {
        Self {
            is_connection,
            is_waiting: false,
            granted: WINDOW,
            has_ended: false,
            allowed: WINDOW,
            owed: 0,
            inbox: VecDeque::new(),
            has_heard_end: false,
            has_stopped: false,
        }
    }
}

/// All channels of one side.
#[derive(Debug)]
pub struct Channels {
    side: Side,
    open: BTreeMap<u32, Channel>,
    /// The number of the next channel of this side; `None` when all are used up.
    next: Option<u32>,
    /// The least number that the other side may give to its next one.
    others_next: u64,
    has_heard_here: bool,
    waiting: Vec<u8>,
}

impl Channels {
    /// None yet.
    pub fn new(side: Side) -> Self {
        let (next, others_next) = match side {
            Side::Near => (1, 2),
            Side::Far => (2, 1),
        };
        Self { side, open: BTreeMap::new(), next: Some(next), others_next, has_heard_here: false, waiting: Vec::new() }
    }

    /// Which side this is.
    pub fn side(&self) -> Side {
        self.side
    }

    /// Bytes for the other side.
    pub fn waiting(&self) -> &[u8] {
        &self.waiting
    }

    /// So many of them were sent.
    pub fn sent(&mut self, count: usize) {
        self.waiting.drain(..count);
    }

    fn say(&mut self, frame: &RelayFrame) -> Result<(), Violation> {
        self.waiting.extend(frame::encode(frame)?);
        if self.waiting.len() > MAX_WAITING { Err(Violation::Deaf) } else { Ok(()) }
    }

    /// Says which process this is.
    pub fn here(&mut self, process: ProcessRef) -> Result<(), Violation> {
        self.say(&RelayFrame::Here { process })
    }

    /// Whether one more channel may be opened by this side.
    pub fn has_room(&self) -> bool {
        self.open.len() < MAX_CHANNELS && self.next.is_some()
    }

    fn number(&mut self) -> Result<u32, Violation> {
        let number = self.next.filter(|_| self.open.len() < MAX_CHANNELS).ok_or(Violation::Crowd)?;
        self.next = number.checked_add(2);
        Ok(number)
    }

    /// Opens a connection to the daemon.
    pub fn dial(&mut self) -> Result<u32, Violation> {
        let channel = self.number()?;
        self.open.insert(channel, Channel::new(true));
        self.say(&RelayFrame::Dial { channel })?;
        Ok(channel)
    }

    /// Opens a channel for a descriptor of this side.
    pub fn pass(&mut self, kind: Passed) -> Result<u32, Violation> {
        let channel = self.number()?;
        let allowed = if kind == Passed::Stream { WINDOW } else { 0 };
        self.open.insert(channel, Channel { allowed, ..Channel::new(false) });
        self.say(&RelayFrame::Pass { channel, kind })?;
        Ok(channel)
    }

    /// Says that a connection could not be made. Descriptors of the channels that it returns go nowhere.
    pub fn fail(&mut self, channel: u32, fault: Fault) -> Result<Vec<u32>, Violation> {
        let orphans = self.stop_silently(channel);
        if let Some(known) = self.open.get_mut(&channel) {
            known.has_ended = true;
            self.say(&RelayFrame::Failed { channel, fault: clipped(fault) })?;
            self.settle(channel);
        }
        Ok(orphans)
    }

    /// How many bytes may be read for `channel`: no more than may be sent on it, 0 when it has ended.
    pub fn room(&self, channel: u32) -> usize {
        let known = self.open.get(&channel).filter(|known| !known.has_ended);
        known.map_or(0, |known| (known.granted as usize).min(CHUNK))
    }

    /// Sends `bytes`, at most [`Channels::room`] and at least one, and `files` beside the first.
    pub fn send(&mut self, channel: u32, bytes: Vec<u8>, files: Vec<u32>) -> Result<(), Violation> {
        let count = bytes.len() as u32;
        let Some(known) = self.open.get_mut(&channel) else { return Err(Violation::Channel(channel)) };
        known.granted = known.granted.checked_sub(count).ok_or(Violation::Flood(channel))?;
        self.say(&RelayFrame::Data { channel, bytes, files })
    }

    /// Says that nothing more comes; once is enough.
    pub fn end(&mut self, channel: u32) -> Result<(), Violation> {
        let Some(known) = self.open.get_mut(&channel).filter(|known| !known.has_ended) else { return Ok(()) };
        known.has_ended = true;
        self.say(&RelayFrame::End { channel })?;
        self.settle(channel);
        Ok(())
    }

    /// Says that nothing more is taken; once is enough. Descriptors of the channels that it returns go nowhere.
    pub fn stop(&mut self, channel: u32) -> Result<Vec<u32>, Violation> {
        let is_open = self.open.get(&channel).is_some_and(|known| !known.has_heard_end && !known.has_stopped);
        let orphans = self.stop_silently(channel);
        if is_open {
            self.say(&RelayFrame::Stop { channel })?;
        }
        self.settle(channel);
        Ok(orphans)
    }

    fn stop_silently(&mut self, channel: u32) -> Vec<u32> {
        let Some(known) = self.open.get_mut(&channel) else { return Vec::new() };
        known.has_stopped = true;
        known.inbox.drain(..).flat_map(|chunk| chunk.files).collect()
    }

    /// What has come on `channel` and is to be taken next.
    pub fn front(&self, channel: u32) -> Option<&Chunk> {
        self.open.get(&channel)?.inbox.front()
    }

    /// So many bytes of it were taken, and with the first of them what stood beside it.
    pub fn take(&mut self, channel: u32, count: usize) -> Result<(), Violation> {
        let Some(known) = self.open.get_mut(&channel) else { return Ok(()) };
        let Some(chunk) = known.inbox.front_mut() else { return Ok(()) };
        chunk.files.clear();
        chunk.taken = (chunk.taken + count).min(chunk.bytes.len());
        if chunk.bytes().is_empty() {
            known.inbox.pop_front();
        }
        known.owed += count as u32;
        if known.owed >= STEP && !known.has_heard_end {
            let bytes = std::mem::take(&mut known.owed);
            known.allowed += bytes;
            self.say(&RelayFrame::Grant { channel, bytes })?;
        }
        self.settle(channel);
        Ok(())
    }

    /// Whether all that comes on `channel` has come and was taken, or is not wanted any more.
    pub fn is_drained(&self, channel: u32) -> bool {
        let drained = |known: &Channel| known.has_stopped || (known.has_heard_end && known.inbox.is_empty());
        self.open.get(&channel).is_none_or(drained)
    }

    /// Whether this side has ended `channel`.
    pub fn has_ended(&self, channel: u32) -> bool {
        self.open.get(&channel).is_none_or(|known| known.has_ended)
    }

    /// Forgets a channel that is over.
    fn settle(&mut self, channel: u32) {
        let over = |known: &Channel| known.has_ended && known.has_heard_end && known.inbox.is_empty();
        if self.open.get(&channel).is_some_and(over) {
            self.open.remove(&channel);
        }
    }

    /// Takes what the other side says.
    pub fn hear(&mut self, frame: RelayFrame) -> Result<Option<News>, Violation> {
        match frame {
            RelayFrame::Here { process } => self.heard_here(process).map(Some),
            RelayFrame::Dial { channel } => self.heard_dial(channel).map(Some),
            RelayFrame::Failed { channel, fault } => self.heard_failed(channel, fault).map(Some),
            RelayFrame::Pass { channel, kind } => self.heard_pass(channel, kind).map(Some),
            RelayFrame::Data { channel, bytes, files } => self.heard_data(channel, bytes, files),
            RelayFrame::End { channel } => self.heard_end(channel).map(|()| None),
            // What is over here need not be over there yet.
            RelayFrame::Stop { channel } | RelayFrame::Grant { channel, .. } if self.is_past(channel) => Ok(None),
            RelayFrame::Stop { channel } => {
                self.known(channel)?;
                Ok(Some(News::Stopped(channel)))
            }
            RelayFrame::Grant { channel, bytes } => self.heard_grant(channel, bytes).map(|()| None),
        }
    }

    /// Whether `channel` was there once.
    fn is_past(&self, channel: u32) -> bool {
        let number = u64::from(channel);
        let is_others = number % 2 == self.others_next % 2;
        let first_unused = if is_others { self.others_next } else { self.next.map_or(u64::MAX, u64::from) };
        number != 0 && number < first_unused && !self.open.contains_key(&channel)
    }

    fn known(&mut self, channel: u32) -> Result<&mut Channel, Violation> {
        self.open.get_mut(&channel).ok_or(Violation::Channel(channel))
    }

    fn heard_here(&mut self, process: ProcessRef) -> Result<News, Violation> {
        match (self.side, std::mem::replace(&mut self.has_heard_here, true)) {
            (Side::Near, false) => Ok(News::Here(process)),
            (Side::Near, true) | (Side::Far, _) => Err(Violation::Untimely("a greeting")),
        }
    }

    fn heard_dial(&mut self, channel: u32) -> Result<News, Violation> {
        match self.side {
            Side::Far => self.opened(channel, Channel::new(true))?,
            Side::Near => return Err(Violation::Untimely("a call for a connection")),
        }
        Ok(News::Dial(channel))
    }

    fn heard_failed(&mut self, channel: u32, fault: Fault) -> Result<News, Violation> {
        let side = self.side;
        let known = self.known(channel)?;
        if side == Side::Far || !known.is_connection || known.has_heard_end {
            return Err(Violation::Untimely("a failure"));
        }
        // This side's own end is still to be said.
        known.has_heard_end = true;
        known.inbox.clear();
        Ok(News::Failed(channel, clipped(fault)))
    }

    fn heard_pass(&mut self, channel: u32, kind: Passed) -> Result<News, Violation> {
        if !self.side.other().may_pass(kind) {
            return Err(Violation::Untimely("a file"));
        }
        let granted = if kind == Passed::Stream { WINDOW } else { 0 };
        self.opened(channel, Channel { granted, is_waiting: true, ..Channel::new(false) })?;
        Ok(News::Passed(channel, kind))
    }

    fn opened(&mut self, channel: u32, new: Channel) -> Result<(), Violation> {
        let number = u64::from(channel);
        if number < self.others_next || !(number - self.others_next).is_multiple_of(2) {
            return Err(Violation::Channel(channel));
        }
        if self.open.len() >= MAX_CHANNELS {
            return Err(Violation::Crowd);
        }
        self.others_next = number + 2;
        self.open.insert(channel, new);
        Ok(())
    }

    fn heard_data(&mut self, channel: u32, bytes: Vec<u8>, files: Vec<u32>) -> Result<Option<News>, Violation> {
        let known = self.known(channel)?;
        let count = bytes.len() as u32;
        if bytes.is_empty() || bytes.len() > CHUNK || known.has_heard_end {
            return Err(Violation::Untimely("a piece of data"));
        }
        if files.len() > MAX_FILES || (!files.is_empty() && !known.is_connection) {
            return Err(Violation::Untimely("a descriptor"));
        }
        known.allowed = known.allowed.checked_sub(count).ok_or(Violation::Flood(channel))?;
        let is_dropped = known.has_stopped;
        for file in &files {
            let waits = |known: &mut Channel| std::mem::replace(&mut known.is_waiting, false);
            if !self.open.get_mut(file).is_some_and(waits) {
                return Err(Violation::Channel(*file));
            }
        }
        if is_dropped {
            return Ok((!files.is_empty()).then_some(News::Orphans(files)));
        }
        let inbox = &mut self.known(channel)?.inbox;
        match inbox.back_mut() {
            // Many small pieces take no more room than a large one.
            Some(last) if files.is_empty() && last.files.is_empty() && last.bytes.len() + bytes.len() <= CHUNK => {
                last.bytes.extend_from_slice(&bytes);
            }
            _ => inbox.push_back(Chunk { bytes, taken: 0, files }),
        }
        Ok(None)
    }

    fn heard_end(&mut self, channel: u32) -> Result<(), Violation> {
        if std::mem::replace(&mut self.known(channel)?.has_heard_end, true) {
            return Err(Violation::Untimely("a second end"));
        }
        self.settle(channel);
        Ok(())
    }

    fn heard_grant(&mut self, channel: u32, bytes: u32) -> Result<(), Violation> {
        let known = self.known(channel)?;
        let granted = known.granted.checked_add(bytes).filter(|granted| *granted <= WINDOW);
        known.granted = granted.ok_or(Violation::Untimely("a grant"))?;
        Ok(())
    }
}

/// Most bytes of each text of a fault.
const MAX_TEXT: usize = 1024;

/// A fault that fits a frame.
fn clipped(fault: Fault) -> Fault {
    let clip = |text: String| text.chars().take(MAX_TEXT / 4).collect::<String>();
    let few = |texts: Vec<String>| texts.into_iter().take(8).map(clip).collect();
    Fault { kind: fault.kind, message: clip(fault.message), causes: few(fault.causes), hints: few(fault.hints) }
}
