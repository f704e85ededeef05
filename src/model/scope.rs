//! Which addresses are the internet's. All others are kept back from a guest that may go everywhere:
//! they are its host, its host's network, or services that a cloud offers to its machines alone.

use std::net::Ipv4Addr;

use super::egress::Cidr;

/// What is not the internet: the special-purpose registry of IANA (RFC 6890) but for the networks of
/// documentation, where nobody is; shared and multicast space; and the one public address behind which a
/// cloud answers its machines.
pub const KEPT_BACK: [Cidr; 13] = [
    net([0, 0, 0, 0], 8),
    net([10, 0, 0, 0], 8),
    // Behind carrier-grade NAT (RFC 6598); 100.100.100.200 is the metadata of Alibaba Cloud.
    net([100, 64, 0, 0], 10),
    net([127, 0, 0, 0], 8),
    // Azure's WireServer, which hands out credentials.
    net([168, 63, 129, 16], 32),
    // Link-local (RFC 3927); 169.254.169.254 is the metadata of most clouds.
    net([169, 254, 0, 0], 16),
    net([172, 16, 0, 0], 12),
    // 192.0.0.192 is the metadata of Oracle's older cloud.
    net([192, 0, 0, 0], 24),
    net([192, 88, 99, 0], 24),
    net([192, 168, 0, 0], 16),
    net([198, 18, 0, 0], 15),
    net([224, 0, 0, 0], 4),
    net([240, 0, 0, 0], 4),
];

const fn net([a, b, c, d]: [u8; 4], prefix: u8) -> Cidr {
    match Cidr::new(Ipv4Addr::new(a, b, c, d), prefix) {
        Some(net) => net,
        None => panic!("a network has no bits behind its prefix"),
    }
}

/// Whether `address` is the internet's.
pub fn is_public(address: Ipv4Addr) -> bool {
    !KEPT_BACK.iter().any(|net| net.contains(address))
}

/// Whether all of `net` is the internet's.
pub fn is_all_public(net: Cidr) -> bool {
    !KEPT_BACK.iter().any(|kept| kept.meets(net))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_is_told_from_the_internet() {
        for near in [
            "0.0.0.0",
            "10.9.8.7",
            "100.100.100.200",
            "127.0.0.53",
            "168.63.129.16",
            "169.254.169.254",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.1.1",
            "224.0.0.251",
            "255.255.255.255",
        ] {
            assert!(!is_public(near.parse().expect("an address")), "{near}");
        }
        for far in
            ["1.1.1.1", "9.255.255.255", "11.0.0.0", "172.15.0.1", "172.32.0.1", "203.0.113.7", "223.255.255.255"]
        {
            assert!(is_public(far.parse().expect("an address")), "{far}");
        }
    }
    #[test]
    fn a_network_is_the_internets_when_all_of_it_is() {
        let is = |text: &str| is_all_public(text.parse().expect(text));
        assert!(is("1.1.1.0/24") && is("8.0.0.0/8") && is("168.63.129.17"));
        assert!(!is("0.0.0.0/0") && !is("168.0.0.0/8") && !is("10.1.0.0/16") && !is("168.63.129.16"));
    }
}
