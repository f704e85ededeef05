//! Where answers go: one line each, whole, whoever writes at the same time.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

/// The stream to the client.
pub struct Outbox {
    out: Mutex<Box<dyn Write + Send>>,
}

impl Outbox {
    /// Over `out`, which nobody else writes to.
    pub fn new(out: impl Write + Send + 'static) -> Arc<Self> {
        Arc::new(Self { out: Mutex::new(Box::new(out)) })
    }

    /// Writes one message.
    pub fn send(&self, message: &Value) {
        let mut line = message.to_string();
        line.push('\n');
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        match out.write_all(line.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => {}
            // The client is gone; so will be its other stream, by whose end all ends.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
            Err(e) => log::warn!("an answer could not be written: {e}"),
        }
    }
}

/// The way back for one request, to be used once or, where it was cancelled, never.
#[derive(Clone)]
pub struct Reply {
    outbox: Arc<Outbox>,
    id: Value,
    answers: Option<Arc<Answers>>,
}

impl Reply {
    /// For the request `id`; one of a batch goes to the others of its `answers`.
    pub fn new(outbox: &Arc<Outbox>, id: Value, answers: Option<Arc<Answers>>) -> Self {
        Self { outbox: outbox.clone(), id, answers }
    }

    /// The request's id.
    pub fn id(&self) -> &Value {
        &self.id
    }

    /// It went well.
    pub fn result(self, result: Value) {
        let message = json!({"jsonrpc": "2.0", "id": self.id, "result": result});
        self.send(message);
    }

    /// It did not.
    pub fn error(self, code: i32, message: impl Into<String>, data: Option<Value>) {
        let mut error = json!({"code": code, "message": message.into()});
        if let Some(data) = data {
            error["data"] = data;
        }
        let message = json!({"jsonrpc": "2.0", "id": self.id, "error": error});
        self.send(message);
    }

    fn send(self, message: Value) {
        match &self.answers {
            None => self.outbox.send(&message),
            Some(answers) => answers.values.lock().unwrap_or_else(PoisonError::into_inner).push(message),
        }
    }
}

/// The answers of a batch: written when the last one has come, or will not.
pub struct Answers {
    outbox: Arc<Outbox>,
    values: Mutex<Vec<Value>>,
}

impl Answers {
    /// None yet.
    pub fn new(outbox: &Arc<Outbox>) -> Arc<Self> {
        Arc::new(Self { outbox: outbox.clone(), values: Mutex::default() })
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        let values = std::mem::take(self.values.get_mut().unwrap_or_else(PoisonError::into_inner));
        if !values.is_empty() {
            self.outbox.send(&Value::Array(values));
        }
    }
}
