//! The zone of VMs: `NAME.vm` and the addresses of their network, backwards. Answered here, with authority,
//! and never passed on.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::{Answer, Data, Kind, OwnName, PushError, Query, Rcode, Record, Rtype, Soa, Ttl, named};
use crate::model::Subnet;
use crate::model::egress::VM_DOMAIN;

/// How long an answer may be kept, in seconds: a VM that is gone is not to be found, and its address may
/// be another's.
pub(super) const SECONDS: u32 = 1;

/// Who is called responsible: nobody can be reached there.
const SERVER: &str = "dns.invalid";

/// Names and addresses of the VMs that have one.
#[derive(Debug, Clone, Default)]
pub struct Zone {
    /// Their network; without one there are none.
    pub subnet: Option<Subnet>,
    /// By name.
    pub addresses: BTreeMap<String, Ipv4Addr>,
    /// By address.
    pub names: BTreeMap<Ipv4Addr, String>,
}

impl Zone {
    /// Adds a VM.
    pub fn add(&mut self, name: &str, address: Ipv4Addr) {
        self.addresses.insert(name.to_owned(), address);
        self.names.insert(address, name.to_owned());
    }

    /// The answer; `None` for what lies outside.
    pub fn answer(&self, query: &Query) -> Option<Answer> {
        if let Some(below) = below(&query.name, VM_DOMAIN) {
            return Some(self.of_vm(query, below));
        }
        let reverse = self.reverse()?;
        below(&query.name, &reverse).map(|host| self.of_address(query, host, &reverse))
    }

    /// `below` is the name without the domain: empty for the domain itself.
    fn of_vm(&self, query: &Query, below: &str) -> Answer {
        let address = self.addresses.get(below);
        let records = match (address, query.kind) {
            (None, _) if below.is_empty() => apex(query, VM_DOMAIN),
            (None, _) => return missing(VM_DOMAIN),
            (Some(address), Kind::Address | Kind::Any) => vec![own(Data::Address(*address))],
            (Some(_), Kind::Pointer | Kind::Authority | Kind::Other) => Vec::new(),
        };
        found(records, VM_DOMAIN)
    }

    fn of_address(&self, query: &Query, host: &str, reverse: &str) -> Answer {
        let name = host.parse().ok().and_then(|host: u8| self.names.get(&self.with_host(host)?));
        let records = match (name, query.kind) {
            (None, _) if host.is_empty() => apex(query, reverse),
            (None, _) => return missing(reverse),
            (Some(name), Kind::Pointer | Kind::Any) => {
                named(&format!("{name}.{VM_DOMAIN}")).map(|name| own(Data::Pointer(name))).into_iter().collect()
            }
            (Some(_), Kind::Address | Kind::Authority | Kind::Other) => Vec::new(),
        };
        found(records, reverse)
    }

    fn with_host(&self, host: u8) -> Option<Ipv4Addr> {
        let [a, b, c, _] = self.subnet?.network().octets();
        Some(Ipv4Addr::new(a, b, c, host))
    }

    fn reverse(&self) -> Option<String> {
        self.subnet.map(reverse_domain)
    }
}

/// The domain of a network's addresses (RFC 1035 section 3.5).
pub fn reverse_domain(subnet: Subnet) -> String {
    let [a, b, c, _] = subnet.network().octets();
    format!("{c}.{b}.{a}.in-addr.arpa")
}

/// `name` without `domain`, empty for the domain itself; `None` for what is not in it.
fn below<'a>(name: &'a str, domain: &str) -> Option<&'a str> {
    match name.strip_suffix(domain)? {
        "" => Some(""),
        rest => rest.strip_suffix('.'),
    }
}

/// A record of the zone.
fn own(data: Data) -> Record {
    Record { data, seconds: SECONDS }
}

/// What the domain itself has.
fn apex(query: &Query, domain: &str) -> Vec<Record> {
    let authority = named(domain).map(|domain| own(Data::Authority(domain)));
    let server = named(SERVER).map(|name| own(Data::Server(name)));
    match query.kind {
        Kind::Authority => authority.into_iter().collect(),
        Kind::Any => authority.into_iter().chain(server).collect(),
        Kind::Other if query.rtype == Rtype::NS => server.into_iter().collect(),
        Kind::Address | Kind::Pointer | Kind::Other => Vec::new(),
    }
}

/// An empty answer says how long that it is empty may be kept (RFC 2308 section 2).
fn found(records: Vec<Record>, domain: &str) -> Answer {
    let authority = if records.is_empty() { named(domain) } else { None };
    Answer { is_authoritative: true, records, authority, ..Answer::of(Rcode::NOERROR) }
}

fn missing(domain: &str) -> Answer {
    Answer { is_authoritative: true, authority: named(domain), ..Answer::of(Rcode::NXDOMAIN) }
}

/// Who is responsible, and how long that there is nothing may be kept.
pub(super) fn authority() -> Result<Soa<OwnName>, PushError> {
    let server = || named(SERVER).ok_or(PushError::ShortBuf);
    let [refresh, retry, expire, minimum] = [3600, 600, 86_400, SECONDS].map(Ttl::from_secs);
    Ok(Soa::new(server()?, server()?, 1.into(), refresh, retry, expire, minimum))
}
