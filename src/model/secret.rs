//! Secrets that stay out of a guest: what stands for them there, and whom they are for.
//!
//! A guest gets a [`Placeholder`]; the daemon puts the [`SecretValue`] in its place, in the headers of
//! HTTPS requests to the secret's hosts and nowhere else.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::checked_string_codec;
use super::egress::{Destination, Egress, Grant, GrantError, NamePattern};

/// The port of HTTPS (RFC 9110 section 4.2.2).
pub const HTTPS: u16 = 443;

/// A secret was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Not `NAME=SOURCE@HOST`.
    #[error("a secret is written NAME=env:VARIABLE@HOST or NAME=file:PATH@HOST")]
    Form,
    /// Not a name for an environment variable.
    #[error("{0:?} is not a name for an environment variable: letters, digits and '_' only, no digit first")]
    Name(String),
    /// A variable that programs need.
    #[error("the variable {0} cannot be a secret: every program needs it as it is")]
    Reserved(String),
    /// Not a host.
    #[error(transparent)]
    Host(#[from] GrantError),
    /// Not one host.
    #[error("{0:?} is not one host by its name: a secret goes to names, which certificates are made for")]
    NotOneHost(String),
    /// Not what stands for a secret.
    #[error("{0:?} is not a placeholder")]
    Placeholder(String),
    /// Nothing, or too much.
    #[error("the secret {name} has {length} bytes: between 1 and {max} are possible", max = SecretValue::MAX)]
    Length {
        /// The variable.
        name: String,
        /// Bytes of its value.
        length: usize,
    },
    /// What no header can carry.
    #[error("the secret {0} holds what no HTTP header can carry: printable ASCII alone is possible")]
    Characters(String),
    /// Too many of them.
    #[error("{0} secrets: at most {max} are possible", max = Secret::MAX)]
    TooMany(usize),
    /// Too many hosts.
    #[error("secrets for {0} hosts: at most {max} are possible", max = Secret::MAX_HOSTS)]
    TooManyHosts(usize),
    /// The same variable twice.
    #[error("the secret {0} is given twice: write all its hosts at once, NAME=…@HOST,HOST")]
    Twice(String),
    /// One name leads to one place.
    #[error("secrets for '{name}' at ports {first} and {second}: one port of a host is possible")]
    TwoPorts {
        /// The host.
        name: String,
        /// A port of it.
        first: u16,
        /// Another.
        second: u16,
    },
    /// A grant that could lead nowhere.
    #[error("'{grant}' is granted, but '{host}' is a secret's host: its name leads to the secret's port alone")]
    Hidden {
        /// What is granted.
        grant: String,
        /// The host.
        host: String,
    },
    /// As many values as secrets.
    #[error("{values} values came for {secrets} secrets")]
    Values {
        /// How many values.
        values: usize,
        /// How many secrets.
        secrets: usize,
    },
}

/// The name of an environment variable (POSIX.1-2017 section 8.1, with lower case).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VariableName(String);

impl VariableName {
    /// Most bytes.
    const MAX: usize = 128;

    /// Those that shells, loaders and banger set or need.
    const RESERVED: [&str; 12] = [
        "PATH",
        "HOME",
        "SHELL",
        "USER",
        "LOGNAME",
        "TERM",
        "PWD",
        "IFS",
        "ENV",
        "SSL_CERT_FILE",
        "REQUESTS_CA_BUNDLE",
        "NODE_EXTRA_CA_CERTS",
    ];

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VariableName {
    type Err = SecretError;
    fn from_str(text: &str) -> Result<Self, SecretError> {
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let starts = text.bytes().next().is_some_and(|b| !b.is_ascii_digit());
        if !plain || !starts || text.len() > Self::MAX {
            return Err(SecretError::Name(text.to_owned()));
        }
        // LD_PRELOAD and the like (ld.so(8)), BASH_ENV.
        if Self::RESERVED.contains(&text) || text.starts_with("LD_") || text.starts_with("BASH") {
            return Err(SecretError::Reserved(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for VariableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
checked_string_codec!(VariableName);

/// What a guest has instead of a secret. Not secret itself: it is worth something to nobody but the daemon,
/// for requests of this very guest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Placeholder(String);

impl Placeholder {
    const PREFIX: &str = "banger_secret_";
    const DIGITS: usize = 32;

    /// Made of 128 random bits, so that none is part of another or of anything else by chance.
    pub fn from_random(bits: u128) -> Self {
        Self(format!("{}{bits:032x}", Self::PREFIX))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Placeholder {
    type Err = SecretError;
    fn from_str(text: &str) -> Result<Self, SecretError> {
        let hex = |digits: &str| {
            digits.len() == Self::DIGITS && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        match text.strip_prefix(Self::PREFIX) {
            Some(digits) if hex(digits) => Ok(Self(text.to_owned())),
            _ => Err(SecretError::Placeholder(text.to_owned())),
        }
    }
}

impl fmt::Display for Placeholder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
checked_string_codec!(Placeholder);

/// A host that a secret is for: one name, one port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretHost {
    name: NamePattern,
    port: u16,
}

impl SecretHost {
    /// Its name, lower case.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `name`, in any case and without its last dot, is meant.
    pub fn is(&self, name: &str) -> bool {
        self.name.matches(name)
    }
}

impl FromStr for SecretHost {
    type Err = SecretError;
    fn from_str(text: &str) -> Result<Self, SecretError> {
        if text.is_empty() {
            return Err(SecretError::NotOneHost(text.to_owned()));
        }
        match text.parse::<Grant>()? {
            Grant { to: Destination::Name(name), port } if !name.as_str().starts_with('*') => {
                Ok(Self { name, port: port.unwrap_or(HTTPS) })
            }
            _ => Err(SecretError::NotOneHost(text.to_owned())),
        }
    }
}

/// The port of HTTPS is not written.
impl fmt::Display for SecretHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            HTTPS => write!(f, "{}", self.name),
            port => write!(f, "{}:{port}", self.name),
        }
    }
}

impl bincode::Encode for SecretHost {
    fn encode<E: bincode::enc::Encoder>(&self, e: &mut E) -> Result<(), bincode::error::EncodeError> {
        self.to_string().encode(e)
    }
}

impl<C> bincode::Decode<C> for SecretHost {
    fn decode<D: bincode::de::Decoder<Context = C>>(d: &mut D) -> Result<Self, bincode::error::DecodeError> {
        let text = <String as bincode::Decode<C>>::decode(d)?;
        text.parse().map_err(|e| bincode::error::DecodeError::OtherString(format!("{e}")))
    }
}
bincode::impl_borrow_decode!(SecretHost);

/// A secret, without its value.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Secret {
    /// The variable of the guest's environment.
    pub name: VariableName,
    /// Its value there.
    pub placeholder: Placeholder,
    /// Whom the value is for, at least one.
    pub hosts: Vec<SecretHost>,
}

impl Secret {
    /// Most secrets of one VM.
    pub const MAX: usize = 8;
    /// Most hosts of one VM's secrets together.
    pub const MAX_HOSTS: usize = 16;

    /// Checks the secrets of one VM together.
    pub fn check_all(secrets: &[Self]) -> Result<(), SecretError> {
        if secrets.len() > Self::MAX {
            return Err(SecretError::TooMany(secrets.len()));
        }
        let mut ports: BTreeMap<&str, u16> = BTreeMap::new();
        for (at, secret) in secrets.iter().enumerate() {
            if secrets[..at].iter().any(|other| other.name == secret.name || other.placeholder == secret.placeholder) {
                return Err(SecretError::Twice(secret.name.to_string()));
            }
            if secret.hosts.is_empty() {
                return Err(SecretError::Form);
            }
            for host in &secret.hosts {
                let first = *ports.entry(host.name()).or_insert(host.port);
                if first != host.port {
                    return Err(SecretError::TwoPorts { name: host.name().to_owned(), first, second: host.port });
                }
            }
        }
        if ports.len() > Self::MAX_HOSTS { Err(SecretError::TooManyHosts(ports.len())) } else { Ok(()) }
    }

    /// Refuses grants of other ports of the hosts: to this guest, their names lead to the daemon.
    pub fn check_beside(secrets: &[Self], egress: &Egress) -> Result<(), SecretError> {
        for host in Self::hosts_of(secrets) {
            let other = |port: &Option<u16>| port.is_some_and(|port| port != host.port);
            let hidden = |grant: &&Grant| matches!(&grant.to, Destination::Name(name) if *name == host.name);
            if let Some(grant) = egress.grants.iter().find(|grant| hidden(grant) && other(&grant.port)) {
                return Err(SecretError::Hidden { grant: grant.to_string(), host: host.to_string() });
            }
        }
        Ok(())
    }

    /// The hosts of `secrets`, each once, by name.
    pub fn hosts_of(secrets: &[Self]) -> Vec<SecretHost> {
        let mut hosts: Vec<SecretHost> = secrets.iter().flat_map(|secret| secret.hosts.iter().cloned()).collect();
        hosts.sort();
        hosts.dedup();
        hosts
    }
}

/// What must not be known to a guest: printable ASCII, `1..=`[`SecretValue::MAX`] bytes. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(String);

impl SecretValue {
    /// Most bytes: servers take headers of 8 KiB, and a request of the owner's socket has 64 KiB in all.
    pub const MAX: usize = 4096;

    /// Checks what was given for the variable `name`.
    pub fn new(name: &VariableName, text: String) -> Result<Self, SecretError> {
        if !(1..=Self::MAX).contains(&text.len()) {
            return Err(SecretError::Length { name: name.to_string(), length: text.len() });
        }
        // RFC 9110 section 5.5; spaces at an end would be lost.
        let printable = text.bytes().all(|b| matches!(b, b' '..=b'~')) && text.trim() == text;
        if printable { Ok(Self(text)) } else { Err(SecretError::Characters(name.to_string())) }
    }

    /// The secret itself: for the wire and for the daemon's own file.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl bincode::Encode for SecretValue {
    fn encode<E: bincode::enc::Encoder>(&self, e: &mut E) -> Result<(), bincode::error::EncodeError> {
        self.0.encode(e)
    }
}

impl<C> bincode::Decode<C> for SecretValue {
    fn decode<D: bincode::de::Decoder<Context = C>>(d: &mut D) -> Result<Self, bincode::error::DecodeError> {
        let text = <String as bincode::Decode<C>>::decode(d)?;
        // The reason names no value.
        let unnamed = VariableName(String::from("?"));
        Self::new(&unnamed, text).map_err(|e| bincode::error::DecodeError::OtherString(format!("{e}")))
    }
}
bincode::impl_borrow_decode!(SecretValue);

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(name: &str, bits: u128, hosts: &[&str]) -> Secret {
        Secret {
            name: name.parse().expect("a name"),
            placeholder: Placeholder::from_random(bits),
            hosts: hosts.iter().map(|host| host.parse().expect("a host")).collect(),
        }
    }

    #[test]
    fn a_host_is_one_name_and_one_port() {
        for (text, shown) in [("API.example.org", "api.example.org"), ("git.example:8443", "git.example:8443")] {
            assert_eq!(text.parse::<SecretHost>().expect("a host").to_string(), shown);
        }
        for (text, why) in [
            ("*.example.org", "not one host"),
            ("192.0.2.7", "not one host"),
            ("10.0.0.0/8", "not one host"),
            ("https://example.org/", "URL"),
            ("box.vm", "VM"),
            ("", "not one host"),
        ] {
            let error = text.parse::<SecretHost>().expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn variables_that_programs_need_are_refused() {
        for good in ["GH_TOKEN", "_x", "a1"] {
            assert!(good.parse::<VariableName>().is_ok(), "{good}");
        }
        for bad in ["", "1A", "A-B", "A=B", "PATH", "LD_PRELOAD", "BASH_ENV", "SSL_CERT_FILE", "Ä", &"A".repeat(129)] {
            assert!(bad.parse::<VariableName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_together_is_refused() {
        let check = |secrets: &[Secret]| Secret::check_all(secrets).map_err(|e| e.to_string());
        assert_eq!(check(&[secret("A", 1, &["a.example", "b.example"]), secret("B", 2, &["a.example"])]), Ok(()));
        let refused = |secrets: &[Secret], why: &str| {
            let error = check(secrets).expect_err(why);
            assert!(error.contains(why), "{error}");
        };
        refused(&[secret("A", 1, &["a.example"]), secret("A", 2, &["b.example"])], "given twice");
        refused(&[secret("A", 1, &["a.example"]), secret("B", 1, &["b.example"])], "given twice");
        refused(&[secret("A", 1, &["a.example"]), secret("B", 2, &["a.example:8443"])], "ports 443 and 8443");
        refused(&[secret("A", 1, &[])], "is written");
        let many: Vec<Secret> = (0..9).map(|n| secret(&format!("A{n}"), n, &["a.example"])).collect();
        refused(&many, "9 secrets");
        let hosts: Vec<String> = (0..17).map(|n| format!("{n}.a.example")).collect();
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        refused(&[secret("A", 1, &hosts)], "17 hosts");
    }

    #[test]
    fn a_value_is_what_a_header_can_carry_and_is_never_shown() {
        let name: VariableName = "A".parse().expect("a name");
        let value = |text: &str| SecretValue::new(&name, text.to_owned());
        assert_eq!(format!("{:?}", value("hunter2").expect("a value")), "(secret)");
        for bad in ["", "a\nb", "a\r\nX: y", "a\0", "tab\t", "ä", " a", "a ", &"x".repeat(4097)] {
            let error = value(bad).expect_err("refused").to_string();
            assert!(error.starts_with("the secret A h"), "{error}");
        }
    }

    #[test]
    fn hostile_bytes_do_not_decode_to_what_does_not_check() {
        let config = bincode::config::standard();
        let bytes = |text: &str| bincode::encode_to_vec(text, config).expect("encodes");
        assert!(bincode::decode_from_slice::<SecretValue, _>(&bytes("a\r\nb"), config).is_err());
        assert!(bincode::decode_from_slice::<SecretHost, _>(&bytes("*.a.example"), config).is_err());
        assert!(bincode::decode_from_slice::<Placeholder, _>(&bytes("banger_secret_0"), config).is_err());
        let placeholder = Placeholder::from_random(7);
        let there = bincode::encode_to_vec(&placeholder, config).expect("encodes");
        let (back, _) = bincode::decode_from_slice::<Placeholder, _>(&there, config).expect("decodes");
        assert_eq!(back, placeholder);
    }
}
