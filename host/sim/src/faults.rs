//! What can be broken, and how it is mended.

use conclave_core::record::PolicyVersion;
use conclave_core::{Event, Exit};

use crate::network::StoreState;
use crate::node::SimNode;
use crate::policy::PolicyMode;
use crate::world::World;

/// What can be broken. Nodes go by their index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Requests of a node get lost.
    LoseRequests(usize),
    /// Requests of a node are applied, but their replies, and the watch, get lost.
    LoseReplies(usize),
    /// Some requests and replies of a node take up to three TTLs, and overtake each other.
    SlowLink(usize),
    /// The node's link works again.
    Heal(usize),
    /// The node's watch ends with an error.
    BreakWatch(usize),
    /// The node's watch says nothing more. A later one works, and then this one delivers what
    /// it held back.
    HangWatch(usize),
    /// The node's watch skips whatever it would report next.
    SkipWatch(usize),
    /// The daemon dies; its guard starts another 20 ms later.
    KillDaemon(usize),
    /// The machine loses power: nothing runs on it any more.
    KillNode(usize),
    /// The machine starts again, or a daemon that stopped does.
    StartNode(usize),
    /// The daemon is frozen; its guard is not.
    Freeze(usize),
    /// The daemon goes on.
    Thaw(usize),
    /// The daemon is told to stop.
    Stop(usize),
    /// Nothing can be unlinked on the node.
    BreakDisk(usize),
    /// The disk works again.
    MendDisk(usize),
    /// The store answers nobody, and executes nothing that it is sent.
    StopStore,
    /// The store answers nobody, and executes what it was sent when it goes on.
    HangStore,
    /// The store answers again.
    StartStore,
    /// The node's policy answers in another way.
    Policy(usize, PolicyMode),
    /// The node decides by another version of the policy.
    Version(usize, u64),
}

impl World {
    /// Injects a fault now.
    pub fn inject(&mut self, fault: &Fault) {
        self.trace(|_| format!("fault {fault:?}"));
        match *fault {
            Fault::LoseRequests(n) => self.nodes[n].lose_requests = true,
            Fault::LoseReplies(n) => self.nodes[n].lose_replies = true,
            Fault::SlowLink(n) => self.nodes[n].slow_link = true,
            Fault::Heal(n) => {
                let node = &mut self.nodes[n];
                (node.lose_requests, node.lose_replies, node.slow_link) = (false, false, false);
                self.schedule_watch(n);
            }
            Fault::BreakWatch(n) => {
                if self.nodes[n].watch.take().is_some() {
                    self.deliver(n, Event::WatchBroken);
                }
            }
            Fault::HangWatch(n) => {
                if let Some(watch) = &mut self.nodes[n].watch {
                    watch.hung = true;
                }
            }
            Fault::SkipWatch(n) => {
                if let Some(watch) = &mut self.nodes[n].watch {
                    watch.skips = true;
                }
            }
            Fault::KillDaemon(n) => self.kill_daemon(n),
            Fault::KillNode(n) => self.kill_node(n),
            Fault::StartNode(n) => self.start_node(n),
            Fault::Freeze(n) => self.nodes[n].frozen = self.nodes[n].core.is_some(),
            Fault::Thaw(n) => self.thaw(n),
            Fault::Stop(n) => self.deliver(n, Event::Stop),
            Fault::BreakDisk(n) => self.nodes[n].broken_disk = true,
            Fault::MendDisk(n) => self.nodes[n].broken_disk = false,
            Fault::StopStore => self.store_state = StoreState::Stopped,
            Fault::HangStore => self.store_state = StoreState::Hung,
            Fault::StartStore => self.start_store(),
            Fault::Policy(n, ref mode) => self.nodes[n].policy = mode.clone(),
            Fault::Version(n, version) => {
                let component = format!("{version:x}");
                self.nodes[n].policy_version = PolicyVersion { component, ..Default::default() };
                self.describe(n);
            }
        }
    }

    /// Mends everything that [`World::inject`] can break, and starts whatever is not running.
    /// What operators and competitors put into the store stays.
    pub fn heal(&mut self) {
        self.inject(&Fault::StartStore);
        // A policy that fails or hangs is asked again; one that answered, however foolishly, is
        // taken at its word until it is replaced.
        let lies = self.nodes.iter().any(|node| node.policy == PolicyMode::Lie);
        let version = |node: &SimNode| node.policy_version.clone();
        let differ = self.nodes.iter().any(|node| version(node) != version(&self.nodes[0]));
        for n in 0..self.nodes.len() {
            let policy =
                self.settings.prefer.clone().map_or(PolicyMode::Builtin, PolicyMode::Prefer);
            self.inject(&Fault::Policy(n, policy));
            self.inject(&Fault::Heal(n));
            self.inject(&Fault::MendDisk(n));
            self.inject(&Fault::Thaw(n));
            if lies || differ {
                self.inject(&Fault::Version(n, u64::MAX));
            }
            let unexpected = self.exited(n).filter(|exit| **exit != Exit::Stopped);
            assert_eq!(unexpected, None, "seed {}: n{n} exited", self.settings.seed);
            self.start_node(n);
        }
    }
}
