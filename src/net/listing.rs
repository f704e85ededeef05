//! What `nft -j -n list …` says of sets, counters and chains (libnftables-json(5)).

use std::net::Ipv4Addr;

use serde::Deserialize;
use serde_json::Value;

use crate::model::traffic::{Flow, Traffic, Transport};

/// The answer cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("nft's answer cannot be read: {0}")]
pub struct ListingError(#[from] serde_json::Error);

#[derive(Deserialize)]
struct Document {
    nftables: Vec<Value>,
}

/// What was counted of the guest that `passage::listing` asks about. `text` holds one document for each
/// list; what this does not know is left out.
pub fn traffic(text: &str) -> Result<Traffic, ListingError> {
    let mut traffic = Traffic::default();
    for object in objects(text)? {
        if let Some(counter) = object.get("counter") {
            let packets = counter.get("packets").and_then(Value::as_u64).unwrap_or_default();
            match name(counter) {
                Some(name) if name.starts_with("reached-") => traffic.reached_in_all = packets,
                Some(name) if name.starts_with("refused-") => traffic.refused_in_all = packets,
                Some(_) | None => {}
            }
        }
        if let Some(set) = object.get("set") {
            let flows = set.get("elem").and_then(Value::as_array).into_iter().flatten().filter_map(flow);
            match name(set) {
                Some(name) if name.starts_with("reached-") => traffic.reached.extend(flows),
                Some(name) if name.starts_with("refused-") => traffic.refused.extend(flows),
                Some(_) | None => {}
            }
        }
    }
    Ok(traffic)
}

/// Where a chain has its say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// About what is for this host.
    Input,
    /// About what goes through it.
    Forward,
}

impl Hook {
    /// As nft writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Forward => "forward",
        }
    }
}

/// A chain that has its say about what guests send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterChain {
    /// Where.
    pub hook: Hook,
    /// `ip`, `inet`, …
    pub family: String,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Whether it drops what no rule of it accepts.
    pub drops: bool,
}

/// The chains of `nft -j list chains` that judge packets of IPv4 for this host, or through it.
pub fn filter_chains(text: &str) -> Result<Vec<FilterChain>, ListingError> {
    let chain = |object: Value| -> Option<FilterChain> {
        let chain = object.get("chain")?;
        let text = |key| chain.get(key).and_then(Value::as_str);
        let family = text("family").filter(|family| matches!(*family, "ip" | "inet"))?;
        let hook = match text("hook")? {
            "input" => Hook::Input,
            "forward" => Hook::Forward,
            _ => return None,
        };
        (text("type") == Some("filter")).then_some(())?;
        Some(FilterChain {
            hook,
            family: family.to_owned(),
            table: text("table")?.to_owned(),
            name: text("name")?.to_owned(),
            drops: text("policy") == Some("drop"),
        })
    };
    Ok(objects(text)?.into_iter().filter_map(chain).collect())
}

fn objects(text: &str) -> Result<Vec<Value>, ListingError> {
    let mut objects = Vec::new();
    for document in serde_json::Deserializer::from_str(text).into_iter::<Document>() {
        objects.extend(document?.nftables);
    }
    Ok(objects)
}

fn name(object: &Value) -> Option<&str> {
    object.get("name")?.as_str()
}

/// `{"elem": {"val": {"concat": [ADDRESS, PROTOCOL, PORT]}, "counter": {"packets": N}}}`; a set of what has
/// no ports has no third.
fn flow(element: &Value) -> Option<Flow> {
    let element = element.get("elem")?;
    let count = element.get("counter")?.get("packets")?.as_u64()?;
    let key = element.get("val")?.get("concat")?.as_array()?;
    let to: Ipv4Addr = key.first()?.as_str()?.parse().ok()?;
    let port = key.get(2).and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
    Some(Flow { to, transport: transport(key.get(1)?)?, port, count })
}

/// A number, or, where nft insists on words, one of the three that matter.
fn transport(value: &Value) -> Option<Transport> {
    match value.as_str() {
        Some("icmp") => Some(Transport::ICMP),
        Some("tcp") => Some(Transport::TCP),
        Some("udp") => Some(Transport::UDP),
        Some(_) => None,
        None => value.as_u64().and_then(|number| u8::try_from(number).ok()).map(Transport),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_read_and_the_rest_left_out() {
        let text = r#"{"nftables":[{"metainfo":{"version":"1.0.6"}},{"set":{"name":"refused-port-3","elem":[
            {"elem":{"val":{"concat":["203.0.113.7",6,443]},"counter":{"packets":2,"bytes":120}}},
            {"elem":{"val":{"concat":["203.0.113.8","udp",53]},"counter":{"packets":1,"bytes":1}}},
            {"elem":{"val":"odd"}}]}}]}
            {"nftables":[{"set":{"name":"reached-other-3","elem":[
            {"elem":{"val":{"concat":["203.0.113.7",1]},"counter":{"packets":5,"bytes":1}}}]}}]}
            {"nftables":[{"counter":{"name":"refused-3","packets":9,"bytes":1}}]}"#;
        let traffic = traffic(text).expect("reads");
        let port = Some(443);
        let to = Ipv4Addr::new(203, 0, 113, 7);
        assert_eq!(traffic.refused[0], Flow { to, transport: Transport::TCP, port, count: 2 });
        assert_eq!((traffic.refused.len(), traffic.refused_in_all), (2, 9));
        assert_eq!(traffic.reached, [Flow { to, transport: Transport::ICMP, port: None, count: 5 }]);
        assert!(super::traffic("{\"nftables\":[").is_err() && super::traffic("").is_ok());
    }

    #[test]
    fn chains_that_drop_what_guests_send_are_found() {
        let text = r#"{"nftables":[{"metainfo":{}},
            {"chain":{"family":"ip","table":"filter","name":"FORWARD","type":"filter","hook":"forward","policy":"drop"}},
            {"chain":{"family":"ip","table":"filter","name":"DOCKER"}},
            {"chain":{"family":"ip6","table":"filter","name":"FORWARD","type":"filter","hook":"forward","policy":"drop"}},
            {"chain":{"family":"inet","table":"banger","name":"forward","type":"filter","hook":"forward","policy":"accept"}},
            {"chain":{"family":"ip","table":"filter","name":"INPUT","type":"filter","hook":"input","policy":"drop"}}]}"#;
        let chains = filter_chains(text).expect("reads");
        assert_eq!(chains.len(), 3);
        assert!(chains[0].drops && chains[0].name == "FORWARD" && !chains[1].drops);
        assert_eq!((chains[1].hook, chains[2].hook), (Hook::Forward, Hook::Input));
    }
}
