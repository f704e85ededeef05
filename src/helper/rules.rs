//! The rules, applied with `nft`: one process per transaction, the text on its standard input.

use std::io::{Read, Seek, Write};
use std::process::{Command, Stdio};

use super::authority::Root;
use super::error::{Doing, HelperError, Result};
use crate::host::facts::find_program;
use crate::os::memfd;

/// Most of an answer that is read: two sets of 1024 destinations, each way, are 400 KiB.
const ANSWER_LIMIT: u64 = 4 << 20;

/// Most of `nft`'s own words that are passed on.
const SAID_LIMIT: u64 = 2048;

/// Applies `text` as one transaction; `doing` says what it is for.
pub fn apply(root: &Root, text: &str, doing: &str) -> Result<()> {
    run(root, &["-f", "-"], text, doing).map(drop)
}

/// What nft answers to `command`, as JSON, with numbers for what has names. One at a time: of several in
/// one text nft 1.0.6 answers none.
pub fn list(root: &Root, command: &str, doing: &str) -> Result<String> {
    run(root, &["-j", "-n", command], "", doing)
}

/// Whether what `text` names is there.
pub fn are_there(root: &Root, text: &str) -> bool {
    apply(root, text, "look at the rules").is_ok()
}

fn run(_: &Root, arguments: &[&str], text: &str, doing: &str) -> Result<String> {
    let nft = find_program("nft").ok_or(HelperError::Missing("nft"))?;
    let starting = || format!("start nft to {doing}");
    // A file of no name: with a pipe for each direction each could wait for the other.
    let mut input = memfd::create("rules").doing(starting())?;
    input.write_all(text.as_bytes()).and_then(|()| input.rewind()).doing(starting())?;
    let mut errors = memfd::create("errors").doing(starting())?;
    let mut child = Command::new(nft)
        .args(arguments)
        .env_clear()
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(errors.try_clone().doing(starting())?)
        .spawn()
        .doing(starting())?;
    let mut answer = String::new();
    // Read to its end all the same: nft shall not be stopped by a full pipe.
    let read = child.stdout.take().map(|output| {
        let mut output = output.take(ANSWER_LIMIT);
        output.read_to_string(&mut answer).and_then(|_| std::io::copy(output.get_mut(), &mut std::io::sink()))
    });
    if child.wait().doing("wait for nft")?.success() {
        return read.transpose().map(|_| answer).doing(format!("read what nft answers, to {doing}"));
    }
    let mut said = String::new();
    // What cannot be read cannot be told.
    let _ = errors.rewind().and_then(|()| errors.take(SAID_LIMIT).read_to_string(&mut said));
    Err(HelperError::Program { doing: doing.to_owned(), said: first_error(&said) })
}

/// `nft` writes place, reason, the line, and a pointer below it: the reason is enough.
fn first_error(said: &str) -> String {
    said.lines().find(|l| l.contains("Error")).unwrap_or_else(|| said.trim()).to_owned()
}
