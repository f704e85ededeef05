//! Who is who: the VMs that have an address, as of one state of the store.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, PoisonError};

use crate::daemon::Daemon;
use crate::daemon::machine::Machine;
use crate::model::{Egress, Secret, Subnet, VmId};
use crate::net::dns::zone::Zone;
use crate::protocol::Fault;

/// A VM that may ask.
pub(in crate::daemon) struct Guest {
    /// Which.
    pub id: VmId,
    /// Where it may go.
    pub egress: Egress,
    /// What stands in its environment by placeholders.
    pub secrets: Vec<Secret>,
    /// What is in memory of it.
    pub machine: Arc<Machine>,
}

/// All of them.
#[derive(Default)]
pub(super) struct Directory {
    /// The state of the store; 0: none.
    state: u64,
    /// Their names.
    pub zone: Zone,
    guests: HashMap<Ipv4Addr, Arc<Guest>>,
}

impl Directory {
    /// The VM with this address.
    pub fn guest(&self, address: Ipv4Addr) -> Option<&Arc<Guest>> {
        self.guests.get(&address)
    }
}

impl Guest {
    /// Whether `name` leads to the daemon, which sends this guest's secrets on to the host itself.
    pub fn has_secret_for(&self, name: &str) -> bool {
        self.secrets.iter().flat_map(|secret| &secret.hosts).any(|host| host.is(name))
    }
}

/// The directory as the store is now.
pub(super) async fn present(daemon: &Arc<Daemon>, subnet: Subnet) -> Result<Arc<Directory>, Fault> {
    let known = daemon.dns.known();
    // Asked for before the rows are: what changes meanwhile is read again next time.
    let state = daemon.store.state();
    if known.state == state && known.zone.subnet == Some(subnet) {
        return Ok(known);
    }
    let mut directory =
        Directory { state, zone: Zone { subnet: Some(subnet), ..Zone::default() }, ..Directory::default() };
    for vm in daemon.stored(|s| s.vms()).await? {
        let Some(address) = vm.present_address() else { continue };
        directory.zone.add(vm.spec.name.as_str(), address);
        let machine = daemon.machine(&vm.id);
        directory
            .guests
            .insert(address, Arc::new(Guest { id: vm.id, egress: vm.spec.egress, secrets: vm.spec.secrets, machine }));
    }
    let directory = Arc::new(directory);
    *daemon.dns.directory.lock().unwrap_or_else(PoisonError::into_inner) = directory.clone();
    Ok(directory)
}
