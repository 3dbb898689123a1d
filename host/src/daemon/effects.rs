//! Exclusive effects as they come and go: what the manifest loop reports, and the command that runs in a term.

use std::time::Duration;

use conclave_core::{ElectionName, Event, OpId, Token};
use conclave_guard::{Reading, SlotId};
use conclave_manifests::ManifestEvent;
use tracing::{debug, error, info, warn};

use crate::daemon::hooks::Happened;
use crate::daemon::promise::Promise;
use crate::daemon::shell::{Input, Shell};

/// How often, and how long apart, a slot is asked for back while the guard is at it.
const RELEASE_ATTEMPTS: u32 = 200;
const RELEASE_PAUSE: Duration = Duration::from_millis(5);

impl Shell {
    pub(super) fn manifest_event(&mut self, event: ManifestEvent) -> Option<Event> {
        if let Some((election, what)) = counted(&event) {
            self.metrics.manifest(election, what);
        }
        match event {
            ManifestEvent::Fitness { election, fitness } => {
                let fitness = self.fitness.manifests(&election, fitness)?;
                if !fitness.fit || !fitness.reasons.is_empty() {
                    warn!(%election, fit = fitness.fit, reasons = ?fitness.reasons, "fitness changed");
                } else {
                    info!(%election, fit = true, "fitness changed");
                }
                Some(Event::Fitness { election, fitness })
            }
            ManifestEvent::Sources { election, manifests } => {
                let question = self.places.manifests(&election, manifests);
                self.look_ahead(&election);
                if let Some(question) = question {
                    self.ask_placement(&election, question);
                }
                None
            }
            ManifestEvent::Withdrawn { op, election, result } => {
                self.stuck.returned(&election, op);
                if result.is_ok() {
                    info!(%election, "exclusive effects withdrawn");
                    self.hooks.tell(&election, Happened::Lost);
                    if let Some(slots) = self.adopted.get(&election) {
                        self.release_adopted(op, slots.clone());
                        return None; // it counts once they are released
                    }
                    if self.end_command(op, &election) {
                        return None; // it counts once that is gone
                    }
                }
                Some(Event::Withdrawn { op, result })
            }
            ManifestEvent::Placed { election, token, .. } => {
                self.placed.insert(election.clone(), token);
                self.metrics.placed(&election, token);
                let now = self.clock.now();
                if let Some(shown) = &self.shown {
                    self.publish(&shown.board, std::slice::from_ref(&election), now);
                }
                info!(%election, %token, "leading: exclusive effects in place");
                if self.holds(&election, token) {
                    self.runner.lead(&election, token);
                    self.hooks.tell(&election, Happened::Gained(token));
                }
                None
            }
            ManifestEvent::NotPlaced { election, token, reason } => {
                if self.holds(&election, token) {
                    error!(%election, %token, reason, "holds the term but could not place its manifests");
                } else {
                    debug!(%election, %token, reason, "the term ended before everything was placed");
                }
                None
            }
            ManifestEvent::Replaced { election, path } => {
                info!(%election, path = %path.display(), "changed source carried over");
                None
            }
            ManifestEvent::Repaired { election, path, damage } => {
                warn!(%election, path = %path.display(), ?damage, "repaired");
                None
            }
            ManifestEvent::Alarm { election, alarm } => {
                error!(%election, ?alarm, "manifest alarm");
                None
            }
        }
    }

    /// Ends the guard's watch over what an earlier daemon placed, for whoever withdrew it knows of
    /// no slots but its own. A slot that is released already is none of anybody's business.
    fn release_adopted(&self, op: OpId, slots: Vec<SlotId>) {
        let answer = move |result| Input::Core(Event::Withdrawn { op, result });
        let busy = || Err("the guard is still withdrawing it".to_owned());
        let promise = Promise::new(&self.inputs, answer(busy()));
        let page = self.attached.page;
        tokio::spawn(async move {
            for _ in 0..RELEASE_ATTEMPTS {
                if slots.iter().all(|slot| page.release(*slot).is_ok()) {
                    return promise.keep(answer(Ok(())));
                }
                tokio::time::sleep(RELEASE_PAUSE).await;
            }
            promise.keep(answer(busy()));
        });
    }

    /// Begins to end the command that runs in a term, if one does; the withdrawal counts once it is gone.
    fn end_command(&mut self, op: OpId, election: &ElectionName) -> bool {
        let in_time = self.attached.page.session().is_some_and(|it| it.stands(Reading::now()));
        let Some(ended) = self.runner.stop(election, in_time) else { return false };
        let answer = move |result| Input::Core(Event::Withdrawn { op, result });
        let promise =
            Promise::new(&self.inputs, answer(Err("ending the command failed".to_owned())));
        tokio::spawn(async move {
            ended.await;
            promise.keep(answer(Ok(())));
        });
        true
    }

    /// Whether this node still has the term, by the core and by the guard.
    fn holds(&mut self, election: &ElectionName, token: Token) -> bool {
        let leads = self.core.leading(election, self.clock.now()) == Some(token);
        leads && self.attached.page.session().is_some_and(|s| s.stands(Reading::now()))
    }

    /// Why a term ends is told once it has ended; what is lost with a session ends here and now.
    pub(super) fn tell_withdrawing(&mut self, election: &ElectionName) {
        let token = self.core.phase(election, self.clock.now()).and_then(|(_, token)| token);
        let stands = self.attached.page.session().is_some_and(|it| it.stands(Reading::now()));
        let reason = if stands { "the term is being given up" } else { "the session is over" };
        info!(%election, token = token.map(tracing::field::display), reason, "leading no more: withdrawing");
    }
}

/// What of the manifest loop's reports is counted, and as what.
fn counted(event: &ManifestEvent) -> Option<(&ElectionName, &'static str)> {
    match event {
        ManifestEvent::Placed { election, .. } => Some((election, "placed")),
        ManifestEvent::NotPlaced { election, .. } => Some((election, "not_placed")),
        ManifestEvent::Replaced { election, .. } => Some((election, "replaced")),
        ManifestEvent::Repaired { election, .. } => Some((election, "repaired")),
        ManifestEvent::Alarm { election, .. } => Some((election, "alarm")),
        ManifestEvent::Withdrawn { election, result: Ok(()), .. } => Some((election, "withdrawn")),
        ManifestEvent::Withdrawn { election, .. } => Some((election, "not_withdrawn")),
        ManifestEvent::Fitness { .. } | ManifestEvent::Sources { .. } => None,
    }
}
