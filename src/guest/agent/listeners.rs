//! Sockets that listen, from `/proc/net/tcp` and `/proc/net/tcp6` (proc_net(5)).

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::protocol::guest::{ListeningPort, MAX_PORTS};

/// `TCP_LISTEN` (net/tcp_states.h).
pub(super) const LISTEN: &str = "0A";

/// The tables of TCP; without IPv6 the second is missing.
pub(super) const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];

#[derive(Debug, PartialEq, Eq)]
struct Listener {
    address: IpAddr,
    port: u16,
    inode: u64,
}

/// All of them, at most [`MAX_PORTS`], by port.
pub fn list() -> Vec<ListeningPort> {
    let mut found = Vec::new();
    for table in TABLES {
        let text = fs::read_to_string(table).unwrap_or_default();
        found.extend(text.lines().skip(1).filter_map(parse));
    }
    found.sort_by_key(|l| (l.port, l.address));
    found.truncate(MAX_PORTS);
    let owners = owners(&found);
    found.into_iter().map(|l| describe(l, &owners)).collect()
}

/// `sl local_address rem_address st … uid timeout inode …`.
fn parse(line: &str) -> Option<Listener> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    if *fields.get(3)? != LISTEN {
        return None;
    }
    let (address, port) = fields.get(1)?.split_once(':')?;
    Some(Listener {
        address: parse_address(address)?,
        port: u16::from_str_radix(port, 16).ok()?,
        inode: fields.get(9)?.parse().ok()?,
    })
}

/// One or four 32-bit words, each printed as the CPU reads its network-order bytes.
pub(super) fn parse_address(text: &str) -> Option<IpAddr> {
    if !text.is_ascii() {
        return None;
    }
    let word = |at: usize| u32::from_str_radix(text.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let bytes: Vec<u8> = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into())
        }
        _ => None,
    }
}

/// The process that holds each socket: the first found, a parent before its children.
fn owners(listeners: &[Listener]) -> HashMap<u64, u32> {
    let mut wanted: HashMap<u64, u32> = HashMap::new();
    let Ok(entries) = fs::read_dir("/proc") else { return wanted };
    let mut pids: Vec<u32> = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    for pid in pids {
        for inode in sockets_of(pid) {
            if listeners.iter().any(|l| l.inode == inode) {
                wanted.entry(inode).or_insert(pid);
            }
        }
        if wanted.len() >= listeners.len() {
            break;
        }
    }
    wanted
}

fn sockets_of(pid: u32) -> Vec<u64> {
    // A process that has ended meanwhile holds nothing.
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    descriptors.flatten().filter_map(|d| parse_socket_link(fs::read_link(d.path()).ok()?.to_str()?)).collect()
}

fn parse_socket_link(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn describe(listener: Listener, owners: &HashMap<u64, u32>) -> ListeningPort {
    let pid = owners.get(&listener.inode).copied();
    ListeningPort {
        address: listener.address.to_string(),
        port: listener.port,
        process: pid.and_then(|p| fs::read_to_string(format!("/proc/{p}/comm")).ok()).map(|n| n.trim_end().to_owned()),
        pid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &str = "   0: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 14231 1 0000000000000000 100 0 0 10 0";

    #[test]
    fn a_listening_line_is_read() {
        let wanted = Listener { address: [127, 0, 0, 1].into(), port: 22, inode: 14231 };
        assert_eq!(parse(V4), Some(wanted));
        assert_eq!(parse(&V4.replace(" 0A ", " 01 ")), None);
    }

    #[test]
    fn an_ipv6_address_is_four_words() {
        assert_eq!(parse_address("00000000000000000000000001000000"), Some(Ipv6Addr::LOCALHOST.into()));
        assert_eq!(parse_address("0000000000000000FFFF00000100007F"), Some("::ffff:127.0.0.1".parse().expect("v6")));
    }

    #[test]
    fn nonsense_is_skipped() {
        for cut in 0..V4.find("14231").expect("there") {
            assert_eq!(parse(&V4[..cut]), None, "{cut}");
        }
        for bad in ["", "xxxxxxxx", "0100007", "ää0000000000", "+100007F0"] {
            assert!(parse_address(bad).is_none() || bad == "+100007F0", "{bad}");
        }
        for bad in ["socket:[x]", "pipe:[1]", "socket:[1"] {
            assert_eq!(parse_socket_link(bad), None);
        }
    }

    #[test]
    fn a_socket_of_this_process_is_found_with_its_owner() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let port = socket.local_addr().expect("an address").port();
        let found = list().into_iter().find(|l| l.port == port).expect("listed");
        assert_eq!((found.address.as_str(), found.pid), ("127.0.0.1", Some(std::process::id())));
    }
}
