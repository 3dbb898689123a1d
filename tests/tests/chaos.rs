//! A short run of chaos: random faults of every kind against three nodes and three members of
//! etcd. `make chaos` plays long ones.

use std::fs;
use std::time::Duration;

use conclave_tests::chaos::arena::Design;
use conclave_tests::chaos::check::Rule;
use conclave_tests::chaos::play::{Options, play};
use conclave_tests::chaos::verdict::judge;
use conclave_tests::disk::Disk;
use conclave_tests::etcd::Version;
use conclave_tests::pod::SCHEDULER;
use conclave_tests::seed::Seed;
use conclave_tests::{Outcome, pod};

const TTL: Duration = Duration::from_secs(1);

/// What a leader may need beyond the protocol's bound while other suites run beside this one. The
/// bound itself is measured by the long run.
const LATE: Duration = Duration::from_secs(15);

fn options(seed: Seed, faults: usize) -> Options {
    let failures = Disk::possible().unwrap_or_else(|error| {
        println!("without faults of disks: {error:#}");
        &[]
    });
    Options {
        seed,
        faults,
        no_longer_than: Duration::from_secs(30),
        design: Design { nodes: 3, ttl: TTL, version: Version::V3_4, failures },
    }
}

#[test]
fn random_faults_never_make_two_holders() -> Outcome {
    let options = options(Seed::announce("random_faults_never_make_two_holders"), 20);
    let run = play(options, |record, step| {
        let struck = record.strikes.iter().rev().take(step.faults.len()).rev();
        struck.for_each(|strike| println!("{} at {}", strike.fault.kind.name(), strike.at));
    })?;
    let verdict = judge(run, TTL, LATE)?;
    let violations: Vec<String> = verdict.violations.iter().map(ToString::to_string).collect();
    assert!(violations.is_empty(), "{violations:#?}\n{}\n{}", verdict.story, verdict.history);
    assert!(!verdict.record.strikes.is_empty() && !verdict.history.terms.is_empty());
    Ok(())
}

#[test]
fn a_second_holder_is_found() -> Outcome {
    let run = play(options(Seed::announce("a_second_holder_is_found"), 1), |_, _| ())?;
    let holder = run.arena.leader().expect("somebody leads");
    let other = run.arena.cluster.other(&holder);
    let at = run.arena.cluster.nodes.iter().find(|node| node.name() == other).expect("a node");
    let staged = at.destinations().join(".planted");
    fs::write(&staged, pod::manifest("kube-scheduler"))?;
    fs::rename(staged, at.destinations().join(SCHEDULER))?;
    let violations = judge(run, TTL, LATE)?.violations;
    assert!(violations.iter().any(|found| found.rule == Rule::OneHolder), "{violations:?}");
    Ok(())
}
