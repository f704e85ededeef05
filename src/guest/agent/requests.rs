//! What is asked, and the answers.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use super::mouth::{Conversation, Mouth};
use super::{connected, listeners, shutdown, start, stats};
use crate::guest::console::say;
use crate::guest::error::chain;
use crate::guest::init::set_clock;
use crate::guest::shell::channels::{Channels, Opened};
use crate::guest::shell::jobs;
use crate::model::OpId;
use crate::protocol::guest::{GuestActivity, GuestReply, GuestRequest, Health};

/// Most requests that wait; a daemon asks one or two at a time.
const MAX_WAITING: usize = 32;

/// What the agent knows since its start.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Whether ssh answers.
    pub ssh: bool,
    /// What went wrong at the start.
    pub troubles: Vec<String>,
}

/// Whose machine it is: what a request may change.
#[derive(Debug)]
pub enum Hands {
    /// A guest of its own, with its channels.
    Guest(Channels),
    /// The monitor of the tests, on somebody's host: nothing is changed.
    Fake {
        /// Whether `Shutdown` ends the process.
        ends: bool,
    },
}

struct Task {
    conversation: Conversation,
    number: u64,
    op: OpId,
    request: GuestRequest,
}

/// Answers requests in order in a thread of its own, so that the port is read meanwhile.
#[derive(Debug)]
pub struct Worker {
    tasks: SyncSender<Task>,
    mouth: Arc<Mouth>,
}

impl Worker {
    /// Starts the thread.
    pub fn start(mouth: Arc<Mouth>, facts: Facts, hands: Hands) -> Self {
        let (tasks, queue) = sync_channel::<Task>(MAX_WAITING);
        let speaker = mouth.clone();
        start("worker", move || {
            for task in queue {
                perform(task, &facts, &hands, &speaker);
            }
        });
        Self { tasks, mouth }
    }

    /// Answers a ping at once, queues everything else.
    pub fn take(&self, conversation: Conversation, number: u64, op: OpId, request: GuestRequest) {
        if request == GuestRequest::Ping {
            return self.mouth.reply(conversation, number, Ok(GuestReply::Done));
        }
        if self.tasks.try_send(Task { conversation, number, op, request }).is_err() {
            let text = format!("the agent is busy with {MAX_WAITING} earlier requests");
            self.mouth.reply(conversation, number, Err(text));
        }
    }
}

fn perform(task: Task, facts: &Facts, hands: &Hands, mouth: &Mouth) {
    let shutdown = task.request == GuestRequest::Shutdown;
    let reply = answer(&task, facts, hands);
    mouth.reply(task.conversation, task.number, reply);
    if shutdown {
        say(&format!("[{}] the host asks for a shutdown", task.op));
        mouth.wait_until_said(super::LAST_WORDS);
        end(hands);
    }
}

fn answer(task: &Task, facts: &Facts, hands: &Hands) -> Result<GuestReply, String> {
    match task.request {
        GuestRequest::Ping | GuestRequest::Shutdown => Ok(GuestReply::Done),
        GuestRequest::Health => Ok(GuestReply::Health(health(facts))),
        GuestRequest::Ports => Ok(GuestReply::Ports(listeners::list())),
        GuestRequest::Stats => stats::stats().map(GuestReply::Stats).map_err(|e| chain(&e)),
        GuestRequest::SetClock { now_ns } => match hands {
            Hands::Guest(_) => set_clock(now_ns).map(|()| GuestReply::Done).map_err(|e| chain(&e)),
            Hands::Fake { .. } => Ok(GuestReply::Done),
        },
        GuestRequest::Sync => {
            rustix::fs::sync();
            Ok(GuestReply::Done)
        }
        GuestRequest::Activity => match hands {
            Hands::Guest(channels) => activity(channels).map(GuestReply::Activity),
            Hands::Fake { .. } => Ok(GuestReply::Activity(GuestActivity::default())),
        },
        GuestRequest::OpenShell { token } => match hands {
            Hands::Guest(channels) => channels.open(token).map(|opened| match opened {
                Opened::Channel(channel) => GuestReply::Shell { channel },
                Opened::Port(port) => GuestReply::ShellPort { port },
            }),
            Hands::Fake { .. } => Err("the monitor of the tests runs no commands".to_owned()),
        },
    }
}

fn activity(channels: &Channels) -> Result<GuestActivity, String> {
    let jobs = jobs::running().map_err(|e| format!("cannot look for jobs: {e}"))?;
    Ok(GuestActivity { commands: channels.in_use(), jobs, connections: connected::count() })
}

fn health(facts: &Facts) -> Health {
    Health {
        boot_id: stats::boot_id(),
        uptime_s: crate::guest::console::uptime().as_secs(),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        init: stats::init_name(),
        system_state: stats::system_state(),
        ssh: facts.ssh,
        troubles: facts.troubles.clone(),
    }
}

fn end(hands: &Hands) {
    match hands {
        Hands::Guest(_) => shutdown::begin(),
        Hands::Fake { ends: true } => std::process::exit(0),
        Hands::Fake { ends: false } => {}
    }
}
