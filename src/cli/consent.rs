//! Asking whoever sits at the terminal before something that cannot be taken back, or that needs root.

use std::io;
use std::os::fd::AsFd;

use super::manner;
use super::render;
use super::report::Failure;
use crate::os::tty;
use crate::protocol::Fault;

/// Whether somebody can be asked.
pub fn can_be_asked() -> bool {
    let manner = manner::current();
    !manner.json && !manner.no_input && tty::is_terminal(io::stdin().as_fd()) && tty::is_terminal(io::stderr().as_fd())
}

/// Whether the answer to `question` is yes.
pub fn agrees(question: &str) -> Result<bool, Failure> {
    render::prompt(&format!("{question} [y/N] "));
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|e| Fault::failed("cannot read the answer", &e))?;
    Ok(is_yes(&answer))
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim(), "y" | "Y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_not_plainly_yes_is_no() {
        assert!(is_yes("y\n") && is_yes("Y") && is_yes(" yes \n"));
        assert!(!is_yes("\n") && !is_yes("no") && !is_yes("yep") && !is_yes(""));
    }
}
