//! What a guest claims of itself, cut to size before anybody keeps it or passes it on: its own agent
//! has limits, but who owns the guest owns the agent.

use crate::protocol::guest::{GuestReply, Health, ListeningPort, MAX_PORTS};

/// Most troubles kept of a guest.
pub(super) const MAX_TROUBLES: usize = 32;

/// Most characters of each of its words.
const MAX_TEXT: usize = 500;

/// `reply` with at most [`MAX_PORTS`] ports, [`MAX_TROUBLES`] troubles, and each word clipped.
pub(super) fn cut_to_size(reply: GuestReply) -> GuestReply {
    match reply {
        GuestReply::Ports(ports) => GuestReply::Ports(ports.into_iter().take(MAX_PORTS).map(port).collect()),
        GuestReply::Health(health) => GuestReply::Health(self::health(health)),
        GuestReply::Done => GuestReply::Done,
        GuestReply::Stats(stats) => GuestReply::Stats(stats),
        GuestReply::Shell { channel } => GuestReply::Shell { channel },
        GuestReply::ShellPort { port } => GuestReply::ShellPort { port },
        GuestReply::Activity(activity) => GuestReply::Activity(activity),
    }
}

/// `text` without control characters, and not longer than a few lines.
pub(super) fn clip(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}

fn port(claimed: ListeningPort) -> ListeningPort {
    let ListeningPort { address, port, process, pid } = claimed;
    ListeningPort { address: clip(&address), port, process: process.as_deref().map(clip), pid }
}

fn health(claimed: Health) -> Health {
    let Health { boot_id, uptime_s, kernel, init, system_state, ssh, troubles } = claimed;
    Health {
        boot_id: clip(&boot_id),
        uptime_s,
        kernel: clip(&kernel),
        init: clip(&init),
        system_state: system_state.as_deref().map(clip),
        ssh,
        troubles: troubles.iter().take(MAX_TROUBLES).map(|t| clip(t)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_says_is_clipped_and_stripped() {
        assert_eq!(clip("a\x1b[31mb"), "a[31mb");
        assert_eq!(clip(&"x".repeat(1000)).len(), MAX_TEXT);
    }

    #[test]
    fn a_guest_that_claims_a_port_for_each_of_its_lies_is_believed_some() {
        let long = "x".repeat(10 * MAX_TEXT);
        let claim = ListeningPort { address: long.clone(), port: 1, process: Some(long), pid: Some(1) };
        let GuestReply::Ports(kept) = cut_to_size(GuestReply::Ports(vec![claim; 10 * MAX_PORTS])) else {
            panic!("ports stay ports");
        };
        assert_eq!(kept.len(), MAX_PORTS);
        assert!(
            kept.iter().all(|p| p.address.len() == MAX_TEXT && p.process.as_ref().is_some_and(|n| n.len() == MAX_TEXT))
        );
    }

    #[test]
    fn health_has_few_troubles_and_short_words() {
        let long = "x".repeat(10 * MAX_TEXT);
        let claim = Health {
            boot_id: long.clone(),
            uptime_s: u64::MAX,
            kernel: long.clone(),
            init: long.clone(),
            system_state: Some(long.clone()),
            ssh: true,
            troubles: vec![long; 1000],
        };
        let GuestReply::Health(kept) = cut_to_size(GuestReply::Health(claim)) else { panic!("health stays health") };
        assert_eq!(kept.troubles.len(), MAX_TROUBLES);
        let words =
            [&kept.boot_id, &kept.kernel, &kept.init].into_iter().chain(&kept.system_state).chain(&kept.troubles);
        assert!(words.into_iter().all(|word| word.len() == MAX_TEXT));
    }
}
