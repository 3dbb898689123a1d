//! An election's terms, as its history and its holder tell of them.

use std::collections::BTreeMap;

use conclave_core::record::{EndReason, HistoryRecord};
use conclave_core::{ElectionName, Key, NodeName, Token, Value};
use serde::Serialize;

use super::{Reading, now_unix_ms};

/// A term. Its times are those of the nodes' wall clocks: for people.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Term {
    pub(crate) token: Token,
    pub(crate) node: NodeName,
    pub(crate) from_unix_ms: u64,
    /// `None` while it stands.
    pub(crate) to_unix_ms: Option<u64>,
    pub(crate) length_ms: u64,
    /// Why it ended.
    pub(crate) why: Option<EndReason>,
    /// Whether what it ran is known to have stopped.
    pub(crate) clean: Option<bool>,
    /// Who received it in the same transaction, if anybody.
    pub(crate) handed_to: Option<NodeName>,
    /// How long nobody held the election before; `None` for the first that is known.
    pub(crate) gap_before_ms: Option<u64>,
}

/// All terms that the store still has, the newest last, by election.
pub(crate) fn all_terms(reading: &Reading) -> BTreeMap<ElectionName, Vec<Term>> {
    let mut all: BTreeMap<ElectionName, Vec<Term>> = BTreeMap::new();
    for entry in &reading.entries {
        let Key::History(election, token) = &entry.key else { continue };
        let Some(Value::History(record)) = entry.stored.as_ref().map(|stored| &stored.value) else {
            continue;
        };
        all.entry(election.clone()).or_default().push(ended(*token, record));
    }
    let now = now_unix_ms();
    for election in reading.listing.elections() {
        let terms = all.entry(election.clone()).or_default();
        terms.extend(standing(reading, election, now));
        terms.sort_by_key(|term| term.token);
        find_gaps(terms);
    }
    all
}

fn ended(token: Token, record: &HistoryRecord) -> Term {
    Term {
        token,
        node: record.holder.clone(),
        from_unix_ms: record.from_unix_ms,
        to_unix_ms: Some(record.to_unix_ms),
        length_ms: record.to_unix_ms.saturating_sub(record.from_unix_ms),
        why: Some(record.why),
        clean: Some(record.clean),
        handed_to: record.successor.clone(),
        gap_before_ms: None,
    }
}

fn standing(reading: &Reading, election: &ElectionName, now: u64) -> Option<Term> {
    let holder = reading.listing.holder(election)?;
    let term = holder.term?;
    Some(Term {
        token: holder.token,
        node: term.holder,
        from_unix_ms: term.since_unix_ms,
        to_unix_ms: None,
        length_ms: now.saturating_sub(term.since_unix_ms),
        why: None,
        clean: None,
        handed_to: None,
        gap_before_ms: None,
    })
}

pub(crate) fn find_gaps(terms: &mut [Term]) {
    for at in 1..terms.len() {
        let ended = terms[at - 1].to_unix_ms;
        terms[at].gap_before_ms = ended.map(|ended| terms[at].from_unix_ms.saturating_sub(ended));
    }
}

/// Why a term ended, in words.
pub(crate) fn reason(why: EndReason) -> &'static str {
    match why {
        EndReason::Silent => "its node fell silent",
        EndReason::Stopping => "its node was stopped",
        EndReason::Ranking => "the policy ranked another first",
        EndReason::Transfer => "an operator moved it",
        EndReason::Cordon => "its node was cordoned",
        EndReason::Unfit => "its node became unfit",
        EndReason::Excluded => "the policy excluded its node",
        EndReason::Competitor => "a foreign competitor was next",
        EndReason::Unsettled => "it placed nothing",
        EndReason::Unconfigured => "its node no longer takes part",
    }
}
