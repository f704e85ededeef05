//! Where a guest may go: names, addresses and ports, as people write them and as the helper gets them.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use super::checked_string_codec;

/// The domain of VMs. What lies in it is answered here and nowhere else.
pub const VM_DOMAIN: &str = "vm";

/// An IPv4 network: an address and how many of its bits are the network's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    network: Ipv4Addr,
    prefix: u8,
}

/// A destination was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// Neither a network nor an address.
    #[error("{0:?} is not an IPv4 address or network: write for instance 192.0.2.7 or 10.0.0.0/8")]
    NotNetwork(String),
    /// Bits are set behind the prefix.
    #[error("{given:?} has bits behind its prefix: write {meant}")]
    HostBits {
        /// What was written.
        given: String,
        /// The network that it lies in.
        meant: Cidr,
    },
    /// Not a name.
    #[error("{0:?} is not a host name: write for instance example.org or *.example.org")]
    NotName(String),
    /// Everything.
    #[error("\"*\" would be everything: that is --nat")]
    Everything,
    /// A URL.
    #[error("{0:?} is a URL: write the host alone, for instance example.org:443")]
    Url(String),
    /// An address of the other kind.
    #[error("{0:?} is an IPv6 address: guests speak IPv4 alone")]
    Ipv6(String),
    /// Another VM.
    #[error("{0:?} is a VM's name: VMs do not reach each other")]
    OtherVm(String),
    /// Not a port.
    #[error("{0:?} is not a port: between 1 and 65535 are possible")]
    Port(String),
    /// Too many of them.
    #[error("{0} destinations: at most {max} are possible", max = Egress::MAX_GRANTS)]
    TooMany(usize),
}

impl Cidr {
    /// `None` when `prefix` is above 32 or bits are set behind it.
    pub const fn new(network: Ipv4Addr, prefix: u8) -> Option<Self> {
        if prefix > 32 || network.to_bits() & !mask(prefix) != 0 {
            return None;
        }
        Some(Self { network, prefix })
    }

    /// One address.
    pub const fn host(address: Ipv4Addr) -> Self {
        Self { network: address, prefix: 32 }
    }

    /// Whether `address` lies in it.
    pub const fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.network.to_bits()
    }

    /// Whether there is an address that lies in both.
    pub const fn meets(self, other: Self) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }

    /// Whether it is one address and no more.
    pub const fn is_host(self) -> bool {
        self.prefix == 32
    }
}

/// The bits of the network.
const fn mask(prefix: u8) -> u32 {
    match prefix {
        0 => 0,
        bits => u32::MAX << (32 - bits),
    }
}

/// A single address is written without its prefix.
impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix {
            32 => write!(f, "{}", self.network),
            prefix => write!(f, "{}/{prefix}", self.network),
        }
    }
}

impl FromStr for Cidr {
    type Err = GrantError;
    fn from_str(text: &str) -> Result<Self, GrantError> {
        let not = || GrantError::NotNetwork(text.to_owned());
        let (address, prefix) = text.split_once('/').unwrap_or((text, "32"));
        let address: Ipv4Addr = address.parse().map_err(|_| not())?;
        let prefix: u8 = prefix.parse().ok().filter(|bits| *bits <= 32).ok_or_else(not)?;
        Self::new(address, prefix).ok_or_else(|| {
            let network = Ipv4Addr::from_bits(address.to_bits() & mask(prefix));
            GrantError::HostBits { given: text.to_owned(), meant: Self { network, prefix } }
        })
    }
}

impl bincode::Encode for Cidr {
    fn encode<E: bincode::enc::Encoder>(&self, e: &mut E) -> Result<(), bincode::error::EncodeError> {
        (self.network.octets(), self.prefix).encode(e)
    }
}

impl<C> bincode::Decode<C> for Cidr {
    fn decode<D: bincode::de::Decoder<Context = C>>(d: &mut D) -> Result<Self, bincode::error::DecodeError> {
        let (octets, prefix) = <([u8; 4], u8) as bincode::Decode<C>>::decode(d)?;
        let bad = || bincode::error::DecodeError::OtherString(format!("{octets:?}/{prefix} is not a network"));
        Self::new(octets.into(), prefix).ok_or_else(bad)
    }
}
bincode::impl_borrow_decode!(Cidr);

/// A host name, or `*.` and a domain: every name below that domain, at any depth, and not the domain
/// itself. Lower case; labels of letters, digits, `-` and `_` (RFC 1123 section 2.1, RFC 8552).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamePattern(String);

impl NamePattern {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `name`, in any case and without its last dot, is meant.
    pub fn matches(&self, name: &str) -> bool {
        match self.0.strip_prefix('*') {
            // `.example.org`: the dot keeps `badexample.org` out.
            Some(tail) => name
                .len()
                .checked_sub(tail.len())
                .is_some_and(|at| at > 0 && name.is_char_boundary(at) && name[at..].eq_ignore_ascii_case(tail)),
            None => self.0.eq_ignore_ascii_case(name),
        }
    }
}

impl FromStr for NamePattern {
    type Err = GrantError;
    fn from_str(text: &str) -> Result<Self, GrantError> {
        let plain = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let domain = plain.strip_prefix("*.").unwrap_or(&plain);
        let not = || GrantError::NotName(text.to_owned());
        if plain == "*" {
            return Err(GrantError::Everything);
        }
        if plain.len() > 253 || !domain.split('.').all(is_label) {
            return Err(not());
        }
        let last = domain.rsplit('.').next().unwrap_or(domain);
        if last == VM_DOMAIN {
            return Err(GrantError::OtherVm(text.to_owned()));
        }
        // The last label of an address that was mistyped (RFC 3696 section 2).
        if last.bytes().all(|b| b.is_ascii_digit()) { Err(not()) } else { Ok(Self(plain)) }
    }
}

fn is_label(label: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    (1..=63).contains(&label.len()) && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
checked_string_codec!(NamePattern);

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, bincode::Encode, bincode::Decode)]
pub enum Destination {
    /// Whatever a name leads to, as banger's own DNS answers it.
    Name(NamePattern),
    /// Addresses.
    Net(Cidr),
}

/// A destination that is granted: `HOST[:PORT]`, `*.DOMAIN[:PORT]`, `ADDRESS[/PREFIX][:PORT]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, bincode::Encode, bincode::Decode)]
pub struct Grant {
    /// Where to.
    pub to: Destination,
    /// The port, of TCP and UDP; `None`: all of them, and ping.
    pub port: Option<u16>,
}

impl FromStr for Grant {
    type Err = GrantError;
    fn from_str(text: &str) -> Result<Self, GrantError> {
        if text.contains("://") {
            return Err(GrantError::Url(text.to_owned()));
        }
        if text.matches(':').count() > 1 || text.starts_with('[') {
            return Err(GrantError::Ipv6(text.to_owned()));
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(parse_port(port)?)),
            None => (text, None),
        };
        let is_network = host.contains('/') || host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let to = if is_network { Destination::Net(host.parse()?) } else { Destination::Name(host.parse()?) };
        Ok(Self { to, port })
    }
}

fn parse_port(text: &str) -> Result<u16, GrantError> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0).ok_or_else(|| GrantError::Port(text.to_owned()))
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.to {
            Destination::Name(name) => write!(f, "{name}")?,
            Destination::Net(net) => write!(f, "{net}")?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl<'de> serde::Deserialize<'de> for Grant {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <String as serde::Deserialize>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// How far a guest reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, bincode::Encode, bincode::Decode, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// To what is granted, and nowhere else.
    #[default]
    Granted,
    /// Everywhere on the internet, and to what is granted.
    Nat,
    /// The same, to learn what should be granted.
    Observe,
}

impl Reach {
    /// Whether every public address is open.
    pub fn is_everywhere(self) -> bool {
        match self {
            Self::Granted => false,
            Self::Nat | Self::Observe => true,
        }
    }
}

/// Where a guest may go.
#[derive(Debug, Clone, PartialEq, Eq, Default, bincode::Encode, bincode::Decode)]
pub struct Egress {
    /// How far it reaches.
    pub reach: Reach,
    /// What is granted by name, at most [`Egress::MAX_GRANTS`], each once.
    pub grants: Vec<Grant>,
}

impl Egress {
    /// Most grants of one VM.
    pub const MAX_GRANTS: usize = 128;

    /// Checks how many grants there are.
    pub fn check(&self) -> Result<(), GrantError> {
        match self.grants.len() {
            0..=Self::MAX_GRANTS => Ok(()),
            count => Err(GrantError::TooMany(count)),
        }
    }

    /// With `more` granted as well.
    pub fn grant(&mut self, more: impl IntoIterator<Item = Grant>) {
        for grant in more {
            if !self.grants.contains(&grant) {
                self.grants.push(grant);
            }
        }
    }

    /// What the helper has to know of it, without what secrets need.
    pub fn passage(&self) -> Passage {
        let net = |grant: &Grant| match &grant.to {
            Destination::Net(net) => Some(NetGrant { net: *net, port: grant.port }),
            Destination::Name(_) => None,
        };
        let nets: Vec<NetGrant> = self.grants.iter().filter_map(net).collect();
        let names = nets.len() < self.grants.len();
        Passage { everywhere: self.reach.is_everywhere(), names, nets, diverted: Vec::new() }
    }

    /// The ports that are open to the host called `name`: `None` in the list stands for all of them.
    pub fn ports_of(&self, name: &str) -> Vec<Option<u16>> {
        let port = |grant: &Grant| match &grant.to {
            Destination::Name(pattern) if pattern.matches(name) => Some(grant.port),
            Destination::Name(_) | Destination::Net(_) => None,
        };
        self.grants.iter().filter_map(port).collect()
    }

    /// Whether `address` itself was granted, whatever the port.
    pub fn names_address(&self, address: Ipv4Addr) -> bool {
        self.grants.iter().any(|grant| matches!(grant.to, Destination::Net(net) if net.contains(address)))
    }
}

/// Addresses that were granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct NetGrant {
    /// Which.
    pub net: Cidr,
    /// The port; `None`: all, and ping.
    pub port: Option<u16>,
}

/// Where a guest's packets may pass, as the helper gets it: what names lead to is opened later, address
/// by address.
#[derive(Debug, Clone, PartialEq, Eq, Default, bincode::Encode, bincode::Decode)]
pub struct Passage {
    /// Whether every public address is open.
    pub everywhere: bool,
    /// Whether addresses will be opened for names.
    pub names: bool,
    /// What is open by address.
    pub nets: Vec<NetGrant>,
    /// Ports of TCP of the host's address in the guests' network that lead to the daemon, which sends
    /// secrets on from there.
    pub diverted: Vec<u16>,
}

impl Passage {
    /// Whether nothing passes to anywhere beyond the host, now or later.
    pub fn is_closed(&self) -> bool {
        !self.everywhere && !self.names && self.nets.is_empty()
    }
}

/// An address that a name leads to, for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, bincode::Encode, bincode::Decode)]
pub struct Opening {
    /// Where to.
    pub address: Ipv4Addr,
    /// The port; `None`: all, and ping.
    pub port: Option<u16>,
    /// For how long, `1..=`[`Opening::MAX_SECONDS`].
    pub seconds: u32,
}

impl Opening {
    /// Longest time that an address stays open after its name was looked up: a day.
    pub const MAX_SECONDS: u32 = 86_400;
    /// Most addresses that are opened at once.
    pub const MAX_AT_ONCE: usize = 128;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(text: &str) -> Grant {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn destinations_are_read_as_people_write_them() {
        for (text, shown) in [
            ("Example.ORG.", "example.org"),
            ("*.example.org:443", "*.example.org:443"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.7:53", "192.0.2.7:53"),
            ("192.0.2.7/32", "192.0.2.7"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("_acme.x-1.example", "_acme.x-1.example"),
        ] {
            assert_eq!(grant(text).to_string(), shown);
            assert_eq!(grant(shown), grant(text));
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_saying_why() {
        for (text, why) in [
            ("*", "everything"),
            ("https://example.org/", "URL"),
            ("::1", "IPv6"),
            ("[::1]:443", "IPv6"),
            ("10.0.0.1/8", "write 10.0.0.0/8"),
            ("10.0.0.0/33", "not an IPv4"),
            ("300.1.1.1", "not an IPv4"),
            ("example.org:0", "port"),
            ("example.org:+80", "port"),
            ("example.org:", "port"),
            ("box.vm", "VM"),
            ("*.vm", "VM"),
            ("", "not an IPv4"),
            ("a..b", "host name"),
            ("-a.example", "host name"),
            ("exa mple", "host name"),
            ("a.*.example", "host name"),
            ("1.2.3.x4.5", "host name"),
        ] {
            let error = text.parse::<Grant>().expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_wildcard_means_what_lies_below_and_nothing_beside() {
        let Destination::Name(below) = grant("*.example.org").to else { panic!("a name") };
        for name in ["a.example.org", "A.B.Example.Org"] {
            assert!(below.matches(name), "{name}");
        }
        for name in ["example.org", ".example.org", "badexample.org", "example.org.evil", "", "org"] {
            assert!(!below.matches(name), "{name}");
        }
    }

    #[test]
    fn names_and_addresses_are_told_apart_for_the_helper() {
        let mut egress = Egress::default();
        assert!(egress.passage().is_closed());
        egress.grant(["example.org:443", "10.0.0.0/8", "example.org:443"].map(grant));
        let passage = egress.passage();
        assert_eq!((passage.everywhere, passage.names, passage.nets.len(), egress.grants.len()), (false, true, 1, 2));
        assert_eq!(egress.ports_of("EXAMPLE.org"), [Some(443)]);
        assert!(egress.names_address(Ipv4Addr::new(10, 1, 2, 3)) && !egress.names_address(Ipv4Addr::LOCALHOST));
    }

    #[test]
    fn a_network_with_bits_behind_its_prefix_does_not_decode() {
        let config = bincode::config::standard();
        let good = bincode::encode_to_vec(Cidr::host(Ipv4Addr::LOCALHOST), config).expect("encodes");
        assert!(bincode::decode_from_slice::<Cidr, _>(&good, config).is_ok());
        for bad in [[127, 0, 0, 1, 8], [0, 0, 0, 0, 33]] {
            assert!(bincode::decode_from_slice::<Cidr, _>(&bad, config).is_err());
        }
    }
}
