//! The rules between guests, host and the rest, as text for `nft -f -` (nft(8)).
//!
//! Two tables of banger's own and nothing outside them. `bridge banger` sees frames: what a guest
//! may send at all, and that it never reaches another guest. `inet banger` sees packets: what the
//! host answers, and what is forwarded. Guests are elements of sets, so that the hundredth costs
//! what the first did. Each text is one transaction: all of it applies or none.

/// Where one guest may go.
pub mod passage;

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;

use crate::model::address::SECRETS_PORT;
use crate::model::egress::{Cidr, NetGrant, Passage};
use crate::model::scope::KEPT_BACK;
use crate::model::{MacAddr, PublishedPort, Slot, Subnet, TapName};
use crate::os::checksum::fnv1a;

/// The bridge that all guests are connected to.
pub const BRIDGE: &str = "br-banger";

/// What one guest may say it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guest {
    /// Its place: what is its own in the tables is named after it.
    pub slot: Slot,
    /// The only link its frames come from.
    pub tap: TapName,
    /// The only Ethernet address it may use.
    pub mac: MacAddr,
    /// The only IPv4 address it may use.
    pub address: Ipv4Addr,
}

impl Guest {
    /// The guest in `slot` of `subnet`.
    pub fn new(subnet: Subnet, slot: Slot) -> Self {
        Self { slot, tap: TapName::of(slot), mac: MacAddr::of(slot), address: subnet.address(slot) }
    }
}

/// A guest and what is made for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// Who.
    pub guest: Guest,
    /// Where it may go.
    pub passage: Passage,
    /// Ports of the host that lead to it.
    pub ports: Vec<PublishedPort>,
}

/// The guest as it sends IPv4 and as it speaks ARP (RFC 826: the sender's two addresses).
struct Elements(Guest);

impl Elements {
    fn command(&self, verb: &str) -> String {
        let Guest { tap, mac, address, .. } = self.0;
        format!(
            "{verb} element bridge banger senders {{ \"{tap}\" . {mac} . {address} }}\n\
             {verb} element bridge banger speakers {{ \"{tap}\" . {mac} . {mac} . {address} }}\n"
        )
    }
}

/// Both tables, anew, with exactly `guests` in them: whatever was there is replaced in the same
/// transaction, so that no frame passes unchecked in between.
pub fn base(subnet: Subnet, guests: &[Admission]) -> String {
    let tables = Tables { subnet };
    let mut text = format!("{}{}{tables}{}", anew("bridge"), anew("inet"), tables.marks("add set"));
    for admission in guests {
        text.push_str(&admit(admission));
    }
    text
}

/// Fails unless both tables are there, as this build makes them; changes nothing.
pub fn presence(subnet: Subnet) -> String {
    let tables = Tables { subnet };
    format!("{}{}", tables.marks("add element"), tables.marks("delete element"))
}

/// Lets a guest speak, go where its passage says, and be reached at its ports. Whatever it was let before
/// is replaced; what was opened for names is closed.
pub fn admit(Admission { guest, passage, ports }: &Admission) -> String {
    format!("{}{}{}", Elements(*guest).command("add"), pass(*guest, passage), publish(*guest, ports, "add"))
}

/// Lets a guest that speaks go where `passage` says.
pub fn pass(guest: Guest, passage: &Passage) -> String {
    passage::text(guest, passage)
}

/// Lets a guest speak no more. Added first, because deleting what is not there is an error and
/// would undo the whole transaction.
pub fn dismiss(guest: Guest, ports: &[PublishedPort]) -> String {
    let elements = ["add", "delete"].map(|verb| Elements(guest).command(verb) + &publish(guest, ports, verb));
    format!("{}{}", elements.concat(), passage::removal(guest))
}

/// Leads ports of the host to a guest, or no more.
fn publish(guest: Guest, ports: &[PublishedPort], verb: &str) -> String {
    let (mut text, mut ends) = (String::new(), BTreeSet::new());
    for PublishedPort { address, host, guest: port, protocol } in ports {
        let protocol = protocol.as_str();
        let (map, key) = match address.is_unspecified() {
            true => ("everywhere", format!("{protocol} . {host}")),
            false => ("published", format!("{address} . {protocol} . {host}")),
        };
        let to = guest.address;
        let lead = if verb == "add" { format!(" : {to} . {port}") } else { String::new() };
        text.push_str(&format!("{verb} element inet banger {map} {{ {key}{lead} }}\n"));
        ends.insert(format!("{verb} element inet banger accepting {{ {to} . {protocol} . {port} }}\n"));
    }
    // Each once: two ports of the host may lead to one of the guest.
    text.extend(ends);
    text
}

/// Both tables gone, whether they were there or not.
pub fn removal() -> String {
    format!("{}{}", anew("bridge"), anew("inet"))
}

fn anew(family: &str) -> String {
    format!("table {family} banger\ndelete table {family} banger\n")
}

struct Tables {
    subnet: Subnet,
}

impl Tables {
    /// In each table an empty set whose name says what made it: rules that another build made, and rules
    /// that somebody flushed, are told from those that can stay.
    fn marks(&self, verb: &str) -> String {
        // A guest's own rules are this build's as well.
        let nets = vec![NetGrant { net: Cidr::host(Ipv4Addr::LOCALHOST), port: None }];
        let sample = Passage { everywhere: true, names: true, nets, diverted: vec![1] };
        let sample = Slot::all().next().map(|slot| pass(Guest::new(self.subnet, slot), &sample)).unwrap_or_default();
        let mark = format!("made-{:016x}", fnv1a(format!("{self}{sample}").as_bytes()));
        let content = if verb.ends_with("set") { "type ipv4_addr;" } else { "0.0.0.0" };
        let of = |family: &str| format!("{verb} {family} banger {mark} {{ {content} }}\n");
        of("bridge") + &of("inet")
    }
}

impl fmt::Display for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_bridge(f)?;
        write_inet(f, self.subnet)
    }
}

/// `from_guest` is asked in two hooks: frames to the link-local group addresses of IEEE 802.1D
/// (LLDP and the like) go to the host without passing `prerouting`.
fn write_bridge(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let taps = format!("{}*", TapName::PREFIX);
    write!(
        f,
        "table bridge banger {{
    set senders {{
        typeof iifname . ether saddr . ip saddr
    }}
    set speakers {{
        typeof iifname . ether saddr . arp saddr ether . arp saddr ip
    }}
    chain from_guest {{
        ether type ip iifname . ether saddr . ip saddr @senders accept
        ether type arp arp htype 1 arp ptype ip arp hlen 6 arp plen 4 \
iifname . ether saddr . arp saddr ether . arp saddr ip @speakers accept
        drop
    }}
    chain prerouting {{
        type filter hook prerouting priority -300; policy accept;
        iifname \"{taps}\" jump from_guest
    }}
    chain input {{
        type filter hook input priority -300; policy accept;
        iifname \"{taps}\" jump from_guest
    }}
    chain forward {{
        type filter hook forward priority -300; policy accept;
        iifname \"{taps}\" drop
        oifname \"{taps}\" drop
    }}
}}
"
    )
}

/// The host begins connections to guests (ssh), so answers pass. A guest begins DNS, and what its own
/// chains let pass: `leaving` to others, `visiting` to the host. `forward` holds whether or not the host
/// forwards. What is refused is refused at once, so that no program waits for a silence.
///
/// DNS is not tracked: each question would take a place in the host's table of connections. Nobody else speaks with
/// a guest's address, or asks the daemon, from elsewhere. A connection of the host with a guest that was forgotten
/// is not taken up again in its middle, where the guest would be taken for whom it was begun to (`to_guests`).
///
/// Ports that lead into guests come after those that others lead elsewhere (priority -100), and 127.0.0.1 is led
/// from this host alone: whoever is on the same wire may send packets to it, too. Ports below 1024, which on some
/// networks stand for root, are never what a guest's packets come from.
fn write_inet(f: &mut fmt::Formatter<'_>, subnet: Subnet) -> fmt::Result {
    let gateway = subnet.gateway();
    let kept_back: Vec<String> = KEPT_BACK.iter().map(Cidr::to_string).collect();
    write!(
        f,
        "table inet banger {{
    set kept_back {{
        type ipv4_addr
        flags interval
        elements = {{ {kept_back} }}
    }}
    set connections {{
        typeof ip saddr
        flags dynamic
        size 256
    }}
    map leaving {{
        type ipv4_addr : verdict
    }}
    map visiting {{
        type ipv4_addr : verdict
    }}
    map refused {{
        type ipv4_addr : verdict
    }}
    map diverted {{
        type ipv4_addr : verdict
    }}
    map published {{
        type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
    }}
    map everywhere {{
        type inet_proto . inet_service : ipv4_addr . inet_service
    }}
    set accepting {{
        type ipv4_addr . inet_proto . inet_service
    }}
    chain refuse {{
        meta l4proto tcp reject with tcp reset
        reject with icmpx admin-prohibited
    }}
    chain from_guest {{
        ip daddr {gateway} udp dport 53 accept
        ip daddr {gateway} tcp dport 53 accept
        ct state established accept
        ct state related meta l4proto icmp accept
        ip saddr vmap @visiting
        goto refuse
    }}
    chain through_host {{
        ct state established,related accept
        ct state invalid drop
        ip saddr vmap @leaving
        goto refuse
    }}
    chain between_guests {{
        ip saddr vmap @refused
        goto refuse
    }}
    chain lead_in {{
        dnat ip to ip daddr . meta l4proto . th dport map @published
        dnat ip to meta l4proto . th dport map @everywhere
    }}
    chain arriving {{
        type nat hook prerouting priority -90; policy accept;
        iifname != \"{BRIDGE}\" ip daddr != 127.0.0.0/8 fib daddr type local meta l4proto {{ tcp, udp }} jump lead_in
        iifname \"{BRIDGE}\" ip daddr {gateway} meta l4proto tcp ip saddr vmap @diverted
    }}
    chain of_the_host {{
        type nat hook output priority -90; policy accept;
        fib daddr type local meta l4proto {{ tcp, udp }} jump lead_in
    }}
    chain from_elsewhere {{
        ip saddr {subnet} drop
        ip daddr {gateway} meta l4proto {{ tcp, udp }} th dport {{ 53, {SECRETS_PORT} }} drop
    }}
    chain untracked {{
        type filter hook prerouting priority -300; policy accept;
        iifname != {{ \"{BRIDGE}\", \"lo\" }} goto from_elsewhere
        iifname \"{BRIDGE}\" ip daddr {gateway} udp dport 53 notrack
        iifname \"{BRIDGE}\" ip daddr {gateway} tcp dport 53 notrack
    }}
    chain untracked_answers {{
        type filter hook output priority -300; policy accept;
        oifname \"{BRIDGE}\" ip saddr {gateway} udp sport 53 notrack
        oifname \"{BRIDGE}\" ip saddr {gateway} tcp sport 53 notrack
    }}
    chain input {{
        type filter hook input priority -10; policy accept;
        iifname \"{BRIDGE}\" goto from_guest
    }}
    chain to_guests {{
        type filter hook output priority -10; policy accept;
        oifname \"{BRIDGE}\" ct state new meta l4proto tcp tcp flags & (syn | rst) == 0 drop
    }}
    chain forward {{
        type filter hook forward priority -10; policy accept;
        iifname \"{BRIDGE}\" oifname \"{BRIDGE}\" goto between_guests
        oifname \"{BRIDGE}\" ct state established,related accept
        oifname \"{BRIDGE}\" ct status dnat ip daddr . meta l4proto . th dport @accepting accept
        oifname \"{BRIDGE}\" drop
        iifname \"{BRIDGE}\" goto through_host
    }}
    chain postrouting {{
        type nat hook postrouting priority 100; policy accept;
        ip saddr {subnet} oifname != \"{BRIDGE}\" meta l4proto {{ tcp, udp }} masquerade to :1024-65535
        ip saddr {subnet} oifname != \"{BRIDGE}\" masquerade
        ip saddr 127.0.0.0/8 oifname \"{BRIDGE}\" masquerade
    }}
}}
",
        kept_back = kept_back.join(", "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Egress;
    use crate::model::egress::{Opening, Reach};
    use std::io::Write;
    use std::process::{Command, Stdio};

    fn guest(slot: u8) -> Guest {
        let subnet: Subnet = "172.30.7.0/24".parse().expect("a subnet");
        Guest::new(subnet, Slot::new(slot).expect("a slot"))
    }

    fn closed(slot: u8) -> Admission {
        Admission { guest: guest(slot), passage: Passage::default(), ports: Vec::new() }
    }

    #[test]
    fn published_ports_come_and_go_with_their_guest() {
        let ports = ["8080:80", "127.0.0.1:8081:80", "0.0.0.0:53:53/udp"].map(|port| port.parse().expect("a port"));
        let admitted = Admission { ports: ports.to_vec(), ..closed(7) };
        let came = admit(&admitted);
        let Some(there) = applied(&[base(subnet(), &[closed(8)]), came.clone(), came]) else { return };
        for element in
            ["127.0.0.1 . tcp . 8080 : 172.30.7.8 . 80", "udp . 53 : 172.30.7.8 . 53", "172.30.7.8 . tcp . 80"]
        {
            assert!(there.contains(element), "{element} in {there}");
        }
        let gone = dismiss(guest(7), &ports);
        let left = applied(&[base(subnet(), std::slice::from_ref(&admitted)), gone.clone(), gone]).expect("as before");
        assert!(!left.contains("172.30.7.8"), "{left}");
    }

    fn subnet() -> Subnet {
        "172.30.7.0/24".parse().expect("a subnet")
    }

    fn passage(reach: Reach, grants: &[&str]) -> Passage {
        let mut egress = Egress { reach, ..Egress::default() };
        egress.grant(grants.iter().map(|text| text.parse().expect("a grant")));
        egress.passage()
    }

    #[test]
    fn a_guest_is_two_elements_and_what_is_its_own() {
        let elements = "add element bridge banger senders { \"bng-9\" . 02:62:67:00:00:09 . 172.30.7.10 }\n\
             add element bridge banger speakers { \"bng-9\" . 02:62:67:00:00:09 . 02:62:67:00:00:09 . 172.30.7.10 }\n";
        assert!(admit(&closed(9)).starts_with(elements));
        assert!(dismiss(guest(9), &[]).contains(&Elements(guest(9)).command("delete")));
    }

    #[test]
    fn adding_one_of_a_hundred_costs_what_adding_the_first_did() {
        let admit = |n| admit(&Admission { passage: passage(Reach::Nat, &[]), ..closed(n) });
        assert!(admit(100).len() < admit(1).len() + 256);
    }

    #[test]
    fn nothing_outside_the_own_tables_is_named() {
        let text =
            base(subnet(), &[Admission { passage: passage(Reach::Nat, &["10.0.0.0/8", "example.org"]), ..closed(1) }]);
        let tables = text.lines().filter(|l| l.starts_with("table") || l.starts_with("delete table"));
        assert!(tables.clone().count() == 6 && tables.clone().all(|l| l.contains(" banger")), "{text}");
        let commands = text.lines().filter(|l| l.starts_with("add") || l.starts_with("flush"));
        assert!(commands.clone().count() > 20 && commands.clone().all(|l| l.contains(" banger ")), "{text}");
    }

    /// Applies `texts` one after another in an own network namespace, where root.
    fn run(texts: &[String]) -> Option<std::process::Output> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let script: String = texts
            .iter()
            .enumerate()
            .map(|(i, _)| format!("nft -f \"$d/{i}\" >/dev/null || exit 1\n"))
            .collect::<String>()
            + "nft list ruleset\n";
        let folder = tempfile::tempdir().expect("a folder");
        for (i, text) in texts.iter().enumerate() {
            std::fs::write(folder.path().join(i.to_string()), text).expect("written");
        }
        let mut child = Command::new("unshare")
            .args(["--net", "--", "sh", "-s"])
            .env("d", folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        child.stdin.take().expect("a pipe").write_all(script.as_bytes()).expect("written");
        Some(child.wait_with_output().expect("ends"))
    }

    /// What `nft list ruleset` says after `texts`, all of which must be taken.
    fn applied(texts: &[String]) -> Option<String> {
        let output = run(texts)?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Whether all of `texts` are taken.
    fn nft_status(texts: &[String]) -> Option<bool> {
        run(texts).map(|output| output.status.success())
    }

    #[test]
    fn the_kernel_takes_the_rules_and_gives_them_back() {
        let guests: Vec<_> = (1..=100).map(closed).collect();
        let more = admit(&closed(101));
        let Some(listed) = applied(&[base(subnet(), &[]), base(subnet(), &guests), more.clone(), more]) else { return };
        assert_eq!(listed.matches("\"bng-101\"").count(), 2, "{listed}");
        assert_eq!(listed.matches("\"bng-1\"").count(), 2, "{listed}");
        let gone = dismiss(guest(1), &[]);
        let Some(without) = applied(&[base(subnet(), &guests), gone.clone(), gone, presence(subnet())]) else { return };
        assert_eq!(without.matches("\"bng-1\"").count(), 0, "{without}");
        assert_eq!(without.matches("-1 ").count(), 0, "{without}");
        assert_eq!(without.matches("\"bng-2\"").count(), 2, "{without}");
    }

    #[test]
    fn every_passage_is_taken_and_replaced_by_another() {
        let some = [
            passage(Reach::Nat, &[]),
            passage(Reach::Granted, &["10.0.0.0/8:443", "0.0.0.0/0:53", "0.0.0.0/0", "192.0.2.7", "192.0.2.7:1"]),
            passage(Reach::Granted, &["example.org"]),
            Passage { diverted: vec![443, 8443], ..Passage::default() },
            Passage::default(),
        ];
        let openings =
            [None, Some(443)].map(|port| Opening { address: Ipv4Addr::new(203, 0, 113, 7), port, seconds: 30 });
        let opened = passage::open(Slot::new(3).expect("a slot"), &openings);
        let mut texts = vec![
            base(subnet(), &[Admission { passage: some[0].clone(), ..closed(3) }]),
            opened.clone(),
            opened.clone(),
        ];
        texts.extend(some.iter().map(|passage| pass(guest(3), passage)));
        let Some(shut) = applied(&texts) else { return };
        assert!(!shut.contains("203.0.113.7"), "what was open stays open: {shut}");
        assert!(!shut.contains("divert-"), "a guest without secrets has a chain for them: {shut}");
        texts.push(opened);
        let open = applied(&texts).expect("as before");
        assert!(open.contains("203.0.113.7 . 443 timeout 30s") && open.contains("203.0.113.7 timeout 30s"), "{open}");
    }

    #[test]
    fn rules_that_somebody_flushed_are_missed() {
        let base = base(subnet(), &[]);
        let Some(there) = nft_status(&[base.clone(), presence(subnet())]) else { return };
        assert!(there);
        let other = "172.30.8.0/24".parse().expect("a subnet");
        for gone in ["flush ruleset", "delete table inet banger", "delete table bridge banger"] {
            assert_eq!(nft_status(&[base.clone(), gone.to_owned(), presence(subnet())]), Some(false), "{gone}");
        }
        assert_eq!(nft_status(&[base, presence(other)]), Some(false));
    }

    #[test]
    fn removal_leaves_nothing_and_needs_nothing() {
        let Some(listed) = applied(&[removal(), base(subnet(), &[closed(1)]), removal()]) else {
            return;
        };
        assert_eq!(listed, "");
    }
}
