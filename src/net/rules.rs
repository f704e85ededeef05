//! The rules between guests, host and the rest, as text for `nft -f -` (nft(8)).
//!
//! Two tables of banger's own and nothing outside them. `bridge banger` sees frames: what a guest
//! may send at all, and that it never reaches another guest. `inet banger` sees packets: what the
//! host answers, and what is forwarded. Guests are elements of sets, so that the hundredth costs
//! what the first did. Each text is one transaction: all of it applies or none.

use std::fmt;
use std::net::Ipv4Addr;

use crate::model::{MacAddr, Slot, Subnet, TapName};

/// The bridge that all guests are connected to.
pub const BRIDGE: &str = "br-banger";

/// What one guest may say it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guest {
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
        Self { tap: TapName::of(slot), mac: MacAddr::of(slot), address: subnet.address(slot) }
    }
}

/// The guest as it sends IPv4 and as it speaks ARP (RFC 826: the sender's two addresses).
struct Elements(Guest);

impl Elements {
    fn command(&self, verb: &str) -> String {
        let Guest { tap, mac, address } = self.0;
        format!(
            "{verb} element bridge banger senders {{ \"{tap}\" . {mac} . {address} }}\n\
             {verb} element bridge banger speakers {{ \"{tap}\" . {mac} . {mac} . {address} }}\n"
        )
    }
}

/// Both tables, anew, with exactly `guests` in them: whatever was there is replaced in the same
/// transaction, so that no frame passes unchecked in between.
pub fn base(gateway: Ipv4Addr, guests: &[Guest]) -> String {
    let mut text = format!("{}{}{}", anew("bridge"), anew("inet"), Tables { gateway });
    for guest in guests {
        text.push_str(&admit(*guest));
    }
    text
}

/// Lets a guest speak.
pub fn admit(guest: Guest) -> String {
    Elements(guest).command("add")
}

/// Lets a guest speak no more. Added first, because deleting what is not there is an error and
/// would undo the whole transaction.
pub fn dismiss(guest: Guest) -> String {
    format!("{}{}", Elements(guest).command("add"), Elements(guest).command("delete"))
}

/// Both tables gone, whether they were there or not.
pub fn removal() -> String {
    format!("{}{}", anew("bridge"), anew("inet"))
}

fn anew(family: &str) -> String {
    format!("table {family} banger\ndelete table {family} banger\n")
}

struct Tables {
    gateway: Ipv4Addr,
}

impl fmt::Display for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_bridge(f)?;
        write_inet(f, self.gateway)
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

/// The host begins connections to guests (ssh), so answers pass; a guest begins DNS and nothing
/// else. `forward` holds whether or not the host forwards.
fn write_inet(f: &mut fmt::Formatter<'_>, gateway: Ipv4Addr) -> fmt::Result {
    write!(
        f,
        "table inet banger {{
    chain from_guest {{
        ct state established accept
        ct state related meta l4proto icmp accept
        ip daddr {gateway} udp dport 53 accept
        ip daddr {gateway} tcp dport 53 accept
        drop
    }}
    chain input {{
        type filter hook input priority -10; policy accept;
        iifname \"{BRIDGE}\" jump from_guest
    }}
    chain forward {{
        type filter hook forward priority -10; policy accept;
        iifname \"{BRIDGE}\" oifname \"{BRIDGE}\" drop
        oifname \"{BRIDGE}\" ct state established,related accept
        oifname \"{BRIDGE}\" drop
        iifname \"{BRIDGE}\" drop
    }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    fn guest(slot: u8) -> Guest {
        let subnet: Subnet = "172.30.7.0/24".parse().expect("a subnet");
        Guest::new(subnet, Slot::new(slot).expect("a slot"))
    }

    #[test]
    fn a_guest_is_two_elements() {
        assert_eq!(
            admit(guest(9)),
            "add element bridge banger senders { \"bng-9\" . 02:62:67:00:00:09 . 172.30.7.10 }\n\
             add element bridge banger speakers { \"bng-9\" . 02:62:67:00:00:09 . 02:62:67:00:00:09 . 172.30.7.10 }\n"
        );
        assert!(dismiss(guest(9)).ends_with(&Elements(guest(9)).command("delete")));
    }

    #[test]
    fn adding_one_of_a_hundred_costs_what_adding_the_first_did() {
        assert!(admit(guest(100)).len() < admit(guest(1)).len() + 32);
    }

    #[test]
    fn nothing_outside_the_own_tables_is_named() {
        let text = base(Ipv4Addr::new(172, 30, 7, 1), &[guest(1)]);
        let tables = text.lines().filter(|l| l.starts_with("table") || l.starts_with("delete table"));
        assert!(tables.clone().count() == 6 && tables.clone().all(|l| l.contains(" banger")), "{text}");
        assert!(!text.contains("flush"));
    }

    /// Applies `texts` one after another in an own network namespace, where root, and returns what
    /// `nft list ruleset` says then.
    fn applied(texts: &[String]) -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let script: String =
            texts.iter().enumerate().map(|(i, _)| format!("nft -f \"$d/{i}\" || exit 1\n")).collect::<String>()
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
        let output = child.wait_with_output().expect("ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    #[test]
    fn the_kernel_takes_the_rules_and_gives_them_back() {
        let gateway = Ipv4Addr::new(172, 30, 7, 1);
        let guests: Vec<Guest> = (1..=100).map(guest).collect();
        let texts = [base(gateway, &[]), base(gateway, &guests), admit(guest(101)), admit(guest(101))];
        let Some(listed) = applied(&texts) else { return };
        assert_eq!(listed.matches("bng-101").count(), 2, "{listed}");
        assert_eq!(listed.matches("\"bng-1\"").count(), 2, "{listed}");
        let Some(without) = applied(&[base(gateway, &guests), dismiss(guest(1)), dismiss(guest(1))]) else { return };
        assert_eq!(without.matches("\"bng-1\"").count(), 0, "{without}");
        assert_eq!(without.matches("\"bng-2\"").count(), 2, "{without}");
    }

    #[test]
    fn removal_leaves_nothing_and_needs_nothing() {
        let gateway = Ipv4Addr::new(172, 30, 7, 1);
        let Some(listed) = applied(&[removal(), base(gateway, &[guest(1)]), removal()]) else { return };
        assert_eq!(listed, "");
    }
}
