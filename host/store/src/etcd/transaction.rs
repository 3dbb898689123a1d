//! Plans as etcd's transactions and ranges, and the answers as entries.

use conclave_core::{Outcome, Revision};
use etcd_client::{
    Compare, CompareOp, Error, GetOptions, KeyValue, KvClient, ResponseHeader, SortOrder,
    SortTarget, Txn, TxnOp, TxnOpResponse,
};

use crate::keys::{Keys, Range};
use crate::plan::{self, Change, Condition, Plan, Reading, Row, Transaction};
use crate::store::Reply;

/// How many keys one answer of a listing carries.
const PAGE: i64 = 1_000;

/// Runs a plan.
pub(super) async fn run(kv: &mut KvClient, keys: &Keys, plan: &Plan) -> Result<Reply, Error> {
    match plan {
        Plan::Read(range) => list(kv, keys, range).await,
        Plan::Write(transaction) => commit(kv, keys, transaction).await,
    }
}

/// Reads a range page by page, all at the revision of the first, which is linearizable.
async fn list(kv: &mut KvClient, keys: &Keys, range: &Range) -> Result<Reply, Error> {
    let page = || GetOptions::new().with_range(range.end.clone()).with_limit(PAGE);
    let mut answer = kv.get(range.start.clone(), Some(page())).await?;
    let (cluster, at) = place(answer.header())?;
    let revision = i64::try_from(at).unwrap_or(i64::MAX);
    let mut seen = Vec::new();
    loop {
        seen.extend(answer.kvs().iter().filter_map(|kv| row(kv).entry(keys, at)));
        let Some(last) = answer.kvs().last().filter(|_| answer.more()) else { break };
        let next = [last.key(), b"\0"].concat();
        answer = kv.get(next, Some(page().with_revision(revision))).await?;
    }
    Ok(Reply { cluster, outcome: Outcome::Applied { at: Revision(at), seen } })
}

/// The newest revision; an error of code `OutOfRange` when the first is no longer kept.
pub(super) async fn newest_of_all(kv: &mut KvClient, keys: &Keys) -> Result<u64, Error> {
    let first = GetOptions::new().with_revision(1).with_keys_only();
    let answer = kv.get(keys.scratch(), Some(first)).await?;
    place(answer.header()).map(|(_, newest)| newest)
}

async fn commit(kv: &mut KvClient, keys: &Keys, plan: &Transaction) -> Result<Reply, Error> {
    let (applied, rejected) = (plan.readings_when_applied(), plan.readings_when_rejected());
    let changes = plan.changes.iter().map(change);
    let txn = Txn::new()
        .when(plan.conditions.iter().map(compare).collect::<Vec<_>>())
        .and_then(changes.chain(applied.iter().map(reading)).collect::<Vec<_>>())
        .or_else(rejected.iter().map(reading).collect::<Vec<_>>());
    let answer = kv.txn(txn).await?;
    let (cluster, at) = place(answer.header())?;
    let found: Vec<_> = answer
        .op_responses()
        .iter()
        .filter_map(|response| match response {
            TxnOpResponse::Get(get) => Some(get.kvs().iter().map(row).collect()),
            _ => None,
        })
        .collect();
    let outcome = if answer.succeeded() {
        let seen = plan::report(keys, at, &applied, &found, plan.deleted());
        Outcome::Applied { at: Revision(at), seen }
    } else {
        let seen = plan::report(keys, at, &rejected, &found, std::iter::empty());
        Outcome::Rejected { at: Revision(at), seen }
    };
    Ok(Reply { cluster, outcome })
}

fn compare(condition: &Condition) -> Compare {
    let create = |key: &[u8], op, revision| Compare::create_revision(key, op, signed(revision));
    let modified = |key: &[u8], op, revision| Compare::mod_revision(key, op, signed(revision));
    match condition {
        Condition::Created { key, at } => create(key, CompareOp::Equal, *at),
        Condition::CreatedElse { key, than } => create(key, CompareOp::NotEqual, *than),
        Condition::Modified { key, at } => modified(key, CompareOp::Equal, *at),
        // etcd compares every key in the range; where there is none, revisions of 0.
        Condition::Vacant { range } => {
            create(&range.start, CompareOp::Equal, 0).with_range(range.end.clone())
        }
        Condition::NoneCreatedAfter { range, revision } => {
            let above = revision.saturating_add(1);
            create(&range.start, CompareOp::Less, above).with_range(range.end.clone())
        }
        Condition::NoneModifiedAfter { range, revision } => {
            let above = revision.saturating_add(1);
            modified(&range.start, CompareOp::Less, above).with_range(range.end.clone())
        }
    }
}

fn change(change: &Change) -> TxnOp {
    match change {
        Change::Put { key, value } => TxnOp::put(key.clone(), value.clone(), None),
        Change::Delete { key } => TxnOp::delete(key.clone(), None),
    }
}

fn reading(reading: &Reading) -> TxnOp {
    let within = |range: &Range| GetOptions::new().with_range(range.end.clone());
    match reading {
        Reading::Key(key) => TxnOp::get(key.clone(), None),
        Reading::Range(range) => TxnOp::get(range.start.clone(), Some(within(range))),
        Reading::Newest(range) => {
            let newest = within(range).with_sort(SortTarget::Mod, SortOrder::Descend).with_limit(1);
            TxnOp::get(range.start.clone(), Some(newest))
        }
    }
}

/// A key as etcd has it. Its revisions are never negative.
pub(super) fn row(kv: &KeyValue) -> Row {
    Row {
        key: kv.key().to_vec(),
        create: kv.create_revision().unsigned_abs(),
        modified: kv.mod_revision().unsigned_abs(),
        leased: kv.lease() != 0,
        value: kv.value().to_vec(),
    }
}

/// The cluster and the revision that an answer comes from.
pub(super) fn place(header: Option<&ResponseHeader>) -> Result<(u64, u64), Error> {
    let header = header.ok_or_else(|| Error::Internal("an answer without a header".to_owned()))?;
    Ok((header.cluster_id(), header.revision().unsigned_abs()))
}

fn signed(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}
