//! When somebody led and when nobody did, and what each fault cost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::chaos::fault::Kind;
use crate::chaos::orphan::Orphan;
use crate::chaos::record::{Cause, Played, Record, Strike};
use crate::timeline::{Change, Sighting, Timeline};

/// A stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its beginning.
    pub from: Instant,
    /// Its end; `None` while the observation lasted.
    pub to: Option<Instant>,
}

impl Span {
    fn contains(&self, at: Instant) -> bool {
        self.from <= at && self.to.is_none_or(|to| at < to)
    }
}

/// What a step's faults cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cost {
    /// Which fault; `None` for several at once.
    pub kind: Option<Kind>,
    /// Whether it struck the node that led.
    pub holder: bool,
    /// The step's number.
    pub step: usize,
    /// From the strike to the last moment in the step from which exactly one node led again; zero
    /// where one led throughout.
    pub unavailable: Duration,
    /// How much of that time nobody led.
    pub gap: Duration,
    /// How many orphans it left.
    pub orphans: usize,
    /// From the healing, the store answering and the machine quick enough, to a moment at which
    /// exactly one node led.
    pub recovery: Duration,
}

/// The times in which exactly one node had all exclusive manifests, orphans not counted.
pub fn served(story: &Timeline, files: &[&str], orphans: &[Orphan]) -> Vec<Span> {
    let complete = complete(story, files);
    let mut moments: Vec<Instant> = complete
        .values()
        .flatten()
        .flat_map(|span| [Some(span.from), span.to])
        .chain(orphans.iter().flat_map(|orphan| [Some(orphan.from), orphan.able, orphan.gone]))
        .flatten()
        .collect();
    moments.sort();
    moments.dedup();
    let mut served: Vec<Span> = Vec::new();
    for at in moments {
        let open = served.last_mut().filter(|span| span.to.is_none());
        match (open, one_leads(&complete, orphans, at)) {
            (Some(open), false) => open.to = Some(at),
            (None, true) => served.push(Span { from: at, to: None }),
            _ => {}
        }
    }
    served
}

/// Whether exactly one node has everything and is no orphan.
fn one_leads(complete: &BTreeMap<&str, Vec<Span>>, orphans: &[Orphan], at: Instant) -> bool {
    let having = complete.iter().filter(|(_, spans)| spans.iter().any(|span| span.contains(at)));
    let orphaned = |node: &str, disk: bool| {
        orphans.iter().any(|orphan| {
            let until = match orphan.cause {
                Cause::Killed => orphan.gone,
                Cause::Frozen | Cause::Disk => orphan.able,
            };
            orphan.node == node
                && (orphan.cause == Cause::Disk) == disk
                && Span { from: orphan.from, to: until }.contains(at)
        })
    };
    let mut live: Vec<&str> =
        having.map(|(node, _)| *node).filter(|node| !orphaned(node, false)).collect();
    if live.len() > 1 {
        // A node with a bad disk may well lead. It does not once another does.
        live.retain(|node| !orphaned(node, true));
    }
    live.len() == 1
}

/// When each node had all of the files.
fn complete<'a>(story: &'a Timeline, files: &[&str]) -> BTreeMap<&'a str, Vec<Span>> {
    let mut present: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut complete: BTreeMap<&str, Vec<Span>> = BTreeMap::new();
    let theirs = |sighting: &&Sighting| files.contains(&sighting.file.as_str());
    for Sighting { at, node, file, change, .. } in story.all_sightings().iter().filter(theirs) {
        let having = present.entry(node).or_default();
        if *change == Change::Vanished {
            having.remove(file.as_str())
        } else {
            having.insert(file)
        };
        let spans = complete.entry(node).or_default();
        let open = spans.last_mut().filter(|span| span.to.is_none());
        match (open, having.len() == files.len()) {
            (Some(open), false) => open.to = Some(*at),
            (None, true) => spans.push(Span { from: *at, to: None }),
            _ => {}
        }
    }
    complete
}

/// What each step cost.
pub fn costs(record: &Record, served: &[Span], orphans: &[Orphan], stalls: &[Span]) -> Vec<Cost> {
    let cost = |played: &Played| {
        let strikes: Vec<&Strike> = record.strikes_of(played.step).collect();
        let &[first, ref more @ ..] = &strikes[..] else { return None };
        let unserved = unserved(served, first.struck, played.settled);
        let stood = orphans.iter().filter(|orphan| {
            let gone = orphan.gone.is_none_or(|gone| gone > orphan.from);
            gone && orphan.from >= first.struck && orphan.from <= played.settled
        });
        let base = played.healed.max(played.store);
        let again = served.iter().find(|span| span.to.is_none_or(|to| to > base));
        let again = again.map_or(played.settled, |span| span.from);
        let slow = stalls.iter().filter(|stall| stall.from < again).filter_map(|stall| stall.to);
        let base = slow.max().map_or(base, |slow| slow.max(base));
        Some(Cost {
            kind: more.is_empty().then_some(first.fault.kind),
            holder: strikes.iter().any(|strike| strike.holder),
            step: played.step,
            unavailable: unserved.last().map_or(Duration::ZERO, |(_, to)| *to - first.struck),
            gap: unserved.iter().map(|(from, to)| *to - *from).sum(),
            orphans: stood.count(),
            recovery: again.saturating_duration_since(base),
        })
    };
    record.steps.iter().filter_map(cost).collect()
}

/// The stretches between two moments in which nobody led, or more than one.
fn unserved(served: &[Span], from: Instant, to: Instant) -> Vec<(Instant, Instant)> {
    let mut unserved = Vec::new();
    let mut at = from;
    for span in served.iter().filter(|span| span.to.is_none_or(|end| end > from)) {
        if span.from >= to {
            break;
        }
        if span.from > at {
            unserved.push((at, span.from));
        }
        at = span.to.unwrap_or(to).max(at);
    }
    if at < to {
        unserved.push((at, to));
    }
    unserved
}

#[cfg(test)]
mod tests;
