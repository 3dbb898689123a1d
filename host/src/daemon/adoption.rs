//! Whether a daemon goes on with the session of the one before, and with which terms.
//!
//! Three witnesses must agree: the page (the session stands, and what is claimed on it), the
//! memory (whose session it is) and the ledger (to which election each claim belongs). Where they
//! do not, nothing is adopted: a fresh start withdraws everything first.

use std::collections::BTreeMap;
use std::path::Path;

use conclave_core::{Adoption, ElectionName, Token};
use conclave_guard::{Clock, Page, PageSession, Reading, SlotId};
use conclave_manifests::{LedgerEntry, SessionMemory};
use tracing::{info, warn};

use crate::daemon::memory::Lineage;

/// A session to go on with.
#[derive(Debug)]
pub(crate) struct Adopted {
    /// For the core.
    pub(crate) adoption: Adoption,
    /// Each term's slots on the page, to be released when the term's effects are withdrawn.
    pub(crate) slots: BTreeMap<ElectionName, Vec<SlotId>>,
}

/// The session to go on with: made by a daemon of this very guard, in this boot, for this node,
/// with the same TTL, and with its deadline still ahead. `placed` is what the ledger says.
pub(crate) fn adopt(
    page: Page,
    memory: Option<&SessionMemory>,
    placed: &[LedgerEntry],
    clock: &Clock,
    lineage: &Lineage,
) -> Option<Adopted> {
    let session = page.session().filter(|session| session.stands(Reading::now()))?;
    let memory = memory.filter(|memory| memory.id == session.id && lineage.made(memory))?;
    let (terms, slots) = terms(page, &session, placed)?;
    info!(session = %session.id, terms = terms.len(), "adopting the session of the daemon before");
    let adoption = Adoption {
        session: session.id,
        nonce: memory.nonce.clone(),
        deadline: clock.to_time(session.deadline),
        terms,
    };
    Some(Adopted { adoption, slots })
}

type Terms = (BTreeMap<ElectionName, Token>, BTreeMap<ElectionName, Vec<SlotId>>);

/// The terms behind the page's claims; `None` when a claim cannot be accounted for.
fn terms(page: Page, session: &PageSession, placed: &[LedgerEntry]) -> Option<Terms> {
    let (mut terms, mut slots) = Terms::default();
    for claim in page.claims() {
        let election = election_of(placed, &claim.dest, claim.token);
        let Some(election) = election.filter(|_| claim.session == session.id) else {
            warn!(path = %claim.dest.display(), token = %claim.token, "the guard watches over a file that the ledger does not name; starting afresh");
            return None;
        };
        terms.insert(election.clone(), claim.token);
        slots.entry(election.clone()).or_insert_with(Vec::new).push(claim.id);
    }
    Some((terms, slots))
}

/// Which election a claim belongs to. Every claim is entered in the ledger first.
fn election_of<'l>(
    placed: &'l [LedgerEntry],
    path: &Path,
    token: Token,
) -> Option<&'l ElectionName> {
    let entry = placed.iter().find(|entry| entry.path == path && entry.token == Some(token))?;
    Some(&entry.election)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_belongs_to_an_election_only_by_path_and_term() {
        let entry = |path: &str, token| {
            serde_json::from_value::<LedgerEntry>(serde_json::json!({
                "path": path,
                "election": "masters",
                "file": {"manifest": "pod"},
                "exclusive": true,
                "token": token,
                "digest": "00",
            }))
        };
        let placed = [entry("/d/a.yaml", 7).unwrap(), entry("/d/b.yaml", 8).unwrap()];
        let masters = ElectionName::from("masters");
        for (path, token, expected) in
            [("/d/a.yaml", 7, Some(&masters)), ("/d/a.yaml", 8, None), ("/d/c.yaml", 7, None)]
        {
            assert_eq!(election_of(&placed, Path::new(path), Token(token)), expected, "{path}");
        }
    }
}
