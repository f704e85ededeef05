//! What is asked, and who answers: questions at once, calls of tools each in a thread of its own, so that a slow one
//! holds up nothing and can be cancelled.
//!
//! No state of the conversation is kept but the calls under way: up to 2025-11-25 a client begins with `initialize`,
//! from 2026-07-28 on each request says for itself which protocol it speaks.

use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::message::{self, Batch, Message, Wrong};
use super::outbox::{Answers, Outbox, Reply};
use super::{Arguments, Cancellation, Line, Lines, Tool};

/// Protocols that begin with `initialize`, the newest last.
const VERSIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

/// The protocol without a beginning: each request names it.
const STATELESS: &str = "2026-07-28";

/// Where a request names it.
const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";

/// Where an answer of the stateless protocol names the server.
const SERVER_KEY: &str = "io.modelcontextprotocol/serverInfo";

/// What the stateless protocol calls a version that is not spoken.
const UNSUPPORTED_VERSION: i32 = -32022;

/// JSON-RPC's number for a method that is not there.
const NO_METHOD: i32 = -32601;

/// JSON-RPC's number for a failure of the server itself.
const INTERNAL: i32 = -32603;

/// Most calls at once.
const MAX_CALLS: usize = 16;

/// Bytes that are read at once.
const PORTION: usize = 64 << 10;

/// What a server offers.
pub trait Toolbox: Send + Sync + 'static {
    /// The tools.
    fn tools(&self) -> &'static [Tool];

    /// What a model should know of all of them together.
    fn instructions(&self) -> String;

    /// Does what `tool` does; what came of it, or what went wrong, as an object with `code` and `message`.
    fn call(&self, tool: &'static Tool, arguments: &Arguments, call: &Call) -> Result<Value, Value>;
}

/// A call under way.
pub struct Call {
    /// Whether it is still wanted.
    pub cancellation: Arc<Cancellation>,
    progress: Option<Progress>,
}

/// Where the client wants to hear how a call goes on.
struct Progress {
    outbox: Arc<Outbox>,
    token: Value,
    steps: AtomicU64,
}

impl Call {
    /// Says what is being done, where the client wants to hear it.
    pub fn progress(&self, doing: &str) {
        let Some(Progress { outbox, token, steps }) = &self.progress else { return };
        let step = steps.fetch_add(1, Ordering::Relaxed) + 1;
        let params = json!({"progressToken": token, "progress": step, "message": doing});
        outbox.send(&json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}));
    }
}

/// A call under way, and its id as text.
struct Named {
    id: String,
    cancellation: Arc<Cancellation>,
}

/// The calls under way.
#[derive(Default)]
struct Running {
    calls: Mutex<Vec<Named>>,
    ended: Condvar,
}

impl Running {
    fn calls(&self) -> MutexGuard<'_, Vec<Named>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, id: &str) {
        self.calls().retain(|call| call.id != id);
        self.ended.notify_all();
    }
}

/// A conversation with a client.
pub struct Server<T> {
    toolbox: Arc<T>,
    outbox: Arc<Outbox>,
    running: Arc<Running>,
}

impl<T: Toolbox> Server<T> {
    /// Over `outbox`.
    pub fn new(toolbox: Arc<T>, outbox: Arc<Outbox>) -> Self {
        Self { toolbox, outbox, running: Arc::default() }
    }

    /// Serves what `input` brings, to its end.
    pub fn serve(&self, mut input: impl Read) -> std::io::Result<()> {
        let (mut lines, mut portion) = (Lines::default(), vec![0; PORTION]);
        loop {
            match input.read(&mut portion) {
                Ok(0) => return Ok(()),
                Ok(count) => lines.hear(&portion[..count]).into_iter().for_each(|line| self.hear(line)),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Cancels all calls, and waits at most so long for their ends.
    pub fn stop(&self, limit: Duration) {
        let calls = self.running.calls();
        calls.iter().for_each(|call| call.cancellation.ask());
        // How long it took is no matter: what goes on is ended with the process.
        let waited = self.running.ended.wait_timeout_while(calls, limit, |calls| !calls.is_empty());
        drop(waited);
    }

    fn hear(&self, line: Line) {
        match line {
            Line::TooLong => self.refuse(Value::Null, Wrong::Syntax, None),
            Line::Whole(bytes) => match message::parse(&bytes) {
                Batch::One(message) => self.take(message, None),
                Batch::Many(messages) => {
                    let answers = Answers::new(&self.outbox);
                    messages.into_iter().for_each(|message| self.take(message, Some(&answers)));
                }
            },
        }
    }

    fn take(&self, message: Message, answers: Option<&Arc<Answers>>) {
        match message {
            Message::Request { id, method, params } => {
                self.request(Reply::new(&self.outbox, id, answers.cloned()), &method, params);
            }
            Message::Notification { method, params } if method == "notifications/cancelled" => {
                let id = params.get("requestId").map(key);
                let calls = self.running.calls();
                calls.iter().filter(|call| Some(&call.id) == id.as_ref()).for_each(|call| call.cancellation.ask());
            }
            Message::Notification { .. } | Message::Answer => {}
            Message::Invalid { id, wrong } => self.refuse(id, wrong, answers),
        }
    }

    fn refuse(&self, id: Value, wrong: Wrong, answers: Option<&Arc<Answers>>) {
        Reply::new(&self.outbox, id, answers.cloned()).error(wrong.code(), wrong.words(), None);
    }

    fn request(&self, reply: Reply, method: &str, params: Map<String, Value>) {
        let version = params.get("_meta").and_then(|meta| meta.get(VERSION_KEY));
        let is_stateless = version.is_some();
        if let Some(version) = version.filter(|version| *version != STATELESS) {
            let data = json!({"supported": spoken(), "requested": version});
            return reply.error(UNSUPPORTED_VERSION, "this version of the protocol is not spoken here", Some(data));
        }
        match method {
            "initialize" => reply.result(self.greeting(&params)),
            "server/discover" => reply.result(completed(self.discovery(), true)),
            "ping" => reply.result(json!({})),
            "tools/list" => {
                let tools: Vec<Value> = self.toolbox.tools().iter().map(Tool::listed).collect();
                reply.result(completed(lasting(json!({"tools": tools}), is_stateless), is_stateless));
            }
            "tools/call" => self.call(reply, params, is_stateless),
            _ => {
                let shown: String = method.chars().take(80).collect();
                reply.error(NO_METHOD, format!("there is no method {shown:?}"), None);
            }
        }
    }

    fn greeting(&self, params: &Map<String, Value>) -> Value {
        let asked = params.get("protocolVersion").and_then(Value::as_str);
        let newest = VERSIONS[VERSIONS.len() - 1];
        let version = VERSIONS.into_iter().find(|known| asked == Some(known)).unwrap_or(newest);
        json!({
            "protocolVersion": version,
            "capabilities": {"tools": {}},
            "serverInfo": own_name(),
            "instructions": self.toolbox.instructions(),
        })
    }

    fn discovery(&self) -> Value {
        let about = json!({
            "supportedVersions": spoken(),
            "capabilities": {"tools": {}},
            "instructions": self.toolbox.instructions(),
            "_meta": {SERVER_KEY: own_name()},
        });
        lasting(about, true)
    }

    fn call(&self, reply: Reply, mut params: Map<String, Value>, is_stateless: bool) {
        let name = params.get("name").and_then(Value::as_str).unwrap_or_default();
        let Some(tool) = self.toolbox.tools().iter().find(|tool| tool.name == name) else {
            let shown: String = name.chars().take(80).collect();
            return reply.error(Wrong::Parameters.code(), format!("there is no tool {shown:?}"), None);
        };
        let given = params.remove("arguments").unwrap_or_default();
        // A model can mend these, so it is told as it is told of what a tool itself refuses.
        let arguments = match Arguments::check(tool, given) {
            Ok(arguments) => arguments,
            Err(message) => return reply.result(completed(said(Err(bad_request(&message))), is_stateless)),
        };
        let call = match self.begin(&reply, &params) {
            Ok(call) => call,
            Err(message) => return reply.result(completed(said(Err(busy(&message))), is_stateless)),
        };
        let (toolbox, running, id) = (self.toolbox.clone(), self.running.clone(), key(reply.id()));
        let (spare, own) = (reply.clone(), id.clone());
        let started = std::thread::Builder::new().name(tool.name.to_owned()).spawn(move || {
            let done = toolbox.call(tool, &arguments, &call);
            // Before the answer: whoever has it may use the id, and the place, again.
            running.end(&id);
            match call.cancellation.is_asked() {
                true => log::info!("{}: cancelled", tool.name),
                false => reply.result(completed(said(done), is_stateless)),
            }
        });
        if let Err(e) = started {
            self.running.end(&own);
            spare.error(INTERNAL, format!("no thread for a call: {e}"), None);
        }
    }

    /// Takes its place among the calls under way; in words why not.
    fn begin(&self, reply: &Reply, params: &Map<String, Value>) -> Result<Call, String> {
        let mut calls = self.running.calls();
        if calls.len() >= MAX_CALLS {
            return Err(format!("{MAX_CALLS} calls are under way already: wait for one of them"));
        }
        let id = key(reply.id());
        if calls.iter().any(|call| call.id == id) {
            return Err("a call with this id is under way already".to_owned());
        }
        let cancellation = Cancellation::new().map(Arc::new).map_err(|e| format!("no call can be made: {e}"))?;
        calls.push(Named { id, cancellation: cancellation.clone() });
        let token = params.get("_meta").and_then(|meta| meta.get("progressToken")).cloned();
        let progress = token.map(|token| Progress { outbox: self.outbox.clone(), token, steps: AtomicU64::new(0) });
        Ok(Call { cancellation, progress })
    }
}

/// An id as text: `7` and `"7"` stay apart.
fn key(id: &Value) -> String {
    id.to_string()
}

fn own_name() -> Value {
    json!({"name": "banger", "title": "banger: throw-away virtual machines", "version": env!("CARGO_PKG_VERSION")})
}

fn spoken() -> Vec<&'static str> {
    VERSIONS.into_iter().chain([STATELESS]).collect()
}

/// What the stateless protocol wants in each answer; the others' clients may not want to see it.
fn completed(mut result: Value, is_stateless: bool) -> Value {
    if is_stateless {
        result["resultType"] = "complete".into();
    }
    result
}

/// What stays as long as the process does.
fn lasting(mut result: Value, is_stateless: bool) -> Value {
    if is_stateless {
        result["ttlMs"] = 3_600_000.into();
        result["cacheScope"] = "private".into();
    }
    result
}

/// What came of a call: for programs, and the same as text for clients that know no better.
fn said(done: Result<Value, Value>) -> Value {
    let is_error = done.is_err();
    let content = done.unwrap_or_else(|trouble| json!({"error": trouble}));
    json!({
        "content": [{"type": "text", "text": content.to_string()}],
        "structuredContent": content,
        "isError": is_error,
    })
}

fn bad_request(message: &str) -> Value {
    json!({"code": "bad_request", "message": message, "causes": [], "hints": []})
}

fn busy(message: &str) -> Value {
    json!({"code": "refused", "message": message, "causes": [], "hints": []})
}

#[cfg(test)]
mod tests;
