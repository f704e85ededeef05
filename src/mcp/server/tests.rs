use super::*;
use crate::mcp::{Field, Hints, Kind};
use std::io::{PipeReader, PipeWriter, Write};
use std::sync::mpsc::{Receiver, Sender, channel};

const TOOLS: &[Tool] = &[
    Tool {
        name: "echo",
        title: "Echo",
        description: "says it again",
        fields: &[Field { name: "text", kind: Kind::Text(10), required: true, says: "what" }],
        hints: Hints { read_only: true, destructive: false, idempotent: true, open_world: false },
    },
    Tool {
        name: "wait",
        title: "Wait",
        description: "waits for the end of the call",
        fields: &[],
        hints: Hints { read_only: true, destructive: false, idempotent: true, open_world: false },
    },
];

struct Fake(Mutex<Sender<()>>);

impl Toolbox for Fake {
    fn tools(&self) -> &'static [Tool] {
        TOOLS
    }
    fn instructions(&self) -> String {
        "try".to_owned()
    }
    fn call(&self, tool: &'static Tool, arguments: &Arguments, call: &Call) -> Result<Value, Value> {
        if tool.name == "echo" {
            call.progress("echoing");
            return match arguments.text("text") {
                Some("bad") => Err(json!({"code": "failed", "message": "bad"})),
                text => Ok(json!({"text": text})),
            };
        }
        self.0.lock().expect("no test panics with it").send(()).expect("somebody waits");
        let mut fds =
            [rustix::event::PollFd::from_borrowed_fd(call.cancellation.descriptor(), rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut fds, None).expect("polled");
        Ok(json!({}))
    }
}

struct Conversation {
    server: Server<Fake>,
    answers: std::io::BufReader<PipeReader>,
    waits: Receiver<()>,
}

impl Conversation {
    fn begin() -> Self {
        let (reader, writer): (PipeReader, PipeWriter) = std::io::pipe().expect("a pipe");
        let (sender, waits) = channel();
        let server = Server::new(Arc::new(Fake(Mutex::new(sender))), Outbox::new(writer));
        Self { server, answers: std::io::BufReader::new(reader), waits }
    }

    fn tell(&self, message: &Value) {
        let mut line = message.to_string().into_bytes();
        line.push(b'\n');
        self.server.serve(line.as_slice()).expect("served");
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut self.answers, &mut line).expect("an answer");
        serde_json::from_str(&line).expect("JSON on one line")
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.tell(&json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}));
        self.answer()
    }
}

fn called(name: &str, arguments: Value) -> Value {
    json!({"name": name, "arguments": arguments})
}

#[test]
fn a_client_gets_its_own_version_or_the_newest() {
    let mut talk = Conversation::begin();
    for (asked, given) in [
        (json!("2024-11-05"), "2024-11-05"),
        (json!("2025-06-18"), "2025-06-18"),
        (json!("1999-01-01"), "2025-11-25"),
        (json!(STATELESS), "2025-11-25"),
        (json!(7), "2025-11-25"),
    ] {
        let greeting = talk.ask("initialize", json!({"protocolVersion": asked}));
        assert_eq!(greeting["result"]["protocolVersion"], given);
        assert_eq!(greeting["result"]["serverInfo"]["name"], "banger");
    }
}

#[test]
fn a_stateless_client_is_answered_in_its_form() {
    let mut talk = Conversation::begin();
    let meta = json!({VERSION_KEY: STATELESS});
    let about = talk.ask("server/discover", json!({"_meta": meta}));
    assert_eq!(
        (&about["result"]["resultType"], &about["result"]["supportedVersions"][4]),
        (&json!("complete"), &json!(STATELESS))
    );
    let tools = talk.ask("tools/list", json!({"_meta": meta}));
    assert_eq!(
        (&tools["result"]["cacheScope"], &tools["result"]["resultType"]),
        (&json!("private"), &json!("complete"))
    );
    let other = talk.ask("tools/list", json!({"_meta": {VERSION_KEY: "2099-01-01"}}));
    assert_eq!((&other["error"]["code"], &other["error"]["data"]["requested"]), (&json!(-32022), &json!("2099-01-01")));
}

#[test]
fn what_is_not_there_and_what_is_no_message_is_refused() {
    let mut talk = Conversation::begin();
    assert_eq!(talk.ask("ping", json!({}))["result"], json!({}));
    assert_eq!(talk.ask("resources/list", json!({}))["error"]["code"], -32601);
    assert_eq!(talk.ask("tools/call", called("other", json!({})))["error"]["code"], -32602);
    for bytes in [&b"{\n"[..], b"\xff\n", &[&vec![b'['; super::super::MAX_LINE + 9][..], b"\n"].concat()] {
        talk.server.serve(bytes).expect("served");
        let refused = talk.answer();
        assert_eq!((&refused["id"], &refused["error"]["code"]), (&Value::Null, &json!(-32700)));
    }
    talk.tell(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    talk.tell(&json!({"jsonrpc": "2.0", "id": 9, "result": {}}));
    assert_eq!(talk.ask("ping", json!({}))["id"], 1, "nobody answered those");
}

#[test]
fn a_call_brings_content_twice_and_says_what_went_wrong() {
    let mut talk = Conversation::begin();
    let good = talk.ask("tools/call", called("echo", json!({"text": "a"})));
    assert_eq!(good["result"]["structuredContent"], json!({"text": "a"}));
    assert_eq!(
        (&good["result"]["content"][0]["text"], &good["result"]["isError"]),
        (&json!("{\"text\":\"a\"}"), &json!(false))
    );
    let bad = talk.ask("tools/call", called("echo", json!({"text": "bad"})));
    assert_eq!(
        (&bad["result"]["isError"], &bad["result"]["structuredContent"]["error"]["code"]),
        (&json!(true), &json!("failed"))
    );
    let wrong = talk.ask("tools/call", called("echo", json!({"txt": "a"})));
    assert_eq!(wrong["result"]["structuredContent"]["error"]["code"], "bad_request");
    let mut params = called("echo", json!({"text": "a"}));
    params["_meta"] = json!({"progressToken": "p"});
    let progress = talk.ask("tools/call", params);
    assert_eq!(
        (&progress["method"], &progress["params"]["progressToken"]),
        (&json!("notifications/progress"), &json!("p"))
    );
    assert_eq!(talk.answer()["id"], 1);
}

#[test]
fn others_are_answered_while_a_call_goes_on_and_a_cancelled_one_never() {
    let mut talk = Conversation::begin();
    talk.tell(&json!({"jsonrpc": "2.0", "id": "w", "method": "tools/call", "params": called("wait", json!({}))}));
    talk.waits.recv().expect("it goes on");
    assert_eq!(talk.ask("ping", json!({}))["id"], 1);
    talk.tell(&json!({"jsonrpc": "2.0", "id": "w", "method": "tools/call", "params": called("wait", json!({}))}));
    assert_eq!(talk.answer()["result"]["structuredContent"]["error"]["code"], "refused", "the id is taken");
    for id in [json!(5), json!("w")] {
        talk.tell(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}}));
    }
    talk.server.stop(Duration::from_secs(10));
    assert!(talk.server.running.calls().is_empty());
    assert_eq!(talk.ask("ping", json!({}))["id"], 1, "nothing came between");
}

#[test]
fn there_is_a_limit_of_calls_and_all_of_them_end_with_the_server() {
    let mut talk = Conversation::begin();
    for id in 0..MAX_CALLS {
        talk.tell(
            &json!({"jsonrpc": "2.0", "id": id + 10, "method": "tools/call", "params": called("wait", json!({}))}),
        );
        talk.waits.recv().expect("it goes on");
    }
    let busy = talk.ask("tools/call", called("wait", json!({})));
    assert_eq!(busy["result"]["structuredContent"]["error"]["code"], "refused");
    talk.server.stop(Duration::from_secs(10));
    assert!(talk.server.running.calls().is_empty());
}

#[test]
fn a_batch_is_answered_on_one_line_once_all_is_done() {
    let mut talk = Conversation::begin();
    let request =
        |id: u8, method: &str, params: Value| json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
    talk.tell(&json!([
        request(1, "tools/call", called("echo", json!({"text": "a"}))),
        request(2, "ping", json!({})),
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        3,
    ]));
    let answers = talk.answer();
    let mut ids: Vec<String> = answers.as_array().expect("a batch").iter().map(|a| a["id"].to_string()).collect();
    ids.sort();
    assert_eq!(ids, ["1", "2", "null"]);
}

#[test]
fn a_client_that_is_gone_ends_nothing_early() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let (sender, _waits) = channel();
    let server = Server::new(Arc::new(Fake(Mutex::new(sender))), Outbox::new(writer));
    let mut line = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string().into_bytes();
    line.write_all(b"\n").expect("written");
    server.serve(line.as_slice()).expect("served");
}
