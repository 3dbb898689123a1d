//! Playing a story with one policy: what happens is injected at its time, and who led is recorded.

use std::sync::Arc;
use std::time::Duration;

use conclave_core::{ElectionSettings, Timings};
use conclave_policy::Policy;
use conclave_sim::{Fault, World, WorldSettings};

use super::figures::{Figures, Outcome, Stretch};
use super::policy::AskedPolicy;
use super::scenario::{PolicyChoice, Scenario};
use super::story::{State, Story, Trouble};

/// The store forgets its old revisions so often, as one that is compacted does.
const COMPACT: Duration = Duration::from_secs(300);

/// Plays it.
pub(crate) fn play(
    scenario: &Scenario,
    story: &Story,
    choice: &PolicyChoice,
    policy: Policy,
) -> Outcome {
    let digest = policy.digest().to_string();
    let asked = Arc::new(AskedPolicy::new(scenario, policy, choice.config.clone()));
    let mut world = World::new(settings(scenario, &asked));
    let mut compacted = Duration::ZERO;
    for happening in &story.happenings {
        run_to(&mut world, happening.at, &mut compacted);
        happening.faults.iter().for_each(|fault| world.inject(fault));
    }
    run_to(&mut world, scenario.duration, &mut compacted);
    let stretches = awake(stretches(scenario, &world), &story.troubles);
    let figures = (0..scenario.elections.len())
        .map(|e| Figures::of(scenario, stretches.iter().filter(|it| it.election == e)))
        .collect();
    Outcome { policy: choice.name.clone(), digest, asked: asked.asked(), figures, stretches }
}

fn settings(scenario: &Scenario, asked: &Arc<AskedPolicy>) -> WorldSettings {
    let nodes = scenario.nodes.len();
    let mut timings = Timings::for_ttl(scenario.ttl);
    timings.minimum_term = scenario.minimum_term;
    let election =
        ElectionSettings { takeover_delay: scenario.takeover_delay, ..ElectionSettings::default() };
    WorldSettings {
        elections: vec![election; scenario.elections.len()],
        timings,
        policy: Some(Arc::clone(asked) as Arc<dyn conclave_sim::Policy>),
        labels: scenario.nodes.iter().map(|(_, labels)| labels.clone()).collect(),
        ..WorldSettings::new(scenario.seed, nodes, scenario.elections.len())
    }
}

fn run_to(world: &mut World, at: Duration, compacted: &mut Duration) {
    while world.elapsed() < at {
        let next = (*compacted + COMPACT).min(at);
        world.run(next.saturating_sub(world.elapsed()));
        if next == *compacted + COMPACT {
            world.inject(&Fault::Compact);
            *compacted = next;
        }
    }
}

/// Who led from when to when, in order.
fn stretches(scenario: &Scenario, world: &World) -> Vec<Stretch> {
    let mut open: Vec<Stretch> = Vec::new();
    let mut done: Vec<Stretch> = Vec::new();
    for (at, election, node, appears) in world.recorded() {
        let (Some(e), Some(n)) = (number(election.as_str()), number(node.as_str())) else {
            continue;
        };
        if appears {
            open.push(Stretch { election: e, node: n, from: at, to: scenario.duration });
        } else if let Some(index) = open.iter().position(|it| it.election == e && it.node == n) {
            done.push(Stretch { to: at, ..open.swap_remove(index) });
        }
    }
    done.append(&mut open);
    done.sort_by_key(|it| (it.from, it.election));
    done
}

/// Without the times in which the node stood still: nothing of it runs then, whatever lies on its disk.
fn awake(stretches: Vec<Stretch>, troubles: &[Trouble]) -> Vec<Stretch> {
    let mut all = stretches;
    for trouble in troubles.iter().filter(|trouble| trouble.state == State::Down) {
        let mut left = Vec::new();
        for led in all {
            if led.node != trouble.node || trouble.to <= led.from || led.to <= trouble.from {
                left.push(led);
                continue;
            }
            let before = Stretch { to: trouble.from, ..led.clone() };
            let after = Stretch { from: trouble.to, ..led };
            left.extend([before, after].into_iter().filter(|part| part.from < part.to));
        }
        all = left;
    }
    all.sort_by_key(|it| (it.from, it.election));
    all
}

fn number(name: &str) -> Option<usize> {
    name.get(1..)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stands_still_does_not_lead() {
        let seconds = Duration::from_secs;
        let led =
            |node, from, to| Stretch { election: 0, node, from: seconds(from), to: seconds(to) };
        let still = |node, from, to| Trouble {
            node,
            state: State::Down,
            from: seconds(from),
            to: seconds(to),
        };
        for (troubles, expected) in [
            (vec![still(1, 0, 99)], vec![led(0, 10, 50)]),
            (vec![still(0, 20, 30)], vec![led(0, 10, 20), led(0, 30, 50)]),
            (vec![still(0, 0, 30), still(0, 40, 60)], vec![led(0, 30, 40)]),
            (vec![still(0, 50, 60)], vec![led(0, 10, 50)]),
        ] {
            assert_eq!(awake(vec![led(0, 10, 50)], &troubles), expected, "{troubles:?}");
        }
    }
}
