//! What an earlier life of a node left in its state directory, damaged in any way: the ledger,
//! the memory, a role file.

use std::fs;
use std::path::Path;

use conclave_core::ElectionName;
use conclave_manifests::{
    LEDGER_FILE, Ledger, LedgerError, MEMORY_FILE, Memory, MemoryError, RoleRecord,
};

/// Takes bytes for each of the files.
pub fn run(bytes: &[u8]) {
    let directory = crate::scratch();
    ledger(directory.path(), bytes);
    memory(directory.path(), bytes);
    role(bytes);
}

/// A ledger is understood, or refused because it is newer, or kept as it was; never lost.
fn ledger(directory: &Path, bytes: &[u8]) {
    let file = directory.join(LEDGER_FILE);
    fs::write(&file, bytes).expect("room for a ledger");
    let written = || fs::read(&file).expect("the ledger is still there");
    match Ledger::open(directory) {
        Ok((ledger, None)) => {
            assert_eq!(written(), bytes);
            let entries = ledger.entries();
            // What it says comes back when it is written anew.
            ledger.forget(&[]).expect("a directory that can be written to");
            ledger.record(entries.clone()).expect("its own entries");
            drop(ledger);
            let (again, damage) = Ledger::open(directory).expect("its own ledger");
            assert_eq!((again.entries(), damage), (entries, None));
        }
        Ok((ledger, Some(damage))) => {
            assert!(ledger.entries().is_empty() && !damage.reason.is_empty());
            assert_eq!(fs::read(&damage.kept).expect("what was put away"), bytes);
        }
        Err(error @ LedgerError::Newer { .. }) => {
            assert!(crate::told(&error).contains(LEDGER_FILE));
            assert_eq!(written(), bytes);
        }
        Err(error) => panic!("{}", crate::told(&error)),
    }
}

/// A memory is understood, or refused and left where it is.
fn memory(directory: &Path, bytes: &[u8]) {
    let file = directory.join(MEMORY_FILE);
    fs::write(&file, bytes).expect("room for a memory");
    match Memory::load(directory) {
        Ok(memory) => {
            memory.store(directory).expect("a directory that can be written to");
            assert_eq!(Memory::load(directory).expect("its own memory"), memory);
        }
        Err(error @ MemoryError::Damaged { .. }) => {
            assert!(crate::told(&error).contains(MEMORY_FILE));
            assert_eq!(fs::read(&file).expect("the memory is still there"), bytes);
        }
        Err(error) => panic!("{}", crate::told(&error)),
    }
}

/// Only this election's role file is taken for one, and it says the same when written anew.
fn role(bytes: &[u8]) {
    let election = ElectionName::from("masters");
    if let Some(record) = RoleRecord::from_json(bytes, &election) {
        assert_eq!(record.election, election);
        assert_eq!(RoleRecord::from_json(&record.to_json(), &election), Some(record));
    }
}
