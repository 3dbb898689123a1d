//! What was in place where, in the order in which it happened, and what may be asked of it.
//!
//! Everything here is judged by order, not by clocks: one inotify descriptor over all directories
//! reports events in the order in which the kernel saw them, so "old gone before new appears"
//! needs no time at all. The times only tell how long things took.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

/// How a file changed under its final name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was there when the observation began.
    Found,
    /// It was renamed into place, whole, whether or not there was one before.
    MovedIn,
    /// It was created in place, empty at first.
    Created,
    /// It was written to in place.
    Written,
    /// It was removed, or renamed away.
    Vanished,
}

/// One observed change.
#[derive(Debug, Clone)]
pub struct Sighting {
    /// When the observer learned of it.
    pub at: Instant,
    /// In whose directory.
    pub node: String,
    /// Which file.
    pub file: String,
    /// What happened.
    pub change: Change,
    /// The fencing token that the file names (see [`crate::pod::term`]), where it names one and
    /// was still there when the observer looked.
    pub term: Option<u64>,
}

/// A stretch of time in which a node had any file of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// Whose.
    pub node: String,
    /// When the first file appeared.
    pub from: Instant,
    /// When every file of the group was in place, if that came about.
    pub complete: Option<Instant>,
    /// When the last file vanished; `None` while the observation lasted.
    pub to: Option<Instant>,
}

/// The whole observation.
#[derive(Debug, Clone)]
pub struct Timeline {
    began: Instant,
    sightings: Vec<Sighting>,
    /// Files that polling saw in two directories at once.
    overlaps: Vec<Overlap>,
}

/// A file that polling saw with one node, then with another, then with the first again.
#[derive(Debug, Clone)]
pub struct Overlap {
    /// When the round of looks began that saw it.
    pub at: Instant,
    /// Which file.
    pub file: String,
    /// With whom.
    pub nodes: [String; 2],
}

impl Timeline {
    /// Puts an observation together; the sightings must be in the order of their happening.
    pub fn new(began: Instant, sightings: Vec<Sighting>, overlaps: Vec<Overlap>) -> Self {
        Timeline { began, sightings, overlaps }
    }

    /// What is in place after the last sighting, as pairs of node and file.
    pub fn in_place(&self) -> BTreeSet<(String, String)> {
        let mut present = BTreeSet::new();
        for Sighting { node, file, change, .. } in &self.sightings {
            let what = (node.clone(), file.clone());
            if *change == Change::Vanished {
                present.remove(&what);
            } else {
                present.insert(what);
            }
        }
        present
    }

    /// The nodes that have any of these files after the last sighting.
    pub fn holders(&self, files: &[&str]) -> Vec<String> {
        let held = self.holdings(files).into_iter();
        held.filter(|holding| holding.to.is_none()).map(|holding| holding.node).collect()
    }

    /// Every sighting, in order.
    pub fn all_sightings(&self) -> &[Sighting] {
        &self.sightings
    }

    /// Every sighting of these files, in order.
    pub fn sightings<'a>(&'a self, files: &'a [&str]) -> impl Iterator<Item = &'a Sighting> {
        self.sightings.iter().filter(move |sighting| files.contains(&sighting.file.as_str()))
    }

    /// Who had any of these files, in the order of the beginnings.
    pub fn holdings(&self, files: &[&str]) -> Vec<Holding> {
        let mut holdings: Vec<Holding> = Vec::new();
        let mut present: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for sighting in self.sightings(files) {
            let theirs = present.entry(&sighting.node).or_default();
            if sighting.change == Change::Vanished {
                if theirs.remove(sighting.file.as_str()) && theirs.is_empty() {
                    let open = open_holding(&mut holdings, &sighting.node);
                    open.expect("opened when its first file appeared").to = Some(sighting.at);
                }
                continue;
            }
            theirs.insert(&sighting.file);
            let complete = (theirs.len() == files.len()).then_some(sighting.at);
            match open_holding(&mut holdings, &sighting.node) {
                Some(open) => open.complete = open.complete.or(complete),
                None => holdings.push(Holding {
                    node: sighting.node.clone(),
                    from: sighting.at,
                    complete,
                    to: None,
                }),
            }
        }
        holdings
    }

    /// Checks that no two nodes had any of these files at once: that by the order of events, the
    /// old holder's last file was gone before the new holder's first appeared.
    ///
    /// # Errors
    ///
    /// With the whole story when two had.
    pub fn at_most_one_holder(&self, files: &[&str]) -> Result<()> {
        let mut present: BTreeSet<(&str, &str)> = BTreeSet::new();
        for sighting in self.sightings(files) {
            let what = (sighting.node.as_str(), sighting.file.as_str());
            if sighting.change == Change::Vanished {
                present.remove(&what);
                continue;
            }
            if let Some((other, file)) = present.iter().find(|(node, _)| *node != sighting.node) {
                bail!(
                    "two holders after {:?}: {} of {} appeared while {file} of {other} was in place\n{self}",
                    sighting.at - self.began,
                    sighting.file,
                    sighting.node,
                );
            }
            present.insert(what);
        }
        let seen = self.overlaps.iter().find(|overlap| files.contains(&overlap.file.as_str()));
        if let Some(Overlap { at, file, nodes: [one, other] }) = seen {
            let after = *at - self.began;
            bail!(
                "two holders after {after:?}, seen by polling: {file} of {one} and {other}\n{self}"
            );
        }
        Ok(())
    }

    /// Checks that whoever had one of these files got all of them, and returns the longest time
    /// from the first to the last. A last holding that is still going on must be complete too.
    ///
    /// # Errors
    ///
    /// When a node had some of the files but never all.
    pub fn moved_together(&self, files: &[&str]) -> Result<Duration> {
        let mut longest = Duration::ZERO;
        for holding in self.holdings(files) {
            let Some(complete) = holding.complete else {
                bail!("{} had some of {files:?} but never all\n{self}", holding.node);
            };
            longest = longest.max(complete - holding.from);
        }
        Ok(longest)
    }

    /// Checks that these files only ever changed as a whole, by renaming: no reader can have seen
    /// half of one.
    ///
    /// # Errors
    ///
    /// When one was created or written in place.
    pub fn only_renamed(&self, files: &[&str]) -> Result<()> {
        let in_place =
            |sighting: &&Sighting| matches!(sighting.change, Change::Created | Change::Written);
        if let Some(bad) = self.sightings(files).find(in_place) {
            bail!("{} of {} was {:?} in place\n{self}", bad.file, bad.node, bad.change);
        }
        Ok(())
    }

    /// Checks that a node had none of these files at any time from `from` to `to`.
    ///
    /// # Errors
    ///
    /// When it had one.
    pub fn absent(&self, node: &str, files: &[&str], from: Instant, to: Instant) -> Result<()> {
        for held in self.holdings(files).iter().filter(|held| held.node == node) {
            let over = held.to.is_some_and(|end| end <= from) || held.from > to;
            ensure!(
                over,
                "{node} had {files:?} between {:?} and {:?}\n{self}",
                from.saturating_duration_since(self.began),
                to.saturating_duration_since(self.began),
            );
        }
        Ok(())
    }

    /// Checks that nothing happened to a node's files since `since`: what does not move, stands.
    ///
    /// # Errors
    ///
    /// When something did.
    pub fn untouched(&self, node: &str, files: &[&str], since: Instant) -> Result<()> {
        let touched = |sighting: &&Sighting| sighting.node == node && sighting.at >= since;
        if let Some(sighting) = self.sightings(files).find(touched) {
            bail!("{} of {node} was touched: {:?}\n{self}", sighting.file, sighting.change);
        }
        Ok(())
    }

    /// From each holding's end to the next one's beginning, in order; only where the node changed.
    pub fn gaps(&self, files: &[&str]) -> Vec<Duration> {
        let holdings = self.holdings(files);
        holdings
            .windows(2)
            .filter(|pair| pair[0].node != pair[1].node)
            .filter_map(|pair| Some(pair[1].from.saturating_duration_since(pair[0].to?)))
            .collect()
    }

    /// When the observation began.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// The files that polling saw with two nodes at once.
    pub fn overlaps(&self) -> &[Overlap] {
        &self.overlaps
    }

    /// The time since the observation began, for messages.
    pub fn since_start(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.began)
    }
}

fn open_holding<'a>(holdings: &'a mut [Holding], node: &str) -> Option<&'a mut Holding> {
    holdings.iter_mut().rev().find(|holding| holding.node == node && holding.to.is_none())
}

/// The story, a line per sighting.
impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Sighting { at, node, file, change, term } in &self.sightings {
            let after = self.since_start(*at).as_secs_f64();
            let term = term.map_or(String::new(), |token| format!(", term {token}"));
            writeln!(f, "{after:>10.4} s  {node:<12} {file:<28} {change:?}{term}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Change::{MovedIn, Vanished, Written};

    const BOTH: [&str; 2] = ["s", "c"];

    /// One sighting a second.
    fn story(changes: &[(&str, &str, Change)]) -> Timeline {
        let began = Instant::now();
        let sightings = changes.iter().enumerate().map(|(second, (node, file, change))| Sighting {
            at: began + Duration::from_secs(second as u64),
            node: (*node).to_owned(),
            file: (*file).to_owned(),
            change: *change,
            term: None,
        });
        Timeline::new(began, sightings.collect(), Vec::new())
    }

    #[test]
    fn a_clean_change_of_holder_passes() {
        let story = story(&[
            ("a", "s", MovedIn),
            ("a", "c", MovedIn),
            ("a", "c", Vanished),
            ("a", "s", Vanished),
            ("b", "c", MovedIn),
            ("b", "s", MovedIn),
        ]);
        story.at_most_one_holder(&BOTH).unwrap();
        assert_eq!(story.moved_together(&BOTH).unwrap(), Duration::from_secs(1));
        assert_eq!(story.gaps(&BOTH), [Duration::from_secs(1)]);
        assert_eq!(story.holders(&BOTH), ["b"]);
        story.only_renamed(&BOTH).unwrap();
    }

    #[test]
    fn an_overlap_of_one_file_is_caught() {
        let story = story(&[("a", "s", MovedIn), ("b", "s", MovedIn), ("a", "s", Vanished)]);
        assert!(story.at_most_one_holder(&["s"]).is_err());
        story.at_most_one_holder(&["c"]).unwrap();
    }

    #[test]
    fn an_overlap_across_a_group_is_caught() {
        let story = story(&[
            ("a", "s", MovedIn),
            ("a", "c", MovedIn),
            ("a", "s", Vanished),
            ("b", "s", MovedIn),
            ("a", "c", Vanished),
        ]);
        assert!(story.at_most_one_holder(&BOTH).is_err());
        story.at_most_one_holder(&["s"]).unwrap();
    }

    #[test]
    fn an_overlap_that_only_polling_saw_is_caught() {
        let began = Instant::now();
        let nodes = ["a".to_owned(), "b".to_owned()];
        let overlap = Overlap { at: began, file: "s".to_owned(), nodes };
        let story = Timeline::new(began, Vec::new(), vec![overlap]);
        assert!(story.at_most_one_holder(&["s"]).is_err());
        story.at_most_one_holder(&["c"]).unwrap();
    }

    #[test]
    fn a_file_left_behind_is_caught() {
        let story = story(&[("a", "s", MovedIn), ("a", "s", Vanished), ("b", "s", MovedIn)]);
        assert!(story.moved_together(&BOTH).is_err());
    }

    #[test]
    fn writing_in_place_is_caught() {
        let story = story(&[("a", "s", MovedIn), ("a", "s", Written)]);
        assert!(story.only_renamed(&["s"]).is_err());
    }

    #[test]
    fn absence_is_judged_to_the_end() {
        let story = story(&[("a", "s", MovedIn), ("a", "s", Vanished), ("a", "s", MovedIn)]);
        let second = |n| story.began + Duration::from_secs(n);
        let half = Duration::from_millis(500);
        story.absent("a", &["s"], second(1), second(2) - half).unwrap();
        story.absent("b", &["s"], second(0), second(9)).unwrap();
        assert!(story.absent("a", &["s"], second(1) - half, second(1)).is_err());
        assert!(story.absent("a", &["s"], second(1), second(2) + half).is_err());
    }

    #[test]
    fn a_touch_is_caught() {
        let story = story(&[("a", "s", MovedIn), ("a", "s", MovedIn)]);
        story.untouched("a", &["s"], story.began + Duration::from_secs(2)).unwrap();
        assert!(story.untouched("a", &["s"], story.began + Duration::from_secs(1)).is_err());
    }
}
