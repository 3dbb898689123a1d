//! What occurred, and how often: faults, transitions, outcomes.
//!
//! A simulation that never meets a state proves nothing about it. So everything is counted, and
//! what should occur but did not is named.

use std::fmt;

use conclave_core::status::Phase;
use conclave_core::{Exit, Notice, Outcome, Request};

use crate::checker::Apart;
use crate::faults::FAULTS;

/// What a node does in an election, or that no daemon runs on it.
const PHASES: [&str; 8] = [
    "spectating",
    "standby",
    "campaigning",
    "waiting",
    "leading",
    "withdrawing",
    "stuck",
    "no daemon",
];
const NO_DAEMON: usize = 7;

fn index(phase: Phase) -> usize {
    match phase {
        Phase::Spectating => 0,
        Phase::Standby => 1,
        Phase::Campaigning => 2,
        Phase::Waiting => 3,
        Phase::Leading => 4,
        Phase::Withdrawing => 5,
        Phase::Stuck => 6,
    }
}

/// The transitions that a long enough run must show. Whoever takes or receives a term makes certain
/// of it first, and whoever has one withdraws before anything else: all others either cannot be, or
/// take a coincidence that few seeds have.
const TRANSITIONS: &[(usize, &[usize])] = &[
    (0, &[1, 2, 7]),
    (1, &[0, 2, 5, 7]),
    (2, &[0, 1, 3, 4, 5, 7]),
    (3, &[4, 5, 7]),
    (4, &[5, 7]),
    (5, &[0, 1, 6, 7]),
    (6, &[0, 5, 7]),
    (7, &[0, 2]),
];

const REQUESTS: [&str; 11] = [
    "list",
    "read leader",
    "create session",
    "beat",
    "end session",
    "put candidacy",
    "take",
    "take over",
    "hand over",
    "resign",
    "rewrite leader",
];

fn request_index(request: &Request) -> usize {
    match request {
        Request::List => 0,
        Request::ReadLeader { .. } => 1,
        Request::CreateSession { .. } => 2,
        Request::Beat { .. } => 3,
        Request::EndSession { .. } => 4,
        Request::PutCandidacy { .. } => 5,
        Request::Take { .. } => 6,
        Request::TakeOver { .. } => 7,
        Request::HandOver { .. } => 8,
        Request::Resign { .. } => 9,
        Request::RewriteLeader { .. } | Request::Batch(_) => 10,
    }
}

const OUTCOMES: [&str; 4] = ["applied", "rejected", "applied too late", "rejected too late"];

/// Requests that no other request can make fail.
const NEVER_REJECTED: [usize; 2] = [0, 1];

const NOTICES: [&str; 12] = [
    "session began",
    "session lost",
    "name contested",
    "term began",
    "term ended",
    "holder changed",
    "stuck",
    "unstuck",
    "policy failed",
    "versions differ",
    "foreign holder",
    "stray reply",
];

fn notice_index(notice: &Notice) -> usize {
    match notice {
        Notice::SessionBegan { .. } => 0,
        Notice::SessionLost { .. } => 1,
        Notice::NameContested { .. } => 2,
        Notice::TermBegan { .. } => 3,
        Notice::TermEnded { .. } => 4,
        Notice::HolderChanged { .. } => 5,
        Notice::Stuck { .. } => 6,
        Notice::Unstuck { .. } => 7,
        Notice::PolicyFailed { .. } => 8,
        Notice::VersionsDiffer { .. } => 9,
        Notice::ForeignHolder { .. } => 10,
        Notice::StrayReply { .. } => 11,
    }
}

/// Counts of what occurred.
#[derive(Clone, Debug)]
pub struct Coverage {
    /// How many schedules.
    pub schedules: u64,
    /// How much time was simulated, in microseconds.
    pub simulated: u64,
    faults: [u64; FAULTS.len()],
    transitions: [[u64; PHASES.len()]; PHASES.len()],
    phases: Vec<u8>,
    requests: [[u64; OUTCOMES.len()]; REQUESTS.len()],
    notices: [u64; NOTICES.len()],
    pub(crate) unknown: u64,
    pub(crate) lost_requests: u64,
    pub(crate) lost_replies: u64,
    pub(crate) compacted_watches: u64,
    pub(crate) skipped_changes: u64,
    pub(crate) adoptions: u64,
    pub(crate) guard_withdrawals: u64,
    pub(crate) daemons_killed_by_guards: u64,
    exits: [u64; 3],
    apart: [u64; 3],
}

impl Default for Coverage {
    fn default() -> Self {
        Coverage {
            schedules: 0,
            simulated: 0,
            faults: [0; FAULTS.len()],
            transitions: Default::default(),
            phases: Vec::new(),
            requests: Default::default(),
            notices: Default::default(),
            unknown: 0,
            lost_requests: 0,
            lost_replies: 0,
            compacted_watches: 0,
            skipped_changes: 0,
            adoptions: 0,
            guard_withdrawals: 0,
            daemons_killed_by_guards: 0,
            exits: Default::default(),
            apart: Default::default(),
        }
    }
}

impl Coverage {
    /// Nothing yet, for so many places: an election on a node is one.
    pub(crate) fn new(places: usize) -> Self {
        Coverage { phases: vec![NO_DAEMON as u8; places], ..Coverage::default() }
    }

    pub(crate) fn fault(&mut self, kind: usize) {
        self.faults[kind] += 1;
    }

    pub(crate) fn phase(&mut self, place: usize, phase: Phase) {
        self.moved(place, index(phase));
    }

    pub(crate) fn no_daemon(&mut self, place: usize) {
        self.moved(place, NO_DAEMON);
    }

    fn moved(&mut self, place: usize, to: usize) {
        let from = usize::from(self.phases[place]);
        if from != to {
            self.phases[place] = to as u8;
            self.transitions[from][to] += 1;
        }
    }

    /// The store has executed a request; whether anybody still waits for its outcome.
    pub(crate) fn executed(&mut self, request: &Request, applied: bool, waits: bool) {
        if let Request::Batch(requests) = request {
            return requests.iter().for_each(|request| self.executed(request, applied, waits));
        }
        let outcome = usize::from(!applied) + 2 * usize::from(!waits);
        self.requests[request_index(request)][outcome] += 1;
    }

    pub(crate) fn answered(&mut self, outcome: &Outcome) {
        self.unknown += u64::from(*outcome == Outcome::Unknown);
    }

    pub(crate) fn noticed(&mut self, notice: &Notice) {
        self.notices[notice_index(notice)] += 1;
    }

    pub(crate) fn exited(&mut self, exit: &Exit) {
        let kind = match exit {
            Exit::Stopped => 0,
            Exit::NameTaken { .. } => 1,
            Exit::StoreWentBack { .. } => 2,
        };
        self.exits[kind] += 1;
    }

    pub(crate) fn apart(&mut self, apart: Apart) {
        self.apart[0] += apart.orphans;
        self.apart[1] = self.apart[1].max(apart.longest);
        self.apart[2] += apart.overlaps;
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Coverage) {
        fn sum(these: &mut [u64], those: &[u64]) {
            these.iter_mut().zip(those).for_each(|(this, that)| *this += that);
        }
        self.schedules += other.schedules;
        self.simulated += other.simulated;
        sum(&mut self.faults, &other.faults);
        for (these, those) in self.transitions.iter_mut().zip(&other.transitions) {
            sum(these, those);
        }
        for (these, those) in self.requests.iter_mut().zip(&other.requests) {
            sum(these, those);
        }
        sum(&mut self.notices, &other.notices);
        sum(&mut self.exits, &other.exits);
        self.unknown += other.unknown;
        self.lost_requests += other.lost_requests;
        self.lost_replies += other.lost_replies;
        self.compacted_watches += other.compacted_watches;
        self.skipped_changes += other.skipped_changes;
        self.adoptions += other.adoptions;
        self.guard_withdrawals += other.guard_withdrawals;
        self.daemons_killed_by_guards += other.daemons_killed_by_guards;
        self.apart[0] += other.apart[0];
        self.apart[1] = self.apart[1].max(other.apart[1]);
        self.apart[2] += other.apart[2];
    }

    /// What a long enough run must show and this one did not.
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let mut want = |count: u64, what: &dyn fmt::Display| {
            if count == 0 {
                missing.push(what.to_string());
            }
        };
        for (count, name) in self.faults.iter().zip(FAULTS) {
            want(*count, &format_args!("fault: {name}"));
        }
        for (from, tos) in TRANSITIONS {
            for to in *tos {
                let names = (PHASES[*from], PHASES[*to]);
                want(self.transitions[*from][*to], &format_args!("{} -> {}", names.0, names.1));
            }
        }
        for (kind, (counts, name)) in self.requests.iter().zip(REQUESTS).enumerate() {
            let possible =
                |outcome: &usize| outcome.is_multiple_of(2) || !NEVER_REJECTED.contains(&kind);
            for outcome in (0..OUTCOMES.len()).filter(possible) {
                want(counts[outcome], &format_args!("{name} {}", OUTCOMES[outcome]));
            }
        }
        // A second daemon of one name is a story of its own; it takes two machines with one name.
        for (kind, (count, name)) in self.notices.iter().zip(NOTICES).enumerate() {
            if kind != 11 {
                want(*count, &format_args!("notice: {name}"));
            }
        }
        want(self.exits[0], &"exit: stopped");
        want(self.exits[2], &"exit: store went back");
        want(self.apart[0], &"an orphan");
        for (name, count) in self.plain() {
            want(count, &name);
        }
        missing
    }

    fn plain(&self) -> [(&'static str, u64); 8] {
        [
            ("unknown outcomes", self.unknown),
            ("requests lost", self.lost_requests),
            ("replies lost", self.lost_replies),
            ("watches ended by compaction", self.compacted_watches),
            ("changes skipped by watches", self.skipped_changes),
            ("sessions adopted", self.adoptions),
            ("withdrawals by guards", self.guard_withdrawals),
            ("daemons killed by guards", self.daemons_killed_by_guards),
        ]
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.simulated / 3_600_000_000;
        writeln!(f, "{} schedules, {hours} hours of simulated time", self.schedules)?;
        writeln!(f, "\nfaults")?;
        for (count, name) in self.faults.iter().zip(FAULTS) {
            writeln!(f, "  {count:>12}  {name}")?;
        }
        writeln!(f, "\ntransitions of a node in an election, from (down) to (across)")?;
        write!(f, "{:>12}", "")?;
        PHASES.iter().try_for_each(|name| write!(f, " {name:>12}"))?;
        writeln!(f)?;
        for (counts, name) in self.transitions.iter().zip(PHASES) {
            write!(f, "{name:>12}")?;
            for count in counts {
                let shown = if *count == 0 { ".".to_owned() } else { count.to_string() };
                write!(f, " {shown:>12}")?;
            }
            writeln!(f)?;
        }
        writeln!(f, "\nrequests, as the store executed them")?;
        write!(f, "{:>16}", "")?;
        OUTCOMES.iter().try_for_each(|name| write!(f, " {name:>17}"))?;
        writeln!(f)?;
        for (counts, name) in self.requests.iter().zip(REQUESTS) {
            write!(f, "{name:>16}")?;
            counts.iter().try_for_each(|count| write!(f, " {count:>17}"))?;
            writeln!(f)?;
        }
        writeln!(f, "\nbeside")?;
        for (name, count) in self.plain() {
            writeln!(f, "  {count:>12}  {name}")?;
        }
        for (count, name) in self.notices.iter().zip(NOTICES) {
            writeln!(f, "  {count:>12}  notice: {name}")?;
        }
        for (count, name) in self.exits.iter().zip(["stopped", "name taken", "store went back"]) {
            writeln!(f, "  {count:>12}  exit: {name}")?;
        }
        let [orphans, longest, overlaps] = self.apart;
        writeln!(f, "\ncounted apart: effects that outlived their expiry because nobody on the")?;
        writeln!(f, "machine could withdraw them")?;
        writeln!(
            f,
            "  {orphans:>12}  orphans, the longest {} ms beyond its expiry",
            longest / 1_000
        )?;
        writeln!(f, "  {overlaps:>12}  placings by others meanwhile")
    }
}
