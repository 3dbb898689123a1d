//! The end of a run: everything that it left is put together and judged.

use std::time::Duration;

use anyhow::Result;

use crate::chaos::arena::{Arena, Remains};
use crate::chaos::availability::{Cost, Span, costs, served};
use crate::chaos::check::{Evidence, Rule, Violation};
use crate::chaos::expiry::{Withdrawal, withdrawals};
use crate::chaos::history::History;
use crate::chaos::orphan::Orphan;
use crate::chaos::play::Run;
use crate::chaos::record::Record;
use crate::cluster::NAME;
use crate::node::{ELECTION, Node};
use crate::pod::EXCLUSIVE;
use crate::process::Signal;
use crate::timeline::Timeline;
use crate::{PATIENCE, etcd};

/// What S7 adds to a TTL for each candidate, for a policy, and for everything else.
const STAGGER: Duration = Duration::from_millis(50);
const POLICY_LIMIT: Duration = Duration::from_millis(100);
const SLACK: Duration = Duration::from_millis(500);

/// A thousandth, by which a clock's rate may be wrong.
const CLOCK_RATE_ERROR: f64 = 0.001;

/// A judged run.
pub struct Verdict {
    /// What was done.
    pub record: Record,
    /// What was seen.
    pub story: Timeline,
    /// What the store says.
    pub history: History,
    /// What was left in place because nobody could take it away.
    pub orphans: Vec<Orphan>,
    /// How nodes withdrew that could not renew their sessions.
    pub withdrawals: Vec<Withdrawal>,
    /// When the machine or the store was too slow for anybody, faults of the store included.
    pub stalls: Vec<Span>,
    /// What each step cost.
    pub costs: Vec<Cost>,
    /// What must not be.
    pub violations: Vec<Violation>,
    /// The nodes, whose directories have their logs.
    pub nodes: Vec<Node>,
}

/// Within which time somebody leads again when all faults have healed and the store answers (S7).
pub fn bound(ttl: Duration, nodes: usize) -> Duration {
    let rates = (1.0 + CLOCK_RATE_ERROR) / (1.0 - CLOCK_RATE_ERROR);
    ttl.mul_f64(rates) + STAGGER * nodes as u32 + POLICY_LIMIT + SLACK
}

/// Ends a run and judges it. `late` is what a leader may need beyond [`bound`]: the time that
/// processes need to start and the machine's own delays.
///
/// # Errors
///
/// When the observer or the store cannot tell everything.
pub fn judge(run: Run, ttl: Duration, late: Duration) -> Result<Verdict> {
    let Run { mut record, mut arena, witness, mut violations } = run;
    let stalls = witness.finish()?;
    record.note_disks();
    if violations.is_empty() {
        violations.extend(end_nodes(&mut arena)?);
    }
    let Remains { story, mut nodes, etcd } = arena.end()?;
    nodes.iter_mut().try_for_each(Node::kill)?;
    let history = read(&etcd)?;
    drop(etcd);
    let evidence = Evidence { story: &story, record: &record, files: &EXCLUSIVE, ttl };
    let orphans = evidence.orphans();
    let costs = costs(&record, &served(&story, &EXCLUSIVE, &orphans), &orphans, &stalls);
    for violation in evidence.violations().into_iter().chain(evidence.against(&history)) {
        if !violations.contains(&violation) {
            violations.push(violation);
        }
    }
    violations.extend(too_late(&costs, &record, &story, bound(ttl, nodes.len()) + late));
    let withdrawals = withdrawals(&story, &EXCLUSIVE, &record, ttl);
    Ok(Verdict { record, story, history, orphans, withdrawals, stalls, costs, violations, nodes })
}

fn read(etcd: &[etcd::Etcd]) -> Result<History> {
    etcd.iter().try_for_each(etcd::Etcd::wait_until_healthy)?;
    History::read(&etcd[0], NAME, ELECTION)
}

/// Steps after which it took longer than this until somebody led.
fn too_late(costs: &[Cost], record: &Record, story: &Timeline, within: Duration) -> Vec<Violation> {
    let late = costs.iter().filter(|cost| cost.recovery > within);
    late.map(|cost| {
        let kinds: Vec<_> =
            record.strikes_of(cost.step).map(|strike| strike.fault.kind.name()).collect();
        let played = record.steps.iter().find(|played| played.step == cost.step);
        Violation {
            rule: Rule::LeadsAgain,
            at: played.map(|played| story.since_start(played.healed)),
            what: format!("nobody led for {:?} after {kinds:?}", cost.recovery),
        }
    })
    .collect()
}

/// Tells every node to end, and waits for that: nothing moves any more.
fn end_nodes(arena: &mut Arena) -> Result<Vec<Violation>> {
    for node in &mut arena.cluster.nodes {
        node.guard()?.signal(Signal::TERM)?;
    }
    let mut violations = Vec::new();
    for node in &mut arena.cluster.nodes {
        let code = node.guard()?.wait(PATIENCE)?.code();
        if code != Some(0) {
            let what = format!("{} ended with {code:?} when it was told to", node.name());
            violations.push(Violation { rule: Rule::LeadsAgain, at: None, what });
        }
    }
    Ok(violations)
}
