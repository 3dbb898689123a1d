//! Taking files out of their places. Needs neither sources nor policy nor ledger, so that
//! nothing but the destination itself can hold it up.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::contest::{Contest, Problem, Stand};
use crate::digest::Digest;
use crate::error::phrase;
use crate::event::Alarm;
use crate::files::{self, Found};
use crate::gate::Slot;
use crate::held::Held;
use crate::settle::Tools;

/// How often, and how long apart, a slot is asked for back while the guard is at it.
const RELEASE_ATTEMPTS: u32 = 200;
const RELEASE_PAUSE: Duration = Duration::from_millis(5);

impl Contest {
    /// Removes every exclusive effect and makes sure; `Err` says what is, or may be, still there.
    pub(crate) fn withdraw(&mut self, tools: &mut Tools<'_>) -> Result<(), String> {
        let exclusive = |held: &&Held| held.exclusive;
        let paths = self.held.values().filter(exclusive).map(|held| held.target.path().to_owned());
        let paths = paths.collect();
        self.remove(paths, true, tools)
    }

    /// Removes what should not be in place, as far as that is known.
    pub(crate) fn remove_unwanted(&mut self, tools: &mut Tools<'_>) {
        if self.stand == Stand::Untold {
            return;
        }
        self.claim_stale();
        let unwanted: Vec<PathBuf> = self
            .held
            .iter()
            .filter(|(_, held)| self.is_unwanted(held))
            .map(|(p, _)| p.clone())
            .collect();
        let role = self.role_file.as_ref().is_some_and(|role| role.may_say_leader());
        let reset = role && self.token().is_none();
        if !unwanted.is_empty() || reset {
            // What could not be removed is among the problems, and tried again at the next rescan.
            let _ = self.remove(unwanted, reset, tools);
        }
    }

    fn is_unwanted(&self, held: &Held) -> bool {
        // Of another term, or of none.
        if held.exclusive && (self.token().is_none() || held.token != self.token()) {
            return true;
        }
        let Some(manifest) = self.manifests.get(&held.manifest) else { return self.is_complete() };
        let moved = manifest.target != held.target;
        let withheld = self.placements.as_ref().is_some_and(|placements| {
            placements.get(&held.manifest).is_none_or(|placement| !placement.run)
        });
        moved || withheld
    }

    /// With `adopt`, what stands at an exclusive destination is ours to remove on a standby.
    fn claim_stale(&mut self) {
        if self.token().is_some() {
            return;
        }
        for (name, manifest) in &self.manifests {
            let path = manifest.target.path();
            let stale = manifest.handling.exclusive
                && manifest.handling.adopt
                && !self.held.contains_key(path)
                && matches!(files::inspect(path), Ok(Found::File(_) | Found::Other(_)));
            if stale {
                let held = Held {
                    manifest: name.clone(),
                    target: manifest.target.clone(),
                    exclusive: true,
                    token: None,
                    // A copy of the source need not be saved.
                    digest: manifest.digest().cloned().unwrap_or_else(|| Digest::of(b"")),
                    content: None,
                    seen: None,
                    slot: None,
                    repaired: None,
                };
                tracing::info!(path = %path.display(), "removing a stale file");
                self.held.insert(path.to_owned(), held);
            }
        }
    }

    /// The role file first, because it takes effect soonest; then the manifests; then one sync
    /// for each directory; and only then the guard's watch ends.
    fn remove(
        &mut self,
        paths: Vec<PathBuf>,
        role: bool,
        tools: &mut Tools<'_>,
    ) -> Result<(), String> {
        let mut failures = Vec::new();
        let mut dirs = BTreeSet::new();
        let role = role && self.reset_role(&mut dirs, &mut failures);
        let mut gone = Vec::new();
        for path in paths {
            let Some(held) = self.held.get(&path) else { continue };
            match held.take_out() {
                Ok(aside) => {
                    dirs.insert(held.target.dir().to_owned());
                    tools.asides.extend(aside.map(|aside| (aside, held.target.clone())));
                    gone.push(path);
                }
                Err(error) => failures.push((path, phrase(&error))),
            }
        }
        for dir in dirs {
            self.sync(&dir);
        }
        if role {
            self.release_role(tools, &mut failures);
        }
        for path in gone {
            let slot = self.held.get(&path).and_then(|held| held.slot.as_deref());
            if slot.is_some_and(|slot| !release(slot)) {
                failures.push((path, "the guard is still withdrawing it".to_owned()));
            } else {
                self.held.remove(&path);
                tools.forget.insert(path);
            }
        }
        self.fail(failures)
    }

    fn fail(&mut self, failures: Vec<(PathBuf, String)>) -> Result<(), String> {
        let mut reasons = Vec::new();
        for (path, reason) in failures {
            let alarm = Alarm::NotRemoved { path, reason: reason.clone() };
            let problem = Problem { reason: reason.clone(), unfit: true, alarm: Some(alarm) };
            self.problems.push(problem);
            reasons.push(reason);
        }
        if reasons.is_empty() { Ok(()) } else { Err(reasons.join("; ")) }
    }

    fn reset_role(
        &mut self,
        dirs: &mut BTreeSet<PathBuf>,
        failures: &mut Vec<(PathBuf, String)>,
    ) -> bool {
        let Some(role) = self.role_file.as_mut().filter(|role| role.may_say_leader()) else {
            return false;
        };
        match role.reset() {
            Ok(()) => {
                dirs.insert(role.target.dir().to_owned());
                true
            }
            Err(error) => {
                failures.push((role.target.path().to_owned(), phrase(&error)));
                false
            }
        }
    }

    fn release_role(&mut self, tools: &mut Tools<'_>, failures: &mut Vec<(PathBuf, String)>) {
        let Some(role) = &mut self.role_file else { return };
        let path = role.target.path().to_owned();
        if patiently(|| role.release()) {
            let target = role.target.clone();
            tools.asides.extend(role.asides.drain(..).map(|aside| (aside, target.clone())));
            tools.forget.insert(path);
        } else {
            failures.push((path, "the guard is still resetting it".to_owned()));
        }
    }

    /// What is removed is gone for everybody who looks; that a power loss may bring it back is an
    /// alarm, not a failure.
    fn sync(&mut self, dir: &Path) {
        if let Err(error) = files::sync_dir(dir) {
            let reason = phrase(&error);
            let alarm = Alarm::NotSynced { path: dir.to_owned(), reason: reason.clone() };
            self.problems.push(Problem { reason, unfit: false, alarm: Some(alarm) });
        }
    }
}

pub(crate) fn release(slot: &dyn Slot) -> bool {
    patiently(|| slot.release())
}

fn patiently(mut attempt: impl FnMut() -> bool) -> bool {
    for _ in 0..RELEASE_ATTEMPTS {
        if attempt() {
            return true;
        }
        thread::sleep(RELEASE_PAUSE);
    }
    false
}
