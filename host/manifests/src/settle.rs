//! Putting files in place: find out what is missing or wrong, enter it in the ledger, and only
//! then do it: claim, stage, ask the gate, rename.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_core::ids::{NodeName, Token};

use crate::aside;
use crate::contest::{Contest, Problem, Stand};
use crate::error::{FileError, phrase};
use crate::event::{Alarm, Damage, ManifestEvent};
use crate::files::{self, Fingerprint, Found, Target};
use crate::gate::{Effect, Gate, GateError, Slot};
use crate::held::{Condition, Held};
use crate::ledger::{LedgerEntry, LedgerError, LedgerFile};
use crate::manifest::Content;
use crate::prepare::Copy;
use crate::role_file::{RoleFileError, Written};
use crate::withdraw::release;

/// A file is repaired at once, but then not again within this time: another tool may be fighting
/// over it.
const REPAIR_PAUSE: Duration = Duration::from_secs(1);

/// What settling works with, and what it leaves to be done once all effects are settled.
pub(crate) struct Tools<'a> {
    pub(crate) gate: &'a dyn Gate,
    pub(crate) emit: &'a dyn Fn(ManifestEvent),
    /// How long a failure to place counts against the node after it stopped leading.
    pub(crate) grudge: Duration,
    /// Paths to strike out of the ledger.
    pub(crate) forget: BTreeSet<PathBuf>,
    /// Files that were set aside, to be saved.
    pub(crate) asides: Vec<(PathBuf, Target)>,
}

/// What is to be done for one election.
#[derive(Default)]
pub(crate) struct Plan {
    shared: Vec<Step>,
    exclusive: Vec<Step>,
    /// Why the exclusive manifests cannot be placed, all of them.
    blocked: Option<String>,
    /// Whether inotify named the role file.
    suspect_role: bool,
    /// What the ledger must say first.
    pub(crate) entries: Vec<LedgerEntry>,
    /// What to make ready for a term that may begin.
    pub(crate) copies: Vec<Copy>,
}

/// One file to put in place, or to take into our care as it is.
struct Step {
    manifest: String,
    target: Target,
    content: Arc<Content>,
    cause: Cause,
    /// Whether what stands there is kept for saving.
    aside: bool,
    /// A claim made for this step.
    slot: Option<Box<dyn Slot>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    New,
    /// It is right as it stands: only the claim, and the ledger, are missing.
    Keep,
    Replace,
    Repair(Damage),
}

/// Why exclusive steps were not carried out.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("the deadline has passed")]
    Closed,
    #[error(transparent)]
    Gate(#[from] GateError),
    #[error(transparent)]
    File(#[from] FileError),
    /// Whether it took effect is unknown.
    #[error(transparent)]
    Rename(FileError),
    #[error(transparent)]
    RoleFile(#[from] RoleFileError),
}

impl Contest {
    /// Finds out what is to be done. Touches nothing.
    pub(crate) fn plan(&mut self) -> Plan {
        let suspects = std::mem::take(&mut self.suspects);
        let mut plan = Plan::default();
        self.due = None;
        let names: Vec<String> = self.manifests.keys().cloned().collect();
        for name in names {
            self.plan_one(&name, &suspects, &mut plan);
        }
        self.plan_role(&suspects, &mut plan);
        let placed = self.token().is_some() && self.placed == self.token();
        if plan.blocked.is_some() && !placed {
            // They move together or not at all.
            plan.exclusive.clear();
        }
        let election = self.election().clone();
        let token = self.token();
        let lists = [(&plan.shared, None), (&plan.exclusive, token)];
        for (steps, token) in lists {
            let entry = |step: &Step| LedgerEntry {
                path: step.target.path().to_owned(),
                election: election.clone(),
                file: LedgerFile::Manifest(step.manifest.clone()),
                exclusive: token.is_some(),
                token,
                digest: step.content.digest.clone(),
            };
            plan.entries.extend(steps.iter().map(entry));
        }
        self.plan_preparation(&mut plan);
        plan
    }

    fn plan_one(&mut self, name: &str, suspects: &BTreeSet<PathBuf>, plan: &mut Plan) {
        let Some(manifest) = self.manifests.get(name) else { return };
        let (handling, target) = (manifest.handling, manifest.target.clone());
        let explicit = manifest.directory.is_none();
        let wanted = self.is_wanted(name, handling.exclusive);
        let block = |plan: &mut Plan, reason: String| {
            if wanted && handling.exclusive {
                plan.blocked.get_or_insert(reason);
            }
        };
        let found = match files::inspect(target.path()) {
            Ok(found) => found,
            Err(error) => {
                let reason = phrase(&error);
                self.problems.push(Problem::unfit(reason.clone()));
                return block(plan, reason);
            }
        };
        let ours = self.held.contains_key(target.path());
        if let Some(kind) = foreign(found, ours || handling.adopt) {
            let problem = Problem::foreign(target.path(), kind);
            let reason = problem.reason.clone();
            self.problems.push(problem);
            return block(plan, reason);
        }
        if !wanted || (handling.exclusive && self.closed == self.token()) {
            return;
        }
        let held_content = self.held.get(target.path()).and_then(|held| held.content.clone());
        let token = self.token().filter(|_| handling.exclusive);
        let content = self.manifests.get_mut(name).map(|m| m.content(token, &self.scope));
        let content = match (content, held_content) {
            (Some(Ok(content)), _) => content,
            // The last good one stays, and is repaired.
            (_, Some(content)) => content,
            (Some(Err(reason)), None) if explicit => {
                return block(plan, format!("{name}: {reason}"));
            }
            _ => return,
        };
        let suspect = suspects.contains(target.path());
        if let Some(step) = self.step(name, target, content, found, suspect) {
            let list = if handling.exclusive { &mut plan.exclusive } else { &mut plan.shared };
            list.push(step);
        }
    }

    fn is_wanted(&self, name: &str, exclusive: bool) -> bool {
        let run = self.placements.as_ref().and_then(|known| known.get(name));
        self.stand != Stand::Untold
            && self.is_read()
            && run.is_some_and(|placement| placement.run)
            && (!exclusive || self.token().is_some())
    }

    /// What is to be done about one wanted manifest, if anything.
    fn step(
        &mut self,
        name: &str,
        target: Target,
        content: Arc<Content>,
        found: Found,
        suspect: bool,
    ) -> Option<Step> {
        let (cause, aside) = match self.held.get_mut(target.path()) {
            None => match found {
                Found::Nothing => (Cause::New, false),
                Found::File(print) if stands_already(&target, &print, &content) => {
                    (Cause::Keep, false)
                }
                _ => (Cause::New, true),
            },
            Some(held) => match held.compare(found, &content, suspect) {
                Condition::Right if held.exclusive && held.slot.is_none() => (Cause::Keep, false),
                Condition::Right | Condition::Blocked => return None,
                Condition::Outdated => (Cause::Replace, false),
                Condition::Damaged(damage) => {
                    let again = held.repaired.map(|last| last + REPAIR_PAUSE);
                    if let Some(again) = again.filter(|again| *again > Instant::now()) {
                        self.due = Some(self.due.map_or(again, |due| due.min(again)));
                        return None;
                    }
                    (Cause::Repair(damage), damage == Damage::Changed)
                }
            },
        };
        Some(Step { manifest: name.to_owned(), target, content, cause, aside, slot: None })
    }

    fn plan_role(&mut self, suspects: &BTreeSet<PathBuf>, plan: &mut Plan) {
        let token = self.token();
        let Some(role) = &self.role_file else { return };
        plan.suspect_role = suspects.contains(role.target.path());
        let problem = match role.foreign() {
            Ok(None) => None,
            Ok(Some(kind)) => Some(Problem::foreign(role.target.path(), kind)),
            Err(error) => Some(Problem::unfit(phrase(&error))),
        };
        if let Some(problem) = problem {
            plan.blocked.get_or_insert(problem.reason.clone());
            self.problems.push(problem);
        } else if let Some(token) = token.filter(|_| !role.may_say_leader()) {
            plan.entries.push(role.entry(token));
        }
    }

    /// The ledger could not be written: nothing of the plan is done.
    pub(crate) fn give_up(&mut self, plan: &mut Plan, error: &LedgerError) {
        let reason = phrase(error);
        let alarm = match error {
            LedgerError::Owned { path, .. } => {
                Alarm::Foreign { path: path.clone(), kind: "a file" }
            }
            _ => Alarm::Ledger { reason: reason.clone() },
        };
        self.problems.push(Problem { reason: reason.clone(), unfit: true, alarm: Some(alarm) });
        *plan = Plan { blocked: Some(reason), ..Plan::default() };
    }

    /// Does what was planned.
    pub(crate) fn carry_out(&mut self, plan: Plan, tools: &mut Tools<'_>) {
        for step in plan.shared {
            if let Err(error) = self.put_shared(step, tools) {
                self.problems.push(Problem::unfit(phrase(&error)));
            }
        }
        match self.stand.clone() {
            Stand::Untold => {}
            Stand::Standby(holder) => self.say_standby(holder.as_ref(), plan.suspect_role, tools),
            Stand::Leading(token) => {
                if self.closed == Some(token) || !self.is_read() {
                    return;
                }
                if let Some(reason) = plan.blocked
                    && self.placed != Some(token)
                {
                    return self.not_placed(token, reason, tools);
                }
                let done = self.put_exclusive(plan.exclusive, token, tools).and_then(|at| {
                    self.say_leader(token, plan.suspect_role, tools)?;
                    Ok(at)
                });
                match done {
                    Ok(at) => self.report_placed(token, at, tools),
                    Err(error) => self.not_done(token, &error, tools),
                }
            }
        }
    }

    fn report_placed(&mut self, token: Token, at: Instant, tools: &Tools<'_>) {
        self.failed = None;
        if self.placed != Some(token) && self.placements.is_some() {
            self.placed = Some(token);
            let election = self.election().clone();
            (tools.emit)(ManifestEvent::Placed { election, token, at });
        }
    }

    fn not_done(&mut self, token: Token, error: &StepError, tools: &Tools<'_>) {
        let reason = phrase(error);
        if matches!(error, StepError::Closed | StepError::Gate(GateError::Closed { .. })) {
            // The term is over; that says nothing about this node's fitness for the next.
            self.closed = Some(token);
            self.tell_not_placed(token, reason, tools.emit);
        } else {
            self.not_placed(token, reason, tools);
        }
    }

    /// A node that failed to place stays unfit for a while, lest it take the next term at once.
    fn not_placed(&mut self, token: Token, reason: String, tools: &Tools<'_>) {
        self.failed = Some((reason.clone(), Instant::now() + tools.grudge));
        self.tell_not_placed(token, reason, tools.emit);
    }

    fn put_shared(&mut self, step: Step, tools: &mut Tools<'_>) -> Result<(), FileError> {
        if step.cause != Cause::Keep {
            files::create_staging(step.target.dir())?;
            files::stage(&step.target.staged(), &step.content.bytes, step.content.mode)?;
            rename(&step, tools)?;
            files::sync_dir(step.target.dir())?;
        }
        self.hold(step, None, tools);
        Ok(())
    }

    /// All are claimed and staged before the first appears. Returns when the last one did.
    fn put_exclusive(
        &mut self,
        mut steps: Vec<Step>,
        token: Token,
        tools: &mut Tools<'_>,
    ) -> Result<Instant, StepError> {
        let mut at = Instant::now();
        let mut dirs = BTreeSet::new();
        let mut done = self.ready(&mut steps, token, tools);
        let mut rest = steps.into_iter();
        let mut put = Vec::new();
        if done.is_ok() {
            for step in rest.by_ref() {
                if step.cause != Cause::Keep {
                    done = self.put(&step, tools);
                    if done.is_err() {
                        self.undo(step, &done, token, tools);
                        break;
                    }
                    at = Instant::now();
                    dirs.insert(step.target.dir().to_owned());
                }
                put.push(step);
            }
        }
        // The account is kept, and files read back, when nothing waits for it any more.
        for step in put {
            self.hold(step, Some(token), tools);
        }
        for step in rest {
            self.drop_step(step, tools);
        }
        for dir in dirs {
            // In place it is; only a power loss could undo it, and then the next start begins anew.
            if let Err(error) = files::sync_dir(&dir) {
                tracing::warn!(error = phrase(&error), "a placed manifest is not durable");
            }
        }
        done.map(|()| at)
    }

    fn ready(
        &mut self,
        steps: &mut [Step],
        token: Token,
        tools: &Tools<'_>,
    ) -> Result<(), StepError> {
        for step in steps.iter_mut() {
            let claimed = self.held.get(step.target.path()).is_some_and(|held| held.slot.is_some());
            if !claimed {
                let (path, staged) = (step.target.path(), step.target.staged());
                let election = self.election();
                let slot = tools.gate.claim(election, token, Effect::Manifest, path, &staged)?;
                step.slot = Some(slot);
            }
        }
        for step in steps.iter().filter(|step| step.cause != Cause::Keep) {
            self.stage(&step.target, &step.content)?;
        }
        Ok(())
    }

    /// The gate is asked last, with nothing but the rename to come.
    fn put(&self, step: &Step, tools: &mut Tools<'_>) -> Result<(), StepError> {
        let standing = self.held.get(step.target.path()).and_then(|held| held.slot.as_deref());
        let slot = step.slot.as_deref().or(standing);
        if step.aside {
            if !slot.is_some_and(|slot| slot.open()) {
                return Err(StepError::Closed);
            }
            let aside = aside::keep_aside(&step.target)?;
            tools.asides.push((aside, step.target.clone()));
        }
        if !slot.is_some_and(|slot| slot.open()) {
            return Err(StepError::Closed);
        }
        files::rename(&step.target.staged(), step.target.path()).map_err(StepError::Rename)
    }

    /// After a rename that failed, the file counts as in place until it is withdrawn: some file
    /// systems report failure for what they did.
    fn undo(
        &mut self,
        step: Step,
        done: &Result<(), StepError>,
        token: Token,
        tools: &mut Tools<'_>,
    ) {
        if matches!(done, Err(StepError::Rename(_))) {
            self.hold(Step { cause: Cause::New, ..step }, Some(token), tools);
        } else {
            self.drop_step(step, tools);
        }
    }

    /// Takes back what was prepared for a file that did not get into place.
    fn drop_step(&mut self, step: Step, tools: &mut Tools<'_>) {
        files::clear_staged(&step.target);
        let path = step.target.path();
        match (self.held.get_mut(path), step.slot) {
            // What is in place stays watched over.
            (Some(held), Some(slot)) => held.slot = Some(slot),
            (Some(_), None) => {}
            (None, slot) => {
                tools.forget.insert(path.to_owned());
                if slot.is_some_and(|slot| !release(&*slot)) {
                    tracing::warn!(path = %path.display(), "the guard keeps its watch");
                }
            }
        }
    }

    /// Keeps the account of a file that is in place now.
    fn hold(&mut self, mut step: Step, token: Option<Token>, tools: &Tools<'_>) {
        let path = step.target.path().to_owned();
        let (election, event) = (self.election().clone(), path.clone());
        let previous = self.held.remove(&path);
        let mut repaired = previous.as_ref().and_then(|held| held.repaired);
        match step.cause {
            Cause::Repair(damage) => {
                repaired = Some(Instant::now());
                (tools.emit)(ManifestEvent::Repaired { election, path: event, damage });
            }
            Cause::Replace => (tools.emit)(ManifestEvent::Replaced { election, path: event }),
            Cause::New | Cause::Keep => {}
        }
        // Read back, because somebody may have changed it since the rename.
        let seen = files::read(&path, step.content.bytes.len() as u64 + 1)
            .ok()
            .filter(|(bytes, print)| {
                *bytes == step.content.bytes && print.mode() == step.content.mode
            })
            .map(|(_, print)| print);
        let held = Held {
            manifest: step.manifest,
            target: step.target,
            exclusive: token.is_some(),
            token,
            digest: step.content.digest.clone(),
            content: Some(step.content),
            seen,
            slot: step.slot.take().or(previous.and_then(|held| held.slot)),
            repaired,
        };
        self.held.insert(path, held);
    }

    fn say_leader(
        &mut self,
        token: Token,
        suspect: bool,
        tools: &mut Tools<'_>,
    ) -> Result<(), StepError> {
        let Some(role) = &mut self.role_file else { return Ok(()) };
        let written = role.say_leader(token, tools.gate, suspect)?;
        if written == Written::Closed {
            return Err(StepError::Closed);
        }
        self.report_role(&written, tools);
        Ok(())
    }

    fn say_standby(
        &mut self,
        holder: Option<&(NodeName, Token)>,
        suspect: bool,
        tools: &mut Tools<'_>,
    ) {
        let Some(role) = self.role_file.as_mut().filter(|role| !role.may_say_leader()) else {
            return;
        };
        match role.say_standby(holder, suspect) {
            Ok(written) => self.report_role(&written, tools),
            // A foreign file is among the problems already.
            Err(RoleFileError::Foreign { .. }) => {}
            Err(error) => self.problems.push(Problem::unfit(phrase(&error))),
        }
    }

    fn report_role(&mut self, written: &Written, tools: &mut Tools<'_>) {
        let election = self.election().clone();
        let Some(role) = &mut self.role_file else { return };
        let target = role.target.clone();
        tools.asides.extend(role.asides.drain(..).map(|aside| (aside, target.clone())));
        if let Written::Repaired(damage) = *written {
            let path = target.path().to_owned();
            (tools.emit)(ManifestEvent::Repaired { election, path, damage });
        }
    }
}

fn rename(step: &Step, tools: &mut Tools<'_>) -> Result<(), FileError> {
    if step.aside {
        let aside = aside::keep_aside(&step.target)?;
        tools.asides.push((aside, step.target.clone()));
    }
    files::rename(&step.target.staged(), step.target.path())
}

/// What is in the way, in words. A directory is never touched, whoever made it.
fn foreign(found: Found, ours: bool) -> Option<&'static str> {
    match found {
        Found::Directory => Some("a directory"),
        Found::Nothing => None,
        _ if ours => None,
        Found::File(_) => Some("a file"),
        Found::Other(kind) => Some(kind),
    }
}

/// A file with a second name could be changed under that, half by half.
fn stands_already(target: &Target, print: &Fingerprint, content: &Content) -> bool {
    let limit = content.bytes.len() as u64 + 1;
    print.mode() == content.mode
        && print.is_alone()
        && files::read(target.path(), limit).is_ok_and(|(bytes, _)| bytes == content.bytes)
}
