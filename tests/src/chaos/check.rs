//! What must hold whatever was done: judged by what was seen, not by what anybody says.
//!
//! Order decides wherever it can: one inotify queue has every directory's events in the order of
//! their happening. Clocks are asked only how long something lasted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use crate::chaos::fault::Group;
use crate::chaos::history::History;
use crate::chaos::orphan::{Orphan, orphans};
use crate::chaos::record::{Cause, Record};
use crate::timeline::{Change, Overlap, Sighting, Timeline};

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Never two nodes with exclusive manifests in place.
    OneHolder,
    /// An orphan goes before anything else appears on its node.
    OrphanFirst,
    /// The tokens of what is placed only grow, and belong to the node that places.
    Tokens,
    /// The manifests of an election come and go together.
    Together,
    /// Nobody can have seen half a file.
    Whole,
    /// The store has one term at a time, and an entry for each that ended.
    History,
    /// Somebody leads again within the bound after all faults have healed.
    LeadsAgain,
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Of what.
    pub rule: Rule,
    /// When, since the observation's beginning; what only the store tells has no time.
    pub at: Option<Duration>,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { rule, at, what } = self;
        match at {
            Some(at) => write!(f, "{rule:?} at {:.4} s: {what}", at.as_secs_f64()),
            None => write!(f, "{rule:?}: {what}"),
        }
    }
}

/// All that is judged.
pub struct Evidence<'a> {
    /// What was seen.
    pub story: &'a Timeline,
    /// What was done.
    pub record: &'a Record,
    /// The exclusive manifests.
    pub files: &'a [&'a str],
    /// The nodes' TTL: none of them has only a part of the manifests for longer.
    pub ttl: Duration,
}

impl Evidence<'_> {
    /// Everything that was seen and must not be, by the observation alone.
    pub fn violations(&self) -> Vec<Violation> {
        let orphans = self.orphans();
        let mut violations = self.holders(&orphans);
        violations.extend(self.overlaps(&orphans));
        violations.extend(self.returns(&orphans));
        violations.extend(self.tokens());
        violations.extend(self.parts());
        violations.extend(self.writes());
        violations.sort_by_key(|violation| violation.at);
        violations
    }

    /// The orphans of the run.
    pub fn orphans(&self) -> Vec<Orphan> {
        orphans(self.story, self.files, &self.record.helpless)
    }

    /// No file appears on one node while another has any, unless that is an orphan.
    fn holders(&self, orphans: &[Orphan]) -> Vec<Violation> {
        let mut present: BTreeSet<(&str, &str)> = BTreeSet::new();
        let mut violations = Vec::new();
        for sighting in self.story.sightings(self.files) {
            let Sighting { at, node, file, change, .. } = sighting;
            if *change == Change::Vanished {
                present.remove(&(node, file));
                continue;
            }
            present.insert((node, file));
            let others = present.iter().filter(|(other, _)| other != node);
            for (other, theirs) in others.filter(|(other, _)| !excused(orphans, other, *at)) {
                let what = format!("{file} of {node} appeared while {theirs} of {other} stood");
                violations.push(self.violation(Rule::OneHolder, *at, what));
            }
        }
        violations
    }

    /// The same by polling: of two that had a file at once, one must be an orphan. However often a
    /// file was seen with the same two, it is told once.
    fn overlaps(&self, orphans: &[Orphan]) -> Vec<Violation> {
        let mut bad: BTreeMap<(&str, &[String; 2]), Vec<Instant>> = BTreeMap::new();
        for Overlap { at, file, nodes } in self.story.overlaps() {
            let ours = self.files.contains(&file.as_str());
            if ours && !nodes.iter().any(|node| excused(orphans, node, *at)) {
                bad.entry((file, nodes)).or_default().push(*at);
            }
        }
        bad.into_iter()
            .map(|((file, [one, other]), looks)| {
                let (first, count) = (looks[0], looks.len());
                let what = format!("{file} was seen with {one} and {other} at once, {count} times");
                self.violation(Rule::OneHolder, first, what)
            })
            .collect()
    }

    /// After both of a node's processes were killed, nothing appears on it before what they left
    /// is gone.
    fn returns(&self, orphans: &[Orphan]) -> Vec<Violation> {
        let killed = orphans.iter().filter(|orphan| orphan.cause == Cause::Killed);
        let mut violations = Vec::new();
        for orphan in killed {
            let Some(able) = orphan.able else { continue };
            let early = self.story.all_sightings().iter().find(|sighting| {
                sighting.node == orphan.node
                    && sighting.at >= able
                    && sighting.change != Change::Vanished
                    && orphan.gone.is_none_or(|gone| sighting.at < gone)
            });
            if let Some(Sighting { at, node, file, .. }) = early {
                let what = format!("{file} of {node} appeared before its orphans were gone");
                violations.push(self.violation(Rule::OrphanFirst, *at, what));
            } else if orphan.gone.is_none() {
                let what = format!("an orphan of {} was never taken away", orphan.node);
                violations.push(self.violation(Rule::OrphanFirst, able, what));
            }
        }
        violations
    }

    /// Tokens never go back, and a node's manifests are of one term.
    fn tokens(&self) -> Vec<Violation> {
        let mut highest = 0;
        let mut placed: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        let mut violations = Vec::new();
        for sighting in self.story.sightings(self.files) {
            let Sighting { at, node, file, change, term } = sighting;
            placed.remove(&(node, file));
            let Some(token) = term.filter(|_| *change != Change::Vanished) else { continue };
            if token < highest {
                let what = format!("{file} of {node} placed in term {token} after {highest}");
                violations.push(self.violation(Rule::Tokens, *at, what));
            }
            highest = highest.max(token);
            placed.insert((node, file), token);
            let mixed = placed.iter().find(|((of, _), other)| of == node && **other != token);
            if let Some(((_, other), theirs)) = mixed {
                let what = format!("{node} has {file} of term {token} and {other} of {theirs}");
                violations.push(self.violation(Rule::Tokens, *at, what));
            }
        }
        violations
    }

    /// No node has only a part of the manifests for longer than a TTL, unless it could not help it.
    fn parts(&self) -> Vec<Violation> {
        let mut present: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let mut partial: BTreeMap<&str, Instant> = BTreeMap::new();
        let mut violations = Vec::new();
        let mut judge = |node: &str, from: Instant, to: Instant| {
            if to - from > self.ttl && !self.hindered(node, from, to) {
                let what = format!("{node} had a part of the manifests for {:?}", to - from);
                violations.push(self.violation(Rule::Together, from, what));
            }
        };
        for Sighting { at, node, file, change, .. } in self.story.sightings(self.files) {
            let theirs = present.entry(node).or_default();
            if *change == Change::Vanished {
                theirs.remove(file.as_str())
            } else {
                theirs.insert(file)
            };
            if theirs.is_empty() || theirs.len() == self.files.len() {
                if let Some(from) = partial.remove(node.as_str()) {
                    judge(node, from, *at);
                }
            } else {
                partial.entry(node).or_insert(*at);
            }
        }
        let end = self.story.all_sightings().last().map(|last| last.at);
        for (node, from) in partial {
            judge(node, from, end.unwrap_or(from));
        }
        violations
    }

    /// Whether a node's disk or both its processes were struck at any time between these.
    fn hindered(&self, node: &str, from: Instant, to: Instant) -> bool {
        let during = |since: Instant, until: Option<Instant>| {
            since <= to && until.is_none_or(|until| until >= from)
        };
        let Record { strikes, helpless, .. } = self.record;
        let disks = strikes.iter().filter(|strike| strike.fault.kind.group() == Group::Disk);
        let mut disks = disks.filter(|disk| disk.at == node);
        let mut helpless = helpless.iter().filter(|helpless| helpless.node == node);
        disks.any(|disk| during(disk.struck, disk.healed))
            || helpless.any(|helpless| during(helpless.from, helpless.to))
    }

    /// Manifests appear whole.
    fn writes(&self) -> Vec<Violation> {
        let writes = self.story.sightings(self.files);
        let writes =
            writes.filter(|sighting| matches!(sighting.change, Change::Created | Change::Written));
        writes
            .map(|Sighting { at, node, file, change, .. }| {
                self.violation(
                    Rule::Whole,
                    *at,
                    format!("{file} of {node} was {change:?} in place"),
                )
            })
            .collect()
    }

    /// What the store says of the terms, and of who placed what in which.
    pub fn against(&self, history: &History) -> Vec<Violation> {
        let mut violations = sound(history);
        for sighting in self.story.sightings(self.files) {
            let Sighting { at, node, file, term, .. } = sighting;
            let Some(token) = term else { continue };
            let holder = history.terms.get(token).map(|term| term.holder.as_str());
            if holder != Some(node) {
                let what = format!("{node} placed {file} in term {token}, which is {holder:?}'s");
                violations.push(self.violation(Rule::Tokens, *at, what));
            }
        }
        violations
    }

    fn violation(&self, rule: Rule, at: Instant, what: String) -> Violation {
        Violation { rule, at: Some(self.story.since_start(at)), what }
    }
}

fn excused(orphans: &[Orphan], node: &str, at: Instant) -> bool {
    orphans.iter().any(|orphan| orphan.node == node && orphan.excuses(at))
}

/// One term at a time, and an entry for each that ended.
fn sound(history: &History) -> Vec<Violation> {
    let of = |what: String| Violation { rule: Rule::History, at: None, what };
    let mut violations: Vec<_> = history.strange.iter().cloned().map(of).collect();
    let terms: Vec<_> = history.terms.values().collect();
    for pair in terms.windows(2) {
        let [one, next] = pair else { continue };
        if one.ended.is_none_or(|ended| ended > next.token) {
            violations.push(of(format!("term {} began while {} stood", next.token, one.token)));
        }
    }
    let silent = terms.iter().filter(|term| term.ended.is_some() && !term.entered);
    violations.extend(silent.map(|term| of(format!("term {} has no entry", term.token))));
    violations
}

#[cfg(test)]
mod tests;
