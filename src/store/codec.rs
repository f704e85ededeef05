//! Rows and their versions: bincode stays behind this file and `protocol::frame`.

use std::net::Ipv4Addr;

use bincode::{Decode, Encode};

use super::StoreError;
use crate::model::choice::{Accel, VmmKind};
use crate::model::image::{ImageConfig, ImageRecord, KernelRecord};
use crate::model::{
    Egress, ImageName, InitMode, KernelName, Mib, ProcessRef, PublishedPort, Secret, Slot, Variable, VmId, VmName,
    VmRecord, VmSpec, VmState, Workspace,
};

/// Most bytes of a row.
const MAX_ROW: usize = 1 << 20;

const CONFIG: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<MAX_ROW>,
> = bincode::config::standard().with_limit::<MAX_ROW>();

/// A VM's row, by version.
#[derive(Encode, Decode)]
pub(super) enum VmRow {
    V1(VmRecordV1),
    V2(VmRecordV2),
    V3(VmRecordV3),
    V4(VmRecordV4),
    V5(Box<VmRecordV5>),
    V6(Box<VmRecord>),
}

/// What was asked for before `0007-vm-idle-stop`. Never changed.
#[derive(Encode, Decode)]
pub(super) struct VmSpecV4 {
    pub third: VmSpecV3,
    pub environment: Vec<Variable>,
}

/// A VM's row before `0007-vm-idle-stop`. Never changed.
#[derive(Encode, Decode)]
pub(super) struct VmRecordV5 {
    pub id: VmId,
    pub spec: VmSpecV4,
    pub slot: Option<Slot>,
    pub address: Option<Ipv4Addr>,
    pub state: VmState,
    pub reason: Option<String>,
    pub vmm: VmmKind,
    pub accel: Accel,
    pub process: Option<ProcessRef>,
    pub keeper: Option<ProcessRef>,
    pub created_at: u64,
    pub started_at: Option<u64>,
    pub expires_at: Option<u64>,
    pub workspace: Option<Workspace>,
}

/// What was asked for before `0005-vm-workspace`. Never changed.
#[derive(Encode, Decode)]
pub(super) struct VmSpecV3 {
    pub second: VmSpecV2,
    pub secrets: Vec<Secret>,
}

/// A VM's row before `0005-vm-workspace`. Never changed.
#[derive(Encode, Decode)]
pub(super) struct VmRecordV4 {
    pub id: VmId,
    pub spec: VmSpecV3,
    pub slot: Option<Slot>,
    pub address: Option<Ipv4Addr>,
    pub state: VmState,
    pub reason: Option<String>,
    pub vmm: VmmKind,
    pub accel: Accel,
    pub process: Option<ProcessRef>,
    pub keeper: Option<ProcessRef>,
    pub created_at: u64,
    pub started_at: Option<u64>,
    pub expires_at: Option<u64>,
}

/// What was asked for before `0004-vm-secrets`. Never changed.
#[derive(Encode, Decode)]
pub(super) struct VmSpecV2 {
    pub first: VmSpecV1,
    pub egress: Egress,
    pub ports: Vec<PublishedPort>,
}

/// A VM's row before `0004-vm-secrets`. Never changed.
#[derive(Encode, Decode)]
pub(super) struct VmRecordV3 {
    pub id: VmId,
    pub spec: VmSpecV2,
    pub slot: Option<Slot>,
    pub address: Option<Ipv4Addr>,
    pub state: VmState,
    pub reason: Option<String>,
    pub vmm: VmmKind,
    pub accel: Accel,
    pub process: Option<ProcessRef>,
    pub keeper: Option<ProcessRef>,
    pub created_at: u64,
    pub started_at: Option<u64>,
    pub expires_at: Option<u64>,
}

/// What was asked for before `0003-vm-egress`. Never changed.
#[derive(Encode, Decode)]
pub(super) struct VmSpecV1 {
    pub name: VmName,
    pub image: ImageName,
    pub kernel: KernelName,
    pub vcpus: u8,
    pub memory: Mib,
    pub disk: Mib,
    pub init: Option<InitMode>,
}

/// A VM's row before `0003-vm-egress`. Never changed.
#[derive(Encode, Decode)]
pub(super) struct VmRecordV2 {
    pub first: VmRecordV1,
    pub expires_at: Option<u64>,
}

/// A VM's row before `0002-vm-expiry`. Never changed.
#[derive(Encode, Decode)]
pub(super) struct VmRecordV1 {
    pub id: VmId,
    pub spec: VmSpecV1,
    pub slot: Option<Slot>,
    pub address: Option<Ipv4Addr>,
    pub state: VmState,
    pub reason: Option<String>,
    pub vmm: VmmKind,
    pub accel: Accel,
    pub process: Option<ProcessRef>,
    pub keeper: Option<ProcessRef>,
    pub created_at: u64,
    pub started_at: Option<u64>,
}

impl From<VmRow> for VmRecord {
    fn from(row: VmRow) -> Self {
        match row {
            VmRow::V6(vm) => *vm,
            VmRow::V5(old) => Self {
                id: old.id,
                spec: old.spec.into(),
                slot: old.slot,
                address: old.address,
                state: old.state,
                reason: old.reason,
                vmm: old.vmm,
                accel: old.accel,
                process: old.process,
                keeper: old.keeper,
                created_at: old.created_at,
                started_at: old.started_at,
                expires_at: old.expires_at,
                workspace: old.workspace,
            },
            VmRow::V4(old) => Self {
                id: old.id,
                spec: old.spec.into(),
                slot: old.slot,
                address: old.address,
                state: old.state,
                reason: old.reason,
                vmm: old.vmm,
                accel: old.accel,
                process: old.process,
                keeper: old.keeper,
                created_at: old.created_at,
                started_at: old.started_at,
                expires_at: old.expires_at,
                workspace: None,
            },
            VmRow::V3(old) => Self {
                id: old.id,
                spec: old.spec.into(),
                slot: old.slot,
                address: old.address,
                state: old.state,
                reason: old.reason,
                vmm: old.vmm,
                accel: old.accel,
                process: old.process,
                keeper: old.keeper,
                created_at: old.created_at,
                started_at: old.started_at,
                expires_at: old.expires_at,
                workspace: None,
            },
            VmRow::V2(old) => Self { expires_at: old.expires_at, ..VmRow::V1(old.first).into() },
            VmRow::V1(old) => Self {
                id: old.id,
                spec: old.spec.into(),
                slot: old.slot,
                address: old.address,
                state: old.state,
                reason: old.reason,
                vmm: old.vmm,
                accel: old.accel,
                process: old.process,
                keeper: old.keeper,
                created_at: old.created_at,
                started_at: old.started_at,
                expires_at: None,
                workspace: None,
            },
        }
    }
}

impl From<VmSpecV4> for VmSpec {
    fn from(old: VmSpecV4) -> Self {
        Self { environment: old.environment, ..old.third.into() }
    }
}

impl From<VmSpecV3> for VmSpec {
    fn from(old: VmSpecV3) -> Self {
        Self { secrets: old.secrets, ..old.second.into() }
    }
}

impl From<VmSpecV2> for VmSpec {
    fn from(old: VmSpecV2) -> Self {
        Self { egress: old.egress, ports: old.ports, ..old.first.into() }
    }
}

impl From<VmSpecV1> for VmSpec {
    fn from(old: VmSpecV1) -> Self {
        let VmSpecV1 { name, image, kernel, vcpus, memory, disk, init } = old;
        let (egress, ports, secrets, environment) = (Egress::default(), Vec::new(), Vec::new(), Vec::new());
        let idle_stop = None;
        Self { name, image, kernel, vcpus, memory, disk, init, egress, ports, secrets, environment, idle_stop }
    }
}

/// An image's row, by version.
#[derive(Encode, Decode)]
pub(super) enum ImageRow {
    V1(ImageRecordV1),
    V2(ImageRecord),
}

/// An image's row before `0006-image-config`. Never changed.
#[derive(Encode, Decode)]
pub(super) struct ImageRecordV1 {
    pub name: ImageName,
    pub size: Mib,
    pub used_bytes: u64,
    pub digest: String,
    pub source: String,
    pub init: InitMode,
    pub created_at: u64,
}

impl From<ImageRow> for ImageRecord {
    fn from(row: ImageRow) -> Self {
        match row {
            ImageRow::V2(image) => image,
            ImageRow::V1(old) => Self {
                name: old.name,
                size: old.size,
                used_bytes: old.used_bytes,
                digest: old.digest,
                source: old.source,
                init: old.init,
                created_at: old.created_at,
                reference: None,
                config: ImageConfig::default(),
                kernel: None,
                place: None,
            },
        }
    }
}

/// A kernel's row, by version.
#[derive(Encode, Decode)]
pub(super) enum KernelRow {
    V1(KernelRecord),
}

/// A row's bytes.
pub(super) fn encode<T: Encode>(table: &'static str, row: &T) -> Result<Vec<u8>, StoreError> {
    bincode::encode_to_vec(row, CONFIG).map_err(|e| StoreError::Damaged {
        table,
        key: "(new)".into(),
        why: e.to_string(),
    })
}

/// The row in `bytes`, which it must fill.
pub(super) fn decode<T: Decode<()>>(table: &'static str, key: &str, bytes: &[u8]) -> Result<T, StoreError> {
    let damaged = |why: String| StoreError::Damaged { table, key: key.to_owned(), why };
    let (row, used) = bincode::decode_from_slice(bytes, CONFIG).map_err(|e| damaged(e.to_string()))?;
    if used == bytes.len() { Ok(row) } else { Err(damaged(format!("{} bytes too many", bytes.len() - used))) }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::secret::Placeholder;
    use crate::model::workspace::Wanted;

    pub(crate) fn row_of_version_one() -> VmRow {
        VmRow::V1(VmRecordV1 {
            id: VmId::from_random(0x0123_4567_89ab),
            spec: VmSpecV1 {
                name: "box".parse().expect("a name"),
                image: "debian".parse().expect("a name"),
                kernel: "debian".parse().expect("a name"),
                vcpus: 2,
                memory: Mib(512),
                disk: Mib(4096),
                init: None,
            },
            slot: None,
            address: None,
            state: VmState::Created,
            reason: None,
            vmm: VmmKind::Qemu,
            accel: Accel::Tcg,
            process: None,
            keeper: None,
            created_at: 1,
            started_at: None,
        })
    }

    #[test]
    fn the_bytes_of_version_one_are_pinned() {
        let bytes = encode("vms", &row_of_version_one()).expect("encodes");
        let mut expected = vec![0, 12];
        expected.extend(b"0123456789ab");
        expected.extend([3, b'b', b'o', b'x', 6]);
        expected.extend(b"debian\x06debian");
        expected.extend([2, 251, 0, 2, 251, 0, 16, 0, 0, 0, 1, 0, 1, 1, 0, 0, 1, 0]);
        assert_eq!(bytes, expected);
    }

    fn row_of_version_two() -> VmRow {
        let VmRow::V1(first) = row_of_version_one() else { panic!("version one") };
        VmRow::V2(VmRecordV2 { first, expires_at: Some(7) })
    }

    #[test]
    fn version_two_is_version_one_and_an_end() {
        let old = encode("vms", &row_of_version_one()).expect("encodes");
        let bytes = encode("vms", &row_of_version_two()).expect("encodes");
        assert_eq!(bytes, [&[1], &old[1..], &[1, 7]].concat());
        assert_eq!(VmRecord::from(row_of_version_two()).expires_at, Some(7));
    }

    fn row_of_version_three() -> VmRow {
        let VmRow::V1(old) = row_of_version_one() else { panic!("version one") };
        VmRow::V3(VmRecordV3 {
            id: old.id,
            spec: VmSpecV2 {
                first: old.spec,
                egress: Egress { grants: vec!["example.org:443".parse().expect("a grant")], ..Egress::default() },
                ports: vec!["8080:80".parse().expect("a port")],
            },
            slot: old.slot,
            address: old.address,
            state: old.state,
            reason: old.reason,
            vmm: old.vmm,
            accel: old.accel,
            process: old.process,
            keeper: old.keeper,
            created_at: old.created_at,
            started_at: old.started_at,
            expires_at: Some(7),
        })
    }

    /// `row` as bytes, with `inserted` where its specification ends: state and all behind it are 12 bytes.
    fn with_inserted(version: u8, row: &[u8], inserted: &[u8]) -> Vec<u8> {
        let (start, rest) = row[1..].split_at(row.len() - 1 - 12);
        [&[version], start, inserted, rest].concat()
    }

    #[test]
    fn version_three_says_where_a_vm_may_go_and_who_may_come() {
        let bytes = encode("vms", &row_of_version_three()).expect("encodes");
        let before = encode("vms", &row_of_version_two()).expect("encodes");
        // Behind how it starts: reach, one grant, which is a name of eleven letters, and a port; one
        // published port of TCP.
        let egress: &[u8] = b"\x00\x01\x00\x0bexample.org\x01\xfb\xbb\x01\x01\x7f\x00\x00\x01\xfb\x90\x1f\x50\x00";
        assert_eq!(bytes, with_inserted(2, &before, egress));
        let vm = VmRecord::from(row_of_version_three());
        assert_eq!((vm.spec.egress.grants.len(), vm.spec.ports.len(), vm.expires_at), (1, 1, Some(7)));
    }

    fn row_of_version_four() -> VmRow {
        let VmRow::V3(old) = row_of_version_three() else { panic!("version three") };
        let secret = Secret {
            name: "A".parse().expect("a name"),
            placeholder: Placeholder::from_random(7),
            hosts: vec!["a.example:8443".parse().expect("a host")],
        };
        VmRow::V4(VmRecordV4 {
            id: old.id,
            spec: VmSpecV3 { second: old.spec, secrets: vec![secret] },
            slot: old.slot,
            address: old.address,
            state: old.state,
            reason: old.reason,
            vmm: old.vmm,
            accel: old.accel,
            process: old.process,
            keeper: old.keeper,
            created_at: old.created_at,
            started_at: old.started_at,
            expires_at: old.expires_at,
        })
    }

    #[test]
    fn version_four_says_which_secrets_stand_in_the_guest_by_what() {
        let bytes = encode("vms", &row_of_version_four()).expect("encodes");
        let before = encode("vms", &row_of_version_three()).expect("encodes");
        let secrets: &[u8] = b"\x01\x01A\x2ebanger_secret_00000000000000000000000000000007\x01\x0ea.example:8443";
        assert_eq!(bytes, with_inserted(3, &before, secrets));
        assert_eq!(VmRecord::from(row_of_version_four()).spec.secrets.len(), 1);
    }

    fn row_of_version_five() -> VmRow {
        let VmRow::V4(old) = row_of_version_four() else { panic!("version four") };
        let workspace = Workspace {
            folder: "/root/r".parse().expect("a folder"),
            runs_in: "/root/r/s".parse().expect("a folder"),
            source: b"/r".to_vec(),
            head: Some("0".repeat(40).parse().expect("an id")),
            base: None,
            wanted: Wanted { branch: Some("b".into()), include: vec![b"i".to_vec()], ..Wanted::default() },
            has_history: true,
            has_tools: false,
            prepared_at: 9,
            last_exit: Some(3),
        };
        VmRow::V5(Box::new(VmRecordV5 {
            id: old.id,
            spec: VmSpecV4 { third: old.spec, environment: vec!["B=c".parse().expect("a variable")] },
            slot: old.slot,
            address: old.address,
            state: old.state,
            reason: old.reason,
            vmm: old.vmm,
            accel: old.accel,
            process: old.process,
            keeper: old.keeper,
            created_at: old.created_at,
            started_at: old.started_at,
            expires_at: old.expires_at,
            workspace: Some(workspace),
        }))
    }

    /// What version five has behind the specification and what was there before it.
    fn workspace_bytes() -> Vec<u8> {
        let head = "0".repeat(40);
        [
            &b"\x01\x07/root/r\x09/root/r/s\x02/r\x01\x28"[..],
            head.as_bytes(),
            b"\x00",
            b"\x01\x01b\x00\x00\x01\x01i\x00",
            b"\x01\x00\x09\x01\x03",
        ]
        .concat()
    }

    #[test]
    fn version_five_knows_variables_and_the_repository_in_a_vm() {
        let bytes = encode("vms", &row_of_version_five()).expect("encodes");
        let before = encode("vms", &row_of_version_four()).expect("encodes");
        assert_eq!(bytes, [with_inserted(4, &before, b"\x01\x03B=c"), workspace_bytes()].concat());
        let vm = VmRecord::from(row_of_version_five());
        assert_eq!((vm.spec.environment.len(), vm.workspace.is_some(), vm.spec.idle_stop), (1, true, None));
    }

    #[test]
    fn version_six_knows_when_an_idle_vm_is_stopped() {
        let mut vm = VmRecord::from(row_of_version_five());
        vm.spec.idle_stop = Some("30m".parse().expect("a time"));
        let bytes = encode("vms", &VmRow::V6(Box::new(vm.clone()))).expect("encodes");
        let before = encode("vms", &row_of_version_four()).expect("encodes");
        // Half an hour are 1800 seconds, 0x708.
        let inserted = b"\x01\x03B=c\x01\xfb\x08\x07";
        assert_eq!(bytes, [with_inserted(5, &before, inserted), workspace_bytes()].concat());
        assert_eq!(VmRecord::from(decode::<VmRow>("vms", "x", &bytes).expect("decodes")), vm);
    }

    #[test]
    fn every_truncation_and_any_tail_is_refused_without_panic() {
        let bytes = encode("vms", &row_of_version_one()).expect("encodes");
        for length in 0..bytes.len() {
            assert!(decode::<VmRow>("vms", "x", &bytes[..length]).is_err());
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert!(decode::<VmRow>("vms", "x", &longer).is_err());
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0xff;
            // Whatever it decodes to, it must not panic.
            let _ = decode::<VmRow>("vms", "x", &flipped);
        }
    }

    #[test]
    fn an_images_second_version_knows_how_its_programs_run() {
        let old = ImageRecordV1 {
            name: "i".parse().expect("a name"),
            size: Mib(512),
            used_bytes: 7,
            digest: "d".into(),
            source: "s".into(),
            init: InitMode::Minimal,
            created_at: 9,
        };
        let bytes = encode("images", &ImageRow::V1(old)).expect("encodes");
        assert_eq!(bytes, [0, 1, b'i', 251, 0, 2, 7, 1, b'd', 1, b's', 1, 9]);
        let mut image = ImageRecord::from(decode::<ImageRow>("images", "i", &bytes).expect("decodes"));
        image.reference = Some("r".into());
        image.config = ImageConfig { env: vec!["A=b".into()], folder: "/w".into(), ..ImageConfig::default() };
        let mut expected = bytes;
        expected[0] = 1;
        expected.extend([1, 1, b'r', 1, 3, b'A', b'=', b'b', 0, 0, 2, b'/', b'w', 0, 0, 0]);
        assert_eq!(encode("images", &ImageRow::V2(image)).expect("encodes"), expected);
    }
}
