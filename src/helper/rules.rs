//! The rules, applied with `nft`: one process per transaction, the text on its standard input.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use super::authority::Root;
use super::error::{Doing, HelperError, Result};
use crate::host::facts::find_program;

/// Most of `nft`'s own words that are passed on.
const SAID_LIMIT: u64 = 2048;

/// Applies `text` as one transaction; `doing` says what it is for.
pub fn apply(_: &Root, text: &str, doing: &str) -> Result<()> {
    let nft = find_program("nft").ok_or(HelperError::Missing("nft"))?;
    let mut child = Command::new(nft)
        .args(["-f", "-"])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .doing(format!("start nft to {doing}"))?;
    if let Some(mut input) = child.stdin.take() {
        // When nft has ended early its exit status says why.
        let _ = input.write_all(text.as_bytes());
    }
    let mut said = String::new();
    if let Some(errors) = child.stderr.take() {
        let _ = errors.take(SAID_LIMIT).read_to_string(&mut said);
    }
    if child.wait().doing("wait for nft")?.success() {
        return Ok(());
    }
    Err(HelperError::Program { doing: doing.to_owned(), said: first_error(&said) })
}

/// `nft` writes place, reason, the line, and a pointer below it: the reason is enough.
fn first_error(said: &str) -> String {
    said.lines().find(|l| l.contains("Error")).unwrap_or_else(|| said.trim()).to_owned()
}
