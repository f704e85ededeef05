//! A registry on loopback that does as it is told: one thread a connection, one request a connection.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request as it came.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub headers: HashMap<String, String>,
    pub body: String,
}

impl Asked {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The first byte that is wanted.
    pub fn from(&self) -> usize {
        self.header("range").trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap_or(0)
    }
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub struct Told {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Only that many bytes of the body are sent.
    pub cut: Option<usize>,
    /// Instead of a length; the body is sent over and over until nobody listens.
    pub endless: bool,
}

impl Told {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }
}

type Judge = dyn Fn(&Asked) -> Told + Send + Sync;

/// A server; it ends with the test's process.
pub struct Server {
    pub authority: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    pub fn start(judge: impl Fn(&Asked) -> Told + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let authority = listener.local_addr().expect("an address").to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (judge, log): (Arc<Judge>, _) = (Arc::new(judge), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (judge, log) = (Arc::clone(&judge), Arc::clone(&log));
                std::thread::spawn(move || serve(stream, &*judge, &log));
            }
        });
        Self { authority, asked }
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("not poisoned").clone()
    }

    /// How many of them were for a path that has `part`.
    pub fn count(&self, part: &str) -> usize {
        self.asked().iter().filter(|a| a.path.contains(part)).count()
    }
}

fn serve(stream: TcpStream, judge: &Judge, log: &Mutex<Vec<Asked>>) {
    // A greeting of TLS is no request: closed, as by a server that speaks plain HTTP.
    let Some(asked) = read(&stream) else { return };
    log.lock().expect("not poisoned").push(asked.clone());
    // Who hangs up early is no failure of this test.
    let _ = tell(stream, &judge(&asked));
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).ok()?;
    let line = String::from_utf8(line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    if !words.next()?.starts_with("HTTP/") {
        return None;
    }
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    std::io::Read::read_exact(&mut reader, &mut body).ok()?;
    Some(Asked { method, path, headers, body: String::from_utf8_lossy(&body).into_owned() })
}

fn tell(mut stream: TcpStream, told: &Told) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {} Told\r\nConnection: close\r\n", told.status)?;
    for (name, value) in &told.headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    if told.endless {
        write!(stream, "Transfer-Encoding: chunked\r\n\r\n")?;
        loop {
            write!(stream, "{:x}\r\n", told.body.len())?;
            stream.write_all(&told.body)?;
            write!(stream, "\r\n")?;
        }
    }
    write!(stream, "Content-Length: {}\r\n\r\n", told.body.len())?;
    stream.write_all(&told.body[..told.cut.unwrap_or(told.body.len())])
}
