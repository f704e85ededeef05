//! What a client asks to run, as sshd would run it.

use std::path::Path;

use super::words;
use crate::guest::shell::child::{self, Refusal, Started};
use crate::protocol::shell::{Begin, Program, Terminal};

/// Most variables of a client, and most bytes of one.
const MAX_VARIABLES: usize = 64;
const MAX_VARIABLE: usize = 4096;

/// What a session has said before its command.
#[derive(Debug, Default)]
pub struct Setup {
    env: Vec<(String, String)>,
    pty: Option<Terminal>,
}

impl Setup {
    /// For a connection between `addresses`, as sshd tells commands (ssh(1), `SSH_CONNECTION`).
    pub fn new(addresses: Option<&str>) -> Self {
        let env = addresses.map(|text| ("SSH_CONNECTION".to_owned(), text.to_owned()));
        Self { env: env.into_iter().collect(), pty: None }
    }

    /// Takes a variable; false for one that is none of a client's business (what Debian's sshd accepts, and
    /// whether there are colours).
    pub fn add_variable(&mut self, name: &str, value: &str) -> bool {
        let is_theirs = name == "LANG" || name.starts_with("LC_") || name == "COLORTERM" || name == "NO_COLOR";
        let is_fine = !name.contains(['=', '\0']) && !value.contains('\0') && name.len() + value.len() <= MAX_VARIABLE;
        let is_taken = is_theirs && is_fine && self.env.len() < MAX_VARIABLES;
        if is_taken {
            self.env.push((name.to_owned(), value.to_owned()));
        }
        is_taken
    }

    /// Takes a terminal; false where one was asked for already.
    pub fn add_terminal(&mut self, term: &str, cols: u32, rows: u32) -> bool {
        let is_fine = self.pty.is_none() && term.len() <= MAX_VARIABLE && !term.contains('\0');
        if is_fine {
            self.pty = Some(Terminal { term: term.to_owned(), cols: characters(cols), rows: characters(rows) });
        }
        is_fine
    }

    /// Changes the size of a terminal that nobody uses yet.
    pub fn resize(&mut self, cols: u32, rows: u32) {
        if let Some(pty) = &mut self.pty {
            (pty.cols, pty.rows) = (characters(cols), characters(rows));
        }
    }

    /// Starts a login shell.
    pub fn start_shell(self) -> Result<Started, Refusal> {
        self.start(Program::Login)
    }

    /// Starts `line`: through the shell, or word by word where there is none.
    pub fn start_line(self, line: &[u8]) -> Result<Started, Refusal> {
        let words = words_of(child::login_shell().as_deref(), line)?;
        self.start(Program::Argv(words))
    }

    fn start(self, program: Program) -> Result<Started, Refusal> {
        child::start(&Begin { program, env: self.env, cwd: None, pty: self.pty })
    }
}

fn words_of(shell: Option<&Path>, line: &[u8]) -> Result<Vec<Vec<u8>>, Refusal> {
    use std::os::unix::ffi::OsStrExt;
    match shell {
        Some(shell) => Ok(vec![shell.as_os_str().as_bytes().to_vec(), b"-c".to_vec(), line.to_vec()]),
        None => words::split(line).map_err(|why| Refusal {
            code: 127,
            text: format!("banger: this image has no shell, and without one the command cannot be run: {why}\n"),
        }),
    }
}

/// A size that the kernel can say.
pub fn characters(count: u32) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_chooses_language_and_colours_and_nothing_else() {
        let mut setup = Setup::new(Some("a"));
        assert!(setup.add_variable("LANG", "C") && setup.add_variable("LC_ALL", "C.UTF-8"));
        for name in ["PATH", "LD_PRELOAD", "LC_A=B", "LC_\0", ""] {
            assert!(!setup.add_variable(name, "x"), "{name:?}");
        }
        assert!(!setup.add_variable("LANG", &"x".repeat(MAX_VARIABLE)));
        while setup.add_variable("LANG", "C") {}
        assert_eq!(setup.env.len(), MAX_VARIABLES);
    }

    #[test]
    fn without_a_shell_the_words_are_run_as_they_are() {
        let words = |shell: Option<&Path>, line: &[u8]| words_of(shell, line).map_err(|refusal| refusal.code);
        assert_eq!(
            words(Some(Path::new("/bin/sh")), b"a | b"),
            Ok(vec![b"/bin/sh".to_vec(), b"-c".to_vec(), b"a | b".to_vec()])
        );
        assert_eq!(words(None, b"exec /a 'b c'"), Ok(vec![b"/a".to_vec(), b"b c".to_vec()]));
        assert_eq!(words(None, b"a | b"), Err(127));
    }

    #[test]
    fn a_terminal_is_asked_for_once() {
        let mut setup = Setup::default();
        assert!(setup.add_terminal("xterm", 1 << 20, 24) && !setup.add_terminal("xterm", 1, 1));
        setup.resize(100, 30);
        assert_eq!(setup.pty.map(|pty| (pty.cols, pty.rows)), Some((100, 30)));
    }
}
