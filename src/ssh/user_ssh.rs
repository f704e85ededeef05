//! The user's own `ssh` for interactive shells: which arguments make it trust exactly what banger
//! trusts (ssh_config(5)). Neither the user's configuration nor their `known_hosts` takes part.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::model::VmName;

use super::agreement;
use super::quote::{QuoteError, command_line};
use crate::shell::Command;

/// What `ssh` has to know.
#[derive(Debug, Clone, Copy)]
pub struct UserSsh<'a> {
    /// The VM; the host key is pinned under this name.
    pub name: &'a VmName,
    /// Where it is.
    pub address: Ipv4Addr,
    /// Who logs in.
    pub user: &'a str,
    /// File of the private key.
    pub identity: &'a Path,
    /// banger's own `known_hosts`.
    pub known_hosts: &'a Path,
}

/// What holds for every VM.
const SETTINGS: [(&str, &str); 14] = [
    ("StrictHostKeyChecking", "yes"),
    ("GlobalKnownHostsFile", "/dev/null"),
    ("UpdateHostKeys", "no"),
    ("CheckHostIP", "no"),
    ("IdentitiesOnly", "yes"),
    ("IdentityAgent", "none"),
    ("PreferredAuthentications", "publickey"),
    ("ForwardAgent", "no"),
    ("ConnectTimeout", "30"),
    ("ServerAliveInterval", "15"),
    ("ServerAliveCountMax", "4"),
    ("LogLevel", "ERROR"),
    ("Ciphers", agreement::CIPHERS),
    ("KexAlgorithms", agreement::KEX),
];

/// Keywords and values (ssh_config(5)) by which any `ssh` trusts what banger trusts, once it knows the VM's key and
/// its own.
pub fn settings() -> &'static [(&'static str, &'static str)] {
    &SETTINGS
}

impl UserSsh<'_> {
    /// The argument vector, `ssh` first. `None` is the login shell; a pty in `remote` forces one.
    pub fn argv(&self, remote: Option<&Command>) -> Result<Vec<OsString>, QuoteError> {
        let line = remote.map(command_line).transpose()?.flatten();
        let terminal = remote.is_none_or(|command| command.pty.is_some());
        let mut argv: Vec<OsString> = vec!["ssh".into(), "-F".into(), "none".into()];
        argv.push(if terminal { "-tt" } else { "-T" }.into());
        argv.extend(["-o".into(), format!("HostKeyAlias={}", self.name).into()]);
        for (keyword, value) in settings() {
            argv.extend(["-o".into(), format!("{keyword}={value}").into()]);
        }
        argv.extend(["-o".into(), file_option("IdentityFile", self.identity)]);
        argv.extend(["-o".into(), file_option("UserKnownHostsFile", self.known_hosts)]);
        argv.push("--".into());
        argv.push(format!("{}@{}", self.user, self.address).into());
        argv.extend(line.map(OsString::from));
        Ok(argv)
    }
}

/// `ssh` splits the value at blanks, takes `\` and `"` off and expands `%` and `${…}`: all but the
/// last can be said otherwise, and no state folder of banger's contains `${`.
fn file_option(option: &str, path: &Path) -> OsString {
    let mut value = format!("{option}=\"").into_bytes();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'%' => value.extend(b"%%"),
            b'"' | b'\\' => value.extend([b'\\', *byte]),
            other => value.push(*other),
        }
    }
    value.push(b'"');
    OsString::from_vec(value)
}
