//! What was made, written down before it is made: one small record per VM, so that whatever dies,
//! the next start knows what to look for. Names, tap, addresses and uid follow from it.

use std::collections::BTreeMap;
use std::io;

use super::error::{Doing, HelperError, Result};
use super::folder::Folder;
use crate::model::choice::VmmKind;
use crate::model::egress::{NetGrant, Passage};
use crate::model::{ProcessRef, PublishedPort, Slot, VmId};
use crate::os::checksum::fnv1a;
use crate::protocol::frame;

/// Largest record that is read.
const RECORD_LIMIT: u64 = 4096;

/// A record as it lies on the disk; append-only.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
enum Stored {
    V1(RecordV1),
    V2(RecordV2),
    V3(Record),
}

/// What a helper wrote that knew of no secrets. Never changed.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
struct RecordV2 {
    first: RecordV1,
    everywhere: bool,
    names: bool,
    nets: Vec<NetGrant>,
    ports: Vec<PublishedPort>,
}

/// What a helper wrote that knew of no passages. Never changed.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
struct RecordV1 {
    id: VmId,
    slot: Slot,
    kind: VmmKind,
    process: Option<ProcessRef>,
    console: Option<ProcessRef>,
}

impl From<Stored> for Record {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::V3(record) => record,
            Stored::V2(RecordV2 { first, everywhere, names, nets, ports }) => {
                let passage = Passage { everywhere, names, nets, ..Passage::default() };
                Self { passage, ports, is_applied: false, ..Stored::V1(first).into() }
            }
            Stored::V1(RecordV1 { id, slot, kind, process, console }) => Self {
                id,
                slot,
                kind,
                process,
                console,
                passage: Passage::default(),
                ports: Vec::new(),
                is_applied: false,
            },
        }
    }
}

/// What was made for one boot of one VM.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Record {
    /// The VM.
    pub id: VmId,
    /// Its place.
    pub slot: Slot,
    /// Its monitor.
    pub kind: VmmKind,
    /// The monitor's process, once it was started.
    pub process: Option<ProcessRef>,
    /// The process that keeps its output, once it was started.
    pub console: Option<ProcessRef>,
    /// Where its guest may go.
    pub passage: Passage,
    /// Whether rules and connections follow that, as far as is known.
    pub is_applied: bool,
    /// Ports of the host that lead into it.
    pub ports: Vec<PublishedPort>,
}

/// All records.
#[derive(Debug, Default)]
pub struct Ledger {
    records: BTreeMap<VmId, Record>,
}

impl Ledger {
    /// Reads all records; returns beside them the VMs whose record is missing or damaged, and why.
    pub fn read(folder: &Folder) -> Result<(Self, Vec<(VmId, HelperError)>)> {
        let (mut ledger, mut damaged) = (Self::default(), Vec::new());
        for id in folder.vms()? {
            match read_record(folder, &id) {
                Ok(record) => drop(ledger.records.insert(id, record)),
                Err(error) => damaged.push((id, error)),
            }
        }
        Ok((ledger, damaged))
    }

    /// Writes a record; it is on the disk when this returns.
    pub fn write(&mut self, folder: &Folder, record: Record) -> Result<()> {
        folder.ensure_vm(&record.id)?;
        let doing = || format!("write the record of VM {}", record.id);
        let bytes = encode(&record).map_err(io::Error::other).doing(doing())?;
        crate::os::files::write_atomic(&folder.of_vm(&record.id, "record"), &bytes, 0o600).doing(doing())?;
        self.records.insert(record.id.clone(), record);
        Ok(())
    }

    /// Removes a VM's folder and record; done when they are gone.
    pub fn remove(&mut self, folder: &Folder, id: &VmId) -> Result<()> {
        folder.remove_vm(id)?;
        self.records.remove(id);
        Ok(())
    }

    /// The record of one VM.
    pub fn get(&self, id: &VmId) -> Option<&Record> {
        self.records.get(id)
    }

    /// Who is in `slot`.
    pub fn in_slot(&self, slot: Slot) -> Option<&Record> {
        self.records.values().find(|r| r.slot == slot)
    }

    /// All records.
    pub fn all(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }
}

fn read_record(folder: &Folder, id: &VmId) -> Result<Record> {
    let damaged = |why: String| HelperError::Damaged { id: id.clone(), why };
    let bytes = crate::os::files::read_limited(&folder.of_vm(id, "record"), RECORD_LIMIT);
    let record = decode(&bytes.map_err(|e| damaged(e.to_string()))?).map_err(damaged)?;
    if record.id == *id { Ok(record) } else { Err(damaged(format!("it is of VM {}", record.id))) }
}

fn encode(record: &Record) -> Result<Vec<u8>, frame::FrameError> {
    let mut bytes = frame::encode(&Stored::V3(record.clone()))?;
    let sum = fnv1a(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Result<Record, String> {
    let (framed, sum) = bytes.split_last_chunk::<8>().ok_or("it is cut short")?;
    if u64::from_le_bytes(*sum) != fnv1a(framed) {
        return Err("its checksum does not match".into());
    }
    let mut buffer = frame::FrameBuffer::default();
    buffer.push(framed);
    let body = buffer.next_body().map_err(|e| e.to_string())?.ok_or("it is cut short")?;
    buffer.at_end().map_err(|_| "it has bytes behind its end")?;
    frame::decode::<Stored>(&body).map(Record::from).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let process = ProcessRef { pid: 4711, start_time: 99, boot: 7 };
        Record {
            id: VmId::from_random(0x00ab_cdef),
            slot: Slot::new(3).expect("a slot"),
            kind: VmmKind::Qemu,
            process: Some(process),
            console: Some(ProcessRef { pid: 4712, ..process }),
            passage: Passage { everywhere: true, ..Passage::default() },
            is_applied: true,
            ports: vec!["8080:80".parse().expect("a port")],
        }
    }

    #[test]
    fn a_record_survives() {
        assert_eq!(decode(&encode(&record()).expect("encodes")), Ok(record()));
    }

    #[test]
    fn a_record_cut_anywhere_is_damaged() {
        let bytes = encode(&record()).expect("encodes");
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "{length}");
        }
        assert!(decode(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn a_record_with_any_byte_flipped_is_damaged() {
        let bytes = encode(&record()).expect("encodes");
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << bit;
                assert!(decode(&bad).is_err(), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn its_bytes_are_golden_and_those_of_an_older_helper_are_read() {
        let plain = Record { process: None, console: None, ..record() };
        let bytes = encode(&plain).expect("encodes");
        let text: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(text, GOLDEN);
        let second = Record { is_applied: false, ..plain };
        assert_eq!(decode(&bytes_of(GOLDEN_V2)), Ok(second.clone()));
        let first = Record { passage: Passage::default(), ports: Vec::new(), ..second };
        assert_eq!(decode(&bytes_of(GOLDEN_V1)), Ok(first));
    }

    fn bytes_of(hex: &str) -> Vec<u8> {
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("a byte");
        (0..hex.len()).step_by(2).map(byte).collect()
    }

    const GOLDEN: &str = "21000000020c303030303030616263646566030100000100000001017f000001fb901f50003ebf31eb79c81a24";

    const GOLDEN_V2: &str = "1f000000010c30303030303061626364656603010000010000017f000001fb901f500096d58d6719d1d4cf";
    const GOLDEN_V1: &str = "12000000000c303030303030616263646566030100004cc7a74f1147d027";
}
