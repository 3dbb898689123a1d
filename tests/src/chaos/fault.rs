//! The faults, and where they strike.

use std::time::Duration;

use crate::disk::Failure;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// SIGKILL of a daemon.
    DaemonKilled,
    /// SIGSTOP of a daemon.
    DaemonFrozen,
    /// SIGKILL of a guard, which is started again after a while.
    GuardKilled,
    /// SIGSTOP of a guard.
    GuardFrozen,
    /// SIGKILL of guard and daemon, which are started again after a while.
    BothKilled,
    /// SIGSTOP of guard and daemon.
    BothFrozen,
    /// SIGTERM of a guard, which is started again after a while.
    NodeStopped,
    /// A node's links refuse connections.
    LinksRefused,
    /// A node's links hold whatever they are given.
    LinksBlackHoled,
    /// A node's links are slow.
    LinksSlow,
    /// A node hears nothing, but is heard.
    RepliesLost,
    /// A node is not heard, but hears.
    RequestsLost,
    /// A node's link to one member of etcd alone holds whatever it is given.
    OneLinkBlackHoled,
    /// SIGKILL of a member of etcd that is not its leader.
    MemberKilled,
    /// SIGSTOP of a member of etcd that is not its leader.
    MemberFrozen,
    /// SIGKILL of etcd's leader.
    StoreLeaderKilled,
    /// SIGSTOP of etcd's leader.
    StoreLeaderFrozen,
    /// SIGSTOP of every member of etcd.
    StoreFrozen,
    /// A node's destination has no space left.
    DiskFull,
    /// A node's destination cannot be written to.
    DiskReadOnly,
    /// Whoever writes to a node's destination hangs.
    DiskHung,
    /// A node's source is edited; it remains a manifest.
    SourceEdited,
    /// A node's source becomes garbage.
    SourceBroken,
    /// A node's source is removed.
    SourceRemoved,
    /// A node's policy is replaced by a broken one, and its daemon is killed so that it notices.
    PolicyBroken,
}

/// What faults have to do with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// A node's processes, of which one node has one struck at a time.
    Process,
    /// A node's links.
    Link,
    /// The members of etcd.
    Store,
    /// A node's destination.
    Disk,
    /// A node's sources.
    Source,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 25] = [
        Kind::DaemonKilled,
        Kind::DaemonFrozen,
        Kind::GuardKilled,
        Kind::GuardFrozen,
        Kind::BothKilled,
        Kind::BothFrozen,
        Kind::NodeStopped,
        Kind::LinksRefused,
        Kind::LinksBlackHoled,
        Kind::LinksSlow,
        Kind::RepliesLost,
        Kind::RequestsLost,
        Kind::OneLinkBlackHoled,
        Kind::MemberKilled,
        Kind::MemberFrozen,
        Kind::StoreLeaderKilled,
        Kind::StoreLeaderFrozen,
        Kind::StoreFrozen,
        Kind::DiskFull,
        Kind::DiskReadOnly,
        Kind::DiskHung,
        Kind::SourceEdited,
        Kind::SourceBroken,
        Kind::SourceRemoved,
        Kind::PolicyBroken,
    ];

    /// What it has to do with.
    pub fn group(self) -> Group {
        match self {
            Kind::DaemonKilled
            | Kind::DaemonFrozen
            | Kind::GuardKilled
            | Kind::GuardFrozen
            | Kind::BothKilled
            | Kind::BothFrozen
            | Kind::NodeStopped
            // Its daemon is killed, so that it notices.
            | Kind::PolicyBroken => Group::Process,
            Kind::LinksRefused
            | Kind::LinksBlackHoled
            | Kind::LinksSlow
            | Kind::RepliesLost
            | Kind::RequestsLost
            | Kind::OneLinkBlackHoled => Group::Link,
            Kind::MemberKilled
            | Kind::MemberFrozen
            | Kind::StoreLeaderKilled
            | Kind::StoreLeaderFrozen
            | Kind::StoreFrozen => Group::Store,
            Kind::DiskFull | Kind::DiskReadOnly | Kind::DiskHung => Group::Disk,
            Kind::SourceEdited | Kind::SourceBroken | Kind::SourceRemoved => Group::Source,
        }
    }

    /// How a disk fails in it, if one does.
    pub fn failure(self) -> Option<Failure> {
        match self {
            Kind::DiskFull => Some(Failure::Full),
            Kind::DiskReadOnly => Some(Failure::ReadOnly),
            Kind::DiskHung => Some(Failure::Hung),
            _ => None,
        }
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Kind::DaemonKilled => "daemon killed",
            Kind::DaemonFrozen => "daemon frozen",
            Kind::GuardKilled => "guard killed",
            Kind::GuardFrozen => "guard frozen",
            Kind::BothKilled => "guard and daemon killed",
            Kind::BothFrozen => "guard and daemon frozen",
            Kind::NodeStopped => "node stopped (SIGTERM)",
            Kind::LinksRefused => "links refused",
            Kind::LinksBlackHoled => "links black-holed",
            Kind::LinksSlow => "links slow",
            Kind::RepliesLost => "replies lost",
            Kind::RequestsLost => "requests lost",
            Kind::OneLinkBlackHoled => "one link black-holed",
            Kind::MemberKilled => "etcd follower killed",
            Kind::MemberFrozen => "etcd follower frozen",
            Kind::StoreLeaderKilled => "etcd leader killed",
            Kind::StoreLeaderFrozen => "etcd leader frozen",
            Kind::StoreFrozen => "etcd frozen",
            Kind::DiskFull => "destination full",
            Kind::DiskReadOnly => "destination read-only",
            Kind::DiskHung => "destination hung",
            Kind::SourceEdited => "source edited",
            Kind::SourceBroken => "source broken",
            Kind::SourceRemoved => "source removed",
            Kind::PolicyBroken => "policy broken",
        }
    }

    /// Whether it needs time to show: otherwise it is over when it has happened.
    pub fn lasts(self) -> bool {
        !matches!(self, Kind::DaemonKilled | Kind::SourceEdited)
    }
}

/// Whom a fault strikes, as far as can be said before the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// The node that leads when the step begins.
    Holder,
    /// One of the other nodes, by number.
    Standby(usize),
    /// The store.
    Store,
}

/// A fault to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Which.
    pub kind: Kind,
    /// Whom it strikes.
    pub target: Target,
    /// How long after the step's beginning.
    pub after: Duration,
    /// Decides whatever else about it is random.
    pub chance: u64,
}
