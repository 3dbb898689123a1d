//! One machine: a daemon with its requests under way, a guard with its page, a worker, a disk.

use std::collections::{BTreeMap, VecDeque};

use conclave_core::{
    Core, ElectionName, NodeName, Nonce, OpId, Outcome, Request, Revision, SessionId, Time, Token,
};

/// An exclusive effect, as it lies on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Effect {
    pub(crate) token: Token,
    pub(crate) session: SessionId,
    /// The disk refused to unlink it at the deadline: counted apart by the protocol (S5).
    pub(crate) excused: bool,
}

/// The page that guard and daemon share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Page {
    Empty,
    Open {
        session: SessionId,
        deadline: Time,
    },
    /// The guard has marked it: for this session it is never opened again.
    Expired(SessionId),
}

/// What a link does to requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Link {
    Works,
    /// They get lost.
    LosesRequests,
    /// They are executed, but nothing comes back.
    LosesReplies,
}

/// A request under way, as its sender sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Flight {
    pub(crate) request: Request,
    /// The tick at which its sender gives up waiting.
    pub(crate) due: u32,
    pub(crate) stage: Stage,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    Sent,
    /// Nobody will answer, whatever becomes of it.
    Lost,
    /// It was executed, and the answer is somewhere.
    Answered(Outcome),
}

/// What the election's worker was told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Work {
    Place { election: ElectionName, token: Token, session: SessionId },
    Withdraw { op: OpId, election: ElectionName },
}

/// A watch that has reported everything up to a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Watch {
    pub(crate) after: Revision,
    /// It says nothing more.
    pub(crate) hung: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Machine {
    pub(crate) name: NodeName,
    /// The clock's rate error, in parts per million.
    pub(crate) rate: i64,
    pub(crate) core: Option<Core>,
    /// Counts the daemon's lives.
    pub(crate) life: u32,
    /// It was told to stop.
    pub(crate) stopping: bool,
    /// It was told that it is unfit.
    pub(crate) unfit: bool,
    pub(crate) page: Page,
    pub(crate) ledger: Option<(SessionId, Nonce)>,
    pub(crate) tokens: BTreeMap<ElectionName, Token>,
    /// The highest revision that the daemon's state directory names.
    pub(crate) revision: Revision,
    pub(crate) effects: BTreeMap<ElectionName, Effect>,
    pub(crate) flights: BTreeMap<OpId, Flight>,
    pub(crate) work: VecDeque<Work>,
    pub(crate) watch: Option<Watch>,
    /// A watch that was given up while it hung, and may still speak.
    pub(crate) stale_watch: Option<Revision>,
    pub(crate) link: Link,
    pub(crate) frozen: bool,
    /// Nothing can be unlinked.
    pub(crate) broken_disk: bool,
    /// The worker does nothing.
    pub(crate) hung_worker: bool,
    /// The own leader key that this daemon's newest reading found lowest.
    pub(crate) read_back: BTreeMap<ElectionName, Token>,
    /// The terms for which this daemon was told to lead, and not yet to withdraw.
    pub(crate) leads: BTreeMap<ElectionName, Token>,
}

impl Machine {
    pub(crate) fn new(name: NodeName, rate: i64) -> Self {
        Machine {
            name,
            rate,
            core: None,
            life: 0,
            stopping: false,
            unfit: false,
            page: Page::Empty,
            ledger: None,
            tokens: BTreeMap::new(),
            revision: Revision(0),
            effects: BTreeMap::new(),
            flights: BTreeMap::new(),
            work: VecDeque::new(),
            watch: None,
            stale_watch: None,
            link: Link::Works,
            frozen: false,
            broken_disk: false,
            hung_worker: false,
            read_back: BTreeMap::new(),
            leads: BTreeMap::new(),
        }
    }

    /// Whether the daemon lives and is scheduled.
    pub(crate) fn runs(&self) -> bool {
        self.core.is_some() && !self.frozen
    }

    /// Whether the page's deadline has passed.
    pub(crate) fn is_overdue(&self, now: Time) -> bool {
        matches!(self.page, Page::Open { deadline, .. } if deadline <= now)
    }

    /// Whether anything of it is not as it should be.
    pub(crate) fn is_disturbed(&self) -> bool {
        self.link != Link::Works
            || self.frozen
            || self.broken_disk
            || self.hung_worker
            || self.stale_watch.is_some()
            || self.watch.is_some_and(|watch| watch.hung)
            || self.flights.values().any(|flight| flight.stage != Stage::Sent)
    }

    /// The gate before the rename: whether the page lets terms on this session go on now.
    pub(crate) fn is_open(&self, session: SessionId, now: Time) -> bool {
        match self.page {
            Page::Open { session: on, deadline } => on == session && now < deadline,
            _ => false,
        }
    }
}
