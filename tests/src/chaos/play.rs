//! Plays a plan in an arena, and keeps the record.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::chaos::arena::{Arena, Design};
use crate::chaos::check::{Evidence, Rule, Violation};
use crate::chaos::fault::{Kind, Target};
use crate::chaos::inject::{Ills, store_answers, supervise};
use crate::chaos::plan::{Plan, Step};
use crate::chaos::record::{Played, Record, Strike};
use crate::chaos::witness::Witness;
use crate::eventually;
use crate::pod::EXCLUSIVE;
use crate::seed::Seed;

/// How long a run waits for a leader, and for everybody to stand as a candidate, while machine and
/// store are quick enough, before it calls that a violation and ends.
const NEVER: Duration = Duration::from_secs(45);

/// How long it waits at most: a machine that is this slow for so long is no scene for a run.
const HOPELESS: Duration = Duration::from_secs(600);

/// How often the run looks whether everything has settled.
const LOOK: Duration = Duration::from_millis(20);

/// After so many steps what was seen so far is judged: a long run ends where it went wrong.
const JUDGED_EVERY: usize = 25;

/// How a run is to be.
pub struct Options {
    /// Where everything random comes from.
    pub seed: Seed,
    /// How many faults.
    pub faults: usize,
    /// Ends the run earlier, after the step that is going on.
    pub no_longer_than: Duration,
    /// The scene.
    pub design: Design,
}

/// A run that was played, with all that is left of its scene.
pub struct Run {
    /// What was done.
    pub record: Record,
    /// The scene.
    pub arena: Arena,
    /// Who saw whether machine and store were quick enough.
    pub witness: Witness,
    /// What was noticed while it went on; the whole is judged afterwards.
    pub violations: Vec<Violation>,
}

impl Options {
    /// The kinds of faults that can be played here.
    pub fn kinds(&self) -> Vec<Kind> {
        let failures = self.design.failures;
        let playable = |kind: &Kind| kind.failure().is_none_or(|way| failures.contains(&way));
        Kind::ALL.into_iter().filter(playable).collect()
    }
}

/// Plays a whole run; `told` hears of every step.
///
/// # Errors
///
/// When the scene cannot be set up or a fault cannot strike or be healed; what Conclave does wrong
/// is no error but a violation.
pub fn play(options: Options, mut told: impl FnMut(&Record, &Step)) -> Result<Run> {
    let began = Instant::now();
    let kinds = options.kinds();
    let arena = Arena::start(&options.design).context("set the scene")?;
    // What takes longer than a node waits for an answer.
    let witness = Witness::start(&arena.cluster.etcd, options.design.ttl / 5);
    let mut run = Run { record: Record::default(), arena, witness, violations: Vec::new() };
    let mut plan = Plan::new(options.seed, &kinds, options.design.nodes, options.design.ttl);
    run.settle(Instant::now());
    while run.violations.is_empty()
        && run.record.strikes.len() < options.faults
        && began.elapsed() < options.no_longer_than
    {
        let step = plan.step(options.faults - run.record.strikes.len());
        run.step(&step)?;
        told(&run.record, &step);
        if run.record.steps.len().is_multiple_of(JUDGED_EVERY) {
            run.judge(options.design.ttl);
        }
    }
    Ok(run)
}

impl Run {
    /// Strikes, holds, heals, and waits until everything has settled.
    fn step(&mut self, step: &Step) -> Result<()> {
        std::thread::sleep(step.rest);
        let number = self.record.steps.len();
        let holder = self.arena.leader();
        let struck = Instant::now();
        let mut ills = Ills::default();
        for fault in &step.faults {
            sleep_until(struck + fault.after);
            let (node, holds) = self.target(fault.target, holder.as_deref());
            let at_struck = Instant::now();
            let at = ills
                .strike(&mut self.arena, &mut self.record, fault, node)
                .with_context(|| format!("strike with {fault:?}"))?;
            self.record.strikes.push(Strike {
                fault: *fault,
                step: number,
                at,
                holder: holds,
                struck: at_struck,
                took: Instant::now(),
                healed: None,
            });
        }
        sleep_until(struck + step.hold);
        ills.heal(&mut self.arena, &mut self.record)?;
        let healed = Instant::now();
        let store = store_answers(&self.arena)?;
        let settled = self.settle(healed);
        self.record.steps.push(Played { step: number, struck, healed, store, settled });
        Ok(())
    }

    /// The node's number, and whether it is the one that led.
    fn target(&self, target: Target, holder: Option<&str>) -> (usize, bool) {
        let nodes = &self.arena.cluster.nodes;
        let leads = |node: usize| Some(nodes[node].name()) == holder;
        let holds = (0..nodes.len()).find(|node| leads(*node)).unwrap_or_default();
        let node = match target {
            Target::Holder | Target::Store => holds,
            Target::Standby(number) => (holds + 1 + number % (nodes.len() - 1)) % nodes.len(),
        };
        (node, target != Target::Store && leads(node))
    }

    /// Waits until exactly one node leads, and all have a daemon that beats and stand as
    /// candidates; returns when that was.
    fn settle(&mut self, since: Instant) -> Instant {
        let mut beats = None;
        let what = "one leader and everybody a candidate";
        let outcome = eventually(what, HOPELESS, || {
            std::thread::sleep(LOOK);
            let calm = self.witness.calm_since(since).elapsed();
            if calm > NEVER {
                return Some(Err(anyhow!("{calm:?} without {what}")));
            }
            supervise(&mut self.arena, &mut self.record).ok()?;
            self.arena.leader()?;
            let standing = self.arena.standing()?;
            // A session can outlive its daemon for a while: it has to be seen beating.
            let first = beats.get_or_insert_with(|| standing.clone());
            let beating = standing.iter().all(|(node, beat)| first.get(node) != Some(beat));
            (beating && self.arena.leader().is_some()).then(|| Ok(Instant::now()))
        });
        outcome.flatten().unwrap_or_else(|error| {
            let began = self.arena.cluster.observer.so_far().began();
            self.violations.push(Violation {
                rule: Rule::LeadsAgain,
                at: Some(since.saturating_duration_since(began)),
                what: format!("{error:#}"),
            });
            Instant::now()
        })
    }

    /// Judges what was seen so far.
    fn judge(&mut self, ttl: Duration) {
        let story = self.arena.cluster.observer.so_far();
        let mut record = self.record.clone();
        record.note_disks();
        let evidence = Evidence { story: &story, record: &record, files: &EXCLUSIVE, ttl };
        self.violations.extend(evidence.violations());
    }
}

fn sleep_until(at: Instant) {
    std::thread::sleep(at.saturating_duration_since(Instant::now()));
}
