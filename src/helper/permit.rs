//! Who may ask what. Pure: a table, matched without a wildcard, so that a new request does not
//! compile until somebody has decided about it.

use crate::model::OpId;
use crate::protocol::root::RootRequest;
use crate::protocol::{Fault, FaultKind};

/// Who is on the other side, by `SO_PEERCRED`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// The uid that the helper was started for.
    Owner,
    /// Root.
    Root,
}

/// The caller with `uid`; `None` for everybody else, who is not answered at all.
pub fn caller(uid: u32, owner: u32) -> Option<Caller> {
    match uid {
        0 => Some(Caller::Root),
        uid if uid == owner => Some(Caller::Owner),
        _ => None,
    }
}

/// Where a conversation stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Nothing was said.
    Fresh,
    /// Both speak the same protocol.
    Agreed,
    /// The other side speaks another protocol: what to tell it.
    Foreign(Fault),
}

/// Whether `caller` may ask `request` in `phase`.
pub fn check(caller: Caller, phase: &Phase, request: &RootRequest) -> Result<(), Fault> {
    let (owner, root, foreign) = match request {
        RootRequest::Status => (true, true, true),
        RootRequest::Shutdown => (true, true, false),
        RootRequest::EnsureNetwork { .. } => (true, true, false),
        RootRequest::RemoveNetwork => (true, true, false),
        RootRequest::LaunchVm { .. } => (true, true, false),
        RootRequest::AttachVm { .. } => (true, true, false),
        RootRequest::ReleaseVm { .. } => (true, true, false),
        RootRequest::Inventory => (true, true, false),
        RootRequest::OpenChannel { .. } => (true, true, false),
        RootRequest::Farewell { .. } => (true, true, false),
        RootRequest::Facilities => (true, true, false),
        RootRequest::Disks => (true, true, false),
        RootRequest::RemoveDisk { .. } => (true, true, false),
        RootRequest::SetPassage { .. } => (true, true, false),
        RootRequest::OpenAddresses { .. } => (true, true, false),
        RootRequest::Traffic { .. } => (true, true, false),
        RootRequest::CheckPorts { .. } => (true, true, false),
        RootRequest::ListenDns => (true, true, false),
        RootRequest::ListenSecrets => (true, true, false),
        RootRequest::OpenDisk { .. } => (true, true, false),
    };
    let permitted = match caller {
        Caller::Owner => owner,
        Caller::Root => root,
    };
    match phase {
        Phase::Fresh => Err(Fault::new(FaultKind::BadRequest, "a conversation begins with a hello")),
        Phase::Foreign(fault) if !foreign => Err(fault.clone()),
        Phase::Agreed | Phase::Foreign(_) if permitted => Ok(()),
        Phase::Agreed | Phase::Foreign(_) => Err(Fault::new(FaultKind::Unauthorized, "only root may ask for this")),
    }
}

/// The descriptors that came with a request must be as many as it says.
pub fn check_files(request: &RootRequest, files: usize) -> Result<(), Fault> {
    let wanted = request.files();
    if files == wanted {
        return Ok(());
    }
    let message = format!("the request comes with {wanted} descriptors, {files} arrived");
    Err(Fault::new(FaultKind::BadRequest, message))
}

/// How a request appears in the log, without its details' details.
pub fn summary(op: OpId, request: &RootRequest) -> String {
    match request {
        RootRequest::Status => format!("[{op}] status"),
        RootRequest::Shutdown => format!("[{op}] shutdown"),
        RootRequest::EnsureNetwork { prefer: Some(subnet) } => format!("[{op}] ensure network {subnet}"),
        RootRequest::EnsureNetwork { prefer: None } => format!("[{op}] ensure network"),
        RootRequest::RemoveNetwork => format!("[{op}] remove network"),
        RootRequest::LaunchVm { id, slot, launch, passage: _, ports: _ } => {
            format!("[{op}] launch VM {id} in slot {slot} ({})", launch.kind().as_str())
        }
        RootRequest::AttachVm { id } => format!("[{op}] attach VM {id}"),
        RootRequest::ReleaseVm { id } => format!("[{op}] release VM {id}"),
        RootRequest::Inventory => format!("[{op}] inventory"),
        RootRequest::OpenChannel { id, channel } => format!("[{op}] open channel {channel} of VM {id}"),
        RootRequest::Farewell { id } => format!("[{op}] farewell of VM {id}"),
        RootRequest::Facilities => format!("[{op}] facilities"),
        RootRequest::Disks => format!("[{op}] disks"),
        RootRequest::RemoveDisk { id } => format!("[{op}] remove the disk of VM {id}"),
        RootRequest::SetPassage { id, .. } => format!("[{op}] set where VM {id} may go"),
        RootRequest::OpenAddresses { id, openings } => {
            format!("[{op}] open {} addresses to VM {id}", openings.len())
        }
        RootRequest::Traffic { id } => format!("[{op}] traffic of VM {id}"),
        RootRequest::CheckPorts { ports } => format!("[{op}] check {} ports", ports.len()),
        RootRequest::ListenDns => format!("[{op}] listen for DNS"),
        RootRequest::ListenSecrets => format!("[{op}] listen for requests with secrets"),
        RootRequest::OpenDisk { id } => format!("[{op}] open the disk of VM {id}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::egress::Passage;
    use crate::model::launch::{FakeLaunch, Launch};
    use crate::model::{Slot, VmId};

    fn all() -> Vec<RootRequest> {
        let id = VmId::from_random(1);
        let slot = Slot::new(1).expect("a slot");
        let launch = Launch::Fake(FakeLaunch::default());
        vec![
            RootRequest::Status,
            RootRequest::Shutdown,
            RootRequest::EnsureNetwork { prefer: None },
            RootRequest::RemoveNetwork,
            RootRequest::LaunchVm { id: id.clone(), slot, launch, passage: Passage::default(), ports: vec![] },
            RootRequest::AttachVm { id: id.clone() },
            RootRequest::ReleaseVm { id: id.clone() },
            RootRequest::OpenChannel { id: id.clone(), channel: 0 },
            RootRequest::Farewell { id: id.clone() },
            RootRequest::RemoveDisk { id: id.clone() },
            RootRequest::SetPassage { id: id.clone(), passage: Passage::default() },
            RootRequest::OpenAddresses { id: id.clone(), openings: vec![] },
            RootRequest::OpenDisk { id: id.clone() },
            RootRequest::Traffic { id },
            RootRequest::CheckPorts { ports: vec![] },
            RootRequest::ListenDns,
            RootRequest::ListenSecrets,
            RootRequest::Facilities,
            RootRequest::Disks,
            RootRequest::Inventory,
        ]
    }

    #[test]
    fn only_the_owner_and_root_are_heard() {
        assert_eq!(caller(0, 1000), Some(Caller::Root));
        assert_eq!(caller(1000, 1000), Some(Caller::Owner));
        assert_eq!(caller(0, 0), Some(Caller::Root));
        for uid in [1, 999, 1001, 65_534, u32::MAX, 1_900_000_001] {
            assert_eq!(caller(uid, 1000), None);
        }
    }

    #[test]
    fn nothing_is_asked_before_the_hello() {
        for request in all() {
            let fault = check(Caller::Root, &Phase::Fresh, &request).expect_err("refused");
            assert_eq!(fault.kind, FaultKind::BadRequest);
        }
    }

    #[test]
    fn another_protocol_gets_the_status_and_nothing_else() {
        let phase = Phase::Foreign(Fault::new(FaultKind::BadVersion, "other"));
        for request in all() {
            let verdict = check(Caller::Owner, &phase, &request);
            assert_eq!(verdict.is_ok(), request == RootRequest::Status, "{request:?}");
        }
    }

    #[test]
    fn descriptors_are_counted() {
        for request in all() {
            assert_eq!(check_files(&request, request.files()), Ok(()));
            assert!(check_files(&request, request.files() + 1).is_err());
        }
    }
}
