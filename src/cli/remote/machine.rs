//! `ssh://[USER@]MACHINE[:PORT]`, as `ssh` takes it apart again. What could be an option of it, or mean something to a
//! shell that its configuration calls, is refused.

use std::fmt;
use std::str::FromStr;

/// Another machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    user: Option<String>,
    name: String,
    port: Option<u16>,
}

/// Why a text names no machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MachineError {
    /// Another way than ssh.
    #[error("a machine is named by ssh://[USER@]MACHINE[:PORT]")]
    Scheme,
    /// The user.
    #[error("the user has letters, digits and . _ + @ - only, and does not begin with -")]
    User,
    /// The name.
    #[error("the machine has letters, digits and . _ - only, or is an address in brackets, and does not begin with -")]
    Name,
    /// The port.
    #[error("the port is a number from 1 to 65535")]
    Port,
    /// Something behind it.
    #[error("nothing stands behind the machine")]
    Path,
}

impl FromStr for Machine {
    type Err = MachineError;

    fn from_str(text: &str) -> Result<Self, MachineError> {
        let rest = text.strip_prefix("ssh://").ok_or(MachineError::Scheme)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('/') {
            return Err(MachineError::Path);
        }
        let (user, rest) = rest.rsplit_once('@').map_or((None, rest), |(user, rest)| (Some(user), rest));
        let (name, port) = apart(rest)?;
        let port = port.map(|port| port.parse().ok().filter(|port| *port > 0).ok_or(MachineError::Port)).transpose()?;
        match user {
            Some(user) if !is_word(user, "._+@-") => Err(MachineError::User),
            user => Ok(Self { user: user.map(str::to_owned), name: name.to_owned(), port }),
        }
    }
}

/// Name and port. An address of IPv6 stands in brackets (RFC 3986, 3.2.2).
fn apart(text: &str) -> Result<(&str, Option<&str>), MachineError> {
    if let Some(rest) = text.strip_prefix('[') {
        let (name, rest) = rest.split_once(']').ok_or(MachineError::Name)?;
        let is_address = name.parse::<std::net::Ipv6Addr>().is_ok();
        return match (is_address, rest.strip_prefix(':'), rest) {
            (true, Some(port), _) => Ok((name, Some(port))),
            (true, None, "") => Ok((name, None)),
            _ => Err(MachineError::Name),
        };
    }
    let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
    if is_word(name, "._-") { Ok((name, port)) } else { Err(MachineError::Name) }
}

fn is_word(text: &str, beside: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || beside.contains(c);
    !text.is_empty() && !text.starts_with('-') && text.chars().all(plain)
}

impl Machine {
    /// The words by which ssh finds it, behind all options.
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if let Some(user) = &self.user {
            words.extend(["-l".to_owned(), user.clone()]);
        }
        if let Some(port) = self.port {
            words.extend(["-p".to_owned(), port.to_string()]);
        }
        words.extend(["--".to_owned(), self.name.clone()]);
        words
    }

    /// For people: what brings this banger there.
    pub fn copying(&self) -> String {
        let name = if self.name.contains(':') { format!("[{}]", self.name) } else { self.name.clone() };
        let (port, user) = (self.option("-P "), self.user.as_ref().map_or(String::new(), |user| format!("{user}@")));
        format!("scp {port}\"$(command -v banger)\" {user}{name}:      (and install it there)")
    }

    /// For people: what asks the banger there which it is.
    pub fn asking(&self) -> String {
        format!("ssh {}{self} banger --version", self.option("-p "))
    }

    fn option(&self, flag: &str) -> String {
        self.port.map_or(String::new(), |port| format!("{flag}{port} "))
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.user {
            Some(user) => write!(f, "{user}@{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.parse::<Machine>().map_or_else(|e| panic!("{text}: {e}"), |machine| machine.words())
    }

    #[test]
    fn each_part_is_where_ssh_looks_for_it() {
        assert_eq!(words("ssh://box"), ["--", "box"]);
        assert_eq!(words("ssh://me@box.example.org:2222/"), ["-l", "me", "-p", "2222", "--", "box.example.org"]);
        assert_eq!(words("ssh://me@corp@10.0.0.1"), ["-l", "me@corp", "--", "10.0.0.1"]);
        assert_eq!(words("ssh://[fe80::1]:22"), ["-p", "22", "--", "fe80::1"]);
    }

    #[test]
    fn what_people_are_told_to_type_goes_to_the_same_place() {
        let machine = |text: &str| text.parse::<Machine>().expect("a machine");
        assert!(machine("ssh://me@box:2222").copying().starts_with("scp -P 2222 \"$(command -v banger)\" me@box: "));
        assert!(machine("ssh://[fe80::1]").copying().contains(" [fe80::1]: "));
        assert_eq!(machine("ssh://me@box:2222").asking(), "ssh -p 2222 me@box banger --version");
        assert_eq!(machine("ssh://box").asking(), "ssh box banger --version");
    }

    #[test]
    fn what_could_be_something_else_is_refused() {
        for bad in [
            "",
            "box",
            "http://box",
            "ssh://",
            "ssh://-oProxyCommand=x",
            "ssh://-l@box",
            "ssh://@box",
            "ssh://a b",
            "ssh://box:0",
            "ssh://box:65536",
            "ssh://box:",
            "ssh://box:x",
            "ssh://box/path",
            "ssh://$(id)",
            "ssh://b;x",
            "ssh://u`id`@box",
            "ssh://[box]",
            "ssh://[::1",
            "ssh://[::1]x",
            "ssh://::1",
            "ssh://b\nx",
            "ssh://%h",
        ] {
            assert!(bad.parse::<Machine>().is_err(), "{bad:?}");
        }
    }
}
