//! A server on this machine that answers each request as it is told, and closes.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// What a path is answered with, raw, by the count of requests so far.
type Answers = dyn Fn(&str, usize) -> Vec<u8> + Send + Sync;

pub struct Server {
    pub address: String,
    pub asked: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(answers: impl Fn(&str, usize) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("an address").to_string();
        let (asked, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end) = (asked.clone(), ended.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::Acquire) {
                    return;
                }
                serve(stream.expect("a client"), &answers, &count);
            }
        });
        Self { address, asked, ended, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        // Wakes it.
        let _ = TcpStream::connect(&self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(mut stream: TcpStream, answers: &Answers, count: &AtomicUsize) {
    let mut lines = BufReader::new(stream.try_clone().expect("a second end")).lines();
    let Some(Ok(first)) = lines.next() else { return };
    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    // The client may hang up in the midst.
    let _ = stream.write_all(&answers(&path, count.fetch_add(1, Ordering::AcqRel)));
}

pub fn ok(body: &[u8]) -> Vec<u8> {
    stated(body.len(), body)
}

/// An answer that claims another length.
pub fn stated(length: usize, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}

pub fn status(code: u16) -> Vec<u8> {
    format!("HTTP/1.1 {code} Said\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into_bytes()
}

pub fn redirect(to: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into_bytes()
}
