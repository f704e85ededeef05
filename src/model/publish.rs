//! Ports of the host that lead into a guest.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// What carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, bincode::Encode, bincode::Decode)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// As people and nft write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// `[ADDRESS:]HOST:GUEST[/udp]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, bincode::Encode, bincode::Decode)]
pub struct PublishedPort {
    /// An address of the host; 0.0.0.0: all of them.
    pub address: Ipv4Addr,
    /// The host's port.
    pub host: u16,
    /// The guest's.
    pub guest: u16,
    /// What carries it.
    pub protocol: Protocol,
}

/// A port was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Not the form.
    #[error("{0:?} is not [ADDRESS:]HOST:GUEST[/udp]: write for instance 8080:80")]
    Form(String),
    /// Twice the same.
    #[error("{0} is published twice")]
    Twice(PublishedPort),
    /// Too many of them.
    #[error("{0} published ports: at most {max} are possible", max = PublishedPort::MAX)]
    TooMany(usize),
}

impl PublishedPort {
    /// Most ports of one VM.
    pub const MAX: usize = 64;

    /// Whether whoever connects to one may mean the other.
    pub fn meets(&self, other: &Self) -> bool {
        let everywhere = self.address.is_unspecified() || other.address.is_unspecified();
        let same_place = everywhere || self.address == other.address;
        same_place && self.host == other.host && self.protocol == other.protocol
    }

    /// Whether only this host reaches it.
    pub fn is_local(&self) -> bool {
        self.address.is_loopback()
    }

    /// Checks the ports of one VM.
    pub fn check_all(ports: &[Self]) -> Result<(), PublishError> {
        if ports.len() > Self::MAX {
            return Err(PublishError::TooMany(ports.len()));
        }
        let twice = |(at, port): (usize, &Self)| ports[..at].iter().any(|earlier| earlier.meets(port)).then_some(*port);
        ports.iter().enumerate().find_map(twice).map_or(Ok(()), |port| Err(PublishError::Twice(port)))
    }
}

impl FromStr for PublishedPort {
    type Err = PublishError;
    fn from_str(text: &str) -> Result<Self, PublishError> {
        let form = || PublishError::Form(text.to_owned());
        let (rest, protocol) = match text.split_once('/') {
            None => (text, Protocol::Tcp),
            Some((rest, "tcp")) => (rest, Protocol::Tcp),
            Some((rest, "udp")) => (rest, Protocol::Udp),
            Some(_) => return Err(form()),
        };
        let port = |text: &str| {
            let digits = text.bytes().all(|b| b.is_ascii_digit());
            text.parse::<u16>().ok().filter(|port| digits && *port > 0).ok_or_else(form)
        };
        let words: Vec<&str> = rest.split(':').collect();
        let (address, host, guest) = match words.as_slice() {
            [host, guest] => (Ipv4Addr::LOCALHOST, host, guest),
            [address, host, guest] => (address.parse().map_err(|_| form())?, host, guest),
            _ => return Err(form()),
        };
        Ok(Self { address, host: port(host)?, guest: port(guest)?, protocol })
    }
}

impl fmt::Display for PublishedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.address, self.host, self.guest)?;
        match self.protocol {
            Protocol::Tcp => Ok(()),
            Protocol::Udp => f.write_str("/udp"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(text: &str) -> PublishedPort {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn ports_are_read_as_docker_writes_them_but_for_this_host_alone() {
        assert_eq!(port("8080:80").to_string(), "127.0.0.1:8080:80");
        assert_eq!(port("0.0.0.0:53:5353/udp").to_string(), "0.0.0.0:53:5353/udp");
        assert_eq!(port("8080:80/tcp"), port("127.0.0.1:8080:80"));
        for bad in
            ["", "80", "0:80", "80:0", "65536:1", "+1:1", "x:1:1", "1:2:3", "1.2.3.4:1:2:3", "80:80/sctp", ":80:80"]
        {
            assert!(bad.parse::<PublishedPort>().is_err(), "{bad}");
        }
    }

    #[test]
    fn two_that_meet_are_refused() {
        assert!(port("8080:80").meets(&port("0.0.0.0:8080:81")));
        for (a, b) in [("8080:80", "8081:80"), ("8080:80", "8080:80/udp"), ("8080:80", "127.0.0.2:8080:80")] {
            assert!(!port(a).meets(&port(b)), "{a} {b}");
        }
        assert_eq!(PublishedPort::check_all(&[port("1:1"), port("2:2")]), Ok(()));
        let twice = PublishedPort::check_all(&[port("1:1"), port("0.0.0.0:1:2")]);
        assert_eq!(twice, Err(PublishError::Twice(port("0.0.0.0:1:2"))));
        let many: Vec<PublishedPort> = (1..=65).map(|n| port(&format!("{n}:{n}"))).collect();
        assert_eq!(PublishedPort::check_all(&many), Err(PublishError::TooMany(65)));
    }
}
