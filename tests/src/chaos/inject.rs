//! Faults strike and are healed.
//!
//! Striking only does what it must and waits for nobody: whoever is struck may well hang. Healing
//! goes from what others need to who needs it: disks, links, the store, files, then processes.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::chaos::arena::{Arena, policy, restore_policy, source};
use crate::chaos::fault::{Fault, Group, Kind};
use crate::chaos::record::{Cause, Ended, Helpless, Record};
use crate::cluster::NAME;
use crate::disk::Failure;
use crate::gateway::Gateway;
use crate::pod::EXCLUSIVE;
use crate::process::{Pid, Signal, alive, send};
use crate::proxy::Mode;
use crate::{PATIENCE, eventually};

/// A slow link's delay: shorter than a request may take, or longer.
const DELAYS_MS: [u64; 4] = [20, 80, 200, 500];

/// How much later than the first the second of two frozen processes goes on.
const PAUSES_MS: [u64; 4] = [0, 0, 20, 150];

/// What ends a fault.
#[derive(Debug)]
pub enum Cure {
    /// Mends a node's disk.
    Disk(usize, Failure),
    /// Heals a node's links, after losing what they held if so wanted.
    Links(usize, bool),
    /// Lets a member of etcd go on, or starts it again.
    Members(Vec<usize>, bool),
    /// Writes a node's sources as they were.
    Sources(usize),
    /// Puts a node's policy back, and lets its daemon notice.
    Policy(usize),
    /// Lets processes of a node go on, one after the other, with so much time in between.
    Resume(usize, Vec<Pid>, Duration),
    /// Starts a node again.
    Start(usize),
    /// It is over by itself.
    Nothing,
}

impl Cure {
    /// Cures are applied in this order.
    fn rank(&self) -> u8 {
        match self {
            Cure::Disk(..) => 0,
            Cure::Links(..) => 1,
            Cure::Members(..) => 2,
            Cure::Sources(..) | Cure::Policy(..) => 3,
            Cure::Resume(..) => 4,
            Cure::Start(..) | Cure::Nothing => 5,
        }
    }
}

/// What is wrong at the moment.
#[derive(Debug, Default)]
pub struct Ills {
    /// With the numbers of the strikes that they end.
    cures: Vec<(usize, Cure)>,
}

impl Ills {
    /// Strikes a node, or the store; returns whom. The cure is kept for [`Ills::heal`].
    ///
    /// # Errors
    ///
    /// When it cannot be done.
    pub fn strike(
        &mut self,
        arena: &mut Arena,
        record: &mut Record,
        fault: &Fault,
        node: usize,
    ) -> Result<String> {
        let number = record.strikes.len();
        let (cure, at) = match fault.kind {
            kind if kind.group() == Group::Store => store(arena, kind, fault.chance)?,
            kind => {
                let name = arena.cluster.nodes[node].name().to_owned();
                (strike_node(arena, record, kind, node, fault.chance)?, name)
            }
        };
        self.cures.push((number, cure));
        Ok(at)
    }

    /// Heals everything; every strike gets the moment of its healing.
    ///
    /// # Errors
    ///
    /// When something cannot be healed.
    pub fn heal(&mut self, arena: &mut Arena, record: &mut Record) -> Result<()> {
        let mut cures = std::mem::take(&mut self.cures);
        cures.sort_by_key(|(_, cure)| cure.rank());
        for (number, cure) in cures {
            apply(arena, record, &cure).with_context(|| format!("heal by {cure:?}"))?;
            if let Some(strike) = record.strikes.get_mut(number) {
                strike.healed = Some(Instant::now());
            }
        }
        supervise(arena, record)
    }
}

/// Starts every node again whose guard has ended by itself, as a supervisor does.
///
/// # Errors
///
/// When a node cannot be started.
pub fn supervise(arena: &mut Arena, record: &mut Record) -> Result<()> {
    for node in &mut arena.cluster.nodes {
        let name = node.name().to_owned();
        let Some(status) = node.guard()?.ended()? else { continue };
        record.ended.push(Ended { node: name, code: status.code(), at: Instant::now() });
        node.start()?;
    }
    Ok(())
}

fn strike_node(
    arena: &mut Arena,
    record: &mut Record,
    kind: Kind,
    node: usize,
    chance: u64,
) -> Result<Cure> {
    if let Some(failure) = kind.failure() {
        arena.cluster.nodes[node].disk()?.fail(failure)?;
        return Ok(Cure::Disk(node, failure));
    }
    match kind {
        Kind::DaemonKilled => {
            daemon(arena, node)?.into_iter().for_each(|pid| signal(pid, Signal::KILL));
            Ok(Cure::Nothing)
        }
        Kind::DaemonFrozen => {
            let daemon = daemon(arena, node)?;
            daemon.iter().for_each(|pid| signal(*pid, Signal::STOP));
            Ok(Cure::Resume(node, daemon.into_iter().collect(), Duration::ZERO))
        }
        Kind::GuardKilled | Kind::NodeStopped => {
            let how = if kind == Kind::GuardKilled { Signal::KILL } else { Signal::TERM };
            signal(guard(arena, node)?, how);
            Ok(Cure::Start(node))
        }
        Kind::GuardFrozen => {
            let guard = guard(arena, node)?;
            signal(guard, Signal::STOP);
            Ok(Cure::Resume(node, vec![guard], Duration::ZERO))
        }
        Kind::BothKilled | Kind::BothFrozen => strike_both(arena, record, kind, node, chance),
        Kind::LinksRefused
        | Kind::LinksBlackHoled
        | Kind::LinksSlow
        | Kind::RepliesLost
        | Kind::RequestsLost
        | Kind::OneLinkBlackHoled => links(arena, kind, node, chance),
        Kind::SourceEdited | Kind::SourceBroken | Kind::SourceRemoved => {
            sources(arena, kind, node, chance)
        }
        Kind::PolicyBroken => break_policy(arena, node, chance),
        Kind::DiskFull
        | Kind::DiskReadOnly
        | Kind::DiskHung
        | Kind::MemberKilled
        | Kind::MemberFrozen
        | Kind::StoreLeaderKilled
        | Kind::StoreLeaderFrozen
        | Kind::StoreFrozen => unreachable!("a disk's are above, the store's are its own"),
    }
}

/// Guard and daemon at once. The guard is stopped first: it would start another daemon.
fn strike_both(
    arena: &Arena,
    record: &mut Record,
    kind: Kind,
    node: usize,
    chance: u64,
) -> Result<Cure> {
    let it = &arena.cluster.nodes[node];
    let killed = kind == Kind::BothKilled;
    let cause = if killed { Cause::Killed } else { Cause::Frozen };
    let from = Instant::now();
    record.helpless.push(Helpless { node: it.name().to_owned(), cause, from, to: None });
    let mut struck: Vec<Pid> = Vec::new();
    // Again, for what was just being started when its parent was stopped.
    for _ in 0..3 {
        let new: Vec<Pid> =
            it.processes().into_iter().filter(|pid| !struck.contains(pid)).collect();
        new.iter().for_each(|pid| signal(*pid, Signal::STOP));
        struck.extend(new);
    }
    if killed {
        struck.iter().for_each(|pid| signal(*pid, Signal::KILL));
        return Ok(Cure::Start(node));
    }
    // Whoever goes on first.
    if chance.is_multiple_of(2) {
        struck.reverse();
    }
    let pause = PAUSES_MS[(chance / 2 % PAUSES_MS.len() as u64) as usize];
    Ok(Cure::Resume(node, struck, Duration::from_millis(pause)))
}

fn apply(arena: &mut Arena, record: &mut Record, cure: &Cure) -> Result<()> {
    match cure {
        Cure::Disk(node, failure) => arena.cluster.nodes[*node].disk()?.mend(*failure),
        Cure::Links(node, lossy) => arena.cluster.links[*node].iter().try_for_each(|link| {
            if *lossy {
                link.cut();
            }
            link.set(Mode::Pass)
        }),
        Cure::Members(members, killed) => members.iter().try_for_each(|member| {
            let etcd = &mut arena.cluster.etcd[*member];
            if *killed { etcd.start_again() } else { etcd.resume() }
        }),
        Cure::Sources(node) => {
            let sources = arena.cluster.nodes[*node].sources();
            EXCLUSIVE.iter().try_for_each(|file| Ok(fs::write(sources.join(file), source(file))?))
        }
        Cure::Policy(node) => {
            restore_policy(arena.cluster.nodes[*node].root())?;
            // One that has none, because its guard is just waiting, starts with the good policy.
            daemon(arena, *node)?.into_iter().for_each(|pid| signal(pid, Signal::KILL));
            Ok(())
        }
        Cure::Resume(node, pids, pause) => {
            let theirs = arena.cluster.nodes[*node].processes();
            able_again(arena, record, *node);
            // One that has ended meanwhile may have left its number to a stranger.
            pids.iter().filter(|pid| theirs.contains(pid)).for_each(|pid| {
                signal(*pid, Signal::CONT);
                std::thread::sleep(*pause);
            });
            Ok(())
        }
        Cure::Start(node) => {
            let guard = arena.cluster.nodes[*node].guard()?;
            guard.wait(PATIENCE)?;
            able_again(arena, record, *node);
            arena.cluster.nodes[*node].start()
        }
        Cure::Nothing => Ok(()),
    }
}

/// From now on this node can withdraw again.
fn able_again(arena: &Arena, record: &mut Record, node: usize) {
    let name = arena.cluster.nodes[node].name();
    let open = record.helpless.iter_mut().rev();
    let mut open = open.filter(|helpless| helpless.node == name && helpless.to.is_none());
    if let Some(helpless) = open.next() {
        helpless.to = Some(Instant::now());
    }
}

/// Whoever has ended meanwhile needs no signal.
fn signal(pid: Pid, signal: Signal) {
    let _ = send(pid, signal);
}

fn guard(arena: &mut Arena, node: usize) -> Result<Pid> {
    Ok(arena.cluster.nodes[node].guard()?.pid())
}

/// The daemon, if there is one right now.
fn daemon(arena: &mut Arena, node: usize) -> Result<Option<Pid>> {
    let children = arena.cluster.nodes[node].guard()?.children();
    Ok(children.into_iter().find(|pid| alive(*pid)))
}

fn store(arena: &mut Arena, kind: Kind, chance: u64) -> Result<(Cure, String)> {
    let members = arena.members();
    let follower = 1 + (chance % (members.len() as u64 - 1)) as usize;
    let struck = match kind {
        Kind::StoreFrozen => members,
        Kind::StoreLeaderKilled | Kind::StoreLeaderFrozen => vec![members[0]],
        _ => vec![members[follower]],
    };
    let killed = matches!(kind, Kind::MemberKilled | Kind::StoreLeaderKilled);
    for member in &struck {
        let etcd = &mut arena.cluster.etcd[*member];
        if killed { etcd.kill()? } else { etcd.pause()? }
    }
    let names: Vec<String> = struck.iter().map(|member| format!("m{member}")).collect();
    Ok((Cure::Members(struck, killed), names.join("+")))
}

fn links(arena: &Arena, kind: Kind, node: usize, chance: u64) -> Result<Cure> {
    let links = &arena.cluster.links[node];
    let delay = DELAYS_MS[(chance % DELAYS_MS.len() as u64) as usize];
    let mode = match kind {
        Kind::LinksRefused => Mode::Refuse,
        Kind::LinksSlow => Mode::Delay(Duration::from_millis(delay)),
        Kind::RepliesLost => Mode::LoseReplies,
        Kind::RequestsLost => Mode::LoseRequests,
        _ => Mode::BlackHole,
    };
    if kind == Kind::OneLinkBlackHoled {
        links[(chance % links.len() as u64) as usize].set(mode)?;
    } else {
        links.iter().try_for_each(|link| link.set(mode))?;
    }
    Ok(Cure::Links(node, (chance / 16).is_multiple_of(2)))
}

fn sources(arena: &Arena, kind: Kind, node: usize, chance: u64) -> Result<Cure> {
    let file = EXCLUSIVE[(chance % EXCLUSIVE.len() as u64) as usize];
    let path = arena.cluster.nodes[node].sources().join(file);
    match kind {
        Kind::SourceEdited => fs::write(path, format!("{}# edit {chance}\n", source(file)))?,
        Kind::SourceBroken => fs::write(path, "apiVersion: [v1\nkind: }{\n")?,
        _ => fs::remove_file(path)?,
    }
    Ok(if kind == Kind::SourceEdited { Cure::Nothing } else { Cure::Sources(node) })
}

/// A policy that is none, is half of one, or is another one; a daemon reads it when it starts.
fn break_policy(arena: &mut Arena, node: usize, chance: u64) -> Result<Cure> {
    let path = policy(arena.cluster.nodes[node].root());
    let whole = fs::read(&path)?;
    let broken = match chance % 3 {
        0 => Vec::new(),
        1 => whole[..whole.len() / 2].to_vec(),
        _ => vec![b'?'; whole.len()],
    };
    fs::write(path, broken)?;
    daemon(arena, node)?.into_iter().for_each(|pid| signal(pid, Signal::KILL));
    Ok(Cure::Policy(node))
}

/// Waits until the store answers a read, and returns when it did.
///
/// # Errors
///
/// When it does not.
pub fn store_answers(arena: &Arena) -> Result<Instant> {
    eventually("the store to answer", PATIENCE, || {
        let members = arena.cluster.etcd.iter();
        let mut gateways = members.filter_map(|etcd| Gateway::connect(etcd.address()).ok());
        gateways
            .any(|mut gateway| gateway.list(&format!("/conclave/{NAME}/sessions/")).is_ok())
            .then(Instant::now)
    })
}
