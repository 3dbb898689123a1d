//! What a node says of itself over HTTP: true within the deadline, whatever happens around it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::Context;
use conclave_tests::answering::{Answering, NAMES};
use conclave_tests::http::ask;
use conclave_tests::node::ELECTION;
use conclave_tests::process::{Signal, send};
use conclave_tests::proxy::Mode;
use conclave_tests::{Outcome, PATIENCE, eventually};
use serde_json::Value;

fn leader_path() -> String {
    format!("/leader/{ELECTION}")
}

#[test]
fn exactly_the_leader_says_that_it_leads_through_a_handover() -> Outcome {
    let answering = Answering::start("10s")?;
    let leads =
        |name: &str| answering.get(name, &leader_path()).is_ok_and(|(status, _)| status == 200);
    let leader = answering.cluster.leader()?;
    for name in NAMES {
        assert_eq!(leads(name), name == leader, "{name}");
        let expected = if name == leader { 503 } else { 200 };
        assert_eq!(answering.get(name, &format!("/standby/{ELECTION}"))?.0, expected, "{name}");
        assert_eq!(answering.get(name, &format!("/candidate/{ELECTION}"))?.0, 200, "{name}");
        assert_eq!(answering.get(name, "/livez")?.0, 200);
    }
    for (method, path, expected) in [
        ("HEAD", leader_path(), 200),
        ("OPTIONS", leader_path(), 200),
        ("POST", leader_path(), 405),
        ("GET", "/leader/nothing".to_owned(), 404),
        ("GET", "/nowhere".to_owned(), 404),
        ("DELETE", "/v1/status".to_owned(), 405),
    ] {
        let (status, body) = ask(answering.at[&leader], method, &path)?;
        assert_eq!(status, expected, "{method} {path}");
        assert!(method != "HEAD" || body.is_empty(), "{body}");
    }

    // Two that say so at once: one before and after the other in between.
    let (over, moved) = (AtomicBool::new(false), answering.cluster.other(&leader));
    thread::scope(|scope| -> Outcome {
        let watching = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for first in NAMES.into_iter().filter(|name| leads(name)) {
                    for second in NAMES.into_iter().filter(|name| *name != first) {
                        assert!(!(leads(second) && leads(first)), "{first} and {second} lead");
                    }
                }
            }
        });
        for to in [&moved, &leader, &moved] {
            answering.cluster.transfer(to)?;
            answering.wait_for(to, &leader_path(), 200)?;
        }
        over.store(true, Ordering::Relaxed);
        watching.join().expect("never two");
        Ok(())
    })?;
    answering.cluster.finish()?;
    Ok(())
}

#[test]
fn who_is_cut_off_stops_saying_that_it_leads_before_another_does() -> Outcome {
    let answering = Answering::start("2s")?;
    let leader = answering.cluster.leader()?;
    answering.cluster.link(&leader, Mode::BlackHole)?;
    answering.wait_for(&leader, &leader_path(), 503)?;
    assert_eq!(answering.get(&leader, "/livez")?.0, 200, "it is alive");
    let next = answering.cluster.leader_after(&leader)?;
    answering.wait_for(&next, &leader_path(), 200)?;
    let (status, why) = answering.get(&leader, "/readyz")?;
    assert_eq!((status, why.as_str()), (503, "it has no session in the store\n"));
    answering.cluster.link(&leader, Mode::Pass)?;
    answering.wait_for(&leader, "/readyz", 200)?;
    answering.wait_for(&leader, &format!("/standby/{ELECTION}"), 200)?;
    answering.cluster.finish()?;
    Ok(())
}

#[test]
fn a_daemon_that_is_replaced_answers_again_and_still_leads() -> Outcome {
    let mut answering = Answering::start("10s")?;
    let leader = answering.cluster.leader()?;
    let daemon = answering.cluster.node(&leader).daemon()?;
    send(daemon, Signal::KILL)?;
    answering.cluster.node(&leader).daemon_replaced(daemon)?;
    answering.wait_for(&leader, &leader_path(), 200)?;
    let (_, status) = answering.get(&leader, "/v1/status")?;
    let status: Value = serde_json::from_str(&status)?;
    let election = &status["elections"][0];
    let token = answering.cluster.term()?.context("a term")?.token;
    assert_eq!(election["role"], "leader", "{status}");
    assert_eq!(election["token"], token, "{status}");
    let path = format!("/v1/elections/{ELECTION}");
    eventually("its manifests to be known in place", PATIENCE, || {
        let (_, election) = answering.get(&leader, &path).ok()?;
        let election: Value = serde_json::from_str(&election).ok()?;
        (election["in_place"] == true).then_some(())
    })?;
    answering.cluster.finish()?;
    Ok(())
}

/// The value of a series, as it stands in the text.
fn series(metrics: &str, start: &str) -> Option<f64> {
    let line = metrics.lines().find(|line| line.starts_with(start))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn metrics_count_what_happened() -> Outcome {
    let answering = Answering::start("10s")?;
    let leader = answering.cluster.leader()?;
    let to = answering.cluster.other(&leader);
    answering.cluster.transfer(&to)?;
    answering.wait_for(&to, &leader_path(), 200)?;
    let of = format!("{{election=\"{ELECTION}\"");
    let (_, before) = answering.get(&leader, "/metrics")?;
    let (_, after) = answering.get(&to, "/metrics")?;
    for (metrics, start, expected) in [
        (&before, format!("conclave_terms_began_total{of}"), 1.0),
        (&before, format!("conclave_terms_ended_total{of},reason=\"transfer\""), 1.0),
        (&before, format!("conclave_manifest_events_total{of},event=\"withdrawn\""), 1.0),
        (&before, format!("conclave_leader{of}"), 0.0),
        (&before, format!("conclave_phase{of},phase=\"standby\""), 1.0),
        (&after, format!("conclave_terms_began_total{of}"), 1.0),
        (&after, format!("conclave_leader{of}"), 1.0),
        (&after, format!("conclave_held{of}"), 1.0),
        (&after, format!("conclave_fit{of}"), 1.0),
        (&after, "conclave_store_answers".to_owned(), 1.0),
        (&before, format!("conclave_handover_seconds_count{of}"), 1.0),
        (&after, format!("conclave_gap_seconds_count{of}"), 1.0),
    ] {
        assert_eq!(series(metrics, &start), Some(expected), "{start}\n{metrics}");
    }
    let token = answering.cluster.term()?.context("a term")?.token;
    assert_eq!(series(&after, &format!("conclave_holder_token{of}")), Some(token as f64));
    eventually("a beat that was timed", PATIENCE, || {
        let (_, metrics) = answering.get(&to, "/metrics").ok()?;
        (series(&metrics, "conclave_beat_seconds_count") > Some(0.0)).then_some(())
    })?;
    eventually("a placing that was timed", PATIENCE, || {
        let (_, metrics) = answering.get(&to, "/metrics").ok()?;
        (series(&metrics, &format!("conclave_placing_seconds_count{of}")) == Some(1.0))
            .then_some(())
    })?;
    let policy = "{policy=\"cold-standby\",function=\"describe\"}";
    for (metrics, series_of) in
        [(&before, "policy_call_seconds_count"), (&before, "policy_fuel_total")]
    {
        assert!(series(metrics, &format!("conclave_{series_of}{policy}")) > Some(0.0), "{metrics}");
    }
    assert!(series(&after, "conclave_session_valid_seconds") > Some(0.0), "{after}");
    assert!(after.ends_with("# EOF\n"), "{after}");
    answering.cluster.finish()?;
    Ok(())
}
