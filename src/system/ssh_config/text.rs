//! What banger tells ssh about its VMs, ssh_config(5). One `Host *.vm` for all that are and will be: what differs from
//! VM to VM is reached by the token `%h`, so nothing is written when one is made.

use std::path::Path;

use super::SshConfigError;

/// Ending of the names by which ssh knows VMs.
pub const SUFFIX: &str = ".vm";

/// What ssh has to be told.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// This program.
    pub program: &'a Path,
    /// The daemon's socket.
    pub socket: &'a Path,
    /// banger's own `known_hosts`.
    pub known_hosts: &'a Path,
    /// The folder in which `banger-dial` lays a link `NAME.vm` to the VM's key before ssh needs it.
    pub identities: &'a Path,
    /// Keywords and values that hold for every VM.
    pub settings: &'a [(&'a str, &'a str)],
}

impl Told<'_> {
    /// The configuration.
    pub fn text(&self) -> Result<String, SshConfigError> {
        let program = plain(self.program)?;
        let (socket, identities) = (plain(self.socket)?, plain(self.identities)?);
        let known_hosts = plain(self.known_hosts)?;
        let own = [
            ("User", "root".to_owned()),
            ("ProxyCommand", format!("'{program}' --as banger-dial '{socket}' '{identities}' %h")),
            ("ProxyUseFdpass", "no".to_owned()),
            ("CanonicalizeHostname", "no".to_owned()),
            ("IdentityFile", format!("\"{identities}/%h\"")),
            ("UserKnownHostsFile", format!("\"{known_hosts}\"")),
            ("ForwardX11", "no".to_owned()),
        ];
        let shared = self.settings.iter().map(|(keyword, value)| (*keyword, (*value).to_owned()));
        let mut text = format!(
            "# The VMs of banger: ssh NAME{SUFFIX}, and so scp, sftp, rsync and editors.\n\
             # Written by `banger ssh-config --install`, taken away by `--uninstall`.\n\
             Host *{SUFFIX}\n"
        );
        for (keyword, value) in own.into_iter().chain(shared) {
            text.push_str(&format!("    {keyword} {value}\n"));
        }
        Ok(text)
    }
}

/// A path that ssh, its shell and glob(7) all take for what it is. What they do not agree on how to quote is refused:
/// nobody's home is called so.
pub fn plain(path: &Path) -> Result<&str, SshConfigError> {
    let refused = || SshConfigError::Path(path.to_owned());
    let text = path.to_str().ok_or_else(refused)?;
    let special = |c: char| c.is_control() || "'\"\\%*?[]{}$~".contains(c);
    if path.is_absolute() && !text.contains(special) { Ok(text) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(home: &str) -> Result<String, SshConfigError> {
        let home = Path::new(home);
        let settings = [("StrictHostKeyChecking", "yes")];
        Told {
            program: Path::new("/usr/local/bin/banger"),
            socket: &home.join("sock"),
            known_hosts: &home.join("known_hosts"),
            identities: &home.join("ssh"),
            settings: &settings,
        }
        .text()
    }

    #[test]
    fn it_is_one_block_for_all_vms() {
        let text = told("/home/a person").expect("a text");
        for line in [
            "Host *.vm\n",
            "    ProxyCommand '/usr/local/bin/banger' --as banger-dial '/home/a person/sock' '/home/a person/ssh' %h\n",
            "    IdentityFile \"/home/a person/ssh/%h\"\n",
            "    UserKnownHostsFile \"/home/a person/known_hosts\"\n",
            "    StrictHostKeyChecking yes\n",
        ] {
            assert!(text.contains(line), "{line:?} is not in:\n{text}");
        }
        assert_eq!(text.matches("Host *").count(), 1);
    }

    #[test]
    fn a_path_that_needs_more_than_quotes_is_refused() {
        for home in ["/h/%h", "/h/\"", "/h/'", "/h\n", "/h/*", "/h/[a]", "/h/${HOME}", "/h\\", "relative"] {
            assert!(told(home).is_err(), "{home:?}");
        }
    }
}
