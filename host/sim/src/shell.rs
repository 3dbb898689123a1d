//! The modelled daemon shell: it runs the core's actions on the simulated machine.

use conclave_core::{Action, Event, Exit, SessionId, Time};

use crate::clock::Micros;
use crate::guard::Guard;
use crate::names;
use crate::node::{Page, RESTART_AFTER};
use crate::world::{Happening, World, micros};

/// How late a daemon's timer may fire.
const WAKES_WITHIN: Micros = 1_000;

impl World {
    pub(crate) fn run_actions(&mut self, n: usize, actions: Vec<Action>) {
        let life = self.nodes[n].life;
        for action in actions {
            if self.nodes[n].life == life {
                self.trace(|world| format!("{} wants {action:?}", world.nodes[n].name));
                self.run_action(n, action);
            }
        }
        let now = self.local(n);
        let Some(core) = &self.nodes[n].core else { return };
        if let Some(wait) = core.next_deadline(now) {
            let due = self.now + micros(wait);
            if self.nodes[n].tick_due.is_none_or(|known| due < known) {
                self.nodes[n].tick_due = Some(due);
                let late = 1 + self.random.below(WAKES_WITHIN);
                self.schedule(n, micros(wait) + late, Happening::Tick { due });
            }
        }
    }

    fn run_action(&mut self, n: usize, action: Action) {
        match action {
            Action::Send { op, request, timeout } => self.send(n, op, request, micros(timeout)),
            Action::Watch { after } => self.begin_watch(n, after),
            Action::Session { session } => self.nodes[n].ledger = session,
            Action::Extend { session, deadline } => self.extend(n, session, deadline),
            Action::Rank { op, view } => self.ask_policy(n, op, &view),
            Action::Lead { election, token, .. } => {
                let known = self.nodes[n].tokens.entry(election.clone()).or_insert(token);
                *known = token.max(*known);
                let Some(session) = self.nodes[n].page.map(|page| page.session) else { return };
                let e = names::position(election.as_str());
                self.nodes[n].files[e].wanted = Some((token, session));
                let after = self.worker(n, e);
                self.schedule(n, after, Happening::Place { e, token, session });
            }
            Action::Withdraw { op, election } => {
                let e = names::position(election.as_str());
                self.nodes[n].files[e].wanted = None;
                let after = self.worker(n, e);
                self.schedule(n, after, Happening::Withdraw { op, e });
            }
            Action::StopCheck { op, election } => {
                let stopped = self.random.chance(80);
                if stopped {
                    self.checker.stopped(n, names::position(election.as_str()));
                }
                let event = Event::StopChecked { op, stopped };
                self.schedule(n, 5_000, Happening::Deliver(Box::new(event)));
            }
            Action::Follow { .. } | Action::Prepare { .. } => {}
            Action::Notice(notice) => self.coverage.noticed(&notice),
            Action::Exit(exit) => self.exit(n, exit),
        }
    }

    /// The page's deadline moves on, unless the guard has marked it.
    fn extend(&mut self, n: usize, session: SessionId, deadline: Time) {
        match &mut self.nodes[n].page {
            Some(page) if page.session == session && page.expired => {
                return self.deliver(n, Event::GuardExpired);
            }
            Some(page) if page.session == session => page.deadline = deadline,
            page => *page = Some(Page { session, deadline, expired: false }),
        }
        self.arm_guard(n, deadline);
    }

    /// The daemon's process ends, and with it its guard's; but another guard starts a pair.
    fn exit(&mut self, n: usize, exit: Exit) {
        let left = self.nodes[n].effects.iter().any(Option::is_some);
        assert!(!left, "seed {}: n{n} exited with effects in place", self.settings.seed);
        self.coverage.exited(&exit);
        self.end_life(n);
        self.nodes[n].page = None;
        if std::mem::take(&mut self.nodes[n].another_guards) {
            return self.schedule(n, RESTART_AFTER, Happening::Restart);
        }
        self.nodes[n].exited = Some(exit);
        if self.nodes[n].guard == Guard::Runs {
            self.nodes[n].guard = Guard::Dead;
            self.judge_helplessness(n);
        }
    }
}
