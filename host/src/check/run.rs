//! Repeats looks on a schedule: fitness checks for ever, a stop check until it holds.

use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use conclave_core::ElectionName;

use super::counter::Counter;
use super::probe::{Look, Looker};
use super::{FitnessCheck, StopCheck};

/// A fitness check's judgement has changed, or stands for the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// For which election it counts.
    pub election: ElectionName,
    /// Its name.
    pub check: String,
    /// Whether it passes now.
    pub passing: bool,
    /// Why not, in a phrase; empty where it passes.
    pub reason: String,
}

/// Fitness checks that are being repeated; they end when this is dropped.
#[derive(Debug)]
pub struct Watch {
    _tasks: JoinSet<()>,
}

/// Repeats fitness checks, each on its own schedule, and reports every change of a judgement to each
/// of the elections that they count for. Each check reports once soon after the start, after its
/// first look.
pub fn watch(
    elections: &[ElectionName],
    checks: &[FitnessCheck],
    reports: &UnboundedSender<Report>,
) -> Watch {
    let mut tasks = JoinSet::new();
    for check in checks {
        tasks.spawn(repeat(elections.to_vec(), check.clone(), reports.clone()));
    }
    Watch { _tasks: tasks }
}

async fn repeat(
    elections: Vec<ElectionName>,
    check: FitnessCheck,
    reports: UnboundedSender<Report>,
) {
    let looker = Looker::new(check.probe);
    let mut counter = Counter::new(check.rise, check.fall);
    let mut ticks = interval(check.interval);
    // A slow look must not be followed by a burst of quick ones.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (good, reason) = match looker.look(check.timeout).await {
            Look::Yes => (true, String::new()),
            Look::No(reason) | Look::Unclear(reason) => (false, reason),
        };
        let Some(passing) = counter.observe(good) else { continue };
        for election in &elections {
            let (election, check, reason) = (election.clone(), check.name.clone(), reason.clone());
            if reports.send(Report { election, check, passing, reason }).is_err() {
                return;
            }
        }
    }
}

/// Waits until a stop check confirms that what it looks at has stopped.
///
/// # Errors
///
/// What the newest look found, when nothing was confirmed within [`StopCheck::within`].
pub async fn check_stopped(check: &StopCheck) -> Result<(), String> {
    let looker = Looker::new(check.probe.clone());
    let end = Instant::now() + check.within;
    let mut ticks = interval(check.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut newest = "it was never looked at".to_owned();
    loop {
        tokio::select! {
            biased;
            () = sleep_until(end) => return Err(newest),
            _ = ticks.tick() => {}
        }
        let left = end.saturating_duration_since(Instant::now());
        match looker.look_for_end(check.timeout.min(left)).await {
            Ok(()) => return Ok(()),
            Err(reason) => newest = reason,
        }
    }
}
