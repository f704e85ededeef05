//! QEMU's monitor protocol: one JSON object per line (QEMU docs, interop/qmp-spec).
//!
//! A reader task drains the socket for the monitor's whole life, so that events never pile up in
//! the monitor; replies go to the one command under way. The monitor is not trusted: lines are
//! bounded.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use smol::Async;
use smol::channel::{Receiver, Sender, bounded};
use smol::future::Boxed;
use smol::io::{AsyncReadExt, AsyncWriteExt};

use super::deadline::within;
use super::{Control, EndReason, VmmError};

/// Most bytes of a line: banger's commands have answers far below it.
const MAX_LINE: usize = 256 << 10;

/// A monitor that does not answer within this is stuck.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// A pause takes as long as what the guest has written takes to the disk.
const PAUSE_LIMIT: Duration = Duration::from_secs(120);

/// A QMP conversation.
pub(super) struct Qmp {
    shared: Arc<Shared>,
}

struct Shared {
    stream: Async<UnixStream>,
    turn: smol::lock::Mutex<Turn>,
    replies: Receiver<Numbered>,
    reason: Mutex<Option<EndReason>>,
}

/// What whoever has the turn knows.
#[derive(Default)]
struct Turn {
    negotiated: bool,
    last: u64,
}

/// A reply with the id of its command.
type Numbered = (u64, Result<Value, String>);

impl Qmp {
    /// Takes the connected socket and runs its reader.
    pub(super) fn connect(socket: OwnedFd, spawn: &dyn Fn(Boxed<()>)) -> io::Result<Arc<Self>> {
        let stream = Async::new(UnixStream::from(socket))?;
        // One place: at most one command is under way, and the greeting comes before the first.
        let (sender, replies) = bounded(1);
        let shared = Arc::new(Shared { stream, turn: smol::lock::Mutex::default(), replies, reason: Mutex::new(None) });
        spawn(Box::pin(read_all(shared.clone(), sender)));
        Ok(Arc::new(Self { shared }))
    }
}

impl Control for Qmp {
    fn begin(&self) -> Boxed<Result<bool, VmmError>> {
        let shared = self.shared.clone();
        Box::pin(async move {
            let status = shared.command("query-status").await?;
            let halted = status["status"] == "paused";
            if halted {
                // By a daemon that ended over it.
                shared.command("cont").await?;
            }
            Ok(halted)
        })
    }

    fn press_power(&self) -> Boxed<Result<(), VmmError>> {
        let shared = self.shared.clone();
        Box::pin(async move { shared.command("system_powerdown").await.map(|_| ()) })
    }

    /// QEMU waits for what the disks are at, and writes out what it holds of them (system/cpus.c, `do_vm_stop`).
    fn pause(&self) -> Boxed<Result<(), VmmError>> {
        let shared = self.shared.clone();
        Box::pin(async move { shared.command_within(PAUSE_LIMIT, "stop").await.map(|_| ()) })
    }

    fn resume(&self) -> Boxed<Result<(), VmmError>> {
        let shared = self.shared.clone();
        Box::pin(async move { shared.command("cont").await.map(|_| ()) })
    }

    fn drained(&self) -> Boxed<()> {
        let replies = self.shared.replies.clone();
        // The reader holds the other end of the channel for as long as it reads.
        Box::pin(async move { while replies.recv().await.is_ok() {} })
    }

    fn end_reason(&self) -> Option<EndReason> {
        self.shared.reason.lock().ok().and_then(|reason| *reason)
    }
}

impl Shared {
    /// Executes one command, negotiating capabilities before the first.
    async fn command(&self, name: &str) -> Result<Value, VmmError> {
        self.command_within(ANSWER_LIMIT, name).await
    }

    async fn command_within(&self, limit: Duration, name: &str) -> Result<Value, VmmError> {
        let mut turn = self.turn.lock().await;
        if !turn.negotiated {
            self.exchange(&mut turn, ANSWER_LIMIT, "qmp_capabilities").await?;
            turn.negotiated = true;
        }
        self.exchange(&mut turn, limit, name).await
    }

    async fn exchange(&self, turn: &mut Turn, limit: Duration, name: &str) -> Result<Value, VmmError> {
        turn.last += 1;
        let number = turn.last;
        let line = format!("{}\n", json!({ "execute": name, "id": number }));
        let control = |text: String| VmmError::Control(format!("{name}: {text}"));
        let answer = async {
            (&self.stream).write_all(line.as_bytes()).await.map_err(|e| control(e.to_string()))?;
            loop {
                match self.replies.recv().await {
                    Ok((of, Ok(value))) if of == number => return Ok(value),
                    Ok((of, Err(text))) if of == number => return Err(control(text)),
                    // Of a command that was given up: late, and nobody's any more.
                    Ok(_) => {}
                    Err(_) => return Err(control("the monitor closed it".into())),
                }
            }
        };
        let late = || Err(control(format!("no answer within {} s", limit.as_secs())));
        within(limit, answer).await.unwrap_or_else(late)
    }

    fn note(&self, event: &Value) {
        let reason = match (event["event"].as_str(), event["data"]["reason"].as_str()) {
            (Some("SHUTDOWN"), Some("guest-shutdown")) => EndReason::GuestShutdown,
            (Some("SHUTDOWN"), Some("guest-reset")) => EndReason::GuestReset,
            (Some("SHUTDOWN"), Some("guest-panic")) | (Some("GUEST_PANICKED"), _) => EndReason::GuestPanic,
            (Some("SHUTDOWN"), _) => EndReason::HostRequest,
            _ => return,
        };
        if let Ok(mut slot) = self.reason.lock() {
            // The first reason is the cause; what follows are its consequences.
            slot.get_or_insert(reason);
        }
    }
}

/// Drains the socket to its end.
async fn read_all(shared: Arc<Shared>, replies: Sender<Numbered>) {
    let mut buffer: Vec<u8> = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let count = match (&shared.stream).read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        buffer.extend_from_slice(&chunk[..count]);
        while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            take_line(&shared, &replies, &line);
        }
        if buffer.len() > MAX_LINE {
            return;
        }
        // A monitor that talks without a pause must not have a thread of the executor for itself.
        smol::future::yield_now().await;
    }
}

fn take_line(shared: &Shared, replies: &Sender<Numbered>, line: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(line) else {
        return;
    };
    if value.get("event").is_some() {
        return shared.note(&value);
    }
    // The greeting has no id, and every reply that was asked for has one.
    let Some(number) = value["id"].as_u64() else { return };
    let reply = match (value.get("return"), value.get("error")) {
        (Some(result), _) => Ok(result.clone()),
        (None, Some(error)) => {
            let text = error["desc"].as_str().unwrap_or("an error without description");
            Err(text.chars().take(300).collect())
        }
        (None, None) => return,
    };
    // The newest counts: what lies there unread is a late reply to a command that was given up.
    let _ = replies.force_send((number, reply));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};

    /// A monitor that answers each line with the next of `script`.
    fn against(script: Vec<&'static str>, test: impl AsyncFnOnce(Arc<Qmp>)) {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let server = std::thread::spawn(move || {
            let mut stream = theirs.try_clone().expect("cloned");
            let mut lines = BufReader::new(theirs).lines();
            writeln!(stream, "{{\"QMP\": {{}}}}").expect("greeted");
            for answer in script {
                let Some(Ok(_)) = lines.next() else { return };
                writeln!(stream, "{answer}").expect("answered");
            }
        });
        let executor = smol::Executor::new();
        smol::block_on(executor.run(async {
            let spawn = |future: Boxed<()>| executor.spawn(future).detach();
            let qmp = Qmp::connect(ours.into(), &spawn).expect("connected");
            test(qmp).await;
        }));
        server.join().expect("ended");
    }

    #[test]
    fn negotiates_once_and_passes_the_monitors_errors_on() {
        let script = vec![
            "{\"return\": {}, \"id\": 1}",
            "{\"return\": {}, \"id\": 2}",
            "{\"error\": {\"desc\": \"no button\"}, \"id\": 3}",
        ];
        against(script, async |qmp| {
            qmp.begin().await.expect("begun");
            let error = qmp.press_power().await.expect_err("refused");
            assert!(error.to_string().contains("no button"));
        });
    }

    #[test]
    fn remembers_why_the_guest_ended_and_survives_rubbish() {
        let answer = "rubbish\n{\"event\": \"SHUTDOWN\", \"data\": {\"reason\": \"guest-shutdown\"}}\n{\"return\": {}, \"id\": 1}";
        against(vec![answer, "{\"return\": {}, \"id\": 2}"], async |qmp| {
            qmp.begin().await.expect("begun");
            assert_eq!(qmp.end_reason(), Some(EndReason::GuestShutdown));
        });
    }

    #[test]
    fn a_late_reply_is_not_taken_for_the_next_commands() {
        let late = "{\"error\": {\"desc\": \"late\"}, \"id\": 0}\n{\"return\": {}, \"id\": 1}";
        against(vec![late, "{\"return\": {}, \"id\": 2}"], async |qmp| {
            qmp.begin().await.expect("begun");
        });
    }

    #[test]
    fn a_monitor_that_hangs_up_is_an_error() {
        against(vec![], async |qmp| {
            assert!(qmp.begin().await.is_err());
        });
    }
}
