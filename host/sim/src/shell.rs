//! The modelled daemon shell and guard: they run the core's actions on the simulated machine.

use conclave_core::{Action, ElectionName, Event, OpId, SessionId, Token};

use crate::node::Effect;
use crate::world::{Happening, Micros, World, micros};

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
                // Never earlier than asked, and at the latest 1 ms late: wake-ups are not exact.
                let after = micros(wait) + 1 + self.random.below(1_000);
                self.schedule(n, after, Happening::Tick { due });
            }
        }
    }

    fn run_action(&mut self, n: usize, action: Action) {
        match action {
            Action::Send { op, request, timeout } => {
                self.nodes[n].waiting.insert(op);
                let latency = self.latency(n);
                self.schedule(n, latency, Happening::Arrive { op, request });
                self.schedule(n, micros(timeout), Happening::Timeout { op });
            }
            Action::Watch { after } => self.begin_watch(n, after),
            Action::Session { session } => self.nodes[n].ledger = session,
            Action::Extend { session, deadline } => {
                self.nodes[n].page = Some((session, deadline));
                let left = deadline.since(self.local(n).fast);
                self.schedule(n, micros(left) + 1, Happening::Guard);
            }
            Action::Rank { op, view } => self.ask_policy(n, op, &view),
            Action::Lead { election, token, .. } => {
                let known = self.nodes[n].tokens.entry(election.clone()).or_insert(token);
                *known = token.max(*known);
                let Some((session, _)) = self.nodes[n].page else { return };
                let after = self.worker(n, &election);
                self.schedule(n, after, Happening::Place { election, token, session });
            }
            Action::Withdraw { op, election } => {
                let after = self.worker(n, &election);
                self.schedule(n, after, Happening::Withdraw { op, election });
            }
            Action::StopCheck { op, election } => {
                let stopped = self.random.chance(80);
                if stopped {
                    self.confirm_stopped(n, &election);
                }
                let event = Event::StopChecked { op, stopped };
                self.schedule(n, 5_000, Happening::Deliver(event));
            }
            Action::Follow { .. } | Action::Prepare { .. } => {}
            Action::Notice(notice) => {
                let name = self.nodes[n].name.clone();
                self.notices.push((self.now, name, notice));
            }
            Action::Exit(exit) => {
                assert!(
                    self.nodes[n].effects.values().all(|effect| effect.excused),
                    "seed {}: {} exited with effects in place",
                    self.settings.seed,
                    self.nodes[n].name
                );
                self.end_life(n);
                self.nodes[n].page = None;
                self.nodes[n].exited = Some(exit);
            }
        }
    }

    /// How long until the election's worker has done one more thing: it works in order.
    fn worker(&mut self, n: usize, election: &ElectionName) -> Micros {
        let work = 100 + self.random.below(900);
        let free = self.nodes[n].worker_free.entry(election.clone()).or_insert(self.now);
        *free = (*free).max(self.now) + work;
        *free - self.now
    }

    /// A worker puts an effect in place: the page's session and deadline are the gate.
    pub(crate) fn place(&mut self, n: usize, e: ElectionName, token: Token, session: SessionId) {
        let now = self.local(n).fast;
        let open = self.nodes[n].page.is_some_and(|(on, until)| on == session && now < until);
        if !open || self.nodes[n].effects.get(&e).is_some_and(|effect| effect.token == token) {
            return;
        }
        self.check_placing(n, &e, token);
        let name = self.nodes[n].name.clone();
        self.record.push((self.now, e.clone(), name, true));
        self.nodes[n].effects.insert(e, Effect { token, session, excused: false });
    }

    pub(crate) fn withdraw(&mut self, n: usize, op: OpId, election: &ElectionName) {
        let node = &self.nodes[n];
        let result = if node.broken_disk && node.effects.contains_key(election) {
            Err("input/output error".to_owned())
        } else {
            self.remove_effect(n, election);
            Ok(())
        };
        self.deliver(n, Event::Withdrawn { op, result });
    }

    pub(crate) fn remove_effect(&mut self, n: usize, election: &ElectionName) {
        if self.nodes[n].effects.remove(election).is_some() {
            let name = self.nodes[n].name.clone();
            self.record.push((self.now, election.clone(), name, false));
        }
    }

    /// The guard looks at the page: past the deadline it withdraws, kills a daemon that does not
    /// answer, and starts another.
    pub(crate) fn guard(&mut self, n: usize) {
        let now = self.local(n).fast;
        let Some((_, deadline)) = self.nodes[n].page else { return };
        if now < deadline {
            // Scheduled by the world's clock, which may be ahead of the node's.
            let left = micros(deadline.since(now));
            return self.schedule(n, left + 1, Happening::Guard);
        }
        self.nodes[n].page = None;
        if self.nodes[n].broken_disk {
            for effect in self.nodes[n].effects.values_mut() {
                effect.excused = true;
            }
            return;
        }
        if !self.settings.guards {
            return;
        }
        for election in self.nodes[n].effects.keys().cloned().collect::<Vec<_>>() {
            self.remove_effect(n, &election);
        }
        if self.nodes[n].frozen {
            self.kill_daemon(n);
        } else {
            self.deliver(n, Event::GuardExpired);
        }
    }
}
