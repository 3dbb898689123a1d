//! What must hold, as seen from outside the cores.

use conclave_core::request::leader_suffix;
use conclave_core::{ElectionName, Exit, Key, SessionId, Token};

use crate::bounds::Bounds;
use crate::faults::FIRST;
use crate::machine::{Page, Watch};
use crate::state::State;

impl State {
    /// S1: nobody has an effect beside another's.
    pub(crate) fn has_one_holder(&self, bounds: &Bounds) -> bool {
        bounds.election_names().all(|election| self.effects(&election).count() <= 1)
    }

    /// S1 and S2: every effect belongs to a term that stands: its session's record is there, its
    /// key is, and it is the lowest. Whoever ends a term or a session found everything withdrawn.
    pub(crate) fn has_standing_terms(&self, bounds: &Bounds) -> bool {
        bounds.election_names().all(|election| {
            self.effects(&election).all(|(machine, effect)| {
                let session = self.store.get(&Key::Session(machine.name.clone()));
                session.is_some_and(|stored| stored.create.0 == effect.session.0)
                    && self.is_lowest(&election, effect.token, effect.session)
            })
        })
    }

    /// S8: who says that it leads does so alone, by a term that stands and for which it was
    /// told to lead, and not past the deadline.
    pub(crate) fn is_truthful(&self, bounds: &Bounds) -> bool {
        bounds.election_names().all(|election| {
            let mut leading = (0..self.machines.len()).filter_map(|n| {
                let machine = &self.machines[n];
                Some((n, machine.core.as_ref()?.leading(&election, self.now(n))?))
            });
            let Some((n, token)) = leading.next() else { return true };
            let machine = &self.machines[n];
            leading.next().is_none()
                && self.lowest(&election).is_some_and(|(lowest, _)| lowest == token)
                && machine.leads.get(&election) == Some(&token)
                && !machine.is_overdue(self.now(n).fast)
        })
    }

    /// S7: nothing stays without a leader for long.
    pub(crate) fn is_led_in_time(&self, bounds: &Bounds) -> bool {
        self.leaderless <= bounds.patience()
    }

    /// S3: a term was read back as the lowest before it is acted for.
    pub(crate) fn check_leading(&mut self, n: usize, election: &ElectionName, token: Token) {
        let machine = &self.machines[n];
        if machine.read_back.get(election) != Some(&token) {
            let name = &machine.name;
            self.promise_broken(format!("S3: {name} acts for {token}, which it did not read back"));
        }
    }

    /// S4: nobody begins to lead who is known, here, to be unfit or cordoned.
    pub(crate) fn check_eligible(&mut self, n: usize, election: &ElectionName) {
        let machine = &self.machines[n];
        let cordon = self.store.get(&self.cordon(n)).map(|stored| stored.modified);
        let told = |watch: Watch| cordon.is_some_and(|cordoned| cordoned <= watch.after);
        if election.as_str() == FIRST && (machine.unfit || machine.watch.is_some_and(told)) {
            self.promise_broken(format!("S4: {} leads, unfit or cordoned", machine.name));
        }
    }

    /// S3: what is placed belongs to the lowest key, which stands on the node's own session.
    pub(crate) fn check_placing(&mut self, e: &ElectionName, token: Token, session: SessionId) {
        if !self.is_lowest(e, token, session) {
            self.promise_broken(format!("S3: something is placed for {token}, not the lowest key"));
        }
    }

    /// S8: who is told to follow has nothing exclusive in place.
    pub(crate) fn check_following(&mut self, n: usize, election: &ElectionName) {
        let machine = &self.machines[n];
        if machine.effects.get(election).is_some_and(|effect| !effect.excused) {
            let name = &machine.name;
            self.promise_broken(format!("S8: {name} follows with an effect in place"));
        }
    }

    /// S2, and that nothing here is a reason to give up.
    pub(crate) fn check_exit(&mut self, n: usize, exit: &Exit) {
        let machine = &self.machines[n];
        if machine.effects.values().any(|effect| !effect.excused) {
            self.promise_broken(format!("S2: {} exits with an effect in place", machine.name));
        } else if let Exit::StoreWentBack { .. } = exit {
            self.promise_broken(format!("{}: no store went back here", machine.name));
        }
    }

    fn promise_broken(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    /// Counts the ticks in which some election that could be led was not.
    pub(crate) fn count_leaderless(&mut self, bounds: &Bounds) {
        let led = |election: ElectionName| self.effects(&election).next().is_some();
        let quiet = !self.is_disturbed() && self.has_candidate();
        let led = bounds.election_names().all(led);
        self.leaderless = if quiet && !led { self.leaderless + 1 } else { 0 };
    }

    /// Whether anybody could lead.
    fn has_candidate(&self) -> bool {
        let can = |n: &usize| {
            let machine = &self.machines[*n];
            let willing = machine.runs() && !machine.stopping && !machine.unfit;
            willing && self.store.get(&self.cordon(*n)).is_none()
        };
        (0..self.machines.len()).any(|n| can(&n))
    }

    /// The lowest leader key's create revision, and the last part of its name.
    pub(crate) fn lowest(&self, election: &ElectionName) -> Option<(Token, &str)> {
        let leaders = self.store.leaders(election);
        leaders.map(|(suffix, stored)| (Token(stored.create.0), suffix)).min()
    }

    fn is_lowest(&self, election: &ElectionName, token: Token, session: SessionId) -> bool {
        let lowest = self.lowest(election);
        lowest.is_some_and(|(t, suffix)| t == token && suffix == leader_suffix(session))
    }
}

/// What an exploration should see on its way.
impl State {
    /// Whether a node of which this is true has an effect in place.
    pub(crate) fn is_led_by(&self, which: impl Fn(usize) -> bool) -> bool {
        self.machines.iter().enumerate().any(|(n, machine)| which(n) && !machine.effects.is_empty())
    }

    /// Whether a daemon that was started anew has read back a term that was placed before.
    pub(crate) fn is_led_by_a_successor(&self) -> bool {
        self.machines.iter().any(|machine| {
            let adopted = machine.ledger.as_ref().is_some_and(|(_, nonce)| {
                nonce.as_str() != format!("{}-{}", machine.name, machine.life)
            });
            adopted
                && machine
                    .effects
                    .values()
                    .any(|e| machine.read_back.values().any(|t| *t == e.token))
        })
    }

    pub(crate) fn has_expired_page(&self) -> bool {
        self.machines.iter().any(|machine| matches!(machine.page, Page::Expired(_)))
    }

    pub(crate) fn has_late_requests(&self) -> bool {
        !self.late.is_empty()
    }

    /// Whether the bounded time is over.
    pub(crate) fn is_over(&self) -> bool {
        self.tick == self.end
    }
}
