//! Stories, and when somebody led in them.

use super::*;
use crate::chaos::fault::{Fault, Target};
use Change::{MovedIn, Vanished};

const BOTH: [&str; 2] = ["s", "c"];

struct Scene {
    zero: Instant,
    story: Timeline,
}

impl Scene {
    /// Whole nodes come or go: every change is of both files.
    fn new(changes: &[(u64, &str, Change)]) -> Self {
        let zero = Instant::now();
        let sighting = |(ms, node, change): &(u64, &str, Change), file: &str| Sighting {
            at: zero + Duration::from_millis(*ms),
            node: (*node).to_owned(),
            file: file.to_owned(),
            change: *change,
            term: None,
        };
        let sightings =
            changes.iter().flat_map(|change| BOTH.map(|file| sighting(change, file))).collect();
        Scene { zero, story: Timeline::new(zero, sightings, Vec::new()) }
    }

    fn at(&self, ms: u64) -> Instant {
        self.zero + Duration::from_millis(ms)
    }

    fn orphan(&self, node: &str, cause: Cause, from: u64, able: u64, gone: Option<u64>) -> Orphan {
        let (from, able) = (self.at(from), Some(self.at(able)));
        Orphan { node: node.to_owned(), cause, from, able, gone: gone.map(|ms| self.at(ms)) }
    }

    /// When one led, in milliseconds.
    fn served(&self, orphans: &[Orphan]) -> Vec<(u128, Option<u128>)> {
        let ms = |at: Instant| (at - self.zero).as_millis();
        let spans = served(&self.story, &BOTH, orphans);
        spans.iter().map(|span| (ms(span.from), span.to.map(ms))).collect()
    }
}

#[test]
fn exactly_one_with_everything_leads() {
    let scene = Scene::new(&[
        (10, "a", MovedIn),
        (50, "a", Vanished),
        (60, "b", MovedIn),
        (70, "c", MovedIn),
        (80, "c", Vanished),
    ]);
    assert_eq!(scene.served(&[]), [(10, Some(50)), (60, Some(70)), (80, None)]);
}

#[test]
fn orphans_do_not_lead() {
    let scene = Scene::new(&[(10, "a", MovedIn), (60, "b", MovedIn), (80, "a", Vanished)]);
    let killed = scene.orphan("a", Cause::Killed, 20, 70, Some(80));
    assert_eq!(scene.served(&[killed]), [(10, Some(20)), (60, None)]);
    let frozen = scene.orphan("a", Cause::Frozen, 20, 80, Some(80));
    assert_eq!(scene.served(&[frozen]), [(10, Some(20)), (60, None)]);
    // On a bad disk one may lead, until another does.
    let disk = scene.orphan("a", Cause::Disk, 20, 80, Some(80));
    assert_eq!(scene.served(&[disk]), [(10, None)]);
}

#[test]
fn one_that_wakes_in_time_leads_again() {
    let scene = Scene::new(&[(10, "a", MovedIn)]);
    let frozen = scene.orphan("a", Cause::Frozen, 20, 40, None);
    assert_eq!(scene.served(&[frozen]), [(10, Some(20)), (40, None)]);
}

#[test]
fn a_step_costs_what_nobody_led_for() {
    let scene = Scene::new(&[(0, "a", MovedIn), (300, "a", Vanished), (400, "b", MovedIn)]);
    let spans = served(&scene.story, &BOTH, &[]);
    let step = |struck: u64, healed: u64, settled: u64| {
        let fault = Fault {
            kind: Kind::LinksRefused,
            target: Target::Holder,
            after: Duration::ZERO,
            chance: 0,
        };
        let strike = Strike {
            fault,
            step: 0,
            at: "a".to_owned(),
            holder: true,
            struck: scene.at(struck),
            took: scene.at(struck),
            healed: Some(scene.at(healed)),
        };
        let played = Played {
            step: 0,
            struck: scene.at(struck),
            healed: scene.at(healed),
            store: scene.at(healed),
            settled: scene.at(settled),
        };
        Record { strikes: vec![strike], steps: vec![played], ..Record::default() }
    };
    for (struck, healed, settled, unavailable, gap, recovery) in [
        // The old leader went at 300, the new one came at 400.
        (100, 500, 600, 300, 100, 0),
        (100, 350, 600, 300, 100, 50),
        // Nothing moved in this step.
        (450, 500, 600, 0, 0, 0),
        // It was over before anything moved.
        (100, 150, 200, 0, 0, 0),
    ] {
        let costs = costs(&step(struck, healed, settled), &spans, &[], &[]);
        let ms = Duration::from_millis;
        let cost = Cost {
            kind: Some(Kind::LinksRefused),
            holder: true,
            step: 0,
            unavailable: ms(unavailable),
            gap: ms(gap),
            orphans: 0,
            recovery: ms(recovery),
        };
        assert_eq!(costs, [cost], "{struck} {healed} {settled}");
    }
    // A machine that was too slow until 380 leaves 20 of the 50; one that was later, none.
    for (slow, recovery) in [(340, 50), (380, 20), (450, 0)] {
        let stall = Span { from: scene.at(330), to: Some(scene.at(slow)) };
        let costs = costs(&step(100, 350, 600), &spans, &[], &[stall]);
        assert_eq!(costs[0].recovery, Duration::from_millis(recovery), "{slow}");
    }
}
