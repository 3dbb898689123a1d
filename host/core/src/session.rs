//! This node's session: claiming the name, beating, losing it, ending it.
//!
//! The owner counts from the moment it sent the newest beat that was confirmed. A session whose
//! deadline passed, or whose record is gone, is *lost*: no term on it goes on, whatever comes
//! later. It is ended, and a new one begun, only when nothing exclusive is in place.

use crate::action::{Action, Exit, Notice};
use crate::ids::{Count, NodeName, Nonce, Revision, SessionId};
use crate::node::{Node, Purpose};
use crate::record::SessionRecord;
use crate::request::{Entry, Key, Outcome, Request, Value};
use crate::settings::Settings;
use crate::time::{Now, Time};
use crate::timers::Timer;

/// Where the session is in its life.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Session {
    /// No record of ours is known to stand.
    Absent,
    /// Somebody else's record stands under our name, at this revision.
    Timing { nonce: Nonce, modified: Revision, changes: u32 },
    /// Somebody else's record, silent or proven dead, is being deleted.
    Ousting,
    /// Our record is being created.
    Creating,
    /// Our record stands, as far as we know.
    Standing(Standing),
    /// Our record is being deleted; nothing exclusive is in place.
    Ending { id: SessionId },
}

/// Until when a beat that was sent then, and confirmed, lets terms go on.
fn deadline_of(settings: &Settings, sent: Time) -> Time {
    sent + settings.timings.ttl.saturating_sub(settings.timings.margin)
}

/// The session that a creation made: what the store says now may be another's already.
fn created(at: Revision, seen: &[Entry], me: &NodeName) -> SessionId {
    let ours = seen.iter().find(|entry| matches!(&entry.key, Key::Session(node) if node == me));
    let stored = ours.and_then(|entry| entry.stored.as_ref());
    SessionId(stored.map_or(at, |stored| stored.create).0)
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Standing {
    pub(crate) id: SessionId,
    pub(crate) began: Time,
    pub(crate) beats: Count,
    /// Terms must be withdrawn from here on; `None` until a beat is confirmed.
    pub(crate) deadline: Option<Time>,
    /// This daemon had its record created, or a beat confirmed: an ending of the session that an
    /// earlier daemon sent can no longer be applied.
    pub(crate) proven: bool,
    /// The deadline passed or the record is gone.
    pub(crate) lost: bool,
}

impl Session {
    pub(crate) fn new(settings: &Settings, now: Now) -> Self {
        match &settings.past.adopt {
            None => Session::Absent,
            Some(adoption) => Session::Standing(Standing {
                id: adoption.session,
                began: now.fast,
                beats: Count(0),
                // Observers judge by the newest beat's TTL: if it is shorter now, so is the life
                // that earlier beats bought.
                deadline: Some(adoption.deadline.min(deadline_of(settings, now.fast))),
                proven: false,
                lost: false,
            }),
        }
    }

    /// The session, if terms on it are valid now.
    pub(crate) fn valid(&self, now: Now) -> Option<SessionId> {
        match self {
            Session::Standing(s) if !s.lost && s.deadline.is_some_and(|d| now.fast < d) => {
                Some(s.id)
            }
            _ => None,
        }
    }

    /// The session, if a term may be taken on it now.
    pub(crate) fn proven(&self, now: Now) -> Option<SessionId> {
        match self {
            Session::Standing(s) if s.proven => self.valid(now),
            _ => None,
        }
    }

    /// The session whose record is, or may be, ours in the store.
    pub(crate) fn id(&self) -> Option<SessionId> {
        match self {
            Session::Standing(s) => Some(s.id),
            Session::Ending { id } => Some(*id),
            _ => None,
        }
    }

    /// Whether no record of ours stands or is being made.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Session::Absent | Session::Timing { .. } | Session::Ousting)
    }

    /// Whether the session can carry no term any more.
    pub(crate) fn is_lost(&self) -> bool {
        match self {
            Session::Standing(s) => s.lost,
            _ => true,
        }
    }
}

/// What the elections of this node allow the session to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effects {
    /// Nothing exclusive is in place in any election, and no term is held.
    pub(crate) clear: bool,
    /// Something exclusive cannot be withdrawn: the session must be kept alive.
    pub(crate) stuck: bool,
}

/// Two changed revisions of a record under our name are a living owner: one may be the last
/// write of a dead one (protocol, "A node's name").
const CHANGES_OF_THE_LIVING: u32 = 2;

impl Node {
    /// The first thing done in every call: a passed deadline ends every term.
    pub(crate) fn check_deadline(&mut self) {
        if let Session::Standing(s) = &self.session
            && !s.lost
            && s.deadline.is_some_and(|deadline| deadline <= self.now.fast)
        {
            self.lose_session(true);
        }
    }

    /// Has the adopted deadline kept.
    pub(crate) fn watch_deadline(&mut self) {
        if let Session::Standing(Standing { deadline: Some(deadline), .. }) = self.session {
            self.timers.set(Timer::Deadline, deadline);
        }
    }

    /// The terms on the session are over.
    pub(crate) fn lose_session(&mut self, deadline_passed: bool) {
        let Session::Standing(s) = &mut self.session else { return };
        if s.lost {
            return;
        }
        s.lost = true;
        let session = s.id;
        self.timers.clear(&Timer::Deadline);
        self.dirty.extend(self.settings.elections.keys().cloned());
        self.dirty_terms();
        self.timers.clear(&Timer::Beat);
        self.notice(Notice::SessionLost { session, deadline_passed });
    }

    /// Adopted terms may be of elections that are no longer configured.
    fn dirty_terms(&mut self) {
        let settings = self.settings.clone();
        if let Some(adoption) = &settings.past.adopt {
            self.dirty.extend(adoption.terms.keys().cloned());
        }
    }

    /// Moves the session on, as far as what is known allows.
    pub(crate) fn advance_session(&mut self, effects: Effects) {
        match &self.session {
            Session::Absent => self.claim_name(),
            Session::Timing { .. } => self.time_name(),
            Session::Standing(_) => self.keep_session(effects),
            Session::Ousting | Session::Creating | Session::Ending { .. } => {}
        }
    }

    fn claim_name(&mut self) {
        if !self.replica.listed || self.fatal.is_some() || self.stopping.is_some() {
            return;
        }
        if self.timers.is_set(&Timer::Session) {
            return; // backing off after a failure
        }
        let me = self.me().clone();
        let Some(stored) = self.replica.session_key(&me) else {
            let record = self.session_record(0, self.now.fast);
            self.session = Session::Creating;
            let sent = self.now.fast;
            self.send(Purpose::CreateSession { sent }, Request::CreateSession { node: me, record });
            return;
        };
        let (create, modified) = (stored.create, stored.modified);
        let nonce = match &stored.value {
            Value::Session(record) => record.nonce.clone(),
            _ => Nonce::new("unreadable"),
        };
        if nonce == self.settings.nonce {
            // Our own creation, applied after we stopped waiting for it: a beat must confirm it.
            self.stand(SessionId(create.0), None);
            self.beat();
        } else if self.settings.past.dead.as_ref() == Some(&nonce) {
            self.oust(SessionId(create.0), modified);
        } else {
            self.notice(Notice::NameContested { nonce: nonce.clone() });
            self.session = Session::Timing { nonce, modified, changes: 0 };
            self.time_name();
        }
    }

    fn time_name(&mut self) {
        let me = self.me().clone();
        let Session::Timing { nonce, modified, changes } = &mut self.session else { return };
        let Some(stored) = self.replica.session_key(&me) else {
            self.session = Session::Absent;
            return self.claim_name();
        };
        if stored.modified != *modified {
            *modified = stored.modified;
            *changes += 1;
        }
        if *changes >= CHANGES_OF_THE_LIVING {
            let nonce = nonce.clone();
            let addresses = match &stored.value {
                Value::Session(record) => record.addresses.clone(),
                _ => Vec::new(),
            };
            self.fatal = Some(Exit::NameTaken { nonce, addresses });
            return;
        }
        let (session, modified) = (SessionId(stored.create.0), *modified);
        match self.silent_at(&me) {
            Some(at) if at <= self.now.slow => self.oust(session, modified),
            Some(at) => self.slow_timers.set(Timer::Silence(me), at),
            None => {}
        }
    }

    fn oust(&mut self, session: SessionId, modified: Revision) {
        self.session = Session::Ousting;
        self.send_ending(self.me().clone(), session, modified);
    }

    pub(crate) fn send_ending(&mut self, node: NodeName, session: SessionId, modified: Revision) {
        let request = Request::EndSession { node: node.clone(), session, modified };
        self.send(Purpose::EndSession(node), request);
    }

    fn keep_session(&mut self, effects: Effects) {
        let Session::Standing(s) = &self.session else { return };
        let id = s.id;
        let me = self.me().clone();
        let gone = self.replica.listed
            && self.replica.session_key(&me).is_none_or(|stored| stored.create.0 != id.0);
        if gone && !s.lost && s.deadline.is_some() {
            self.lose_session(false);
        }
        let Session::Standing(s) = &self.session else { return };
        let giving_up = s.lost || self.stopping.is_some();
        if !giving_up || !effects.clear {
            if !s.lost || effects.stuck {
                if !self.timers.is_set(&Timer::Beat) {
                    self.timers.set(Timer::Beat, self.now.fast);
                }
            } else {
                self.timers.clear(&Timer::Beat);
            }
            return;
        }
        if self.fatal.is_some() {
            return;
        }
        if gone {
            self.session_ended();
        } else {
            self.end_session(id);
        }
    }

    fn end_session(&mut self, id: SessionId) {
        let node = self.me().clone();
        let modified =
            self.replica.session_key(&node).map_or(Revision(id.0), |stored| stored.modified);
        self.timers.clear(&Timer::Beat);
        self.session = Session::Ending { id };
        self.send_ending(node, id, modified);
    }

    fn session_ended(&mut self) {
        self.session = Session::Absent;
        self.timers.clear(&Timer::Beat);
        self.timers.clear(&Timer::Deadline);
        self.timers.clear(&Timer::Session);
        self.act(Action::Session { session: None });
        self.dirty.extend(self.settings.elections.keys().cloned());
        self.claim_name();
    }

    fn stand(&mut self, id: SessionId, deadline: Option<Time>) {
        self.session = Session::Standing(Standing {
            id,
            began: self.now.fast,
            beats: Count(0),
            deadline: None,
            proven: false,
            lost: false,
        });
        self.act(Action::Session { session: Some((id, self.settings.nonce.clone())) });
        if let Some(deadline) = deadline {
            self.extend(id, deadline);
        }
    }

    /// A confirmed beat: terms hold until `deadline`, or longer if a later one was confirmed.
    fn extend(&mut self, id: SessionId, deadline: Time) {
        let Session::Standing(s) = &mut self.session else { return };
        if s.id != id || s.lost || deadline <= self.now.fast {
            return;
        }
        let began = s.deadline.is_none();
        if !std::mem::replace(&mut s.proven, true) {
            self.dirty.extend(self.settings.elections.keys().cloned());
            self.dirty_terms();
        }
        let Session::Standing(s) = &mut self.session else { return };
        if s.deadline.is_some_and(|known| known >= deadline) {
            return;
        }
        s.deadline = Some(deadline);
        self.timers.set(Timer::Deadline, deadline);
        self.act(Action::Extend { session: id, deadline });
        if began {
            self.notice(Notice::SessionBegan { session: id });
        }
    }

    fn session_record(&self, beat: u64, began: Time) -> SessionRecord {
        let settings = &self.settings;
        let millis =
            |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        SessionRecord {
            nonce: settings.nonce.clone(),
            ttl_ms: millis(settings.timings.ttl),
            beat,
            age_ms: millis(self.now.fast.since(began)),
            boot_id: settings.boot_id.clone(),
            addresses: settings.addresses.clone(),
            labels: settings.labels.clone(),
            version: settings.version.clone(),
            format: crate::record::FORMAT,
        }
    }

    /// Sends a beat and sets the time of the next.
    pub(crate) fn beat(&mut self) {
        let Session::Standing(s) = &mut self.session else { return };
        s.beats = Count(s.beats.0 + 1);
        let (session, beats, began) = (s.id, s.beats.0, s.began);
        // Stamped before it is queued anywhere (protocol, "Right, and easy to get wrong").
        let sent = self.now.fast;
        let record = self.session_record(beats, began);
        let node = self.me().clone();
        self.send(Purpose::Beat { session, sent }, Request::Beat { node, session, record });
        self.timers.set(Timer::Beat, sent + self.settings.timings.beat);
    }

    pub(crate) fn session_created(&mut self, sent: Time, outcome: &Outcome) {
        if self.session != Session::Creating {
            return;
        }
        self.session = Session::Absent;
        let me = self.me().clone();
        match outcome {
            Outcome::Applied { at, seen } => {
                self.stand(created(*at, seen, &me), Some(deadline_of(&self.settings, sent)));
                if self.session.valid(self.now).is_some() {
                    self.timers.set(Timer::Beat, sent + self.settings.timings.beat);
                } else {
                    // The answer took too long to prove anything: the next beat must.
                    self.beat();
                }
            }
            Outcome::Rejected { .. } => self.claim_name(),
            Outcome::Unknown => {
                self.timers.set(Timer::Session, self.now.fast + self.backoff(3));
            }
        }
    }

    pub(crate) fn beat_answered(&mut self, session: SessionId, sent: Time, outcome: &Outcome) {
        match outcome {
            Outcome::Applied { at, .. } => {
                self.extend(session, deadline_of(&self.settings, sent));
                if self.replica.watched < *at && !self.timers.is_set(&Timer::WatchLag) {
                    self.watch_due = *at;
                    let lag = self.settings.timings.request_timeout;
                    self.timers.set(Timer::WatchLag, self.now.fast + lag);
                }
            }
            Outcome::Rejected { .. } => {
                if self.session.id() == Some(session) && self.session_is_gone(session) {
                    match &self.session {
                        Session::Standing(s) if s.deadline.is_none() => self.session_ended(),
                        _ => self.lose_session(false),
                    }
                }
            }
            Outcome::Unknown => {}
        }
    }

    fn session_is_gone(&self, session: SessionId) -> bool {
        self.replica.session_key(self.me()).is_none_or(|stored| stored.create.0 != session.0)
    }

    /// An ending was answered: of our own session, or of somebody else's.
    pub(crate) fn ending_answered(&mut self, node: &NodeName, outcome: &Outcome) {
        if node != self.me() {
            return;
        }
        let unknown = *outcome == Outcome::Unknown;
        match self.session {
            Session::Ousting => {
                self.session = Session::Absent;
                if unknown {
                    self.timers.set(Timer::Session, self.now.fast + self.backoff(3));
                } else {
                    self.claim_name();
                }
            }
            Session::Ending { .. } if unknown => {
                // Whether the record is gone decides whether a term may be taken again: ask
                // until it is known.
                self.timers.set(Timer::Session, self.now.fast + self.backoff(3));
            }
            Session::Ending { id } => {
                if self.session_is_gone(id) {
                    self.session_ended()
                } else {
                    self.end_session(id)
                }
            }
            _ => {}
        }
    }

    /// The session's retry timer fired.
    pub(crate) fn retry_session(&mut self) {
        match self.session {
            Session::Ending { id } => self.end_session(id),
            Session::Absent => self.claim_name(),
            _ => {}
        }
    }
}
