//! A control plane under test: nodes, each with its own link to the etcd servers, and an observer
//! over their static-pod directories.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::etcd::{Etcd, Version};
use crate::gateway::{Entry, Gateway};
use crate::node::{ELECTION, Node, control_plane_node, leader_prefix};
use crate::observer::Observer;
use crate::pod::{API_SERVER, EXCLUSIVE};
use crate::proxy::{Mode, Proxy};
use crate::timeline::Timeline;
use crate::{PATIENCE, eventually, holds_for};

/// The cluster's name in the store.
pub const NAME: &str = "plane";

/// How it is to be; the default is one etcd 3.4 and the suites' usual TTL.
#[derive(Clone)]
pub struct Plan {
    /// Which etcd.
    pub version: Version,
    /// How many members it has.
    pub members: usize,
    /// The nodes' TTL, as in their configuration.
    pub ttl: &'static str,
    /// Whether each node's static-pod directory is a disk of its own, which can fail.
    pub disks: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Plan { version: Version::V3_4, members: 1, ttl: "2s", disks: false }
    }
}

/// Nodes `a`, `b`, `c`… of one election and what is around them.
pub struct Cluster {
    /// The nodes; dropped, and so ended, before what they depend on.
    pub nodes: Vec<Node>,
    /// What is seen of them.
    pub observer: Observer,
    /// Each node's links, in the order of the nodes, one per etcd member.
    pub links: Vec<Vec<Proxy>>,
    /// The members of the etcd cluster.
    pub etcd: Vec<Etcd>,
}

/// A leader key as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// The whole key.
    pub key: String,
    /// Its create revision: the fencing token.
    pub token: u64,
    /// The record in it.
    pub record: Value,
}

impl Cluster {
    /// Sets everything up, and starts no node yet.
    ///
    /// # Errors
    ///
    /// When etcd does not come up.
    pub fn prepare(names: &[&str], plan: &Plan) -> Result<Self> {
        Self::prepare_with(names, plan, |_| Ok(()))
    }

    /// Sets everything up, with nodes that differ from what is usual, and starts none yet.
    ///
    /// # Errors
    ///
    /// When etcd does not come up, or a node cannot be made different.
    pub fn prepare_with(
        names: &[&str],
        plan: &Plan,
        mut differ: impl FnMut(&mut Node) -> Result<()>,
    ) -> Result<Self> {
        let etcd = Etcd::start_cluster(plan.version, plan.members)?;
        let (mut nodes, mut links) = (Vec::new(), Vec::new());
        for name in names {
            let mine = etcd.iter().map(|member| Proxy::start(member.address()));
            let mine = mine.collect::<Result<Vec<_>>>()?;
            let endpoints: Vec<String> = mine.iter().map(Proxy::url).collect();
            let mut node = control_plane_node(name, NAME, &endpoints)?;
            node.config()["timings"]["ttl"] = json!(plan.ttl);
            differ(&mut node)?;
            if plan.disks {
                node.have_a_disk()?;
            }
            nodes.push(node);
            links.push(mine);
        }
        let seen: Vec<(&str, PathBuf)> =
            nodes.iter().map(|node| (node.name(), node.destinations())).collect();
        let observer = Observer::start(seen.iter().map(|(name, path)| (*name, path.as_path())))?;
        Ok(Cluster { nodes, observer, links, etcd })
    }

    /// Sets everything up, starts the nodes, and waits until one leads and all are candidates.
    ///
    /// # Errors
    ///
    /// When it does not come to that.
    pub fn start(names: &[&str], plan: &Plan) -> Result<Self> {
        let mut cluster = Self::prepare(names, plan)?;
        cluster.nodes.iter_mut().try_for_each(Node::start)?;
        cluster.settle()?;
        Ok(cluster)
    }

    /// Three nodes as [`Cluster::start`] sets them up.
    ///
    /// # Errors
    ///
    /// When it does not come to that.
    pub fn three() -> Result<Self> {
        Self::start(&["a", "b", "c"], &Plan::default())
    }

    /// Waits until every node is a candidate and has what runs everywhere, and one leads;
    /// returns its name.
    ///
    /// # Errors
    ///
    /// When it does not come to that.
    pub fn settle(&self) -> Result<String> {
        self.wait_for_candidates(self.nodes.len())?;
        let everywhere = || self.observer.holders(&[API_SERVER]).len() == self.nodes.len();
        eventually("the API server on every node", PATIENCE, || everywhere().then_some(()))?;
        self.leader()
    }

    /// Waits until the store lists this many candidates whose sessions stand.
    ///
    /// # Errors
    ///
    /// When it does not come to that.
    pub fn wait_for_candidates(&self, count: usize) -> Result<()> {
        eventually(&format!("{count} candidates"), PATIENCE, || {
            (self.candidates().ok()?.len() == count).then_some(())
        })
    }

    /// The nodes that stand as candidates, as [`candidates`] says.
    ///
    /// # Errors
    ///
    /// When etcd does not answer.
    pub fn candidates(&self) -> Result<BTreeMap<String, u64>> {
        candidates(&mut Gateway::connect(self.etcd[0].address())?, NAME)
    }

    /// Waits until one node has both exclusive manifests, and returns its name.
    ///
    /// # Errors
    ///
    /// When it does not come to that.
    pub fn leader(&self) -> Result<String> {
        self.observer.wait_for_holder(&EXCLUSIVE)
    }

    /// Waits until a node other than `old` has both.
    ///
    /// # Errors
    ///
    /// When it does not come to that.
    pub fn leader_after(&self, old: &str) -> Result<String> {
        self.observer.wait_for_new_holder(&EXCLUSIVE, old)
    }

    /// A node by name.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn node(&mut self, name: &str) -> &mut Node {
        let at = self.position(name);
        &mut self.nodes[at]
    }

    /// The name of some node other than this one.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn other(&self, name: &str) -> String {
        let other = self.nodes.iter().find(|node| node.name() != name);
        other.expect("a second node").name().to_owned()
    }

    /// Changes all of a node's links.
    ///
    /// # Errors
    ///
    /// When a link does not follow.
    pub fn link(&self, name: &str, mode: Mode) -> Result<()> {
        self.links[self.position(name)].iter().try_for_each(|link| link.set(mode))
    }

    /// The leader keys that stand, oldest first; ours and others'.
    ///
    /// # Errors
    ///
    /// When etcd does not answer.
    pub fn leader_keys(&self) -> Result<Vec<Entry>> {
        let mut gateway = Gateway::connect(self.etcd[0].address())?;
        let mut entries = gateway.list(&leader_prefix(NAME, ELECTION))?;
        entries.sort_by_key(|entry| entry.created);
        Ok(entries)
    }

    /// The term that stands, if any: the oldest leader key, with its record.
    ///
    /// # Errors
    ///
    /// When etcd does not answer, or the oldest key is not one of ours.
    pub fn term(&self) -> Result<Option<Term>> {
        let oldest = self.leader_keys()?.into_iter().next();
        oldest
            .map(|entry| {
                let record = serde_json::from_slice(&entry.value).context("a leader record")?;
                Ok(Term { key: entry.key, token: entry.created, record })
            })
            .transpose()
    }

    /// A node's candidacy, as it stands in the store.
    ///
    /// # Errors
    ///
    /// When etcd does not answer, or there is none.
    pub fn candidacy(&self, name: &str) -> Result<Value> {
        self.record(&format!("candidates/{ELECTION}/{name}"))
    }

    /// What history says of the end of a term.
    ///
    /// # Errors
    ///
    /// When etcd does not answer, or the term has not ended.
    pub fn ending(&self, token: u64) -> Result<Value> {
        self.record(&format!("history/{ELECTION}/{token:020}"))
    }

    fn record(&self, key: &str) -> Result<Value> {
        let key = format!("/conclave/{NAME}/{key}");
        let mut found = Gateway::connect(self.etcd[0].address())?.list(&key)?.into_iter();
        let entry = found.find(|entry| entry.key == key);
        let entry = entry.with_context(|| format!("no key {key}"))?;
        serde_json::from_slice(&entry.value).with_context(|| format!("the record of {key}"))
    }

    /// Asks for the standing term to be handed to a node, as an operator does.
    ///
    /// # Errors
    ///
    /// When nobody leads, or etcd does not answer.
    pub fn transfer(&self, to: &str) -> Result<()> {
        let term = self.term()?.context("a term to transfer")?;
        let intent = json!({ "token": term.token, "to": to, "note": "test" }).to_string();
        self.control("transfer", Some(&intent))
    }

    /// Writes an operator's intent, or deletes it: `transfer`, `pause`, `cordons/<node>`.
    ///
    /// # Errors
    ///
    /// When etcd does not answer.
    pub fn control(&self, what: &str, intent: Option<&str>) -> Result<()> {
        let key = format!("/conclave/{NAME}/elections/{ELECTION}/control/{what}");
        match intent {
            Some(intent) => self.etcd[0].ctl(&["put", &key, intent]),
            None => self.etcd[0].ctl(&["del", &key]),
        }
        .map(drop)
    }

    /// Makes sure that this node alone leads, for a time.
    ///
    /// # Errors
    ///
    /// When that changes.
    pub fn leads_for(&self, name: &str, span: Duration) -> Result<()> {
        holds_for(&format!("{name} leads"), span, || self.observer.holders(&EXCLUSIVE) == [name])
    }

    /// Makes sure that nobody leads, for a time.
    ///
    /// # Errors
    ///
    /// When that changes.
    pub fn nobody_leads_for(&self, span: Duration) -> Result<()> {
        holds_for("nobody leads", span, || self.observer.holders(&EXCLUSIVE).is_empty())
    }

    /// Ends nodes and observation. What every story must have in common is checked: never two
    /// holders of any exclusive manifest, no half-written file, both manifests together.
    ///
    /// # Errors
    ///
    /// When one of these does not hold.
    pub fn finish(self) -> Result<Timeline> {
        let Cluster { nodes, observer, links, etcd } = self;
        let story = observer.finish()?;
        story.at_most_one_holder(&EXCLUSIVE)?;
        story.moved_together(&EXCLUSIVE)?;
        story.only_renamed(&[&EXCLUSIVE[..], &[API_SERVER]].concat())?;
        drop((nodes, links, etcd));
        Ok(story)
    }

    fn position(&self, name: &str) -> usize {
        self.nodes.iter().position(|node| node.name() == name).expect("a node of the cluster")
    }
}

/// The nodes of a cluster that stand as candidates in [`ELECTION`] with the session that they have
/// now, each with the revision of that session's newest beat.
///
/// # Errors
///
/// When etcd does not answer.
pub fn candidates(gateway: &mut Gateway, cluster: &str) -> Result<BTreeMap<String, u64>> {
    let sessions = gateway.list(&format!("/conclave/{cluster}/sessions/"))?;
    let candidacies = gateway.list(&format!("/conclave/{cluster}/candidates/{ELECTION}/"))?;
    let node = |entry: &Entry| entry.key.rsplit('/').next().unwrap_or_default().to_owned();
    let stands = |session: &&Entry| {
        candidacies.iter().any(|candidacy| {
            let record: Value = serde_json::from_slice(&candidacy.value).unwrap_or_default();
            node(session) == node(candidacy) && record["session"].as_u64() == Some(session.created)
        })
    };
    let standing = sessions.iter().filter(stands);
    Ok(standing.map(|session| (node(session), session.modified)).collect())
}
