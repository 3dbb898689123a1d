//! Batches: several elections' requests in one transaction, all or nothing.

use conclave_core::{ElectionName, Evidence, Key, Request, Revision, Token};

use crate::scene::{
    Candidate, Scene, Term, history_key, is_led_by, leader_key, resign, session_key, take,
};
use crate::terms::take_over;

/// As many elections as the core puts into one batch of takeovers: each of them counts as
/// seven operations, of which etcd takes 128.
const MANY: usize = 18;

/// One node as a candidate in many elections.
async fn candidacies(scene: &Scene, node: &str) -> Vec<Candidate> {
    let session = scene.session(node).await;
    let candidate = |i| Candidate {
        election: ElectionName::new(format!("e{i}")),
        node: node.into(),
        session,
        candidacy: Revision(0),
    };
    let mut candidates: Vec<_> = (0..MANY).map(candidate).collect();
    let request = |candidate: &Candidate| {
        let record = crate::scene::candidacy_record(session);
        let (election, node) = (candidate.election.clone(), candidate.node.clone());
        Request::PutCandidacy { election, node, record }
    };
    let (at, _) = scene.apply(Request::Batch(candidates.iter().map(request).collect())).await;
    candidates.iter_mut().for_each(|candidate| candidate.candidacy = at);
    candidates
}

/// One node that took many elections in one transaction.
async fn terms(scene: &Scene, node: &str) -> Vec<Term> {
    let candidates = candidacies(scene, node).await;
    let takes = candidates.iter().map(|candidate| take(candidate, Revision(0))).collect();
    let (at, seen) = scene.apply(Request::Batch(takes)).await;
    let term = |holder: Candidate| {
        let stored = seen.stored(&leader_key(&holder));
        assert_eq!((stored.create, is_led_by(stored, &holder)), (at, true));
        Term { holder, token: Token(at.0), modified: at }
    };
    candidates.into_iter().map(term).collect()
}

pub(crate) async fn a_batch_of_terms_is_taken_over(scene: Scene) {
    let terms = terms(&scene, "a").await;
    let takers = candidacies(&scene, "b").await;
    let timed = scene.beat("a", terms[0].holder.session, 1).await;
    let requests = takers
        .iter()
        .zip(&terms)
        .map(|(taker, term)| take_over(taker, term, Evidence::Silent(timed)))
        .collect();
    let (at, seen) = scene.apply(Request::Batch(requests)).await;
    let left = scene.everything().await;
    for (taker, term) in takers.iter().zip(&terms) {
        assert_eq!(seen.stored(&leader_key(taker)).create, at);
        assert_eq!(seen.stored(&history_key(term)).create, at);
        assert_eq!(seen.state(&leader_key(&term.holder)), None);
        assert!(left.contains_key(&leader_key(taker)));
    }
    assert_eq!(seen.state(&session_key(&terms[0].holder)), None, "ended once for all of them");
}

pub(crate) async fn a_batch_is_applied_wholly_or_not_at_all(scene: Scene) {
    let terms = terms(&scene, "a").await;
    let mut requests: Vec<_> = terms.iter().map(resign).collect();
    if let Some(Request::Resign { modified, .. }) = requests.last_mut() {
        modified.0 -= 1;
    }
    let seen = scene.reject(Request::Batch(requests.clone())).await;
    for term in &terms {
        assert!(is_led_by(seen.stored(&leader_key(&term.holder)), &term.holder));
    }
    requests.pop();
    let (_, seen) = scene.apply(Request::Batch(requests)).await;
    assert_eq!(seen.state(&leader_key(&terms[0].holder)), None);
    let left = scene.everything().await;
    let kept = left.keys().filter(|key| matches!(key, Key::Leader(..)));
    assert_eq!(kept.collect::<Vec<_>>(), [&leader_key(&terms[MANY - 1].holder)]);
}

pub(crate) async fn a_batch_of_readings_reads_at_one_revision(scene: Scene) {
    let terms = terms(&scene, "a").await;
    let election = |term: &Term| term.holder.election.clone();
    let readings = terms.iter().map(|term| Request::ReadLeader { election: election(term) });
    let vacant = Request::ReadLeader { election: "vacant".into() };
    let (_, seen) = scene.apply(Request::Batch(readings.chain([vacant]).collect())).await;
    assert_eq!(seen.0.len(), terms.len(), "nothing but their leader keys");
    for term in &terms {
        assert_eq!(seen.stored(&leader_key(&term.holder)).create.0, term.token.0);
    }
}
