//! What happens in the demo, in order, and what must be true after each step.

use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid, kill_process, set_child_subreaper};
use tempfile::TempDir;

use super::census::{Book, Census, What};
use super::node::{self, Node, PODS};
use super::screen::{Row, Screen, Table};
use super::{DemoError, Interrupt};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// How long a step may take; each takes a few seconds at most.
const LIMIT: Duration = Duration::from_secs(15);

/// How long nothing is seen to happen, where that is the point.
const STILLNESS: Duration = Duration::from_secs(1);

/// How often conditions are looked at and the table is drawn; what is measured is noted by the
/// kubelets themselves.
const GLANCE: Duration = Duration::from_millis(20);

/// Tells the story.
pub(super) fn tell(interrupt: &Interrupt) -> Result<(), DemoError> {
    // Daemons whose guard is killed become ours, so that none is left as a zombie.
    set_child_subreaper(Some(getpid()))
        .map_err(|error| DemoError::machine("take in orphans")(error.into()))?;
    let mut stage = Stage::set(interrupt)?;
    stage.election()?;
    stage.daemon_killed()?;
    let dead = stage.node_killed()?;
    stage.node_back(dead)?;
    stage.handover()?;
    stage.end()
}

/// Everything that takes part.
struct Stage<'a> {
    interrupt: &'a Interrupt,
    screen: Screen,
    census: Arc<Census>,
    nodes: Vec<Node>,
    /// Goes last: the nodes live in it.
    _directory: TempDir,
}

impl<'a> Stage<'a> {
    fn set(interrupt: &'a Interrupt) -> Result<Self, DemoError> {
        let directory = tempfile::Builder::new()
            .prefix("conclave-demo-")
            .tempdir()
            .map_err(DemoError::machine("make a temporary directory"))?;
        let sources = directory.path().join("sources");
        fs::create_dir(&sources).map_err(DemoError::machine("make a temporary directory"))?;
        for pod in PODS {
            fs::write(sources.join(format!("{pod}.yaml")), node::manifest(pod))
                .map_err(DemoError::machine("write a manifest"))?;
        }
        let census = Arc::new(Census::default());
        let nodes = NAMES
            .iter()
            .map(|name| Node::new(name, directory.path(), Arc::clone(&census)))
            .collect::<Result<_, _>>()?;
        Ok(Stage { interrupt, screen: Screen::new(), census, nodes, _directory: directory })
    }

    /// Three nodes start, and one of them leads.
    fn election(&mut self) -> Result<(), DemoError> {
        self.screen.say(
            "Three nodes start on this machine, with a file as their store. One of them shall run \
             a scheduler and a controller manager, whatever happens. TTL 2 s.",
        );
        let began = Instant::now();
        for node in &mut self.nodes {
            node.start_kubelet()?;
            node.start_conclave()?;
        }
        let (leader, at) = self.wait_for_leader("a first leader", began, None)?;
        self.wait("all nodes to stand", |stage, _| {
            stage
                .nodes
                .iter()
                .all(|node| node.role().is_some_and(|role| role.holder.is_some()))
                .then_some(())
        })?;
        self.screen.say(&format!(
            "Node {leader} leads: both pods run {} after the start.",
            shown(at - began)
        ));
        self.look_on(STILLNESS)
    }

    /// A killed daemon is nothing: its guard starts another, which goes on with the term.
    fn daemon_killed(&mut self) -> Result<(), DemoError> {
        let leader = self.leader()?;
        let before = self.nodes[leader].role();
        let old =
            self.wait("the leader's daemon to be found", |stage, _| stage.nodes[leader].daemon())?;
        self.screen.say(&format!("The daemon on {} is killed (SIGKILL).", NAMES[leader]));
        let began = Instant::now();
        let events = self.census.book().events.len();
        let _ = kill_process(old, Signal::KILL);
        self.wait("its guard to start another daemon", |stage, _| {
            stage.nodes[leader].daemon().filter(|daemon| *daemon != old)
        })?;
        let restarted = began.elapsed();
        // Longer than the TTL: whatever could follow from it has followed.
        self.look_on(Duration::from_millis(2_500))?;
        let moved = self.census.book().events.len() - events;
        if moved > 0 || self.nodes[leader].role() != before {
            return Err(self.unexpected(format!(
                "killing the daemon moved something: {moved} starts and ends, and the role went from {before:?} to {:?}",
                self.nodes[leader].role()
            )));
        }
        self.screen.say(&format!(
            "Its guard started another after {}, which went on with the same term: nothing moved.",
            shown(restarted)
        ));
        Ok(())
    }

    /// A dead node is replaced. Returns which died.
    fn node_killed(&mut self) -> Result<usize, DemoError> {
        let old = self.leader()?;
        self.screen.say(&format!(
            "Node {} loses power: guard, daemon, kubelet and pods are killed at once.",
            NAMES[old]
        ));
        let began = Instant::now();
        self.nodes[old].cut_power();
        let (leader, running) = self.wait_for_leader("a successor", began, Some(old))?;
        let placed =
            self.census.book().all_since(began, &PODS, leader, What::Placed).unwrap_or(running);
        self.screen.say(&format!(
            "Node {leader} took over: manifests in place {} after the power cut, pods running after {}.",
            shown(placed - began),
            shown(running - began)
        ));
        self.look_on(STILLNESS)?;
        Ok(old)
    }

    /// A node that comes back cleans up, and stands by.
    fn node_back(&mut self, dead: usize) -> Result<(), DemoError> {
        let name = NAMES[dead];
        self.screen
            .say(&format!("Node {name} comes back. Its manifests still lie there from before."));
        self.nodes[dead].start_conclave()?;
        self.wait("the returned node to clean up", |stage, _| {
            let node = &stage.nodes[dead];
            let clean = PODS.iter().all(|pod| !node.has_manifest(pod));
            let stands_by = node.role().is_some_and(|role| {
                role.role == "standby" && role.holder.is_some_and(|holder| holder != name)
            });
            (clean && stands_by).then_some(())
        })?;
        // As its service unit would order it: the kubelet after the cleaning.
        self.nodes[dead].start_kubelet()?;
        self.screen.say("It removed them before its kubelet started, and stands by.");
        self.look_on(STILLNESS)
    }

    /// A leader that is told to stop hands over.
    fn handover(&mut self) -> Result<(), DemoError> {
        let old = self.leader()?;
        self.screen
            .say(&format!("Node {} is told to stop (SIGTERM), as for maintenance.", NAMES[old]));
        let began = Instant::now();
        self.nodes[old].ask_to_stop().map_err(DemoError::machine("signal a node"))?;
        let (leader, running) = self.wait_for_leader("a successor", began, Some(old))?;
        self.wait_for_end(old)?;
        let (placed, gap) = {
            let book = self.census.book();
            let placed = book.all_since(began, &PODS, leader, What::Placed).unwrap_or(running);
            let stopped =
                book.all_since(began, &PODS, NAMES[old], What::Stopped).unwrap_or(running);
            (placed, running.saturating_duration_since(stopped))
        };
        self.screen.say(&format!(
            "It handed over to {leader} and ended with success: manifests in place there after {}, pods running after {}, which is {} after the last of the old ones had ended.",
            shown(placed - began),
            shown(running - began),
            shown(gap)
        ));
        self.look_on(STILLNESS)
    }

    /// Everything stops, and the count is read out.
    fn end(mut self) -> Result<(), DemoError> {
        for node in &mut self.nodes {
            node.ask_to_stop().map_err(DemoError::machine("signal a node"))?;
        }
        for at in 0..self.nodes.len() {
            if self.nodes[at].is_on() {
                self.wait_for_end(at)?;
            }
        }
        self.wait("all pods to end", |_, book| {
            PODS.iter().all(|pod| book.nodes_of(pod).is_empty()).then_some(())
        })?;
        let book = self.census.book();
        if let Some((pod, most)) = book.crowd() {
            return Err(DemoError::TwoRan { pod, most });
        }
        let summary = format!(
            "{} pods were started and {} ended, each counted. There were never two of one kind.",
            book.count(What::Started),
            book.count(What::Stopped)
        );
        drop(book);
        self.screen.conclude(&summary);
        Ok(())
    }

    /// Waits until all pods run on one node, another than `not`. Returns which, and when the
    /// last of them started.
    fn wait_for_leader(
        &mut self,
        what: &str,
        since: Instant,
        not: Option<usize>,
    ) -> Result<(&'static str, Instant), DemoError> {
        self.wait(what, |_, book| {
            let mut names = NAMES.iter().enumerate().filter(|(at, _)| Some(*at) != not);
            names.find_map(|(_, name)| {
                Some((*name, book.all_since(since, &PODS, name, What::Started)?))
            })
        })
    }

    /// The node on which the pods run.
    fn leader(&mut self) -> Result<usize, DemoError> {
        self.wait("a leader", |_, book| {
            let mut nodes = NAMES.iter().enumerate();
            nodes
                .find(|(_, name)| PODS.iter().all(|pod| book.nodes_of(pod).contains(**name)))
                .map(|(at, _)| at)
        })
    }

    /// Waits until a node that was asked to stop has, and has done so well.
    fn wait_for_end(&mut self, at: usize) -> Result<(), DemoError> {
        let status =
            self.wait("a stopped node to end", |stage, _| stage.nodes[at].ended().ok().flatten())?;
        if status.success() {
            return Ok(());
        }
        Err(self.unexpected(format!("node {} ended with {status}", NAMES[at])))
    }

    /// Lets time pass, and looks.
    fn look_on(&mut self, span: Duration) -> Result<(), DemoError> {
        let end = Instant::now() + span;
        self.wait("time to pass", |_, _| (Instant::now() >= end).then_some(()))
    }

    /// Waits for something, keeps the table up to date, and fails at once where two of a pod
    /// run, or somebody wants the demo to end.
    fn wait<T>(
        &mut self,
        what: &str,
        mut condition: impl FnMut(&mut Self, &Book) -> Option<T>,
    ) -> Result<T, DemoError> {
        let end = Instant::now() + LIMIT;
        let census = Arc::clone(&self.census);
        loop {
            self.show();
            {
                let book = census.book();
                if let Some((pod, most)) = book.crowd() {
                    return Err(DemoError::TwoRan { pod, most });
                }
                if let Some(found) = condition(self, &book) {
                    return Ok(found);
                }
            }
            self.interrupt.check()?;
            if Instant::now() >= end {
                return Err(DemoError::Waited {
                    what: what.to_owned(),
                    limit: LIMIT,
                    logs: self.logs(),
                });
            }
            thread::sleep(GLANCE);
        }
    }

    fn show(&mut self) {
        let book = self.census.book();
        let rows = self.nodes.iter().map(|node| Row {
            node: node.name,
            conclave: if node.is_on() { "up" } else { "off" }.to_owned(),
            role: match node.role() {
                _ if !node.is_on() => "-".to_owned(),
                Some(role) if role.role == "leader" => {
                    format!("leader, token {}", role.token.unwrap_or_default())
                }
                Some(role) => role.role,
                None => "-".to_owned(),
            },
            pods: PODS.iter().map(|pod| book.nodes_of(pod).contains(node.name)).collect(),
        });
        let table = Table {
            pods: PODS.to_vec(),
            rows: rows.collect(),
            counts: PODS.iter().map(|pod| (book.nodes_of(pod).len(), book.most(pod))).collect(),
        };
        drop(book);
        self.screen.show(table);
    }

    fn logs(&self) -> String {
        self.nodes.iter().map(Node::log_tail).collect()
    }

    fn unexpected(&self, what: String) -> DemoError {
        DemoError::Unexpected { what, logs: self.logs() }
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        // All at once; each is then waited for as it is dropped.
        for node in &mut self.nodes {
            let _ = node.ask_to_stop();
        }
    }
}

/// A span as people read it.
fn shown(span: Duration) -> String {
    match span.as_secs_f64() {
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{seconds:.2} s"),
    }
}
