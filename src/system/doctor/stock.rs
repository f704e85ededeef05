//! Rows about what a VM is made of: its image, its kernel, its network, and where its sizes come from.

use std::net::Ipv4Addr;

use super::Row;
use crate::host::config::Config;
use crate::model::Subnet;

/// A thing that VMs start from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StockSeen {
    /// `image` or `kernel`.
    pub what: &'static str,
    /// The one where none is named.
    pub name: String,
    /// Whether it is here; `None` where the daemon cannot be asked.
    pub is_here: Option<bool>,
    /// Whether the catalogue has it.
    pub can_be_pulled: bool,
}

/// What the store says of itself (`bangerd --check-migrations`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreSeen {
    /// This build reads it.
    Compatible,
    /// This build brings it up to date when it starts.
    Older,
    /// This build cannot use it.
    Incompatible,
}

/// Default image and kernel: one that can be pulled is pulled by the first VM.
pub fn stock(seen: &StockSeen) -> Row {
    let (what, name) = (seen.what, &seen.name);
    match (seen.is_here, seen.can_be_pulled) {
        (Some(true), _) => Row::ok(what, name.clone()),
        (Some(false) | None, true) => Row::ok(what, format!("{name}: pulled by the first VM that needs it")),
        (Some(false), false) => {
            let seen = format!("{name} is neither here nor in the catalogue");
            Row::failed(what, seen, format!("banger {what} list      (or default_{what} in the configuration)"))
        }
        (None, false) => Row::ok(what, format!("{name}: not in the catalogue, and no daemon says whether it is here")),
    }
}

/// The store.
pub fn store(seen: StoreSeen) -> Row {
    match seen {
        StoreSeen::Compatible => Row::ok("store", "this version reads it"),
        StoreSeen::Older => Row::ok("store", "of an older version; brought up to date when the daemon starts"),
        StoreSeen::Incompatible => Row::failed(
            "store",
            "a newer banger has written it, and this one cannot use it",
            "sudo banger update      (or the newer binary)",
        ),
    }
}

/// A network that the configuration asks for must meet no route of this host; without a wish one is looked for.
pub fn network(config: &Config, routes: &[(Ipv4Addr, u8)], own: Option<&str>) -> Row {
    let Some(wish) = config.network.subnet else {
        return Row::ok("network", own.map_or("chosen when the first VM starts".to_owned(), str::to_owned));
    };
    let is_own = |(route, prefix): &(Ipv4Addr, u8)| {
        *prefix == 24 && *route == wish.network() && own == Some(wish.to_string().as_str())
    };
    let others: Vec<(Ipv4Addr, u8)> = routes.iter().copied().filter(|route| !is_own(route)).collect();
    match Subnet::first_met(wish, &others) {
        None => Row::ok("network", format!("{wish}, as configured")),
        Some((route, prefix)) => Row::failed(
            "network",
            format!("{wish}, as configured, meets this host's route to {route}/{prefix}: no VM will start"),
            "set another [network] subnet in the configuration, or none",
        ),
    }
}

/// Where each size of a VM comes from.
pub fn defaults(config: &Config, sizes: (u8, String, String)) -> Vec<Row> {
    let from = |is_set: bool| if is_set { "configured" } else { "from this host" };
    let (vcpus, memory, disk) = sizes;
    let asked = &config.vm_defaults;
    vec![
        Row::ok("vcpu", format!("{vcpus}, {}", from(asked.vcpu.is_some()))),
        Row::ok("memory", format!("{memory}, {}", from(asked.memory.is_some()))),
        Row::ok(
            "disk-size",
            format!("{disk}, {}", if asked.disk_size.is_some() { "configured" } else { "banger's own" }),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn what_can_be_pulled_is_fine() {
        let seen = |is_here, can_be_pulled| StockSeen { what: "image", name: "debian".into(), is_here, can_be_pulled };
        for (is_here, can_be_pulled) in [(Some(true), false), (Some(false), true), (None, true), (None, false)] {
            assert_eq!(stock(&seen(is_here, can_be_pulled)).verdict, Verdict::Ok);
        }
        assert_eq!(stock(&seen(Some(false), false)).verdict, Verdict::Failed);
    }

    #[test]
    fn a_configured_network_that_meets_a_route_is_told_unless_the_route_is_its_own() {
        let mut config = Config::default();
        config.network.subnet = Some("172.30.7.0/24".parse().expect("a subnet"));
        let (own, other) = ((Ipv4Addr::new(172, 30, 7, 0), 24), (Ipv4Addr::new(172, 30, 0, 0), 16));
        assert_eq!(network(&config, &[own], Some("172.30.7.0/24")).verdict, Verdict::Ok);
        assert_eq!(network(&config, &[own], None).verdict, Verdict::Failed);
        assert_eq!(network(&config, &[other], Some("172.30.7.0/24")).verdict, Verdict::Failed);
        assert_eq!(network(&Config::default(), &[other], None).verdict, Verdict::Ok);
    }

    #[test]
    fn a_store_that_cannot_be_used_is_a_failure() {
        assert_eq!(store(StoreSeen::Older).verdict, Verdict::Ok);
        assert_eq!(store(StoreSeen::Incompatible).verdict, Verdict::Failed);
    }
}
