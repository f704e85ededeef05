//! Where one guest may go: chains and sets of its own, named after its slot.
//!
//! `leave-N` judges what goes through the host, `visit-N` what goes to the host itself, of which `divert-N`
//! leads to the daemon what carries secrets; both end in
//! `reach-N`, which lets pass and counts, or in `refuse-N`, which refuses and counts. What names lead to
//! lies in sets whose elements time out. Only the first packet of a connection comes here; each set has a
//! size, so that a guest that knocks everywhere costs no more than one that does not.

use std::fmt::Write;

use super::Guest;
use crate::model::Slot;
use crate::model::address::SECRETS_PORT;
use crate::model::egress::{Cidr, NetGrant, Opening, Passage};

/// Most destinations that are counted apart, each way.
pub const COUNTED: usize = 1024;

/// Most addresses that are open for names at a time.
pub const OPEN: usize = 4096;

/// Most connections of a guest through the host at a time: the host's table of connections is its own
/// (nf_conntrack_max is 65,536 on a host with 4 GiB).
pub const CONNECTIONS: usize = 8192;

/// TCP and UDP: what has ports.
const PORTED: &str = "meta l4proto { tcp, udp }";

/// These, and ping: what a grant without a port opens.
const KNOWN: &str = "meta l4proto { tcp, udp, icmp }";

/// The chains, in an order in which none is named before it is there.
const CHAINS: [&str; 4] = ["refuse", "reach", "leave", "visit"];

/// The maps of the table, and the chain of a guest that each leads to.
const MAPS: [(&str, &str); 3] = [("leaving", "leave"), ("visiting", "visit"), ("refused", "refuse")];

/// The sets, and what they are: addresses with a port and without that are open; where it went, by
/// protocol and port, and by protocol alone; and where it was refused to go.
const SETS: [(&str, &str); 6] = [
    ("open-port", "typeof ip daddr . th dport; flags timeout"),
    ("open-any", "type ipv4_addr; flags timeout"),
    ("reached-port", "typeof ip daddr . meta l4proto . th dport; flags dynamic; counter"),
    ("reached-other", "typeof ip daddr . meta l4proto; flags dynamic; counter"),
    ("refused-port", "typeof ip daddr . meta l4proto . th dport; flags dynamic; counter"),
    ("refused-other", "typeof ip daddr . meta l4proto; flags dynamic; counter"),
];

/// The named counters: connections that passed, and packets that were refused.
const COUNTERS: [&str; 2] = ["reached", "refused"];

/// Lets `guest` go where `passage` says, and nowhere else: what it was let before is replaced, what was
/// open for names is closed. What was counted stays.
pub(super) fn text(guest: Guest, passage: &Passage) -> String {
    let n = guest.slot;
    let mut text = objects(n, "add");
    for set in ["open-port", "open-any"] {
        line(&mut text, format_args!("flush set inet banger {set}-{n}"));
    }
    refusal(&mut text, n);
    reaching(&mut text, n);
    leaving(&mut text, n, passage);
    visiting(&mut text, n, passage);
    diverting(&mut text, guest, &passage.diverted);
    for (map, chain) in MAPS {
        line(&mut text, format_args!("add element inet banger {map} {{ {} : goto {chain}-{n} }}", guest.address));
    }
    text
}

/// All of it gone, whether it was there or not.
pub(super) fn removal(guest: Guest) -> String {
    let n = guest.slot;
    let mut text = objects(n, "add");
    diverting(&mut text, guest, &[]);
    for verb in ["add", "delete"] {
        for (map, chain) in MAPS {
            let lead = if verb == "add" { format!(" : goto {chain}-{n}") } else { String::new() };
            line(&mut text, format_args!("{verb} element inet banger {map} {{ {}{lead} }}", guest.address));
        }
    }
    // Emptied before any goes: a chain that another leads to stays.
    for chain in CHAINS {
        line(&mut text, format_args!("flush chain inet banger {chain}-{n}"));
    }
    text + &objects(n, "delete")
}

/// A guest asks for its secrets' hosts at the host's own address, as DNS told it: from `ports` there it gets to
/// the daemon. Most guests have none, and no chain for it.
fn diverting(text: &mut String, guest: Guest, ports: &[u16]) {
    let (n, address) = (guest.slot, guest.address);
    line(text, format_args!("add chain inet banger divert-{n}"));
    line(text, format_args!("add element inet banger diverted {{ {address} : goto divert-{n} }}"));
    line(text, format_args!("flush chain inet banger divert-{n}"));
    for port in ports {
        line(text, format_args!("add rule inet banger divert-{n} tcp dport {port} redirect to :{SECRETS_PORT}"));
    }
    if ports.is_empty() {
        line(text, format_args!("delete element inet banger diverted {{ {address} }}"));
        line(text, format_args!("delete chain inet banger divert-{n}"));
    }
}

/// Opens addresses for a while. One that is open already is opened anew, for that long from now.
pub fn open(slot: Slot, openings: &[Opening]) -> String {
    let mut text = String::new();
    for Opening { address, port, seconds } in openings {
        let (set, key) = match port {
            Some(port) => ("open-port", format!("{address} . {port}")),
            None => ("open-any", address.to_string()),
        };
        // An element that is there keeps its time when it is added again (nft(8), ADD ELEMENT).
        line(&mut text, format_args!("add element inet banger {set}-{slot} {{ {key} }}"));
        line(&mut text, format_args!("delete element inet banger {set}-{slot} {{ {key} }}"));
        line(&mut text, format_args!("add element inet banger {set}-{slot} {{ {key} timeout {seconds}s }}"));
    }
    text
}

/// The commands that list what was counted of a guest.
pub fn listing(slot: Slot) -> Vec<String> {
    let sets = SETS.iter().filter(|(_, spec)| spec.contains("dynamic"));
    let sets = sets.map(|(set, _)| format!("list set inet banger {set}-{slot}"));
    sets.chain(COUNTERS.map(|counter| format!("list counter inet banger {counter}-{slot}"))).collect()
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing into a string cannot fail.
    let _ = writeln!(text, "{line}");
}

/// Chains, sets and counters, added or deleted.
fn objects(n: Slot, verb: &str) -> String {
    let mut text = String::new();
    if verb == "delete" {
        for chain in CHAINS.iter().rev() {
            line(&mut text, format_args!("delete chain inet banger {chain}-{n}"));
        }
    }
    for (set, spec) in SETS {
        let size = if set.starts_with("open") { OPEN } else { COUNTED };
        let spec = if verb == "add" { format!(" {{ {spec}; size {size}; }}") } else { String::new() };
        line(&mut text, format_args!("{verb} set inet banger {set}-{n}{spec}"));
    }
    for counter in COUNTERS {
        line(&mut text, format_args!("{verb} counter inet banger {counter}-{n}"));
    }
    if verb == "add" {
        for chain in CHAINS {
            line(&mut text, format_args!("add chain inet banger {chain}-{n}"));
        }
    }
    text
}

/// A chain's rules, instead of those that it has.
struct Rules<'a> {
    text: &'a mut String,
    chain: String,
}

impl<'a> Rules<'a> {
    fn of(text: &'a mut String, chain: &str, n: Slot) -> Self {
        let chain = format!("{chain}-{n}");
        line(text, format_args!("flush chain inet banger {chain}"));
        Self { text, chain }
    }

    fn add(&mut self, rule: std::fmt::Arguments<'_>) {
        line(self.text, format_args!("add rule inet banger {} {rule}", self.chain));
    }
}

/// Counts apart as long as there is room; a set that is full lets the next rule have its say.
fn count(rules: &mut Rules<'_>, what: &str, n: Slot) {
    rules.add(format_args!("counter name {what}-{n}"));
    rules.add(format_args!("{PORTED} update @{what}-port-{n} {{ ip daddr . meta l4proto . th dport }}"));
    rules.add(format_args!("meta l4proto != {{ tcp, udp }} update @{what}-other-{n} {{ ip daddr . meta l4proto }}"));
}

fn refusal(text: &mut String, n: Slot) {
    let mut rules = Rules::of(text, "refuse", n);
    count(&mut rules, "refused", n);
    rules.add(format_args!("goto refuse"));
}

fn reaching(text: &mut String, n: Slot) {
    let mut rules = Rules::of(text, "reach", n);
    rules.add(format_args!("add @connections {{ ip saddr ct count over {CONNECTIONS} }} goto refuse-{n}"));
    count(&mut rules, "reached", n);
    rules.add(format_args!("accept"));
}

fn leaving(text: &mut String, n: Slot, passage: &Passage) {
    let mut rules = Rules::of(text, "leave", n);
    for grant in &passage.nets {
        rules.add(format_args!("{} goto reach-{n}", matching(grant)));
    }
    if passage.names {
        rules.add(format_args!("{PORTED} ip daddr . th dport @open-port-{n} goto reach-{n}"));
        rules.add(format_args!("ip daddr @open-any-{n} {KNOWN} goto reach-{n}"));
    }
    if passage.everywhere {
        rules.add(format_args!("ip daddr != @kept_back goto reach-{n}"));
    }
    rules.add(format_args!("goto refuse-{n}"));
}

/// The host itself is reached where its very address was granted: a network that it happens to lie in
/// does not open its services.
fn visiting(text: &mut String, n: Slot, passage: &Passage) {
    let mut rules = Rules::of(text, "visit", n);
    if !passage.diverted.is_empty() {
        rules.add(format_args!("ct status dnat tcp dport {SECRETS_PORT} goto reach-{n}"));
    }
    for grant in passage.nets.iter().filter(|grant| grant.net.is_host()) {
        rules.add(format_args!("{} goto reach-{n}", matching(grant)));
    }
    rules.add(format_args!("goto refuse-{n}"));
}

fn matching(grant: &NetGrant) -> String {
    let NetGrant { net, port } = grant;
    // nft refuses to compare with no bits at all.
    let to = if *net == EVERYTHING { String::from("meta nfproto ipv4") } else { format!("ip daddr {net}") };
    port.map_or_else(|| format!("{to} {KNOWN}"), |port| format!("{to} {PORTED} th dport {port}"))
}

const EVERYTHING: Cidr = match Cidr::new(std::net::Ipv4Addr::UNSPECIFIED, 0) {
    Some(everything) => everything,
    None => panic!("no bits are behind a prefix of none"),
};
