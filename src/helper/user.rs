//! Deeds on a VM's process that its own user may do: so the helper needs no power over all processes
//! (`CAP_KILL`, `CAP_SYS_PTRACE`) for them.
//!
//! Only the *effective* ids of one short thread are the VM's: its real and saved ones stay root's, so that nothing
//! of that user may signal or trace this process meanwhile (kill(2), ptrace(2)).

use std::io;

use rustix::thread::{Gid, Uid, set_thread_res_gid, set_thread_res_uid};

use super::authority::Root;
use super::powers;

/// Does `deed`; where the system refuses it to this process, once more as the user of process `pid`.
pub fn or_as_user_of<T: Send>(root: &Root, pid: i32, deed: impl Fn() -> io::Result<T> + Sync) -> io::Result<T> {
    match deed() {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => as_user_of(root, pid, &deed),
        other => other,
    }
}

fn as_user_of<T: Send>(_: &Root, pid: i32, deed: &(impl Fn() -> io::Result<T> + Sync)) -> io::Result<T> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let (uid, gid) = powers::effective_ids(&status).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/status is not as in proc(5)"))
    })?;
    let (root_user, root_group) = (Uid::ROOT, Gid::ROOT);
    let work = || {
        // The group first: without the user's privilege it cannot be changed any more.
        set_thread_res_gid(root_group, Gid::from_raw(gid), root_group)?;
        set_thread_res_uid(root_user, Uid::from_raw(uid), root_user)?;
        deed()
    };
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(done) => done,
        Err(_) => Err(io::Error::other("the thread for it ended")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::process;
    use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command};

    const STRANGER: u32 = 1_900_000_123;

    fn sleeping() -> Child {
        let mut command = Command::new("sleep");
        command.arg("600").uid(STRANGER).gid(STRANGER).spawn().expect("sleep starts")
    }

    /// This thread without the powers that the unit does not give.
    fn with_less<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        let without = CapabilitySet::KILL.union(CapabilitySet::SYS_PTRACE);
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let had = capabilities(None).expect("read");
                let effective = had.effective.difference(without);
                let permitted = had.permitted.difference(without);
                set_capabilities(None, CapabilitySets { effective, permitted, ..had }).expect("fewer");
                work()
            });
            thread.join().expect("the thread ends")
        })
    }

    #[test]
    fn a_vms_process_is_killed_and_looked_into_without_power_over_others() {
        let Ok(root) = Root::claim() else { return };
        let mut child = sleeping();
        let pid = child.id() as i32;
        let pidfd = process::open(process::reference(pid).expect("lives")).expect("opens").expect("lives");
        with_less(|| {
            assert!(std::fs::read_link(format!("/proc/{pid}/root")).is_err() && process::kill(&pidfd).is_err());
            let seen = or_as_user_of(&root, pid, || std::fs::read_link(format!("/proc/{pid}/root")));
            assert_eq!(seen.expect("looked into"), std::path::Path::new("/"));
            or_as_user_of(&root, pid, || process::kill(&pidfd)).expect("killed");
        });
        assert!(!child.wait().expect("reaped").success());
        assert!(rustix::process::geteuid().is_root(), "this process is still root's");
    }

    #[test]
    fn nobody_is_become_for_a_process_that_is_gone() {
        let Ok(root) = Root::claim() else { return };
        let refuse = || Err::<(), _>(io::ErrorKind::PermissionDenied.into());
        assert!(or_as_user_of(&root, i32::MAX, refuse).is_err());
    }
}
