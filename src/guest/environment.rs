//! Variables that everything run in this guest gets, whoever carries it: written by `init`, read for each
//! command. In `/run`, so that they end with the boot.

use std::io;
use std::path::Path;

use crate::os::files::{ensure_dir, read_limited, write_atomic};

/// Where they are: a line each, `NAME=VALUE`.
const PATH: &str = "/run/banger/environment";

/// Largest file that is read.
const LIMIT: u64 = 160 << 10;

/// Writes them down.
pub fn write(variables: &[(String, String)]) -> io::Result<()> {
    let path = Path::new(PATH);
    ensure_dir(path.parent().unwrap_or(Path::new("/run")), 0o755)?;
    write_atomic(path, text(variables).as_bytes(), 0o600)
}

/// All of them; none where there is nothing to read.
pub fn read() -> Vec<(String, String)> {
    read_limited(Path::new(PATH), LIMIT).map(|bytes| parse(&String::from_utf8_lossy(&bytes))).unwrap_or_default()
}

fn text(variables: &[(String, String)]) -> String {
    variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
}

/// What is no variable is left out: root in the guest may have written anything.
fn parse(text: &str) -> Vec<(String, String)> {
    let is_fine = |name: &str, value: &str| !name.is_empty() && !name.contains('\0') && !value.contains('\0');
    text.lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(name, value)| is_fine(name, value))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_rubbish_is_left_out() {
        let variables = vec![("A".to_owned(), "b=c d".to_owned()), ("E".to_owned(), String::new())];
        assert_eq!(parse(&text(&variables)), variables);
        assert_eq!(parse("\n=x\nA\0=b\nno line\nA=b\0\n"), []);
    }
}
