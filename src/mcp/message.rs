//! One line as messages of JSON-RPC 2.0 (jsonrpc.org/specification).

use serde_json::{Map, Value};

/// Most bytes of an id that is text: it is sent back.
const MAX_ID: usize = 256;

/// Most messages of a batch, which the protocol of 2025-03-26 has and no other.
const MAX_BATCH: usize = 32;

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// No JSON.
    Syntax,
    /// JSON, and no message.
    Form,
    /// A message whose parameters are no object.
    Parameters,
}

impl Wrong {
    /// The number that JSON-RPC has for it.
    pub fn code(self) -> i32 {
        match self {
            Self::Syntax => -32700,
            Self::Form => -32600,
            Self::Parameters => -32602,
        }
    }

    /// The same in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Syntax => "a line is one message in JSON, of at most 4 MiB",
            Self::Form => "not a message of JSON-RPC 2.0",
            Self::Parameters => "params are an object",
        }
    }
}

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// Wants an answer.
    Request {
        /// Text or a whole number.
        id: Value,
        /// What is asked.
        method: String,
        /// With what.
        params: Map<String, Value>,
    },
    /// Wants none.
    Notification {
        /// What has happened.
        method: String,
        /// To what.
        params: Map<String, Value>,
    },
    /// Answers a question; this side asks none.
    Answer,
    /// Nothing that makes sense.
    Invalid {
        /// The id, where there is one.
        id: Value,
        /// Why.
        wrong: Wrong,
    },
}

/// The messages of a line.
#[derive(Debug, Clone, PartialEq)]
pub enum Batch {
    /// One, as usual.
    One(Message),
    /// Several, whose answers are one line.
    Many(Vec<Message>),
}

/// Reads a line.
pub fn parse(line: &[u8]) -> Batch {
    match serde_json::from_slice(line) {
        Err(_) => Batch::One(Message::Invalid { id: Value::Null, wrong: Wrong::Syntax }),
        Ok(Value::Array(values)) if (1..=MAX_BATCH).contains(&values.len()) => {
            Batch::Many(values.into_iter().map(message).collect())
        }
        Ok(value) => Batch::One(message(value)),
    }
}

fn message(value: Value) -> Message {
    let invalid = |id, wrong| Message::Invalid { id, wrong };
    let Value::Object(mut fields) = value else { return invalid(Value::Null, Wrong::Form) };
    let id = match fields.remove("id") {
        None => None,
        Some(id) if is_id(&id) => Some(id),
        Some(_) => return invalid(Value::Null, Wrong::Form),
    };
    let shown = id.clone().unwrap_or(Value::Null);
    if fields.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return invalid(shown, Wrong::Form);
    }
    let method = match fields.remove("method") {
        Some(Value::String(method)) => method,
        None if fields.contains_key("result") || fields.contains_key("error") => return Message::Answer,
        Some(_) | None => return invalid(shown, Wrong::Form),
    };
    let params = match fields.remove("params") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(params)) => params,
        Some(_) => return invalid(shown, Wrong::Parameters),
    };
    match id {
        Some(id) => Message::Request { id, method, params },
        None => Message::Notification { method, params },
    }
}

fn is_id(id: &Value) -> bool {
    match id {
        Value::String(text) => text.len() <= MAX_ID,
        Value::Number(number) => number.is_i64() || number.is_u64(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn one(text: &str) -> Message {
        match parse(text.as_bytes()) {
            Batch::One(message) => message,
            Batch::Many(_) => panic!("{text}: several"),
        }
    }

    #[test]
    fn requests_notifications_and_answers_are_told_apart() {
        let request = one(r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#);
        assert_eq!(request, Message::Request { id: json!(7), method: "ping".into(), params: Map::new() });
        let notification = one(r#"{"jsonrpc":"2.0","method":"x","params":{}}"#);
        assert_eq!(notification, Message::Notification { method: "x".into(), params: Map::new() });
        assert_eq!(one(r#"{"jsonrpc":"2.0","id":"a","result":{}}"#), Message::Answer);
        let two = parse(br#"[{"jsonrpc":"2.0","method":"x"},3]"#);
        assert!(matches!(two, Batch::Many(messages) if matches!(messages[1], Message::Invalid { .. })));
    }

    #[test]
    fn what_is_no_message_is_refused_with_its_number() {
        let long = format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"x"}}"#, "i".repeat(MAX_ID + 1));
        let deep = "[".repeat(100_000);
        let many = format!("[{}]", vec!["1"; MAX_BATCH + 1].join(","));
        for (text, code) in [
            ("", -32700),
            ("\u{0}", -32700),
            ("{", -32700),
            ("{}{}", -32700),
            (&deep, -32700),
            (r#"{"jsonrpc":"2.0","id":1e400,"method":"x"}"#, -32700),
            ("null", -32600),
            ("[]", -32600),
            (&many, -32600),
            ("{}", -32600),
            (&long, -32600),
            (r#"{"id":1,"method":"x"}"#, -32600),
            (r#"{"jsonrpc":"1.0","id":1,"method":"x"}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":1.5,"method":"x"}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":{},"method":"x"}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":1,"method":2}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":[1]}"#, -32602),
        ] {
            match one(text) {
                Message::Invalid { wrong, .. } => assert_eq!(wrong.code(), code, "{text:.60}"),
                other => panic!("{text:.60}: {other:?}"),
            }
        }
        assert!(matches!(parse(&[0xff, 0xfe]), Batch::One(Message::Invalid { wrong: Wrong::Syntax, .. })));
    }

    proptest::proptest! {
        #[test]
        fn no_line_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            parse(&bytes);
        }
    }
}
