//! Newtypes for every name, revision and token, so that one cannot be taken for another.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                // Most are compared with copies of themselves: keys of maps.
                if Arc::ptr_eq(&self.0, &other.0) {
                    return Ordering::Equal;
                }
                self.0.cmp(&other.0)
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl $name {
            /// Wraps a name; whether it is an acceptable one is for the configuration to say.
            pub fn new(name: impl Into<Arc<str>>) -> Self {
                Self(name.into())
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(name.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name_type!(
    /// A node's unique name in its cluster (podmaster's `whoami`).
    NodeName
);
name_type!(
    /// An election's name, unique in its cluster.
    ElectionName
);
name_type!(
    /// Distinguishes one life of a daemon from every other of the same node name.
    Nonce
);

/// What a number counts. Every such number is hashed with its kind before it, so that whoever
/// explores the states of cores can give those that differ only in how far a counter got, or in
/// what time it is, the same hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum Kind {
    /// A revision of the store, and what is named by one: a session, a term.
    Revision = 1,
    /// An operation of a core.
    Operation = 2,
    /// How often something happened: nothing is decided by it.
    Count = 3,
    /// A reading of one of this node's clocks.
    Time = 4,
    /// The revision as of which a key that is there is known to be as it is: compared with that
    /// of news about the key, and with nothing else.
    AsOf = 5,
}

impl Kind {
    /// Hashes a number of this kind.
    pub(crate) fn hash<H: Hasher>(self, number: u64, state: &mut H) {
        // Nothing else in a core is hashed as an `i8`.
        state.write_i8(self as i8);
        state.write_u64(number);
    }
}

macro_rules! number_type {
    ($(#[$doc:meta])* $name:ident, $kind:expr) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                $kind.hash(self.0, state);
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number_type!(
    /// A revision of the store: it grows with every write and never repeats. Zero stands for
    /// "no such key", as in etcd's compares.
    Revision,
    Kind::Revision
);
number_type!(
    /// A session's identity: the create revision of its record.
    SessionId,
    Kind::Revision
);
number_type!(
    /// A term's fencing token: the create revision of its leader key, so it only grows.
    Token,
    Kind::Revision
);
number_type!(
    /// Ties an action to the event that reports its outcome.
    OpId,
    Kind::Operation
);
number_type!(
    /// How often something happened.
    Count,
    Kind::Count
);
