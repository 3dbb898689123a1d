//! The judge: what must hold, as seen from outside the cores.
//!
//! It is told what anybody could see who stands beside the machines: what lies in the destination
//! directories, what goes over the wire, what the store has written, and what a node says when it
//! is asked. It asks no core, and shares no code with one beyond the types of the records.
//!
//! | | what is asserted | where |
//! |---|---|---|
//! | S1 | nobody places while another has the effect; none outlives its owner's expiry | `placed`, `removed` |
//! | S2 | a term's key and session stand as long as its effect is in place | `terms_stand` |
//! | S3 | only the lowest key, on the current session, is acted for; tokens only grow | `placed` |
//! | S4 | no unfit or cordoned node takes or receives a term | `ballot.rs` |
//! | S5 | a late effect is excused only while nobody could withdraw it | `Machine::excuses` |
//! | S6 | a file that is not ours is neither replaced nor removed | `placed`, `removed` |
//! | S7 | everything is led after healing | `schedule.rs` |
//! | S8 | a node says "leading" only of a term that stands, before its expiry | `says` |

use conclave_core::request::leader_suffix;
use conclave_core::{Entry, Key, SessionId, Time, Token, Value};

use crate::ballot::Ballot;
use crate::clock::Micros;
use crate::names;

/// What an effect that is in place is judged by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub(crate) token: Token,
    session: u64,
    /// Of the term, by its owner's clock.
    expiry: Time,
}

/// What is known of one machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    /// Its session record's create revision, in store.
    session: u64,
    /// A session, and the time at which it expires by the machine's clock: what follows from the
    /// newest beat that was answered.
    expiry: (u64, Time),
    /// When beats that are under way were sent: the operation, the session and the time.
    beats: Vec<(u64, u64, Time)>,
    pub(crate) placed: Vec<Option<Placed>>,
    foreign: Vec<bool>,
    /// Whether nobody on it can withdraw: guard and daemon do not run, or the disk does not.
    helpless: bool,
    helpless_until: Micros,
    /// Within this after that a late effect is gone.
    grace: Micros,
}

/// What is known of one election.
#[derive(Clone, Debug, Default)]
struct Contest {
    /// The keys under its leader prefix: the last part of each, create revision, session.
    leaders: Vec<(String, u64, u64)>,
    /// The newest token that anybody acted for.
    newest: Token,
    /// The terms that anything was ever placed for.
    used: Vec<Token>,
    /// The machines whose stop check confirmed, since they placed last, that all has stopped.
    stopped: Vec<bool>,
    /// Since when, and for how long, nobody may place after an unclean end.
    owed: (Micros, Micros),
}

/// What the protocol counts apart.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Apart {
    /// Effects that outlived their expiry because nobody could withdraw them.
    pub(crate) orphans: u64,
    /// The longest, in microseconds beyond the expiry.
    pub(crate) longest: Micros,
    /// How often another led meanwhile.
    pub(crate) overlaps: u64,
}

/// What the judge knows.
pub(crate) struct Checker {
    pub(crate) seed: u64,
    ttl: Micros,
    /// Within this after somebody can withdraw again, a late effect is gone.
    grace: Micros,
    delays: Vec<Micros>,
    /// By how much a delay may seem shorter than it is, by clocks within their bounds: in ppm.
    pub(crate) fastest_ppm: u64,
    pub(crate) machines: Vec<Machine>,
    contests: Vec<Contest>,
    pub(crate) ballot: Ballot,
    pub(crate) apart: Apart,
}

/// Ends the run.
macro_rules! violated {
    ($judge:expr, $now:expr, $($what:tt)*) => {
        panic!("seed {} at {} µs: {}", $judge.seed, $now, format_args!($($what)*))
    };
}
pub(crate) use violated;

impl Checker {
    pub(crate) fn new(
        seed: u64,
        nodes: usize,
        ttl: Micros,
        grace: Micros,
        delays: Vec<Micros>,
    ) -> Self {
        let elections = delays.len();
        let machine = Machine {
            placed: vec![None; elections],
            foreign: vec![false; elections],
            ..Machine::default()
        };
        let contest = Contest { stopped: vec![false; nodes], ..Contest::default() };
        Checker {
            seed,
            ttl,
            grace,
            delays,
            fastest_ppm: 1_000,
            machines: vec![machine; nodes],
            contests: vec![contest; elections],
            ballot: Ballot::new(nodes, elections),
            apart: Apart::default(),
        }
    }

    // On the wire.

    /// A daemon sends what begins or prolongs its session.
    pub(crate) fn beat_sent(&mut self, n: usize, op: u64, session: u64, sent: Time) {
        self.machines[n].beats.push((op, session, sent));
    }

    /// Its daemon is another: what it waited for is answered to nobody.
    pub(crate) fn daemon_ended(&mut self, n: usize) {
        self.machines[n].beats.clear();
    }

    /// A daemon is told, at this time on its clock, what became of an operation; `created` is the
    /// session that it created.
    pub(crate) fn answered(&mut self, n: usize, op: u64, applied: bool, created: u64, local: Time) {
        let beats = &mut self.machines[n].beats;
        let Some(at) = beats.iter().position(|beat| beat.0 == op) else { return };
        let (_, session, sent) = beats.swap_remove(at);
        if session == 0 {
            // A restored store may give a revision, and so a session's name, for a second time.
            self.machines[n].expiry = (0, Time(0));
        }
        let session = if session == 0 { created } else { session };
        let expiry = Time(sent.0 + self.ttl);
        // Terms on a session that has expired are over, even if it goes on for one that is stuck; a
        // session that was created so late that nobody has used it may go on. And a late answer
        // about an earlier session says nothing of this one.
        let known = self.machines[n].expiry;
        let expired = session == known.0 && known.1 <= local;
        let over = session < known.0 || expired && self.is_used(n, session);
        let machine = &mut self.machines[n];
        if !applied || expiry <= local || over {
            return;
        }
        let expiry = if known.0 == session { known.1.max(expiry) } else { expiry };
        machine.expiry = (session, expiry);
        for placed in machine.placed.iter_mut().flatten().filter(|p| p.session == session) {
            if placed.expiry > local {
                placed.expiry = placed.expiry.max(expiry);
            }
        }
    }

    /// Whether a term stands on a session of a machine, or an effect is in place for one.
    fn is_used(&self, n: usize, session: u64) -> bool {
        let mut leaders = self.contests.iter().flat_map(|contest| &contest.leaders);
        let mut placed = self.machines[n].placed.iter().flatten();
        leaders.any(|leader| leader.2 == session) || placed.any(|p| p.session == session)
    }

    // In the store.

    /// The store has written or deleted a key.
    pub(crate) fn wrote(&mut self, now: Micros, entry: &Entry) {
        match (&entry.key, &entry.stored) {
            (Key::Session(node), stored) => {
                if let Some(n) = names::index(node.as_str()) {
                    self.machines[n].session = stored.as_ref().map_or(0, |s| s.create.0);
                }
            }
            (Key::Leader(election, suffix), None) => {
                let contest = &mut self.contests[names::position(election.as_str())];
                contest.leaders.retain(|(known, _, _)| known != suffix);
            }
            (Key::Leader(election, suffix), Some(stored)) if stored.create == entry.at => {
                let e = names::position(election.as_str());
                let (mut session, mut holder) = (0, None);
                if let Value::Leader(record) = &stored.value {
                    (session, holder) = (record.session.0, names::index(record.holder.as_str()));
                }
                self.contests[e].leaders.retain(|(known, _, _)| known != suffix);
                self.contests[e].leaders.push((suffix.clone(), stored.create.0, session));
                if let Some(holder) = holder {
                    self.ballot.elected(self.seed, now, e, holder, session);
                }
            }
            (Key::History(election, token), Some(stored)) => {
                if let Value::History(record) = &stored.value {
                    let holder = names::index(record.holder.as_str());
                    let silent = record.why == conclave_core::record::EndReason::Silent;
                    self.term_ended(
                        now,
                        names::position(election.as_str()),
                        *token,
                        holder,
                        silent,
                    );
                }
            }
            (Key::Candidacy(election, node), Some(stored)) => {
                if let (Value::Candidacy(record), Some(n)) =
                    (&stored.value, names::index(node.as_str()))
                {
                    let e = names::position(election.as_str());
                    self.ballot.stands(e, n, record.session.0, record.fitness.fit);
                }
            }
            _ => {}
        }
    }

    /// The store was restored from an old copy: its history begins anew.
    pub(crate) fn restored<'a>(&mut self, now: Micros, entries: impl Iterator<Item = Entry> + 'a) {
        for machine in &mut self.machines {
            (machine.session, machine.expiry) = (0, (0, Time(0)));
        }
        for contest in &mut self.contests {
            contest.leaders.clear();
            contest.newest = Token(0);
            contest.used.clear();
        }
        self.ballot.restored();
        for entry in entries {
            if !matches!(entry.key, Key::History(..)) {
                let at = entry.stored.as_ref().map_or(entry.at, |stored| stored.create);
                self.wrote(now, &Entry { at, ..entry });
            }
        }
        self.ballot.opened();
    }

    fn term_ended(
        &mut self,
        now: Micros,
        e: usize,
        token: Token,
        holder: Option<usize>,
        silent: bool,
    ) {
        let contest = &mut self.contests[e];
        let stopped = holder.is_some_and(|n| contest.stopped[n]);
        if silent || contest.used.contains(&token) && !stopped {
            contest.owed = (now, self.delays[e]);
        }
    }

    pub(crate) fn lowest(&self, e: usize) -> Option<&(String, u64, u64)> {
        self.contests[e].leaders.iter().min_by_key(|(_, create, _)| *create)
    }

    // In the destination directories.

    /// Somebody else's file appears where an exclusive one would go, or its owner takes it away.
    pub(crate) fn foreign(&mut self, n: usize, e: usize, there: bool) {
        self.machines[n].foreign[e] = there;
    }

    /// A machine's file appears, for a term. `clocks` reads every machine's own clock.
    pub(crate) fn placed(
        &mut self,
        now: Micros,
        n: usize,
        e: usize,
        token: Token,
        clocks: &dyn Fn(usize) -> Time,
    ) {
        if self.machines[n].foreign[e] {
            violated!(self, now, "S6: n{n} replaces a foreign file of e{e}");
        }
        for other in (0..self.machines.len()).filter(|other| *other != n) {
            if let Some(placed) = self.machines[other].placed[e] {
                let local = clocks(other);
                if !self.machines[other].excuses(&placed, now, local) {
                    let until = placed.expiry;
                    violated!(
                        self,
                        now,
                        "S1: n{n} places e{e} for {token}, n{other} has it for {} until {until:?}, it is {local:?} there",
                        placed.token
                    );
                }
                self.apart.overlaps += 1;
            }
        }
        let lowest =
            self.lowest(e).map(|(suffix, create, session)| (suffix.clone(), *create, *session));
        let session = self.machines[n].session;
        if lowest != Some((leader_suffix(SessionId(session)), token.0, session)) {
            violated!(
                self,
                now,
                "S3: n{n} on {session} places e{e} for {token}, but the lowest key is {lowest:?}"
            );
        }
        let expiry = self.machines[n].expiry;
        if expiry.0 != session || clocks(n) >= expiry.1 {
            violated!(
                self,
                now,
                "S1: n{n} places e{e} at {:?} on {session}, which expired: {expiry:?}",
                clocks(n)
            );
        }
        let contest = &mut self.contests[e];
        if token < contest.newest {
            violated!(self, now, "S3: n{n} places e{e} for {token} after {}", contest.newest);
        }
        contest.newest = token;
        let (since, delay) = contest.owed;
        // A delay is measured by its server's clock, in whole milliseconds.
        let least = delay - delay * self.fastest_ppm / 1_000_000;
        if now + 2_000 < since + least {
            violated!(
                self,
                now,
                "n{n} places e{e} for {token}, a takeover delay of {delay} µs is owed since {since}"
            );
        }
        if !contest.used.contains(&token) {
            contest.used.push(token);
        }
        contest.stopped[n] = false;
        self.machines[n].placed[e] = Some(Placed { token, session, expiry: expiry.1 });
    }

    /// A machine's file is gone.
    pub(crate) fn removed(&mut self, now: Micros, n: usize, e: usize, local: Time) {
        let machine = &mut self.machines[n];
        let Some(placed) = machine.placed[e].take() else {
            if machine.foreign[e] {
                violated!(self, now, "S6: n{n} removes a foreign file of e{e}");
            }
            return;
        };
        if local > placed.expiry {
            if !machine.excuses(&placed, now, local) {
                violated!(
                    self,
                    now,
                    "S1, S5: n{n} has withdrawn e{e} at {local:?}, after its expiry at {:?}",
                    placed.expiry
                );
            }
            self.apart.orphans += 1;
            self.apart.longest = self.apart.longest.max(local.0 - placed.expiry.0);
        }
    }

    /// The power of a machine is gone, and with it everything that it ran.
    pub(crate) fn powered_off(&mut self, n: usize) {
        self.machines[n].placed.iter_mut().for_each(|placed| *placed = None);
    }

    /// A machine's stop check confirmed.
    pub(crate) fn stopped(&mut self, n: usize, e: usize) {
        self.contests[e].stopped[n] = true;
    }

    /// Whether nobody on a machine can withdraw anything now; if not, whether its guard does not run.
    /// A guard tries again at once what failed, and a daemon whose session is lost every 100 ms.
    pub(crate) fn helpless(&mut self, now: Micros, n: usize, helpless: bool, unguarded: bool) {
        const DAEMON_TRIES_AGAIN: Micros = 100_000;
        let machine = &mut self.machines[n];
        if machine.helpless && !helpless {
            machine.helpless_until = now;
            machine.grace = self.grace + if unguarded { DAEMON_TRIES_AGAIN } else { 0 };
        }
        machine.helpless = helpless;
    }

    /// Every effect belongs to a term whose session and key stand; asked after the store has
    /// deleted something.
    pub(crate) fn terms_stand(&self, now: Micros, clocks: &dyn Fn(usize) -> Time) {
        for (n, machine) in self.machines.iter().enumerate() {
            for (e, placed) in machine.placed.iter().enumerate() {
                let Some(placed) = placed else { continue };
                let lowest = self.lowest(e);
                let holds = lowest.is_some_and(|(_, create, _)| *create == placed.token.0);
                if holds && machine.session == placed.session {
                    continue;
                }
                if !machine.excuses(placed, now, clocks(n)) {
                    violated!(
                        self,
                        now,
                        "S2: n{n} has e{e} for {placed:?}, but its session is {} and the lowest key {lowest:?}",
                        machine.session
                    );
                }
            }
        }
    }

    /// Nothing that is late is in place without an excuse: asked at the end of a run.
    pub(crate) fn nothing_is_late(&self, now: Micros, clocks: &dyn Fn(usize) -> Time) {
        for (n, machine) in self.machines.iter().enumerate() {
            for (e, placed) in machine.placed.iter().enumerate() {
                let Some(placed) = placed else { continue };
                let local = clocks(n);
                if local > placed.expiry && !machine.excuses(placed, now, local) {
                    violated!(self, now, "S5: n{n} still has e{e} at {local:?}, for {placed:?}");
                }
            }
        }
    }

    // Asked.

    /// A node says that it leads by this term.
    pub(crate) fn says(&self, now: Micros, n: usize, e: usize, token: Token, local: Time) {
        let machine = &self.machines[n];
        let lowest = self.lowest(e);
        let holds = lowest
            .is_some_and(|(_, create, session)| *create == token.0 && *session == machine.session);
        let (session, expiry) = machine.expiry;
        if !holds || session != machine.session || local >= expiry {
            violated!(
                self,
                now,
                "S8: n{n} on {} says at {local:?} that it leads e{e} by {token}; the lowest key is {lowest:?}, and {session} expires at {expiry:?}",
                machine.session
            );
        }
    }
}

impl Machine {
    /// Whether an effect is late only because nobody could withdraw it: that is so now, or ended
    /// a moment ago and not before the effect was due.
    fn excuses(&self, placed: &Placed, now: Micros, local: Time) -> bool {
        if local <= placed.expiry {
            return false;
        }
        let expired = now - (local.0 - placed.expiry.0).min(now);
        let late_help = self.helpless_until + self.grace >= expired;
        self.helpless || late_help && now <= expired.max(self.helpless_until) + self.grace
    }
}
