//! What can happen next.

use crate::bounds::Bounds;
use crate::machine::{Link, Stage};
use crate::state::State;
use crate::step::Step;

impl State {
    /// Everything that can happen next, in a fixed order: what goes well comes first.
    pub fn steps(&self, bounds: &Bounds) -> impl Iterator<Item = Step> + use<> {
        let mut steps = Vec::new();
        if self.broken.is_none() {
            self.prompt_steps(bounds, &mut steps);
            let calm = steps.is_empty();
            if calm && self.tick < self.end {
                steps.push(Step::Tick);
            }
            self.late_steps(&mut steps);
            if calm {
                self.mending_steps(&mut steps);
            }
            let mut faults = Vec::new();
            self.possible_faults(bounds, calm, &mut faults);
            steps.extend(faults.into_iter().map(Step::Break));
        }
        steps.into_iter()
    }

    /// What happens before any time passes.
    fn prompt_steps(&self, bounds: &Bounds, into: &mut Vec<Step>) {
        for (n, machine) in self.machines.iter().enumerate() {
            let sent = machine.flights.iter().filter(|(_, flight)| flight.stage == Stage::Sent);
            into.extend(sent.map(|(op, _)| Step::Execute(n, *op)));
            if machine.runs() && !machine.hung_worker && !machine.work.is_empty() {
                into.push(Step::Work(n));
            }
            if bounds.guards && machine.is_overdue(self.now(n).fast) {
                into.push(Step::Guard(n));
            }
        }
    }

    /// What may happen at any time because something was delayed, or never.
    fn late_steps(&self, into: &mut Vec<Step>) {
        into.extend((0..self.late.len()).map(Step::ExecuteLate));
        for (n, machine) in self.machines.iter().enumerate() {
            if !machine.runs() {
                continue;
            }
            if machine.link == Link::Works {
                let answered = |stage: &Stage| matches!(stage, Stage::Answered(_));
                let flights = machine.flights.iter().filter(|(_, f)| answered(&f.stage));
                into.extend(flights.map(|(op, _)| Step::Receive(n, *op)));
            }
            if machine.stale_watch.is_some() {
                into.push(Step::WakeWatch(n));
            }
        }
    }

    /// How faults end. When nothing else is under way, lest there be too many orders.
    fn mending_steps(&self, into: &mut Vec<Step>) {
        into.extend((0..self.late.len()).map(Step::DropLate));
        for (n, machine) in self.machines.iter().enumerate() {
            let mut push = |wanted: bool, step: Step| {
                if wanted {
                    into.push(step);
                }
            };
            push(machine.link != Link::Works, Step::Heal(n));
            push(machine.frozen, Step::Thaw(n));
            push(machine.watch.is_some_and(|watch| watch.hung), Step::ReleaseWatch(n));
            push(machine.broken_disk, Step::MendDisk(n));
            push(machine.hung_worker, Step::ReleaseWorker(n));
            push(machine.core.is_none(), Step::Start(n));
        }
        if self.competitor.is_some() {
            into.push(Step::Leave);
        }
    }
}
