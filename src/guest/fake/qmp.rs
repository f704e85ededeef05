//! QEMU's control language, as much of it as a daemon speaks (QEMU's docs/interop/qmp-spec).

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use serde_json::{Value, json};

/// Longest command.
const MAX_LINE: u64 = 64 << 10;

/// Serves one client at a time, and the next after it; returns when the listener fails. The
/// process ends when a client shuts it down, where it `obeys`.
pub fn serve(listener: &UnixListener, obeys: bool) -> io::Result<()> {
    loop {
        let (client, _) = listener.accept()?;
        // A client that is gone is followed by the next.
        let _ = converse(client, obeys);
    }
}

fn converse(client: UnixStream, obeys: bool) -> io::Result<()> {
    let mut out = client.try_clone()?;
    let mut input = BufReader::new(client);
    send(&mut out, &greeting())?;
    let mut negotiated = false;
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let answer = answer(&line, &mut negotiated);
        for message in &answer.messages {
            send(&mut out, message)?;
        }
        if answer.ends && obeys {
            send(&mut out, &shutdown_event(answer.guest))?;
            std::process::exit(0);
        }
    }
}

fn send(out: &mut impl Write, message: &Value) -> io::Result<()> {
    out.write_all(format!("{message}\r\n").as_bytes())
}

fn greeting() -> Value {
    let version = json!({"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": "banger-fake-vmm"});
    json!({"QMP": {"version": version, "capabilities": []}})
}

fn shutdown_event(guest: bool) -> Value {
    let reason = if guest { "guest-shutdown" } else { "host-qmp-quit" };
    event("SHUTDOWN", &json!({"guest": guest, "reason": reason}))
}

fn event(name: &str, data: &Value) -> Value {
    let now = crate::os::clock::unix_nanos();
    let stamp = json!({"seconds": now / 1_000_000_000, "microseconds": now / 1_000 % 1_000_000});
    json!({"timestamp": stamp, "event": name, "data": data})
}

#[derive(Debug, Default, PartialEq)]
struct Answer {
    messages: Vec<Value>,
    ends: bool,
    guest: bool,
}

impl Answer {
    fn of(message: Value) -> Self {
        Self { messages: vec![message], ..Self::default() }
    }
}

fn answer(line: &[u8], negotiated: &mut bool) -> Answer {
    if line.trim_ascii().is_empty() {
        return Answer::default();
    }
    let Ok(command) = serde_json::from_slice::<Value>(line) else {
        return Answer::of(error(None, "GenericError", "JSON parse error, expecting value"));
    };
    let id = command.get("id").cloned();
    let name = command.get("execute").and_then(Value::as_str).unwrap_or_default();
    if name == "qmp_capabilities" {
        *negotiated = true;
        return Answer::of(reply(id, json!({})));
    }
    if !*negotiated {
        let text = "Expecting capabilities negotiation with 'qmp_capabilities'";
        return Answer::of(error(id, "CommandNotFound", text));
    }
    perform(name, id)
}

fn perform(name: &str, id: Option<Value>) -> Answer {
    match name {
        "query-status" => Answer::of(reply(id, json!({"status": "running", "running": true, "singlestep": false}))),
        "system_powerdown" => {
            Answer { messages: vec![reply(id, json!({})), event("POWERDOWN", &json!({}))], ends: true, guest: true }
        }
        "stop" | "cont" => Answer::of(reply(id, json!({}))),
        "quit" => Answer { messages: vec![reply(id, json!({}))], ends: true, guest: false },
        other => {
            let text = format!("The command {} has not been found", other.escape_debug());
            Answer::of(error(id, "CommandNotFound", &text))
        }
    }
}

fn reply(id: Option<Value>, value: Value) -> Value {
    with_id(json!({"return": value}), id)
}

fn error(id: Option<Value>, class: &str, text: &str) -> Value {
    with_id(json!({"error": {"class": class, "desc": text}}), id)
}

fn with_id(mut message: Value, id: Option<Value>) -> Value {
    if let (Some(object), Some(id)) = (message.as_object_mut(), id) {
        object.insert("id".into(), id);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str, negotiated: bool) -> Answer {
        answer(line.as_bytes(), &mut { negotiated })
    }

    #[test]
    fn nothing_is_done_before_the_negotiation() {
        let refused = asked(r#"{"execute":"quit"}"#, false);
        assert!(!refused.ends && refused.messages[0]["error"]["class"] == "CommandNotFound");
        let mut negotiated = false;
        answer(br#"{"execute":"qmp_capabilities"}"#, &mut negotiated);
        assert!(negotiated);
    }

    #[test]
    fn an_answer_carries_the_id_of_its_command() {
        let answer = asked(r#"{"execute":"query-status","id":7}"#, true);
        assert_eq!(answer.messages[0]["return"]["status"], "running");
        assert_eq!(answer.messages[0]["id"], 7);
    }

    #[test]
    fn the_power_button_and_quit_end_it() {
        assert!(asked(r#"{"execute":"system_powerdown"}"#, true).ends);
        assert!(asked(r#"{"execute":"quit"}"#, true).ends);
    }

    #[test]
    fn nonsense_is_an_error_and_not_an_end() {
        for line in ["{", "[]", "null", r#"{"execute":7}"#, r#"{"execute":"rm -rf"}"#, "\u{0}"] {
            let answer = asked(line, true);
            assert!(!answer.ends && answer.messages[0].get("error").is_some(), "{line}");
        }
        assert_eq!(asked("\r\n", true), Answer::default());
    }
}
