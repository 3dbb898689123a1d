//! Evaluates a plan in one SQLite transaction, with etcd's meaning of revisions: a key's create
//! revision is that of its first write since it was last absent.

use std::time::Instant;

use conclave_core::{Outcome, Revision};
use rusqlite::{Connection, OptionalExtension, Row as SqlRow, TransactionBehavior};

use super::database::Database;
use crate::error::StoreError;
use crate::keys::Range;
use crate::plan::{self, Change, Condition, Plan, Reading, Row, Transaction};
use crate::store::Reply;

impl Database {
    /// Runs a plan, waiting for other writers until `deadline`.
    pub(super) fn run(&mut self, plan: &Plan, deadline: Instant) -> Result<Reply, StoreError> {
        self.files().check()?;
        let reply = match plan {
            Plan::Read(range) => self.read(range, deadline),
            Plan::Write(transaction) => self.write(transaction, deadline),
        }?;
        // Files that went while it was committed may have taken the commit with them.
        self.files().check()?;
        Ok(reply)
    }

    fn read(&mut self, range: &Range, deadline: Instant) -> Result<Reply, StoreError> {
        let (path, keys) = (self.path().to_owned(), self.keys.clone());
        let (txn, head) = self.begin(TransactionBehavior::Deferred, deadline)?;
        let rows = rows(&txn, range).map_err(Database::error(&path))?;
        let at = head.revision;
        let seen = rows.iter().filter_map(|row| row.entry(&keys, at)).collect();
        Ok(Reply { cluster: head.cluster, outcome: Outcome::Applied { at: Revision(at), seen } })
    }

    fn write(&mut self, plan: &Transaction, deadline: Instant) -> Result<Reply, StoreError> {
        let (path, keys, remember) = (self.path().to_owned(), self.keys.clone(), self.remember);
        let failed = Database::error(&path);
        let (txn, head) = self.begin(TransactionBehavior::Immediate, deadline)?;
        if !holds_all(&txn, &plan.conditions).map_err(&failed)? {
            let readings = plan.readings_when_rejected();
            let found = read_all(&txn, &readings).map_err(&failed)?;
            let at = head.revision;
            let seen = plan::report(&keys, at, &readings, &found, std::iter::empty());
            let outcome = Outcome::Rejected { at: Revision(at), seen };
            return Ok(Reply { cluster: head.cluster, outcome });
        }
        let at = apply(&txn, &plan.changes, head.revision, remember).map_err(&failed)?;
        let readings = plan.readings_when_applied();
        let found = read_all(&txn, &readings).map_err(&failed)?;
        txn.commit().map_err(&failed)?;
        self.ring();
        let seen = plan::report(&keys, at, &readings, &found, plan.deleted());
        Ok(Reply { cluster: head.cluster, outcome: Outcome::Applied { at: Revision(at), seen } })
    }
}

fn holds_all(txn: &Connection, conditions: &[Condition]) -> rusqlite::Result<bool> {
    for condition in conditions {
        if !holds(txn, condition)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn holds(txn: &Connection, condition: &Condition) -> rusqlite::Result<bool> {
    let none = |condition: &str, range: &Range, revision: u64| {
        let sql = format!(
            "SELECT NOT EXISTS (SELECT 1 FROM entry
             WHERE key >= ?1 AND key < ?2 AND created > 0 AND {condition} > ?3)"
        );
        txn.query_row(&sql, (&range.start, &range.end, signed(revision)), |row| row.get(0))
    };
    match condition {
        Condition::Created { key, at } => Ok(revisions(txn, key)?.0 == *at),
        Condition::CreatedElse { key, than } => Ok(revisions(txn, key)?.0 != *than),
        Condition::Modified { key, at } => Ok(revisions(txn, key)?.1 == *at),
        Condition::Vacant { range } => none("created", range, 0),
        Condition::NoneCreatedAfter { range, revision } => none("created", range, *revision),
        Condition::NoneModifiedAfter { range, revision } => none("modified", range, *revision),
    }
}

/// The create and mod revision of a key, 0 where there is none.
fn revisions(txn: &Connection, key: &[u8]) -> rusqlite::Result<(u64, u64)> {
    let sql = "SELECT created, modified FROM entry WHERE key = ?1 AND created > 0";
    let found = txn.query_row(sql, [key], |row| Ok((row.get(0)?, row.get(1)?)));
    Ok(found.optional()?.unwrap_or_default())
}

/// Makes the changes, and returns the revision at which they are made; that of before when
/// nothing changes.
fn apply(
    txn: &Connection,
    changes: &[Change],
    newest: u64,
    remember: u64,
) -> rusqlite::Result<u64> {
    let at = newest + 1;
    let mut changed = 0;
    for change in changes {
        changed += match change {
            Change::Put { key, value } => txn.execute(
                "INSERT INTO entry VALUES (?1, ?2, ?2, ?3) ON CONFLICT (key) DO UPDATE SET
                     created = CASE created WHEN 0 THEN ?2 ELSE created END,
                     modified = ?2, value = ?3",
                (key, at, value),
            ),
            Change::Delete { key } => txn.execute(
                "UPDATE entry SET created = 0, modified = ?2, value = NULL
                 WHERE key = ?1 AND created > 0",
                (key, at),
            ),
        }?;
    }
    if changed == 0 {
        return Ok(newest);
    }
    let forget = at.saturating_sub(remember);
    let forgotten =
        txn.execute("DELETE FROM entry WHERE created = 0 AND modified <= ?1", [forget])?;
    if forgotten > 0 {
        txn.execute("UPDATE store SET compacted = ?1", [forget])?;
    }
    txn.execute("UPDATE store SET revision = ?1", [at])?;
    Ok(at)
}

fn read_all(txn: &Connection, readings: &[Reading]) -> rusqlite::Result<Vec<Vec<Row>>> {
    readings.iter().map(|reading| read(txn, reading)).collect()
}

fn read(txn: &Connection, reading: &Reading) -> rusqlite::Result<Vec<Row>> {
    let found = match reading {
        Reading::Range(range) => return rows(txn, range),
        Reading::Key(key) => txn.query_row(
            "SELECT key, created, modified, value FROM entry WHERE key = ?1 AND created > 0",
            [key],
            row,
        ),
        Reading::Newest(range) => txn.query_row(
            "SELECT key, created, modified, value FROM entry
             WHERE key >= ?1 AND key < ?2 AND created > 0 ORDER BY modified DESC LIMIT 1",
            (&range.start, &range.end),
            row,
        ),
    };
    Ok(found.optional()?.into_iter().collect())
}

fn rows(txn: &Connection, range: &Range) -> rusqlite::Result<Vec<Row>> {
    let mut statement = txn.prepare(
        "SELECT key, created, modified, value FROM entry
         WHERE key >= ?1 AND key < ?2 AND created > 0 ORDER BY key",
    )?;
    let rows = statement.query_map((&range.start, &range.end), row)?;
    rows.collect()
}

/// A row of `key, created, modified, value`; a deleted key's value reads as empty.
pub(super) fn row(row: &SqlRow<'_>) -> rusqlite::Result<Row> {
    Ok(Row {
        key: row.get(0)?,
        create: row.get(1)?,
        modified: row.get(2)?,
        leased: false,
        value: row.get::<_, Option<Vec<u8>>>(3)?.unwrap_or_default(),
    })
}

/// SQLite's integers are signed; no store lives long enough for the difference to matter.
fn signed(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}
