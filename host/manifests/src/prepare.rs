//! Getting ready for a term that may begin: copies are made and synced, the ledger is told, and the
//! term itself then only has to claim, ask the gate and rename.
//!
//! Nothing of it can be seen, and nothing depends on it: a copy that is not what the term wants
//! in the end, or that is gone, is made again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_core::ids::Token;

use crate::contest::Contest;
use crate::error::{FileError, phrase};
use crate::files::{self, Found, Target};
use crate::ledger::{LedgerEntry, LedgerFile};
use crate::manifest::Content;
use crate::settle::{Plan, Tools};

/// One thing to make ready.
pub(crate) struct Copy {
    target: Target,
    content: Arc<Content>,
    /// Whether the plan enters it in the ledger.
    entered: bool,
}

/// What was made ready, for one election.
#[derive(Default)]
pub(crate) struct Preparation {
    /// What is expected, and not made ready yet: a term, which may not be known by its token.
    expected: Option<Option<Token>>,
    /// What waits beside its destination, written and synced.
    copies: BTreeMap<PathBuf, (Target, Arc<Content>)>,
    /// What was entered in the ledger ahead of its term.
    entered: BTreeSet<PathBuf>,
    /// When it is of no more use.
    until: Option<Instant>,
}

impl Preparation {
    /// A term may begin.
    pub(crate) fn expect(&mut self, token: Option<Token>) {
        self.expected = Some(token);
    }

    /// A term began, or somebody else's did.
    pub(crate) fn end(&mut self) {
        self.expected = None;
        self.until = Some(Instant::now());
    }

    /// Brings a copy of this content to where it is staged, if there is one.
    fn bring(&mut self, target: &Target, content: &Content) -> bool {
        self.copies.get(target.path()).is_some_and(|(_, copy)| **copy == *content)
            && self.copies.remove(target.path()).is_some()
            && files::rename(&target.prepared(), &target.staged()).is_ok()
    }
}

impl Contest {
    /// Finds out what can be made ready.
    pub(crate) fn plan_preparation(&mut self, plan: &mut Plan) {
        let Some(term) = self.preparation.expected.take() else { return };
        if self.token().is_some() || !self.is_read() {
            return;
        }
        let election = self.election().clone();
        let names: Vec<String> = self.manifests.keys().cloned().collect();
        for name in names {
            let Some((target, content)) = self.prospective(&name, term) else { continue };
            if let Some(token) = term {
                plan.entries.push(LedgerEntry {
                    path: target.path().to_owned(),
                    election: election.clone(),
                    file: LedgerFile::Manifest(name),
                    exclusive: true,
                    token: Some(token),
                    digest: content.digest.clone(),
                });
            }
            plan.copies.push(Copy { target, content, entered: term.is_some() });
        }
    }

    /// What would be put in place for one manifest, as far as that is known without the policy's
    /// answer for the term. Only where nothing stands: anything else takes a closer look, which the
    /// term will have.
    fn prospective(&mut self, name: &str, term: Option<Token>) -> Option<(Target, Arc<Content>)> {
        let manifest = self.manifests.get_mut(name).filter(|m| m.handling.exclusive)?;
        let target = manifest.target.clone();
        let free = matches!(files::inspect(target.path()), Ok(Found::Nothing));
        let content = free.then(|| manifest.content(term, &self.scope))?;
        Some((target, content.ok()?))
    }

    /// Makes the copies. That one cannot be made is the term's to find out, should it come.
    pub(crate) fn prepare(&mut self, plan: &mut Plan, useful: Duration) {
        if plan.copies.is_empty() {
            return;
        }
        self.preparation.until = Some(Instant::now() + useful);
        for Copy { target, content, entered } in plan.copies.drain(..) {
            let path = target.path().to_owned();
            if entered {
                self.preparation.entered.insert(path.clone());
            }
            if self.preparation.copies.get(&path).is_some_and(|(_, copy)| *copy == content) {
                continue;
            }
            let copied = files::create_staging(target.dir())
                .and_then(|()| files::stage(&target.prepared(), &content.bytes, content.mode));
            match copied {
                Ok(()) => drop(self.preparation.copies.insert(path, (target, content))),
                Err(error) => tracing::debug!(error = phrase(&error), "cannot prepare a manifest"),
            }
        }
    }

    /// Stages content for a destination: from a copy that waits, or anew.
    pub(crate) fn stage(&mut self, target: &Target, content: &Content) -> Result<(), FileError> {
        files::create_staging(target.dir())?;
        if self.preparation.bring(target, content) {
            return Ok(());
        }
        files::stage(&target.staged(), &content.bytes, content.mode)
    }

    /// Takes back what was made ready and not used.
    pub(crate) fn clear_preparation(&mut self, tools: &mut Tools<'_>) {
        let Some(until) = self.preparation.until else { return };
        if Instant::now() < until {
            return;
        }
        self.preparation.until = None;
        for (target, _) in std::mem::take(&mut self.preparation.copies).into_values() {
            if let Err(error) = files::remove(&target.prepared()) {
                tracing::warn!(error = phrase(&error), "a prepared file stays behind");
            }
        }
        let entered = std::mem::take(&mut self.preparation.entered);
        tools.forget.extend(entered.into_iter().filter(|path| !self.held.contains_key(path)));
    }
}
