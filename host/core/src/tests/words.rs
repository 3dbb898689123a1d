//! The tables' words: phrases for requests and actions, and the records that others write.

use std::collections::BTreeMap;

use crate::record::{LeaderRecord, SessionRecord};
use crate::view::{Ranked, Ranking};
use crate::{Action, Exit, Notice, Request, SessionId, Value};

/// Another node's session record.
pub(super) fn session(nonce: &str, beat: u64) -> Value {
    Value::Session(SessionRecord {
        nonce: nonce.into(),
        ttl_ms: 10_000,
        beat,
        age_ms: 0,
        boot_id: String::new(),
        addresses: Vec::new(),
        labels: BTreeMap::new(),
        version: String::new(),
        format: crate::record::FORMAT,
    })
}

/// Another node's term.
pub(super) fn term(holder: &str, session: SessionId) -> LeaderRecord {
    LeaderRecord {
        holder: holder.into(),
        session,
        facts: BTreeMap::new(),
        since_unix_ms: 0,
        delay_ms: 0,
        why: String::new(),
        offer: None,
    }
}

/// A ranking; who is not in it is excluded.
pub(super) fn ranking(order: &[&str]) -> Ranking {
    let ranked = |node: &&str| Ranked { node: (*node).into(), reason: String::new() };
    let left_out = ["a", "b", "c"].into_iter().filter(|node| !order.contains(node));
    Ranking {
        order: order.iter().map(ranked).collect(),
        excluded: left_out.map(|node| ranked(&node)).collect(),
    }
}

/// What a request is called in a table.
pub(super) fn name(request: &Request) -> String {
    match request {
        Request::List => "list".to_owned(),
        Request::ReadLeader { .. } => "read".to_owned(),
        Request::CreateSession { .. } => "create session".to_owned(),
        Request::Beat { .. } => "beat".to_owned(),
        Request::EndSession { node, .. } => format!("end {node}'s session"),
        Request::PutCandidacy { record, .. } if record.accepted.is_some() => "accept".to_owned(),
        Request::PutCandidacy { .. } => "candidacy".to_owned(),
        Request::Take { .. } => "take".to_owned(),
        Request::TakeOver { record: Some(_), .. } => "take over".to_owned(),
        Request::TakeOver { .. } => "clear".to_owned(),
        Request::HandOver { target, .. } => format!("hand over to {}", target.node),
        Request::Resign { .. } => "resign".to_owned(),
        Request::RewriteLeader { record, .. } => match &record.offer {
            Some(offer) => format!("offer to {}", offer.to),
            None => "rewrite".to_owned(),
        },
        Request::Batch(requests) => requests.iter().map(name).collect::<Vec<_>>().join(" and "),
    }
}

/// What an action is called in a table; beats and readings go without saying.
pub(super) fn phrase(action: &Action) -> Option<String> {
    Some(match action {
        Action::Send { request: Request::Beat { .. } | Request::List, .. } => return None,
        Action::Send { request, .. } => name(request),
        Action::Rank { .. } => "rank".to_owned(),
        Action::Prepare { .. } => "prepare".to_owned(),
        Action::Lead { adopted: false, .. } => "lead".to_owned(),
        Action::Lead { adopted: true, .. } => "lead on".to_owned(),
        Action::Follow { holder: None, .. } => "follow nobody".to_owned(),
        Action::Follow { holder: Some((node, _)), .. } => format!("follow {node}"),
        Action::Withdraw { .. } => "withdraw".to_owned(),
        Action::StopCheck { .. } => "check the stop".to_owned(),
        Action::Notice(Notice::SessionLost { .. }) => "session lost".to_owned(),
        Action::Notice(Notice::Stuck { .. }) => "stuck".to_owned(),
        Action::Notice(Notice::PolicyFailed { .. }) => "policy failed".to_owned(),
        Action::Notice(Notice::VersionsDiffer { .. }) => "versions differ".to_owned(),
        Action::Exit(Exit::Stopped) => "exit".to_owned(),
        Action::Exit(Exit::NameTaken { .. }) => "exit: name taken".to_owned(),
        Action::Exit(Exit::StoreWentBack { .. }) => "exit: store went back".to_owned(),
        _ => return None,
    })
}
