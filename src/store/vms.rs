//! Rows of VMs: names and places are reserved here, in a transaction, not in memory.

use std::net::Ipv4Addr;

use redb::{ReadableTable, WriteTransaction};

use super::codec::{VmRow, decode, encode};
use super::{Failure, IMAGES, KERNELS, RUNNING, Store, StoreError, VMS};
use crate::model::{Limits, Slot, Subnet, VmChange, VmId, VmName, VmRecord, VmState};

/// A place taken for a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserved {
    /// The place.
    pub slot: Slot,
    /// The address that follows from it.
    pub address: Ipv4Addr,
}

impl Store {
    /// All VMs, by name.
    pub fn vms(&self) -> Result<Vec<VmRecord>, StoreError> {
        let mut vms = self.read(|tx| all(&tx.open_table(VMS)?))?;
        vms.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        Ok(vms)
    }

    /// The VMs that run, by name.
    pub fn running_vms(&self) -> Result<Vec<VmRecord>, StoreError> {
        let mut running = self.read(|tx| {
            let (ids, vms) = (tx.open_table(RUNNING)?, tx.open_table(VMS)?);
            let mut running = Vec::new();
            for id in ids.iter()? {
                let (id, _) = id?;
                if let Some(row) = vms.get(id.value())? {
                    running.push(record(id.value(), row.value())?);
                }
            }
            Ok(running)
        })?;
        running.sort_by(|a: &VmRecord, b| a.spec.name.cmp(&b.spec.name));
        Ok(running)
    }

    /// The VM called `name`.
    pub fn vm(&self, name: &VmName) -> Result<VmRecord, StoreError> {
        let found = self.vms()?.into_iter().find(|vm| vm.spec.name == *name);
        found.ok_or_else(|| StoreError::NotFound { what: "VM", name: name.to_string() })
    }

    /// The VM of this id, unless it is gone.
    pub fn vm_by_id(&self, id: &VmId) -> Result<Option<VmRecord>, StoreError> {
        self.read(|tx| match tx.open_table(VMS)?.get(id.as_str())? {
            Some(row) => Ok(Some(record(id.as_str(), row.value())?)),
            None => Ok(None),
        })
    }

    /// Reserves the name: writes the row, provided that name and id are free, image and kernel are there,
    /// and `limits` admit it beside the others; with `starts`, its start too.
    pub fn insert_vm(&self, vm: &VmRecord, starts: bool, limits: &Limits) -> Result<(), StoreError> {
        self.write(|tx| {
            let others = all(&tx.open_table(VMS)?)?;
            if others.iter().any(|other| other.spec.name == vm.spec.name || other.id == vm.id) {
                return Err(StoreError::NameTaken { what: "VM", name: vm.spec.name.to_string() }.into());
            }
            limits.admit_new(&vm.spec, starts, &others).map_err(StoreError::from)?;
            require(tx, IMAGES, "image", vm.spec.image.as_str())?;
            require(tx, KERNELS, "kernel", vm.spec.kernel.as_str())?;
            put(tx, vm)
        })
    }

    /// Changes a VM's row; `None` when it is gone.
    pub fn update_vm(&self, id: &VmId, change: impl FnOnce(&mut VmRecord)) -> Result<Option<VmRecord>, StoreError> {
        self.write(|tx| {
            let found = match tx.open_table(VMS)?.get(id.as_str())? {
                Some(row) => record(id.as_str(), row.value())?,
                None => return Ok(None),
            };
            let mut vm = found;
            change(&mut vm);
            put(tx, &vm)?;
            Ok(Some(vm))
        })
    }

    /// Changes what a VM is, provided that `limits` admit it beside the others; its row as it is then.
    pub fn change_vm(&self, id: &VmId, limits: &Limits, change: &VmChange, now: u64) -> Result<VmRecord, StoreError> {
        self.write(|tx| {
            let (mut vm, others) = apart(tx, id)?;
            vm.spec = change.applied_to(&vm.spec);
            if change.touches_machine() {
                limits.admit_change(&vm.spec, &others).map_err(StoreError::from)?;
            }
            if let Some(lifetime) = change.lifetime {
                vm.expires_at = lifetime.end(now);
            }
            put(tx, &vm)?;
            Ok(vm)
        })
    }

    /// Takes a place for a start of the VM and marks it as starting, provided that `limits` admit it: its last
    /// place if that is free, else one that no other VM had last, else any free one.
    pub fn reserve_slot(&self, id: &VmId, subnet: Subnet, limits: &Limits) -> Result<Reserved, StoreError> {
        self.write(|tx| {
            let (mut vm, others) = apart(tx, id)?;
            limits.admit_start(vm.spec.memory, &others).map_err(StoreError::from)?;
            let slot = choose_slot(vm.slot, &others).ok_or(StoreError::NoSlot)?;
            let reserved = Reserved { slot, address: subnet.address(slot) };
            vm.slot = Some(slot);
            vm.address = Some(reserved.address);
            vm.state = VmState::Starting;
            vm.reason = None;
            put(tx, &vm)?;
            Ok(reserved)
        })
    }

    /// Removes a VM's row; true when there was one.
    pub fn remove_vm(&self, id: &VmId) -> Result<bool, StoreError> {
        self.write(|tx| {
            tx.open_table(RUNNING)?.remove(id.as_str())?;
            Ok(tx.open_table(VMS)?.remove(id.as_str())?.is_some())
        })
    }
}

/// The VM of this id, and all others.
fn apart(tx: &WriteTransaction, id: &VmId) -> Result<(VmRecord, Vec<VmRecord>), Failure> {
    let vms = all(&tx.open_table(VMS)?)?;
    let (mut own, others): (Vec<_>, Vec<_>) = vms.into_iter().partition(|vm| vm.id == *id);
    let vm = own.pop().ok_or_else(|| StoreError::NotFound { what: "VM", name: id.to_string() })?;
    Ok((vm, others))
}

/// Writes every row anew, in its present version.
pub(super) fn rewrite_rows(tx: &WriteTransaction) -> Result<(), Failure> {
    let vms = all(&tx.open_table(VMS)?)?;
    vms.iter().try_for_each(|vm| put(tx, vm))
}

fn choose_slot(last: Option<Slot>, others: &[VmRecord]) -> Option<Slot> {
    let held = |slot: &Slot| others.iter().any(|vm| vm.slot == Some(*slot) && vm.may_hold_resources());
    let remembered = |slot: &Slot| others.iter().any(|vm| vm.slot == Some(*slot));
    last.filter(|slot| !held(slot))
        .or_else(|| Slot::all().find(|slot| !remembered(slot)))
        .or_else(|| Slot::all().find(|slot| !held(slot)))
}

/// The names, quoted, of the VMs for which `uses` holds.
pub(super) fn users(tx: &WriteTransaction, uses: impl Fn(&VmRecord) -> bool) -> Result<Option<String>, Failure> {
    let names: Vec<String> =
        all(&tx.open_table(VMS)?)?.iter().filter(|vm| uses(vm)).map(|vm| format!("'{}'", vm.spec.name)).collect();
    Ok((!names.is_empty()).then(|| names.join(", ")))
}

fn require(tx: &WriteTransaction, table: super::Rows, what: &'static str, name: &str) -> Result<(), Failure> {
    match tx.open_table(table)?.get(name)? {
        Some(_) => Ok(()),
        None => Err(StoreError::NotFound { what, name: name.to_owned() }.into()),
    }
}

fn put(tx: &WriteTransaction, vm: &VmRecord) -> Result<(), Failure> {
    let row = encode("vms", &VmRow::V6(Box::new(vm.clone())))?;
    tx.open_table(VMS)?.insert(vm.id.as_str(), row.as_slice())?;
    note_running(tx, vm)
}

fn note_running(tx: &WriteTransaction, vm: &VmRecord) -> Result<(), Failure> {
    let mut running = tx.open_table(RUNNING)?;
    if vm.state == VmState::Running {
        running.insert(vm.id.as_str(), ())?;
    } else {
        running.remove(vm.id.as_str())?;
    }
    Ok(())
}

/// Fills [`RUNNING`] from what is stored: another build may have written the rows.
pub(super) fn index_running(tx: &WriteTransaction) -> Result<(), Failure> {
    tx.delete_table(RUNNING)?;
    tx.open_table(RUNNING)?;
    all(&tx.open_table(VMS)?)?.iter().try_for_each(|vm| note_running(tx, vm))
}

fn all(table: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<Vec<VmRecord>, Failure> {
    let mut vms = Vec::new();
    for row in table.iter()? {
        let (key, value) = row?;
        vms.push(record(key.value(), value.value())?);
    }
    Ok(vms)
}

fn record(key: &str, bytes: &[u8]) -> Result<VmRecord, StoreError> {
    decode::<VmRow>("vms", key, bytes).map(VmRecord::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::choice::{Accel, VmmKind};
    use crate::model::image::{ImageRecord, KernelRecord};
    use crate::model::{InitMode, Mib, VmSpec};

    fn vm(name: &str, number: u64) -> VmRecord {
        let spec = VmSpec {
            name: name.parse().expect("a name"),
            image: "debian".parse().expect("a name"),
            kernel: "debian".parse().expect("a name"),
            vcpus: 1,
            memory: Mib(512),
            disk: Mib(1024),
            init: None,
            egress: Default::default(),
            ports: Vec::new(),
            secrets: Vec::new(),
            environment: Vec::new(),
            idle_stop: None,
        };
        VmRecord::asked_for(VmId::from_random(number), spec, VmmKind::Fake, Accel::Tcg, 0)
    }

    fn limits() -> Limits {
        Limits { vms: None, memory: Some(Mib(1200)), disk: None, host_memory: Mib(4096) }
    }

    pub(crate) fn with_catalogue() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("opens");
        store
            .put_image(&ImageRecord {
                name: "debian".parse().expect("a name"),
                size: Mib(512),
                used_bytes: 1,
                digest: String::new(),
                source: String::new(),
                init: InitMode::Image,
                created_at: 0,
                reference: None,
                config: Default::default(),
                kernel: None,
                place: None,
            })
            .expect("written");
        store
            .put_kernel(&KernelRecord {
                name: "debian".parse().expect("a name"),
                release: String::new(),
                boot_args: Default::default(),
                has_modules_drive: false,
                used_bytes: 1,
                source: String::new(),
                created_at: 0,
            })
            .expect("written");
        (folder, store)
    }

    #[test]
    fn a_name_is_reserved_once() {
        let (_folder, store) = with_catalogue();
        store.insert_vm(&vm("box", 1), true, &limits()).expect("free");
        assert!(matches!(store.insert_vm(&vm("box", 2), true, &limits()), Err(StoreError::NameTaken { .. })));
        assert_eq!(store.vms().expect("read").len(), 1);
    }

    #[test]
    fn those_that_run_are_listed_apart() {
        let (_folder, store) = with_catalogue();
        for (name, number) in [("b", 1), ("a", 2), ("c", 3)] {
            store.insert_vm(&vm(name, number), false, &limits()).expect("free");
        }
        for number in [1, 2] {
            store.update_vm(&VmId::from_random(number), |vm| vm.state = VmState::Running).expect("written");
        }
        let names = |store: &Store| {
            store.running_vms().expect("read").iter().map(|vm| vm.spec.name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(&store), ["a", "b"]);
        store.remove_vm(&VmId::from_random(1)).expect("written");
        assert_eq!(names(&store), ["a"]);
        store.update_vm(&VmId::from_random(3), |vm| vm.state = VmState::Running).expect("written");
        store.update_vm(&VmId::from_random(2), |vm| vm.state = VmState::Stopped).expect("written");
        assert_eq!(names(&store), ["c"]);
    }

    #[test]
    fn those_that_run_are_known_again_after_another_build_wrote_the_rows() {
        let (folder, store) = with_catalogue();
        let running = VmRecord { state: VmState::Running, ..vm("a", 1) };
        store.insert_vm(&running, false, &limits()).expect("free");
        store.write(|tx| Ok(tx.delete_table(RUNNING).map(drop)?)).expect("written");
        drop(store);
        let store = Store::open(folder.path()).expect("opens");
        assert_eq!(store.running_vms().expect("read").len(), 1);
    }

    #[test]
    fn an_unknown_image_leaves_no_row() {
        let (_folder, store) = with_catalogue();
        let mut odd = vm("box", 1);
        odd.spec.image = "nothing".parse().expect("a name");
        assert!(matches!(store.insert_vm(&odd, true, &limits()), Err(StoreError::NotFound { what: "image", .. })));
        assert!(store.vms().expect("read").is_empty());
    }

    #[test]
    fn places_are_taken_at_the_start_and_the_last_one_is_kept() {
        let (_folder, store) = with_catalogue();
        let subnet: Subnet = "172.30.0.0/24".parse().expect("a subnet");
        for (name, number) in [("a", 1), ("b", 2)] {
            store.insert_vm(&vm(name, number), true, &limits()).expect("free");
        }
        let (a, b) = (VmId::from_random(1), VmId::from_random(2));
        let first = store.reserve_slot(&a, subnet, &limits()).expect("free");
        let second = store.reserve_slot(&b, subnet, &limits()).expect("free");
        assert_ne!(first, second);
        store.update_vm(&b, |vm| vm.state = VmState::Stopped).expect("written");
        assert_eq!(store.reserve_slot(&b, subnet, &limits()).expect("free"), second);
    }

    #[test]
    fn two_starts_do_not_share_what_is_left_and_a_refused_one_changes_nothing() {
        let (_folder, store) = with_catalogue();
        let subnet: Subnet = "172.30.0.0/24".parse().expect("a subnet");
        for (name, number) in [("a", 1), ("b", 2), ("c", 3)] {
            let stopped = VmRecord { state: VmState::Stopped, ..vm(name, number) };
            store.insert_vm(&stopped, false, &limits()).expect("admitted");
        }
        for number in [1, 2] {
            store.reserve_slot(&VmId::from_random(number), subnet, &limits()).expect("admitted");
        }
        let refused = store.reserve_slot(&VmId::from_random(3), subnet, &limits());
        assert!(matches!(refused, Err(StoreError::Limit(_))), "{refused:?}");
        let third = store.vm(&"c".parse().expect("a name")).expect("there");
        assert_eq!((third.state, third.slot), (VmState::Stopped, None));
        let full = store.insert_vm(&vm("d", 4), true, &limits());
        assert!(matches!(full, Err(StoreError::Limit(_))), "{full:?}");
    }

    #[test]
    fn when_every_place_is_held_the_start_is_refused() {
        let others: Vec<VmRecord> =
            Slot::all().map(|slot| VmRecord { slot: Some(slot), state: VmState::Running, ..vm("x", 1) }).collect();
        assert_eq!(choose_slot(None, &others), None);
        let mut others = others;
        others[7].state = VmState::Stopped;
        assert_eq!(choose_slot(None, &others), others[7].slot);
    }

    #[test]
    fn an_image_in_use_is_kept_and_its_user_named() {
        let (_folder, store) = with_catalogue();
        store.insert_vm(&vm("box", 1), true, &limits()).expect("free");
        let refused = store.remove_image(&"debian".parse().expect("a name")).map_err(|e| e.to_string());
        assert_eq!(refused, Err("image 'debian' is used by VM 'box'".into()));
        assert!(store.remove_vm(&VmId::from_random(1)).expect("written"));
        store.remove_image(&"debian".parse().expect("a name")).expect("free now");
    }
}
