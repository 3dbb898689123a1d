//! The policy's logic, natively, over many elections at once. The committed component is tested in
//! `tests/component.rs`.

use std::collections::{BTreeMap, BTreeSet};

use conclave_policy_sdk::{Fitness, Incumbent};

use super::*;

/// Nodes and elections; every election is decided about again and again, in an order of chance.
struct Cluster {
    /// Capacity, and for how many seconds it has stood.
    nodes: BTreeMap<&'static str, (u64, u64)>,
    holders: BTreeMap<String, Option<&'static str>>,
    settings: Settings,
    random: u64,
}

impl Cluster {
    fn new(nodes: &[(&'static str, u64)], elections: usize) -> Self {
        let nodes = nodes.iter().map(|(name, capacity)| (*name, (*capacity, 3_600))).collect();
        let holders = (0..elections).map(|i| (format!("shard-{i:03}"), None)).collect();
        Cluster { nodes, holders, settings: Settings::default(), random: 1 }
    }

    fn view(&self, election: &str) -> View {
        let holds = |node: &str| -> Vec<String> {
            let mine = self.holders.iter().filter(|(_, holder)| **holder == Some(node));
            mine.map(|(election, _)| election.clone()).collect()
        };
        let candidate = |(name, (capacity, standing_s)): (&&str, &(u64, u64))| Candidate {
            name: (*name).into(),
            labels: vec![("capacity".into(), capacity.to_string())],
            facts: vec![],
            fitness: Fitness { fit: true, reasons: vec![], checks: vec![] },
            cordoned: false,
            holds: holds(name),
            standing_ms: 1_000 * standing_s,
        };
        View {
            election: election.into(),
            me: "a".into(),
            candidates: self.nodes.iter().map(candidate).collect(),
            incumbent: self.holders[election].map(|name| Incumbent {
                name: name.into(),
                facts: vec![],
                held_ms: 60_000,
            }),
            previous: None,
            transfer: None,
            paused: false,
        }
    }

    fn first(&self, election: &str) -> &'static str {
        let ranking = Spread::rank(&self.view(election), &self.settings).expect("a ranking");
        assert!(ranking.excluded.is_empty());
        let names: BTreeSet<&str> = ranking.order.iter().map(|ranked| &*ranked.node).collect();
        assert_eq!(names.len(), self.nodes.len(), "everybody once");
        let first = &ranking.order[0].node;
        self.nodes.keys().find(|name| **name == *first).expect("a node")
    }

    /// All vacant elections are decided about before any is taken, as when a node dies.
    fn fill(&mut self) {
        let vacant = self.holders.iter().filter(|(_, holder)| holder.is_none());
        let vacant: Vec<String> = vacant.map(|(election, _)| election.clone()).collect();
        let taken: Vec<_> = vacant.into_iter().map(|e| (self.first(&e), e)).collect();
        self.holders.extend(taken.into_iter().map(|(node, election)| (election, Some(node))));
    }

    /// Every election is decided about, again and again until nothing moves any more; says how many
    /// moved.
    fn settle(&mut self) -> usize {
        const ROUNDS: usize = 10;
        let moves: Vec<usize> = (0..ROUNDS).map(|_| self.look()).collect();
        assert_eq!(moves[ROUNDS - 1], 0, "{moves:?}");
        moves.iter().sum()
    }

    /// Every election is decided about once, in an order of chance; says how many moved.
    fn look(&mut self) -> usize {
        let mut order: Vec<String> = self.holders.keys().cloned().collect();
        for i in (1..order.len()).rev() {
            self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            order.swap(i, (self.random >> 33) as usize % (i + 1));
        }
        let mut moves = 0;
        for election in order {
            let first = self.first(&election);
            moves += usize::from(self.holders.insert(election, Some(first)) != Some(Some(first)));
        }
        moves
    }

    fn kill(&mut self, node: &str) {
        self.nodes.remove(node);
        let mine = self.holders.values_mut().filter(|holder| **holder == Some(node));
        mine.for_each(|holder| *holder = None);
    }

    fn counts(&self) -> Vec<usize> {
        let count = |node: &&str| self.holders.values().filter(|h| **h == Some(*node)).count();
        self.nodes.keys().map(count).collect()
    }
}

fn difference(counts: &[usize]) -> usize {
    counts.iter().max().unwrap() - counts.iter().min().unwrap()
}

#[test]
fn a_hundred_elections_on_three_nodes_are_even_and_stay_where_they_are() {
    let mut cluster = Cluster::new(&[("a", 1), ("b", 1), ("c", 1)], 100);
    cluster.fill();
    let scattered = difference(&cluster.counts());
    assert!(scattered <= 25, "{:?}", cluster.counts());
    let moves = cluster.settle();
    assert!(difference(&cluster.counts()) <= 1, "{:?}", cluster.counts());
    assert!(moves <= scattered, "{moves} moves for a difference of {scattered}");
    // An hour in which nothing changes: every election is looked at each time a duration steps on.
    for look in 0..100 {
        assert_eq!(cluster.look(), 0, "look {look}");
    }
}

#[test]
fn when_a_node_goes_and_comes_only_its_share_moves() {
    let mut cluster = Cluster::new(&[("a", 1), ("b", 1), ("c", 1)], 100);
    cluster.fill();
    cluster.settle();
    let before = cluster.holders.clone();

    cluster.kill("c");
    cluster.fill();
    let evened = cluster.settle();
    assert!(difference(&cluster.counts()) <= 1, "{:?}", cluster.counts());
    let stayed = |(election, holder): (&String, &Option<&str>)| {
        *holder != Some("c") && cluster.holders[election] != *holder
    };
    let moved = before.iter().filter(|entry| stayed(*entry)).count();
    assert!(moved <= evened && evened <= 12, "{moved} of the others' moved, {evened} in all");

    // It comes back: nothing moves until it has settled, then no more than its share.
    cluster.nodes.insert("c", (1, 59));
    assert_eq!(cluster.settle(), 0);
    cluster.nodes.insert("c", (1, 60));
    assert_eq!(cluster.settle(), 33);
    assert!(difference(&cluster.counts()) <= 1, "{:?}", cluster.counts());
    assert_eq!(cluster.settle(), 0);
}

#[test]
fn all_on_one_node_are_evened_out_by_as_few_moves_as_possible() {
    let mut cluster = Cluster::new(&[("a", 1), ("b", 1), ("c", 1)], 100);
    cluster.holders.values_mut().for_each(|holder| *holder = Some("a"));
    assert_eq!(cluster.settle(), 66);
    assert_eq!(cluster.counts(), [34, 33, 33]);
    assert_eq!(cluster.settle(), 0);
}

#[test]
fn capacities_are_honoured() {
    let mut cluster = Cluster::new(&[("a", 2), ("b", 1), ("c", 1), ("d", 0)], 80);
    cluster.fill();
    cluster.settle();
    assert_eq!(cluster.counts(), [40, 20, 20, 0]);
    assert_eq!(cluster.settle(), 0);
    // Whoever has no capacity gets what nobody else can take.
    for node in ["a", "b", "c"] {
        cluster.kill(node);
    }
    cluster.fill();
    assert_eq!(cluster.counts(), [80]);
}

#[test]
fn nodes_that_may_not_lead_get_nothing_and_lose_what_they_have() {
    let mut cluster = Cluster::new(&[("a", 1), ("b", 1)], 10);
    cluster.fill();
    cluster.settle();
    let election = cluster.holders.iter().find(|(_, h)| **h == Some("a")).unwrap().0.clone();
    for unusable in [
        |candidate: &mut Candidate| candidate.cordoned = true,
        |candidate: &mut Candidate| candidate.fitness.fit = false,
    ] {
        let mut view = cluster.view(&election);
        unusable(&mut view.candidates[0]);
        let ranking = Spread::rank(&view, &Settings::default()).expect("a ranking");
        assert_eq!(ranking.order[0].node, "b");
        assert_eq!(ranking.order[1].reason, "may not lead, or has not settled");
    }
}

#[test]
fn only_elections_with_the_prefix_count() {
    let mut cluster = Cluster::new(&[("a", 1), ("b", 1)], 4);
    for i in 0..8 {
        cluster.holders.insert(format!("other-{i}"), Some("a"));
    }
    cluster.settings.prefix = "shard-".into();
    cluster.fill();
    let shards = || cluster.holders.keys().filter(|name| name.starts_with("shard-"));
    let moved: Vec<&String> =
        shards().filter(|e| Some(cluster.first(e)) != cluster.holders[*e]).collect();
    let on_a = shards().filter(|election| cluster.holders[*election] == Some("a")).count();
    assert_eq!(moved.len(), on_a.abs_diff(2), "{on_a} of four shards on a");
}

#[test]
fn reasons_say_how_many_a_node_holds() {
    let mut cluster = Cluster::new(&[("a", 1), ("b", 1)], 4);
    cluster.holders.values_mut().for_each(|holder| *holder = Some("a"));
    let reasons = |election: &str| -> Vec<String> {
        let ranking = Spread::rank(&cluster.view(election), &cluster.settings).expect("a ranking");
        ranking.order.into_iter().map(|r| format!("{}: {}", r.node, r.reason)).collect()
    };
    assert_eq!(reasons("shard-000"), ["a: holds 4 of 2, this one among them", "b: holds 0 of 2"]);
    assert_eq!(
        reasons("shard-003"),
        ["b: holds 0 of 2, and is to have this one", "a: holds 4 of 2, and this one is too many"]
    );
}

#[test]
fn mistakes_in_the_configuration_are_all_reported_with_their_place() {
    for (json, paths) in [
        (r#"{"prefix": "shard-"}"#, vec![]),
        (
            r#"{"capacity_label": "", "settle_seconds": 90000}"#,
            vec!["/capacity_label", "/settle_seconds"],
        ),
        (r#"{"prefiks": ""}"#, vec!["/prefiks"]),
    ] {
        let found = match Settings::parse(json) {
            Ok(settings) => Spread::validate(&settings),
            Err(problem) => vec![problem],
        };
        let found: Vec<_> = found.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(found, paths, "{json}");
    }
}
