use super::ends::{End, Inflow, hand_over, receive};
use super::*;
use crate::model::ProcessRef;
use crate::os::socket::{receive_with_files, send_all};
use crate::protocol::relay::{Passed, RelayFrame};
use crate::protocol::{Fault, FaultKind, FrameBuffer, frame};
use proptest::prelude::*;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);
const PROCESS: ProcessRef = ProcessRef { pid: 7, start_time: 8, boot: 9 };

/// Both sides at work; what is dialled comes out of `daemon`.
struct Pair {
    handle: Handle,
    daemon: mpsc::Receiver<UnixStream>,
    here: Arc<OnceLock<ProcessRef>>,
    near: JoinHandle<Ending>,
    far: JoinHandle<Ending>,
    /// Cut the streams between them.
    wires: [UnixStream; 2],
}

impl Pair {
    fn new() -> Self {
        Self::with(|_| Ok(()))
    }

    /// `refuse` says why a connection is not made.
    fn with(refuse: impl Fn(u32) -> Result<(), Fault> + Send + 'static) -> Self {
        Self::behind(FrameBuffer::default(), refuse)
    }

    /// `heard` has come to the far side right behind the greeting.
    fn behind(heard: FrameBuffer, refuse: impl Fn(u32) -> Result<(), Fault> + Send + 'static) -> Self {
        let (there, far_in) = UnixStream::pair().expect("a pair");
        let (back, near_in) = UnixStream::pair().expect("a pair");
        let copy = |end: &UnixStream| -> OwnedFd { end.try_clone().expect("a copy").into() };
        let (dialled, daemon) = mpsc::channel();
        let dialer: Dialer = Box::new(move |channel, handle| {
            let made = refuse(channel).map(|()| {
                let (ours, theirs) = UnixStream::pair().expect("a pair");
                theirs.set_read_timeout(Some(LIMIT)).expect("set");
                // A test that is over takes no more.
                let _ = dialled.send(theirs);
                ours
            });
            handle.dialled(channel, made);
        });
        let here = Arc::new(OnceLock::new());
        let nothing = FrameBuffer::default();
        let (near, handle) = Relay::near(copy(&near_in), copy(&there), nothing, here.clone()).expect("made");
        let far = Relay::far(copy(&far_in), copy(&back), heard, PROCESS, dialer).expect("made");
        let why = |_: &Ending| Fault::new(FaultKind::Unavailable, "it was cut");
        Self {
            handle,
            daemon,
            here,
            near: std::thread::spawn(move || near.run(why)),
            far: std::thread::spawn(move || far.run(why)),
            wires: [there, back],
        }
    }

    /// A connection: the command line's end, the daemon's, and where its end is explained.
    fn dial(&self) -> (UnixStream, UnixStream, Arc<Lost>) {
        let (ours, lost) = self.handle.dial().expect("dialled").expect("it runs");
        ours.set_read_timeout(Some(LIMIT)).expect("set");
        (ours, self.daemon.recv_timeout(LIMIT).expect("a connection"), lost)
    }

    fn cut(&self) {
        self.wires.iter().for_each(|wire| wire.shutdown(Shutdown::Both).expect("cut"));
    }

    fn finish(self) -> (Ending, Ending) {
        self.handle.finish();
        drop(self.wires);
        (self.near.join().expect("joined"), self.far.join().expect("joined"))
    }
}

fn noise(length: usize) -> Vec<u8> {
    (0..length as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// What arrives at `to` when `bytes` are written to `from` and it is shut down.
fn sent(from: &UnixStream, to: &UnixStream, bytes: &[u8]) -> Vec<u8> {
    let (mut from, mut to) = (from.try_clone().expect("a copy"), to.try_clone().expect("a copy"));
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || {
        from.write_all(&bytes).expect("written");
        from.shutdown(Shutdown::Write).expect("ended");
    });
    let mut read = Vec::new();
    to.read_to_end(&mut read).expect("read");
    writer.join().expect("joined");
    read
}

/// Sends `fd` over `from`; what `to` gets for it.
fn passed(from: &UnixStream, to: &UnixStream, fd: OwnedFd) -> OwnedFd {
    send_all(from, b"x", &[fd.as_fd()]).expect("sent");
    drop(fd);
    let (mut byte, mut files) = ([0; 1], Vec::new());
    assert_eq!(receive_with_files(to, &mut byte, &mut files).expect("received"), 1);
    assert_eq!((byte, files.len()), (*b"x", 1));
    files.remove(0)
}

#[test]
fn a_connection_carries_bytes_both_ways_and_each_way_ends_by_itself() {
    let pair = Pair::new();
    let (ours, theirs, _) = pair.dial();
    let much = noise(5 << 20);
    assert!(sent(&ours, &theirs, &much) == much);
    assert!(sent(&theirs, &ours, &much) == much);
    assert_eq!(pair.here.get(), Some(&PROCESS));
    assert!(matches!(pair.finish(), (Ending::Finished, Ending::Cut)));
}

#[test]
fn what_came_right_behind_the_greeting_is_heard() {
    let mut heard = FrameBuffer::default();
    heard.push(&frame::encode(&RelayFrame::Dial { channel: 1 }).expect("encodes"));
    heard.push(&frame::encode(&data(1, 3, &[])).expect("encodes"));
    let pair = Pair::behind(heard, |_| Ok(()));
    let mut theirs = pair.daemon.recv_timeout(LIMIT).expect("a connection");
    assert_eq!(theirs.read(&mut [9; 8]).expect("read"), 3);
    pair.cut();
}

#[test]
fn a_socket_travels_in_either_direction() {
    let pair = Pair::new();
    let (ours, theirs, _) = pair.dial();
    for (from, to) in [(&theirs, &ours), (&ours, &theirs)] {
        let (kept, given) = UnixStream::pair().expect("a pair");
        kept.set_read_timeout(Some(LIMIT)).expect("set");
        let got = UnixStream::from(passed(from, to, given.into()));
        got.set_read_timeout(Some(LIMIT)).expect("set");
        let much = noise(3 << 20);
        assert!(sent(&kept, &got, &much) == much);
        assert!(sent(&got, &kept, &much) == much);
    }
    pair.finish();
}

#[test]
fn a_pipe_is_read_to_its_end_and_a_reader_that_leaves_is_noticed() {
    let pair = Pair::new();
    let (ours, theirs, _) = pair.dial();
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let got = passed(&ours, &theirs, reader.into());
    let much = noise(2 << 20);
    let expected = much.clone();
    let written = std::thread::spawn(move || writer.write_all(&much).expect("written"));
    let mut read = Vec::new();
    File::from(got).read_to_end(&mut read).expect("read");
    assert!(read == expected);
    written.join().expect("joined");
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    drop(passed(&ours, &theirs, reader.into()));
    while writer.write_all(&[0; 4096]).is_ok() {}
    pair.finish();
}

#[test]
fn a_file_is_copied_from_where_it_was_read_to() {
    let pair = Pair::new();
    let (mut ours, theirs, lost) = pair.dial();
    for length in [0, 1, 3 << 20] {
        let content = noise(length);
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(b"before").and_then(|()| file.write_all(&content)).expect("written");
        file.seek(std::io::SeekFrom::Start(6)).expect("set");
        let mut got = File::from(passed(&ours, &theirs, file.into()));
        assert_eq!(got.metadata().expect("a file").len(), length as u64);
        let mut read = Vec::new();
        got.read_to_end(&mut read).expect("read");
        assert!(read == content);
    }
    let file = tempfile::tempfile().expect("a file");
    send_all(&theirs, b"x", &[file.as_fd()]).expect("sent");
    assert_eq!(ours.read(&mut [0; 8]).expect("ended"), 0, "none comes from there");
    assert!(lost.fault().is_none());
    pair.finish();
}

#[test]
fn what_cannot_travel_ends_its_connection_with_the_reason_and_no_other() {
    let pair = Pair::new();
    let (mut ours, _theirs, lost) = pair.dial();
    let (other, others, _) = pair.dial();
    let (_reader, writer) = std::io::pipe().expect("a pipe");
    send_all(&ours, b"x", &[writer.as_fd()]).expect("sent");
    assert_eq!(ours.read(&mut [0; 8]).expect("ended"), 0);
    assert!(lost.fault().expect("explained").to_string().contains("cannot pass a descriptor"));
    assert_eq!(sent(&other, &others, b"on"), b"on");
    pair.finish();
}

#[test]
fn a_reader_that_does_not_read_holds_up_nobody_else() {
    let pair = Pair::new();
    let (mut full, mut unread, _) = pair.dial();
    full.set_write_timeout(Some(Duration::from_millis(300))).expect("set");
    let mut written = 0;
    while let Ok(count) = full.write(&[7; 64 << 10]) {
        written += count;
        assert!(written < 8 << 20, "nobody reads it, and all of it is taken");
    }
    let (ours, theirs, _) = pair.dial();
    let much = noise(2 << 20);
    assert!(sent(&ours, &theirs, &much) == much);
    drop(full);
    let mut read = Vec::new();
    unread.read_to_end(&mut read).expect("read");
    assert_eq!(read.len(), written);
    pair.finish();
}

#[test]
fn a_connection_that_is_closed_here_is_closed_there() {
    let pair = Pair::new();
    let (ours, mut theirs, _) = pair.dial();
    drop(ours);
    assert_eq!(theirs.read(&mut [0; 8]).expect("ended"), 0);
    while theirs.write(&[0; 4096]).is_ok() {}
    pair.finish();
}

#[test]
fn a_connection_that_cannot_be_made_says_why() {
    let pair = Pair::with(|channel| match channel {
        1 => Err(Fault::new(FaultKind::Unavailable, "nobody there")),
        _ => Ok(()),
    });
    let (mut ours, lost) = pair.handle.dial().expect("dialled").expect("it runs");
    ours.write_all(b"hello").expect("written");
    assert_eq!(ours.read(&mut [0; 8]).unwrap_or(0), 0);
    assert_eq!(lost.fault().expect("explained").message, "nobody there");
    let (ours, theirs, _) = pair.dial();
    assert_eq!(sent(&ours, &theirs, b"on"), b"on");
    pair.finish();
}

#[test]
fn a_stream_that_is_cut_ends_all_with_the_reason() {
    let pair = Pair::new();
    let (mut ours, mut theirs, lost) = pair.dial();
    let (kept, given) = UnixStream::pair().expect("a pair");
    let mut got = UnixStream::from(passed(&theirs, &ours, given.into()));
    pair.cut();
    for end in [&mut ours, &mut theirs, &mut got, &mut { kept }] {
        assert_eq!(end.read(&mut [0; 8]).expect("ended"), 0);
    }
    assert_eq!(lost.fault().expect("explained").message, "it was cut");
    assert!(matches!(pair.near.join(), Ok(Ending::Cut)) && matches!(pair.far.join(), Ok(Ending::Cut)));
    assert!(pair.handle.dial().expect("asked").is_none());
}

#[test]
fn many_connections_come_and_go_and_leave_nothing() {
    let pair = Pair::new();
    for _ in 0..3 {
        let all: Vec<_> = (0..MAX_CHANNELS / 2).map(|_| pair.dial()).collect();
        for (ours, theirs, _) in &all {
            assert_eq!(sent(ours, theirs, b"a"), b"a");
        }
    }
    pair.finish();
}

fn far_after(frames: &[RelayFrame]) -> Result<Channels, Violation> {
    let mut channels = Channels::new(Side::Far);
    frames.iter().cloned().try_for_each(|said| channels.hear(said).map(drop))?;
    Ok(channels)
}

fn data(channel: u32, length: usize, files: &[u32]) -> RelayFrame {
    RelayFrame::Data { channel, bytes: vec![0; length], files: files.to_vec() }
}

fn conversation() -> Vec<RelayFrame> {
    vec![
        RelayFrame::Dial { channel: 1 },
        RelayFrame::Pass { channel: 3, kind: Passed::Source },
        RelayFrame::Pass { channel: 5, kind: Passed::Stream },
        data(1, 9, &[3, 5]),
        data(3, CHUNK, &[]),
        RelayFrame::End { channel: 3 },
        RelayFrame::Stop { channel: 5 },
        RelayFrame::End { channel: 5 },
        RelayFrame::End { channel: 1 },
    ]
}

#[test]
fn who_breaks_the_rules_is_refused() {
    use RelayFrame::{Dial, End, Failed, Grant, Here, Pass, Stop};
    assert!(far_after(&conversation()).is_ok());
    let open = Dial { channel: 1 };
    let fault = Fault::new(FaultKind::NotFound, "no");
    let mut flood = vec![open.clone()];
    flood.extend(vec![data(1, CHUNK, &[]); WINDOW as usize / CHUNK]);
    assert!(far_after(&flood).is_ok());
    flood.push(data(1, 1, &[]));
    let crowd: Vec<_> = (0..=MAX_CHANNELS as u32).map(|n| Dial { channel: 2 * n + 1 }).collect();
    let wrong = [
        flood,
        crowd,
        vec![Dial { channel: 2 }],
        vec![Dial { channel: 0 }],
        vec![open.clone(), open.clone()],
        vec![Dial { channel: 3 }, open.clone()],
        vec![Here { process: PROCESS }],
        vec![open.clone(), Failed { channel: 1, fault }],
        vec![data(1, 1, &[])],
        vec![open.clone(), data(1, 0, &[])],
        vec![open.clone(), data(1, CHUNK + 1, &[])],
        vec![open.clone(), data(1, 1, &[1])],
        vec![open.clone(), data(1, 1, &[3])],
        vec![open.clone(), Pass { channel: 3, kind: Passed::Stream }, data(3, 1, &[3])],
        vec![open.clone(), Pass { channel: 3, kind: Passed::Source }, data(1, 1, &[3]), data(1, 1, &[3])],
        vec![open.clone(), End { channel: 1 }, End { channel: 1 }],
        vec![open.clone(), End { channel: 1 }, data(1, 1, &[])],
        vec![End { channel: 1 }],
        vec![Stop { channel: 1 }],
        vec![Grant { channel: 7, bytes: 1 }],
        vec![open, Grant { channel: 1, bytes: 1 }],
    ];
    for frames in wrong {
        assert!(far_after(&frames).is_err(), "{:?}", frames.last());
    }
    let mut near = Channels::new(Side::Near);
    assert!(near.hear(Pass { channel: 2, kind: Passed::File { bytes: 1 } }).is_err());
    assert!(near.hear(Dial { channel: 2 }).is_err(), "the daemon's machine asks for nothing");
    assert!(near.hear(Here { process: PROCESS }).is_ok() && near.hear(Here { process: PROCESS }).is_err());
}

#[test]
fn what_is_said_of_a_channel_that_is_over_here_only_is_no_error() {
    let mut far = far_after(&[RelayFrame::Dial { channel: 1 }, RelayFrame::End { channel: 1 }]).expect("heard");
    far.end(1).expect("ended");
    for late in [RelayFrame::Stop { channel: 1 }, RelayFrame::Grant { channel: 1, bytes: 9 }] {
        assert_eq!(far.hear(late), Ok(None));
    }
    assert!(far.hear(data(1, 1, &[])).is_err());
}

#[test]
fn what_a_channel_takes_is_granted_anew_and_one_that_stopped_drops_what_comes() {
    let mut far = far_after(&[RelayFrame::Dial { channel: 1 }]).expect("heard");
    for _ in 0..64 {
        far.hear(data(1, CHUNK, &[])).expect("granted");
        far.take(1, CHUNK).expect("taken");
    }
    far.hear(RelayFrame::Pass { channel: 3, kind: Passed::Source }).expect("heard");
    far.stop(1).expect("stopped");
    assert_eq!(far.hear(data(1, 5, &[3])), Ok(Some(News::Orphans(vec![3]))));
    assert!(far.front(1).is_none() && far.is_drained(1) && !far.has_ended(1));
}

#[test]
fn who_sends_and_does_not_listen_comes_to_an_end() {
    let mut far = far_after(&[RelayFrame::Dial { channel: 1 }]).expect("heard");
    let mut channel = 3;
    let deaf = loop {
        let opened = far.hear(RelayFrame::Dial { channel }).and_then(|_| {
            far.end(channel)?;
            far.hear(RelayFrame::End { channel })
        });
        channel += 2;
        match opened {
            Ok(_) => assert!(channel < 8_000_000, "it takes whatever comes"),
            Err(e) => break e,
        }
    };
    assert_eq!(deaf, Violation::Deaf);
}

/// Hears `bytes` as a stream and takes all that comes.
fn heard(side: Side, bytes: &[u8]) {
    let (mut channels, mut buffer) = (Channels::new(side), FrameBuffer::default());
    buffer.push(bytes);
    while let Ok(Some(body)) = buffer.next_body() {
        let Ok(said) = frame::decode::<RelayFrame>(&body) else { return };
        if channels.hear(said).is_err() {
            return;
        }
        for channel in 0..8 {
            if let Some(length) = channels.front(channel).map(|chunk| chunk.bytes().len()) {
                channels.take(channel, length).expect("taken");
            }
        }
    }
}

#[test]
fn a_stream_may_be_cut_or_spoilt_anywhere() {
    let mut bytes = Vec::new();
    for said in conversation() {
        let said = if let RelayFrame::Data { channel: 3, .. } = said { data(3, 40, &[]) } else { said };
        bytes.extend(frame::encode(&said).expect("encodes"));
    }
    for at in 0..bytes.len() {
        heard(Side::Far, &bytes[..at]);
        for flip in [1, 0x80, 0xff] {
            let mut spoilt = bytes.clone();
            spoilt[at] ^= flip;
            heard(Side::Far, &spoilt);
            heard(Side::Near, &spoilt);
        }
    }
    bytes.push(0);
    heard(Side::Far, &bytes);
}

proptest! {
    #[test]
    fn anything_may_come(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        heard(Side::Far, &bytes);
        heard(Side::Near, &bytes);
    }
}

#[test]
fn a_file_that_grows_meanwhile_is_what_it_was_when_it_was_passed() {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(b"abc").expect("written");
    file.rewind().expect("set");
    let mut writer = file.try_clone().expect("a copy");
    let (kind, mut end) = hand_over(file.into()).expect("handed over");
    writer.seek(std::io::SeekFrom::End(0)).and_then(|_| writer.write_all(b"more")).expect("written");
    writer.rewind().expect("set");
    assert_eq!(kind, Passed::File { bytes: 3 });
    match (end.read(100), end.read(100)) {
        (Inflow::Bytes(bytes, _), Inflow::Over) => assert_eq!(bytes, b"abc"),
        other => panic!("{other:?}"),
    }
    assert!(receive(Passed::File { bytes: u64::MAX }).is_err());
    assert!(matches!(receive(Passed::File { bytes: 1 }), Ok((End::Copy { missing: 1, .. }, None))));
}
