//! Rows of operations under way: what a crash cut short is known at the next start.

use redb::ReadableTable;

use super::codec::{decode, encode};
use super::{OPERATIONS, Store, StoreError};
use crate::model::OpId;

/// An operation that has begun and not ended.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct OperationRecord {
    /// Its id.
    pub op: OpId,
    /// What it does, to what: `image import debian-bookworm`.
    pub what: String,
    /// Unix seconds.
    pub started_at: u64,
}

#[derive(bincode::Encode, bincode::Decode)]
enum OperationRow {
    V1(OperationRecord),
}

impl Store {
    /// Notes that an operation begins.
    pub fn begin_operation(&self, operation: &OperationRecord) -> Result<(), StoreError> {
        self.write(|tx| {
            let row = encode("operations", &OperationRow::V1(operation.clone()))?;
            tx.open_table(OPERATIONS)?.insert(operation.op.to_string().as_str(), row.as_slice())?;
            Ok(())
        })
    }

    /// Notes that an operation has ended.
    pub fn end_operation(&self, op: OpId) -> Result<(), StoreError> {
        self.write(|tx| {
            tx.open_table(OPERATIONS)?.remove(op.to_string().as_str())?;
            Ok(())
        })
    }

    /// Takes out the operations that an earlier daemon did not end.
    pub fn take_operations(&self) -> Result<Vec<OperationRecord>, StoreError> {
        self.write(|tx| {
            let mut table = tx.open_table(OPERATIONS)?;
            let mut found = Vec::new();
            for row in table.iter()? {
                let (key, value) = row?;
                let OperationRow::V1(operation) = decode("operations", key.value(), value.value())?;
                found.push(operation);
            }
            for operation in &found {
                table.remove(operation.op.to_string().as_str())?;
            }
            Ok(found)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_end_is_found_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("opens");
        let record = |number| OperationRecord { op: OpId::from_random(number), what: "x".into(), started_at: 1 };
        store.begin_operation(&record(1)).expect("written");
        store.begin_operation(&record(2)).expect("written");
        store.end_operation(record(1).op).expect("written");
        assert_eq!(store.take_operations().expect("read"), vec![record(2)]);
        assert!(store.take_operations().expect("read").is_empty());
    }
}
