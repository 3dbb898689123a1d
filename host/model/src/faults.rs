//! What can go wrong, and what operators can do: each costs one of a bounded number.

use std::fmt;

use conclave_core::record::{Fitness, MarkRecord, TransferRecord};
use conclave_core::{Event, Key, OpId, Token, Value};

use crate::bounds::Bounds;
use crate::machine::{Link, Page, Stage};
use crate::state::State;

/// A kind of fault or of intervention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub enum FaultKind {
    /// The node's link loses requests, those under way included.
    LoseRequests,
    /// The node's link lets requests through and nothing back.
    LoseReplies,
    /// One request is executed late or never, and not answered.
    DelayRequest,
    /// One request is executed at once, and its reply comes late or never.
    DelayReply,
    /// The node's watch says nothing more.
    HangWatch,
    /// The daemon dies; its guard lives on.
    KillDaemon,
    /// The machine loses power.
    KillNode,
    /// The daemon is not scheduled any more.
    Freeze,
    /// Nothing can be unlinked on the node.
    BreakDisk,
    /// The worker that places and withdraws does not get on.
    HangWorker,
    /// The daemon is told to stop.
    Stop,
    /// An operator cordons the node.
    Cordon,
    /// An operator asks that the term move to the node.
    Transfer,
    /// The node becomes unfit.
    Unfit,
    /// A competitor queues under the leader prefix, as `etcdctl elect` does.
    Compete,
}

impl FaultKind {
    /// The faults.
    pub const FAULTS: [FaultKind; 10] = [
        FaultKind::LoseRequests,
        FaultKind::LoseReplies,
        FaultKind::DelayRequest,
        FaultKind::DelayReply,
        FaultKind::HangWatch,
        FaultKind::KillDaemon,
        FaultKind::KillNode,
        FaultKind::Freeze,
        FaultKind::BreakDisk,
        FaultKind::HangWorker,
    ];

    /// What comes from outside and is no fault of the system's.
    pub const OPERATIONS: [FaultKind; 5] = [
        FaultKind::Stop,
        FaultKind::Cordon,
        FaultKind::Transfer,
        FaultKind::Unfit,
        FaultKind::Compete,
    ];

    /// Whether only a guard keeps S1 then.
    pub(crate) fn needs_guard(self) -> bool {
        use FaultKind::*;
        matches!(self, KillDaemon | Freeze | BreakDisk | HangWorker)
    }
}

/// A fault at a node, or an intervention that concerns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fault {
    /// What happens.
    pub kind: FaultKind,
    /// To which node.
    pub node: usize,
    /// To which of its requests, where it happens to one.
    pub op: Option<OpId>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} n{}", self.kind, self.node)
    }
}

impl State {
    /// The faults and interventions that can happen now and are still allowed.
    pub(crate) fn possible_faults(&self, bounds: &Bounds, calm: bool, into: &mut Vec<Fault>) {
        let allowed =
            |left: u8, kinds: &[FaultKind]| if left > 0 { kinds.to_vec() } else { vec![] };
        let kinds = allowed(self.faults, &bounds.kinds)
            .into_iter()
            .chain(allowed(self.operators, &bounds.operations));
        for kind in kinds {
            for node in 0..self.machines.len() {
                if matches!(kind, FaultKind::DelayRequest | FaultKind::DelayReply) {
                    let flights = self.machines[node].flights.iter();
                    let sent = flights.filter(|(_, flight)| flight.stage == Stage::Sent);
                    into.extend(sent.map(|(op, _)| Fault { kind, node, op: Some(*op) }));
                } else if self.is_possible(kind, node, calm) {
                    into.push(Fault { kind, node, op: None });
                }
            }
        }
    }

    /// Whether a fault changes anything, or could not as well happen later.
    fn is_possible(&self, kind: FaultKind, n: usize, calm: bool) -> bool {
        let machine = &self.machines[n];
        let runs = machine.runs();
        match kind {
            FaultKind::LoseRequests | FaultKind::LoseReplies => {
                let sent = machine.flights.values().any(|flight| flight.stage == Stage::Sent);
                runs && sent && machine.link == Link::Works
            }
            FaultKind::HangWatch => calm && machine.watch.is_some_and(|watch| !watch.hung),
            FaultKind::KillDaemon | FaultKind::KillNode => machine.core.is_some(),
            FaultKind::Freeze => runs,
            FaultKind::BreakDisk => calm && runs && !machine.broken_disk,
            FaultKind::HangWorker => calm && runs && !machine.hung_worker,
            FaultKind::Stop => runs && !machine.stopping,
            FaultKind::Unfit => runs && !machine.unfit,
            FaultKind::Cordon => self.store.get(&self.cordon(n)).is_none(),
            FaultKind::Transfer => self.lowest_token().is_some(),
            FaultKind::Compete => n == 0 && self.competitor.is_none(),
            FaultKind::DelayRequest | FaultKind::DelayReply => false,
        }
    }

    pub(crate) fn cordon(&self, n: usize) -> Key {
        Key::Cordon(FIRST.into(), self.machines[n].name.clone())
    }

    fn lowest_token(&self) -> Option<Token> {
        self.lowest(&FIRST.into()).map(|(token, _)| token)
    }

    pub(crate) fn break_it(&mut self, bounds: &Bounds, fault: &Fault) {
        let n = fault.node;
        match fault.kind {
            FaultKind::LoseRequests => {
                let machine = self.machine(n);
                machine.link = Link::LosesRequests;
                for flight in machine.flights.values_mut() {
                    if flight.stage == Stage::Sent {
                        flight.stage = Stage::Lost;
                    }
                }
            }
            FaultKind::LoseReplies => self.machine(n).link = Link::LosesReplies,
            FaultKind::DelayRequest => {
                let op = fault.op.unwrap_or_default();
                if let Some(flight) = self.machine(n).flights.get_mut(&op) {
                    flight.stage = Stage::Lost;
                    let request = flight.request.clone();
                    self.late.push(request);
                }
            }
            FaultKind::DelayReply => self.execute_unanswered(n, fault.op.unwrap_or_default()),
            FaultKind::HangWatch => {
                if let Some(watch) = &mut self.machine(n).watch {
                    watch.hung = true;
                }
            }
            FaultKind::KillDaemon => self.end_life(n),
            FaultKind::KillNode => {
                self.end_life(n);
                let machine = self.machine(n);
                machine.effects.clear(); // what ran there is dead
                machine.page = Page::Empty;
            }
            FaultKind::Freeze => self.machine(n).frozen = true,
            FaultKind::BreakDisk => self.machine(n).broken_disk = true,
            FaultKind::HangWorker => self.machine(n).hung_worker = true,
            _ => self.intervene(bounds, fault.kind, n),
        }
    }

    fn intervene(&mut self, bounds: &Bounds, kind: FaultKind, n: usize) {
        match kind {
            FaultKind::Stop => {
                self.machine(n).stopping = true;
                self.tell(bounds, n, Event::Stop);
            }
            FaultKind::Unfit => {
                self.machine(n).unfit = true;
                let fitness = Fitness::unfit("no source");
                self.tell(bounds, n, Event::Fitness { election: FIRST.into(), fitness });
            }
            FaultKind::Cordon => {
                let key = self.cordon(n);
                self.write(key, Value::Mark(MarkRecord::default()), false);
            }
            FaultKind::Transfer => {
                let to = Some(self.machines[n].name.clone());
                let token = self.lowest_token().unwrap_or_default();
                let record = TransferRecord { token, to, note: String::new() };
                self.write(Key::Transfer(FIRST.into()), Value::Transfer(record), false);
            }
            FaultKind::Compete => {
                self.competitor = Some(FIRST.into());
                self.write(Self::foreign_key(), Value::Garbage, true);
            }
            _ => {}
        }
    }

    /// The competitor's leader key.
    pub(crate) fn foreign_key() -> Key {
        Key::Leader(FIRST.into(), "foreign".to_owned())
    }
}

/// Operators and competitors concern themselves with the first election.
pub(crate) const FIRST: &str = "x";
