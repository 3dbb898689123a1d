//! Counts pods: every start before it happens, every end after it has.
//!
//! So the count is never too low, and two pods that overlap for a moment only are seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What a stand-in kubelet noticed or did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A manifest is there.
    Placed,
    /// A pod is being started.
    Started,
    /// A manifest is gone.
    Removed,
    /// A pod has ended.
    Stopped,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) at: Instant,
    pub(super) node: &'static str,
    pub(super) pod: String,
    pub(super) what: What,
}

/// Everything that happened, and what runs now.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) events: Vec<Event>,
    running: BTreeMap<String, BTreeSet<&'static str>>,
    most: BTreeMap<String, usize>,
}

impl Book {
    /// The nodes on which a pod runs now.
    pub(super) fn nodes_of(&self, pod: &str) -> BTreeSet<&'static str> {
        self.running.get(pod).cloned().unwrap_or_default()
    }

    /// How many of a pod ran at once at most.
    pub(super) fn most(&self, pod: &str) -> usize {
        self.most.get(pod).copied().unwrap_or(0)
    }

    /// A pod of which more than one has run at once.
    pub(super) fn crowd(&self) -> Option<(String, usize)> {
        self.most.iter().find(|(_, most)| **most > 1).map(|(pod, most)| (pod.clone(), *most))
    }

    /// How often something happened.
    pub(super) fn count(&self, what: What) -> usize {
        self.events.iter().filter(|event| event.what == what).count()
    }

    /// When the last of some pods saw this happen on a node, all of them having seen it there
    /// since an instant.
    pub(super) fn all_since(
        &self,
        since: Instant,
        pods: &[&str],
        node: &str,
        what: What,
    ) -> Option<Instant> {
        let at = |pod: &&str| {
            let mut events = self.events.iter();
            events
                .find(|event| {
                    event.at >= since
                        && event.node == node
                        && event.pod == *pod
                        && event.what == what
                })
                .map(|event| event.at)
        };
        let found: Vec<Instant> = pods.iter().filter_map(at).collect();
        (found.len() == pods.len()).then(|| found.into_iter().max()).flatten()
    }
}

/// The book that all stand-in kubelets write.
#[derive(Debug, Default)]
pub(super) struct Census(Mutex<Book>);

impl Census {
    /// Notes something that happens now.
    pub(super) fn note(&self, node: &'static str, pod: &str, what: What) {
        // Before the lock, which a reader may hold for a moment.
        let at = Instant::now();
        let mut book = self.book();
        book.events.push(Event { at, node, pod: pod.to_owned(), what });
        let running = book.running.entry(pod.to_owned()).or_default();
        match what {
            What::Started => running.insert(node),
            What::Stopped => running.remove(node),
            What::Placed | What::Removed => return,
        };
        let now = running.len();
        let most = book.most.entry(pod.to_owned()).or_default();
        *most = now.max(*most);
    }

    /// The book, closed to writers while it is held.
    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        // A writer's panic leaves nothing half written that would matter here.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlap_of_a_moment_is_remembered() {
        let census = Census::default();
        for (node, what) in [("a", What::Started), ("b", What::Started), ("a", What::Stopped)] {
            census.note(node, "scheduler", what);
        }
        let book = census.book();
        assert_eq!(book.nodes_of("scheduler"), BTreeSet::from(["b"]));
        assert_eq!(book.crowd(), Some(("scheduler".to_owned(), 2)));
    }

    #[test]
    fn one_after_the_other_and_different_pods_are_no_crowd() {
        let census = Census::default();
        census.note("a", "scheduler", What::Started);
        census.note("a", "manager", What::Started);
        census.note("a", "scheduler", What::Stopped);
        census.note("b", "scheduler", What::Started);
        let book = census.book();
        assert_eq!(book.crowd(), None);
        assert_eq!((book.most("scheduler"), book.most("manager"), book.most("other")), (1, 1, 0));
        assert_eq!((book.count(What::Started), book.count(What::Stopped)), (3, 1));
    }

    #[test]
    fn all_have_started_when_the_last_has() {
        let census = Census::default();
        let since = Instant::now();
        let pods = ["scheduler", "manager"];
        census.note("a", "scheduler", What::Started);
        assert_eq!(census.book().all_since(since, &pods, "a", What::Started), None);
        census.note("b", "manager", What::Started);
        assert_eq!(census.book().all_since(since, &pods, "a", What::Started), None);
        census.note("a", "manager", What::Started);
        let last = census.book().events.last().map(|event| event.at);
        assert_eq!(census.book().all_since(since, &pods, "a", What::Started), last);
        assert_eq!(census.book().all_since(Instant::now(), &pods, "a", What::Started), None);
    }
}
