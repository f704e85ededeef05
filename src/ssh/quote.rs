//! Quoting for the guest's login shell: sshd hands it one string (RFC 4254 section 6.5), so an
//! argument vector survives only as words of that shell, POSIX quoting (XCU 2.2.2).
//!
//! The string has to be UTF-8, because libssh2's binding takes it as text; bytes that are not are
//! written as `"$(printf '\377')"`, which every POSIX shell turns back into the byte.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::protocol::shell::Tool;
use crate::shell::{Command, Program};

/// The longest command line that one ssh packet of libssh2 carries (35000 less its headers).
pub(super) const LONGEST: usize = 34_000;

/// Why a command cannot be put into words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuoteError {
    /// No Unix process can have it.
    #[error("argument {0} contains a NUL byte")]
    Nul(usize),
    /// Nothing to run.
    #[error("the command is empty")]
    Empty,
    /// Not a name for a variable.
    #[error("'{0}' is not a name for an environment variable: letters, digits and '_' only, no digit first")]
    Variable(String),
    /// Nothing in the image does it.
    #[error("a command that runs on by itself needs banger's agent in the guest, which ssh cannot reach")]
    NeedsAgent,
    /// Does not fit into one request.
    #[error("the command line has {0} bytes, at most {LONGEST} fit; put it into a file in the guest and run that")]
    TooLong(usize),
}

/// One word of the shell that means exactly `bytes`; `None` when they contain a NUL.
pub fn quote(bytes: &[u8]) -> Option<String> {
    if bytes.contains(&0) {
        return None;
    }
    if !bytes.is_empty() && bytes.iter().all(|b| is_plain(*b)) {
        return Some(String::from_utf8_lossy(bytes).into_owned());
    }
    let mut word = String::with_capacity(bytes.len() + 2);
    for chunk in bytes.utf8_chunks() {
        push_text(&mut word, chunk.valid());
        push_bytes(&mut word, chunk.invalid());
    }
    if word.is_empty() {
        word.push_str("''");
    }
    Some(word)
}

/// The words of `argv`, one space between them.
pub fn quote_argv<A: AsRef<OsStr>>(argv: &[A]) -> Result<String, QuoteError> {
    if argv.is_empty() {
        return Err(QuoteError::Empty);
    }
    let word = |(at, a): (usize, &A)| quote(a.as_ref().as_bytes()).ok_or(QuoteError::Nul(at));
    let words: Vec<String> = argv.iter().enumerate().map(word).collect::<Result<_, _>>()?;
    Ok(words.join(" "))
}

/// What the login shell is told to do; `None` when a plain login shell is all that is wanted.
pub(super) fn command_line(command: &Command) -> Result<Option<String>, QuoteError> {
    let mut line = String::new();
    if command.user.is_some() {
        return Err(QuoteError::NeedsAgent);
    }
    if let Some(folder) = &command.cwd {
        line.push_str(&enter(folder)?);
    }
    for (name, value) in &command.env {
        line.push_str(&export(name, value)?);
    }
    match &command.program {
        Program::Argv(argv) => line.push_str(&start(argv)?),
        Program::Tool(tool) => line.push_str(&start(&of_image(tool)?)?),
        Program::Login if line.is_empty() => return Ok(None),
        Program::Login => line.push_str(r#"exec "${SHELL:-/bin/sh}" -l"#),
    }
    if line.len() > LONGEST { Err(QuoteError::TooLong(line.len())) } else { Ok(Some(line)) }
}

/// The image's own programs that do what the agent can.
fn of_image(tool: &Tool) -> Result<Vec<OsString>, QuoteError> {
    let words = |words: &[&[u8]]| words.iter().map(|w| OsStr::from_bytes(w).to_owned()).collect();
    match tool {
        Tool::Probe { path } => Ok(words(&[b"sh", b"-c", PROBE.as_bytes(), b"sh", path])),
        Tool::Pack { folder, name } if name == b"." => Ok(words(&[b"tar", b"-c", b"-f", b"-", b"-C", folder, b"."])),
        Tool::Pack { folder, name } => Ok(words(&[b"sh", b"-c", PACK.as_bytes(), b"sh", folder, name])),
        Tool::Unpack { folder } => Ok(words(&[b"tar", b"-x", b"-f", b"-", b"-C", folder])),
        Tool::Detach | Tool::Attach { .. } | Tool::Jobs => Err(QuoteError::NeedsAgent),
    }
}

/// What [`Tool::Pack`] does: the name may be a link.
const PACK: &str =
    "p=$(readlink -f -- \"$1/$2\") && exec tar -c -f - -C \"$(dirname -- \"$p\")\" -- \"$(basename -- \"$p\")\"";

/// What [`Tool::Probe`] says.
const PROBE: &str = "if [ -d \"$1\" ]; then echo folder; elif [ -f \"$1\" ]; then echo file; \
    elif [ -e \"$1\" ] || [ -L \"$1\" ]; then echo other; else echo nothing; fi";

/// `exec`, so that the command is the shell's process: its signals are seen as they are. A name
/// that looks like an option would be one to `exec`; `env` takes it as a name.
fn start<A: AsRef<OsStr>>(argv: &[A]) -> Result<String, QuoteError> {
    let is_option = argv.first().is_some_and(|program| program.as_ref().as_bytes().starts_with(b"-"));
    let how = if is_option { "exec env --" } else { "exec" };
    Ok(format!("{how} {}", quote_argv(argv)?))
}

/// A relative folder gets `./`: `-` and `CDPATH` mean something to `cd` otherwise.
fn enter(folder: &str) -> Result<String, QuoteError> {
    let anchored = if folder.starts_with('/') { folder.to_owned() } else { format!("./{folder}") };
    let word = quote(anchored.as_bytes()).ok_or(QuoteError::Nul(0))?;
    Ok(format!("cd {word} || exit 125; "))
}

fn export(name: &str, value: &str) -> Result<String, QuoteError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(plain) {
        return Err(QuoteError::Variable(name.to_owned()));
    }
    let word = quote(value.as_bytes()).ok_or_else(|| QuoteError::Variable(name.to_owned()))?;
    Ok(format!("export {name}={word}; "))
}

/// Means itself to every shell, also as the first word of a line.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'_' | b'-' | b',' | b':' | b'+' | b'@')
}

fn push_text(word: &mut String, text: &str) {
    if !text.is_empty() {
        word.push('\'');
        word.push_str(&text.replace('\'', r"'\''"));
        word.push('\'');
    }
}

fn push_bytes(word: &mut String, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    word.push_str(r#""$(printf '"#);
    for byte in bytes {
        word.push_str(&format!("\\{byte:03o}"));
    }
    word.push_str(r#"')""#);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    use std::process::Command as Process;

    /// What `shell` makes of the words in `line`, each with a NUL after it.
    fn words(shell: &str, line: &str) -> Vec<u8> {
        let script = format!(r"printf '%s\0' {line}");
        let output = Process::new(shell).args(["-c", &script]).output().expect("a shell");
        assert!(output.status.success() && output.stderr.is_empty(), "{script:?}: {output:?}");
        output.stdout
    }

    fn expected(argv: &[OsString]) -> Vec<u8> {
        argv.iter().flat_map(|a| [a.as_bytes(), b"\0"].concat()).collect()
    }

    fn argument() -> impl Strategy<Value = OsString> {
        let byte = prop_oneof![4 => 1u8..=255, 2 => proptest::sample::select(&b"'\"\\$`!*?~#&;|<> \n\t=-%"[..])];
        let bytes = proptest::collection::vec(byte, 0..12).prop_map(OsString::from_vec);
        prop_oneof![bytes, "\\PC{0,12}".prop_map(OsString::from)]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn every_argument_survives_every_shell(argv in proptest::collection::vec(argument(), 1..20)) {
            let line = quote_argv(&argv).expect("no NUL in it");
            for shell in ["sh", "bash"] {
                prop_assert_eq!(words(shell, &line), expected(&argv), "{}: {}", shell, line);
            }
        }
    }

    #[test]
    fn plain_words_stay_readable_and_a_script_stays_one_word() {
        assert_eq!(quote_argv(&["make", "-C", "/src", ""]).as_deref(), Ok("make -C /src ''"));
        assert_eq!(quote_argv(&["sh", "-c", "exit 42"]).as_deref(), Ok("sh -c 'exit 42'"));
    }

    #[test]
    fn what_no_process_can_have_is_refused() {
        assert_eq!(quote_argv(&["a", "b\0c"]), Err(QuoteError::Nul(1)));
        assert_eq!(quote_argv::<&str>(&[]), Err(QuoteError::Empty));
        let long = Command::new(["x".repeat(LONGEST)]);
        assert!(matches!(command_line(&long), Err(QuoteError::TooLong(_))));
        for bad in ["", "1A", "A B", "A=B", "A;B", "Ä"] {
            assert!(command_line(&Command::new(["x"]).with_env(bad, "v")).is_err(), "{bad}");
        }
        assert!(command_line(&Command::new(["x"]).with_env("A", "a\0b")).is_err());
    }

    #[test]
    fn a_plain_login_shell_needs_no_words() {
        assert_eq!(command_line(&Command::login()), Ok(None));
        let line = command_line(&Command::login().in_folder("-")).expect("words");
        assert_eq!(line.as_deref(), Some(r#"cd ./- || exit 125; exec "${SHELL:-/bin/sh}" -l"#));
    }
}
