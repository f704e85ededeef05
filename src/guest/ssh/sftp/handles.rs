//! What a client has open.

use std::collections::BTreeMap;
use std::fs::{File, ReadDir};

/// Most files and folders that are open at once.
const MAX_OPEN: usize = 256;

/// Something open.
#[derive(Debug)]
pub enum Open {
    /// A file.
    File(File),
    /// A folder, whose entries are read once.
    Folder(ReadDir),
}

/// All of it, by numbers that are never given twice.
#[derive(Debug, Default)]
pub struct Handles {
    open: BTreeMap<u32, Open>,
    next: u32,
}

impl Handles {
    /// Keeps it; `None` where too much is open.
    pub fn add(&mut self, open: Open) -> Option<[u8; 4]> {
        if self.open.len() >= MAX_OPEN {
            return None;
        }
        let number = self.next;
        self.next = self.next.checked_add(1)?;
        self.open.insert(number, open);
        Some(number.to_be_bytes())
    }

    /// What `handle` is.
    pub fn get(&mut self, handle: &[u8]) -> Option<&mut Open> {
        self.open.get_mut(&number(handle)?)
    }

    /// The file that `handle` is.
    pub fn file(&mut self, handle: &[u8]) -> Option<&File> {
        match self.get(handle)? {
            Open::File(file) => Some(file),
            Open::Folder(_) => None,
        }
    }

    /// Closes it.
    pub fn remove(&mut self, handle: &[u8]) -> Option<Open> {
        self.open.remove(&number(handle)?)
    }
}

fn number(handle: &[u8]) -> Option<u32> {
    handle.try_into().ok().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_bounded_and_never_come_again() {
        let mut handles = Handles::default();
        let open = || Open::File(File::open("/dev/null").expect("opened"));
        let first = handles.add(open()).expect("kept");
        assert!(handles.file(&first).is_some() && handles.file(b"x").is_none());
        assert!(handles.remove(&first).is_some() && handles.remove(&first).is_none());
        let mut kept = 0;
        while let Some(handle) = handles.add(open()) {
            assert_ne!(handle, first);
            kept += 1;
        }
        assert_eq!(kept, MAX_OPEN);
    }
}
