//! Who is connected to somebody who listens in this guest, from `/proc/net/tcp` and `/proc/net/tcp6` (proc_net(5)):
//! ssh sessions, whichever server serves them, browsers, published ports. What the guest itself has opened does not
//! count, nor what stays in it.

use std::collections::HashSet;
use std::fs;
use std::net::IpAddr;

use super::listeners::{LISTEN, TABLES, parse_address};

/// `TCP_ESTABLISHED` (net/tcp_states.h).
const ESTABLISHED: &str = "01";

/// How many connections there are.
pub fn count() -> u32 {
    let tables: Vec<String> = TABLES.iter().map(|table| fs::read_to_string(table).unwrap_or_default()).collect();
    count_in(&tables.concat())
}

fn count_in(tables: &str) -> u32 {
    let of_state = |state: &'static str| tables.lines().filter_map(move |line| socket(line, state));
    let listened: HashSet<u16> = of_state(LISTEN).map(|(port, _)| port).collect();
    let came = |(port, peer): &(u16, IpAddr)| listened.contains(port) && !peer.to_canonical().is_loopback();
    of_state(ESTABLISHED).filter(came).count() as u32
}

/// The port here and the address there of a socket in `state`: `sl local_address rem_address st …`.
fn socket(line: &str, state: &str) -> Option<(u16, IpAddr)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, remote) = (fields.next()?, fields.next()?);
    if fields.next()? != state {
        return None;
    }
    let port = u16::from_str_radix(local.split_once(':')?.1, 16).ok()?;
    Some((port, parse_address(remote.split_once(':')?.0)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SSHD: &str = "   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1";
    const CAME: &str =
        "   1: 02071EAC:0016 01071EAC:D431 01 00000000:00000000 02:000A 00000000     0        0 1 4 0 20";

    #[test]
    fn whoever_came_from_elsewhere_to_a_listener_counts() {
        let went = CAME.replace(":0016 ", ":D016 ");
        let (inside, closing) = (CAME.replace("01071EAC", "0100007F"), CAME.replace(" 01 ", " 06 "));
        let inside_mapped = CAME.replace("01071EAC", "0000000000000000FFFF00000100007F");
        assert_eq!(count_in(&[SSHD, CAME, CAME].join("\n")), 2);
        assert_eq!(count_in(&[SSHD, &went, &inside, &inside_mapped, &closing].join("\n")), 0);
        assert_eq!(count_in(CAME), 0, "nobody listens there");
    }

    #[test]
    fn a_line_is_read_and_nonsense_is_skipped() {
        assert_eq!(socket(CAME, ESTABLISHED), Some((22, IpAddr::from([172, 30, 7, 1]))));
        for cut in 0..CAME.find(" 01 ").expect("there") {
            assert_eq!(socket(&CAME[..cut], ESTABLISHED), None);
        }
    }
}
