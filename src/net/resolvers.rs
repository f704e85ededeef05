//! The servers in a `resolv.conf` (resolv.conf(5)).

use std::net::{IpAddr, Ipv4Addr};

/// The address of systemd-resolved's stub, which answers its own host alone.
pub const STUB: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);

/// Most servers that count (`MAXNS`).
const SERVERS: usize = 3;

/// The servers of a file's content, in its order; what cannot be read is left out.
pub fn servers(content: &[u8]) -> Vec<IpAddr> {
    let text = String::from_utf8_lossy(content);
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok()).flatten()
    };
    text.lines().filter_map(server).take(SERVERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_and_the_rest_is_left_out() {
        let text = b"# nameserver 9.9.9.9\nsearch example.org\nnameserver 192.0.2.1\nnameserver\tfd00::1 # home\n\
            nameserver fe80::1%eth0\nnameserver\nnameserver 192.0.2.2\nnameserver 192.0.2.3\noptions edns0\n";
        let found: Vec<String> = servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.1", "fd00::1", "192.0.2.2"]);
        assert!(servers(b"\xff\xfenameserver").is_empty());
    }
}
