//! banger's own `known_hosts` (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT): one line per VM, for the
//! user's `ssh`. The user's own file is never touched.
//!
//! Fails closed: a file that cannot be read or has a line that is not understood is an error,
//! never an empty file, because an empty file would make a stranger a first acquaintance.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::model::VmName;
use crate::os::files;

use super::SshError;

/// More than a /24 of VMs needs, less than what hurts.
const LARGEST: u64 = 1 << 20;

/// A `known_hosts` file that belongs to banger.
#[derive(Debug, Clone)]
pub struct KnownHosts(PathBuf);

/// The line, with its newline, that pins `host_key` under the VM's name, `NAME.vm` and address.
pub fn entry(name: &VmName, address: Ipv4Addr, host_key: &str) -> Result<String, SshError> {
    let key = ssh_key::PublicKey::from_openssh(host_key.trim())
        .map_err(|source| SshError::PublicKey { what: format!("the host key of vm '{name}'"), source })?;
    let (kind, base64) = two_fields(host_key);
    debug_assert_eq!(kind, key.algorithm().as_str());
    Ok(format!("{name},{name}.vm,{address} {kind} {base64}\n"))
}

impl KnownHosts {
    /// The file at `path`; it need not exist yet.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Pins `host_key`; what was pinned under this name or address before is forgotten.
    pub fn pin(&self, name: &VmName, address: Ipv4Addr, host_key: &str) -> Result<(), SshError> {
        let line = entry(name, address, host_key)?;
        let address = address.to_string();
        self.rewrite(|text| without(text, &[name.as_str(), &address]) + &line)
    }

    /// Forgets the VM; done when it is not there.
    pub fn remove(&self, name: &VmName) -> Result<(), SshError> {
        self.rewrite(|text| without(text, &[name.as_str()]))
    }

    /// The key pinned for the VM, as a line of OpenSSH public key.
    pub fn pinned(&self, name: &VmName) -> Result<Option<String>, SshError> {
        let text = self.read()?;
        let line = text.lines().find(|line| names_of(line).any(|n| n == name.as_str()));
        Ok(line.and_then(|line| line.split_once(' ')).map(|(_, key)| key.to_owned()))
    }

    fn rewrite(&self, change: impl FnOnce(&str) -> String) -> Result<(), SshError> {
        let _lock = files::Lock::wait(&self.0.with_extension("lock")).map_err(|e| self.unusable(e))?;
        let before = self.read()?;
        let after = change(&before);
        if after == before {
            return Ok(());
        }
        files::write_atomic(&self.0, after.as_bytes(), 0o600).map_err(|e| self.unusable(e))
    }

    fn read(&self) -> Result<String, SshError> {
        let content = match files::read_limited(&self.0, LARGEST) {
            Ok(content) => content,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(self.unusable(e)),
        };
        let text = String::from_utf8(content).map_err(|_| self.unusable(invalid("it is not text")))?;
        match text.lines().position(|line| !is_entry(line)) {
            Some(at) => Err(self.unusable(invalid(&format!("line {} is not one that banger writes", at + 1)))),
            None => Ok(text),
        }
    }

    fn unusable(&self, source: io::Error) -> SshError {
        SshError::KnownHosts { path: self.0.clone(), source }
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

fn is_entry(line: &str) -> bool {
    line.split_once(' ').is_some_and(|(_, key)| ssh_key::PublicKey::from_openssh(key).is_ok())
}

fn names_of(line: &str) -> impl Iterator<Item = &str> {
    line.split(' ').next().unwrap_or_default().split(',')
}

fn without(text: &str, names: &[&str]) -> String {
    let kept = text.lines().filter(|line| !names_of(line).any(|n| names.contains(&n)));
    kept.flat_map(|line| [line, "\n"]).collect()
}

fn two_fields(host_key: &str) -> (&str, &str) {
    let mut fields = host_key.split_ascii_whitespace();
    (fields.next().unwrap_or_default(), fields.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::generate;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 7, 2);

    fn name(text: &str) -> VmName {
        text.parse().expect("a name")
    }

    fn scratch() -> (tempfile::TempDir, KnownHosts) {
        let folder = tempfile::tempdir().expect("a folder");
        let hosts = KnownHosts::at(folder.path().join("known_hosts"));
        (folder, hosts)
    }

    #[test]
    fn an_entry_pins_name_domain_and_address() {
        let key = generate().expect("a key").public;
        let line = entry(&name("box"), ADDRESS, &key).expect("an entry");
        let bare = key.strip_suffix(" banger").expect("its comment");
        assert_eq!(line, format!("box,box.vm,172.30.7.2 {bare}\n"));
        assert!(entry(&name("box"), ADDRESS, "ssh-ed25519 x\nevil").is_err());
    }

    #[test]
    fn pinning_again_replaces_the_name_and_whoever_had_the_address() {
        let (_folder, hosts) = scratch();
        let (one, two) = (generate().expect("a key").public, generate().expect("a key").public);
        hosts.pin(&name("box"), ADDRESS, &one).expect("pinned");
        hosts.pin(&name("other"), Ipv4Addr::new(172, 30, 7, 3), &one).expect("pinned");
        hosts.pin(&name("new"), ADDRESS, &two).expect("pinned");
        assert_eq!(hosts.pinned(&name("box")).expect("read"), None);
        assert_eq!(hosts.pinned(&name("new")).expect("read"), two.strip_suffix(" banger").map(str::to_owned));
        hosts.remove(&name("new")).expect("removed");
        hosts.remove(&name("new")).expect("removed twice");
        assert_eq!(hosts.pinned(&name("new")).expect("read"), None);
        assert!(hosts.pinned(&name("other")).expect("read").is_some());
    }

    #[test]
    fn a_damaged_or_unreadable_file_is_an_error_and_stays_as_it_is() {
        let (_folder, hosts) = scratch();
        for damage in [&b"box ssh-ed25519 AAAA\n"[..], b"# comment\n", b"\xff\n", b"\n"] {
            std::fs::write(&hosts.0, damage).expect("written");
            assert!(hosts.pinned(&name("box")).is_err(), "{damage:?}");
            assert!(hosts.remove(&name("box")).is_err(), "{damage:?}");
            assert_eq!(std::fs::read(&hosts.0).expect("read"), damage);
        }
        std::fs::remove_file(&hosts.0).expect("removed");
        std::fs::create_dir(&hosts.0).expect("a folder in its place");
        assert!(hosts.pinned(&name("box")).is_err());
    }
}
