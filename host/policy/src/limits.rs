//! What one call of a policy may use, and how large its answers may be.

use std::time::Duration;

/// The limits of one call. The defaults are the protocol's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Wall-clock backstop of a decision, instantiation included; checked five times in this
    /// span, so that a call ends at most a fifth later. Loading a component and checking a
    /// configuration, for which nothing waits, may take twenty times as long. 100 ms; below 5 ms
    /// the checks stay a millisecond apart.
    pub deadline: Duration,
    /// The deterministic budget of a call in wasmtime's fuel, about one unit per instruction.
    ///
    /// 100 million: a ranking of 1,000 candidates takes 1.6 million, and an endless loop spends 100
    /// million in some ten milliseconds. So fuel, whose verdict is the same on every node, runs
    /// out before the deadline. `examples/decision_cost.rs` measures both.
    pub fuel: u64,
    /// All linear memories of an instance together, in bytes. 64 MiB.
    pub memory: usize,
    /// All tables of an instance together, in elements. 100,000.
    pub table_elements: usize,
    /// What one answer may take in the host, in bytes. 1 MiB.
    pub answer: usize,
    /// What one call may write to the log, in bytes; the rest is dropped and counted. 64 KiB.
    pub log: usize,
    /// How many calls run at once; further ones wait. 8.
    pub concurrent: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            deadline: Duration::from_millis(100),
            fuel: 100_000_000,
            memory: 64 << 20,
            table_elements: 100_000,
            answer: 1 << 20,
            log: 64 << 10,
            concurrent: 8,
        }
    }
}

/// Bytes of a reason, cut off beyond: it is for people, and losing its end changes nothing.
pub(crate) const REASON: usize = 256;
/// Bytes of a refusal or a problem's message, cut off beyond.
pub(crate) const MESSAGE: usize = 1_024;
/// Bytes of a policy's one-line summary, cut off beyond.
pub(crate) const SUMMARY: usize = 200;
/// How many facts a node has at most: they travel in its candidacy and in every view.
pub(crate) const FACTS: usize = 64;
/// Bytes of a fact's key.
pub(crate) const FACT_KEY: usize = 128;
/// Bytes of a fact's value.
pub(crate) const FACT_VALUE: usize = 4 << 10;
/// Bytes of all facts of a node together.
pub(crate) const FACTS_TOTAL: usize = 16 << 10;
/// Bytes of a variable's value.
pub(crate) const VARIABLE: usize = 64 << 10;
/// Bytes of a component file.
pub(crate) const FILE: u64 = 128 << 20;
