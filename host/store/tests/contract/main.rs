//! The contract that every store keeps, as cases that run against each of them: the embedded
//! one, and real etcd servers of both supported versions.

mod batches;
mod embedded;
mod etcd;
mod foreign;
mod listing;
mod rejected;
mod scene;
mod sessions;
mod terms;
mod watching;
mod world;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use conclave_tests::etcd::Version;
use scene::Scene;
use tokio::task::JoinSet;
use world::World;

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;
type Case = (&'static str, fn(Scene) -> Running);

/// Lists async functions as cases under their names.
macro_rules! cases {
    ($($module:ident :: $case:ident),* $(,)?) => {
        &[$((concat!(stringify!($module), "::", stringify!($case)), |scene| Box::pin($module::$case(scene)))),*]
    };
}

const CASES: &[Case] = cases![
    sessions::a_name_is_claimed_once,
    sessions::beats_go_with_the_session_that_was_created,
    sessions::a_session_is_ended_only_as_it_was_seen,
    sessions::a_candidacy_needs_its_session,
    terms::a_vacant_election_is_taken,
    terms::a_silent_term_is_taken_over,
    terms::the_term_of_an_ended_session_is_taken_over,
    terms::a_term_is_only_ended_for_those_who_wait,
    terms::a_term_is_handed_over,
    terms::a_term_is_resigned,
    terms::whoever_touches_a_term_sees_its_rivals,
    terms::rewriting_voids_what_was_written_before,
    terms::history_is_trimmed_with_the_end_of_a_term,
    terms::of_many_who_reach_for_a_term_one_gets_it,
    batches::a_batch_of_terms_is_taken_over,
    batches::a_batch_is_applied_wholly_or_not_at_all,
    batches::a_batch_of_readings_reads_at_one_revision,
    rejected::takes,
    rejected::takeovers,
    rejected::handovers,
    rejected::resignations_and_rewrites,
    listing::everything_is_listed_at_one_revision,
    listing::many_keys_are_listed,
    listing::operators_set_and_clear_their_intents,
    listing::a_pause_ends_only_if_it_is_the_one_that_was_seen,
    listing::revisions_only_grow_and_the_store_stays_itself,
    listing::the_store_is_measured,
    listing::what_is_too_large_is_refused_unsent,
    foreign::garbage_is_reported_as_such,
    foreign::sibling_names_never_meet,
    foreign::a_foreign_leader_key_holds_the_election,
    foreign::strays_in_history_can_be_learnt,
    watching::changes_come_in_order_and_once,
    watching::a_watch_resumes_where_a_listing_was,
    watching::other_clusters_are_not_heard,
    watching::nothing_is_missed_under_load,
];

/// What would disturb the other cases in the same store.
const DISTURBING: &[Case] = cases![watching::a_compacted_start_is_broken];

/// Runs every case in a cluster of its own, and names those that fail.
async fn keeps_the_contract(world: Arc<dyn World>) {
    run(&world, CASES).await;
    run(&world, DISTURBING).await;
}

async fn run(world: &Arc<dyn World>, cases: &[Case]) {
    let mut running = JoinSet::new();
    for &(name, case) in cases {
        let scene = Scene::open(Arc::clone(world), name).await;
        let handle = tokio::spawn(case(scene));
        running.spawn(async move { (name, handle.await) });
    }
    let mut failed = Vec::new();
    while let Some(ended) = running.join_next().await {
        let (name, result) = ended.expect("waiting for a case does not fail");
        if result.is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "these cases failed, see their panics above: {failed:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_keeps_the_contract() {
    keeps_the_contract(Arc::new(world::Embedded::new())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_3_4_keeps_the_contract() {
    keeps_the_contract(Arc::new(world::EtcdServer::start(Version::V3_4).await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_3_5_keeps_the_contract() {
    keeps_the_contract(Arc::new(world::EtcdServer::start(Version::V3_5).await)).await;
}
