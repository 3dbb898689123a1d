//! Terms whose effects cannot be withdrawn: told as loudly as possible, in the log and to the
//! operator's `on_stuck` command, once for each reason.
//!
//! Whether a withdrawal failed is the core's to know. One that hangs has not failed, but the term
//! is just as stuck: it is kept, and nobody else may lead, until the disk answers.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use conclave_core::{ElectionName, NodeName, Notice, OpId};
use tracing::{error, warn};

use crate::config::{Config, ElectionConfig};
use crate::daemon::notices;

/// After this a withdrawal that has not returned is told of. Ordinary ones take milliseconds.
pub(crate) const HANGS_AFTER: Duration = Duration::from_secs(2);

const HANGS: &str = "the withdrawal hangs: whether anything is still in place is unknown";

/// What is stuck on this node.
#[derive(Debug)]
pub(crate) struct Stuck {
    node: NodeName,
    commands: BTreeMap<ElectionName, Vec<String>>,
    /// Withdrawals that have not returned.
    withdrawing: BTreeMap<ElectionName, OpId>,
    /// The reason that was told last of what is still stuck.
    told: BTreeMap<ElectionName, String>,
}

impl Stuck {
    /// Nothing is stuck.
    pub(crate) fn new(config: &Config) -> Self {
        let command = |e: &ElectionConfig| Some((e.name.clone(), e.on_stuck.clone()?));
        Stuck {
            node: config.node.name.clone(),
            commands: config.elections.iter().filter_map(command).collect(),
            withdrawing: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }

    /// A withdrawal begins.
    pub(crate) fn withdrawing(&mut self, election: &ElectionName, op: OpId) {
        self.withdrawing.insert(election.clone(), op);
    }

    /// A withdrawal has returned.
    pub(crate) fn returned(&mut self, election: &ElectionName, op: OpId) {
        if self.withdrawing.get(election) == Some(&op) {
            self.withdrawing.remove(election);
            if self.told.get(election).is_some_and(|reason| reason == HANGS) {
                self.told.remove(election);
                warn!(%election, "the withdrawal that hung has returned");
            }
        }
    }

    /// [`HANGS_AFTER`] has passed since a withdrawal began.
    pub(crate) fn overdue(&mut self, election: &ElectionName, op: OpId) {
        if self.withdrawing.get(election) == Some(&op) && self.is_news(election, HANGS) {
            error!(%election, reason = HANGS, "stuck: exclusive effects are not withdrawn; the term is kept so that nobody else leads");
            self.run(election, HANGS);
        }
    }

    /// The core says that a term is stuck, or no longer; of anything else, only the log hears.
    pub(crate) fn notice(&mut self, notice: &Notice) {
        match notice {
            Notice::Stuck { election, reason, .. } => {
                if self.is_news(election, reason) {
                    notices::log(notice);
                    self.run(election, reason);
                }
            }
            Notice::Unstuck { election } => {
                self.told.remove(election);
                notices::log(notice);
            }
            _ => notices::log(notice),
        }
    }

    /// When it is tried again and the same is in the way, that is no news.
    fn is_news(&mut self, election: &ElectionName, reason: &str) -> bool {
        let told = self.told.insert(election.clone(), reason.to_owned());
        told.as_deref() != Some(reason)
    }

    fn run(&self, election: &ElectionName, reason: &str) {
        let Some((program, arguments)) =
            self.commands.get(election).and_then(|command| command.split_first())
        else {
            return;
        };
        let (program, election) = (program.clone(), election.clone());
        let mut command = Command::new(&program);
        command
            .args(arguments)
            .env("CONCLAVE_ELECTION", election.as_str())
            .env("CONCLAVE_NODE", self.node.as_str())
            .env("CONCLAVE_REASON", reason)
            .stdin(Stdio::null());
        // The disk that the term is stuck on may be the program's too: even starting it can hang.
        tokio::task::spawn_blocking(move || match command.status() {
            Err(error) => error!(%election, program, %error, "cannot run the on_stuck command"),
            Ok(status) => warn!(%election, %status, "the on_stuck command ended"),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use conclave_core::Token;

    use super::*;

    /// Each time the operator is told, a line is added to this file.
    fn scene(directory: &Path) -> (Stuck, PathBuf) {
        let file = directory.join("told");
        let script = "echo \"$CONCLAVE_ELECTION $CONCLAVE_NODE $CONCLAVE_REASON\" >>\"$0\"";
        let command = ["sh", "-c", script, file.to_str().unwrap()].map(str::to_owned).to_vec();
        let stuck = Stuck {
            node: "a".into(),
            commands: BTreeMap::from([("e".into(), command)]),
            withdrawing: BTreeMap::new(),
            told: BTreeMap::new(),
        };
        (stuck, file)
    }

    fn failed(reason: &str) -> Notice {
        Notice::Stuck { election: "e".into(), token: Token(7), reason: reason.to_owned() }
    }

    /// What the operator was told, in any order, by what `story` tells.
    fn told(story: impl FnOnce(&mut Stuck)) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let (mut stuck, file) = scene(directory.path());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async { story(&mut stuck) });
        drop(runtime); // it waits for the commands
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    #[test]
    fn each_reason_is_told_once_until_it_is_over() {
        let lines = told(|stuck| {
            for _ in 0..3 {
                stuck.notice(&failed("read-only"));
            }
            stuck.notice(&failed("permission denied"));
            stuck.notice(&Notice::Unstuck { election: "e".into() });
            stuck.notice(&failed("permission denied"));
        });
        assert_eq!(lines, ["e a permission denied", "e a permission denied", "e a read-only"]);
    }

    #[test]
    fn a_withdrawal_that_hangs_is_told_of() {
        let e = ElectionName::from("e");
        let hangs = format!("e a {HANGS}");
        let began = |stuck: &mut Stuck| stuck.withdrawing(&e, OpId(1));
        let lines = told(|stuck| {
            began(stuck);
            stuck.overdue(&e, OpId(1));
            stuck.overdue(&e, OpId(1));
        });
        assert_eq!(lines, std::slice::from_ref(&hangs));
        let lines = told(|stuck| {
            began(stuck);
            stuck.returned(&e, OpId(1));
            stuck.overdue(&e, OpId(1));
        });
        assert!(lines.is_empty(), "it returned in time: {lines:?}");
        let lines = told(|stuck| {
            began(stuck);
            stuck.returned(&e, OpId(1));
            stuck.withdrawing(&e, OpId(2));
            stuck.overdue(&e, OpId(1));
        });
        assert!(lines.is_empty(), "another one is under way: {lines:?}");
        let lines = told(|stuck| {
            for op in [OpId(1), OpId(2)] {
                stuck.withdrawing(&e, op);
                stuck.overdue(&e, op);
                stuck.returned(&e, op);
            }
        });
        assert_eq!(lines, [hangs.clone(), hangs]);
    }
}
