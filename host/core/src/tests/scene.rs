//! The stage: a core, and a store that does as it is told.

use std::collections::BTreeMap;
use std::time::Duration;

use super::words::{name, phrase, ranking, session, term};
use crate::record::{
    CandidacyRecord, EndReason, Fitness, HistoryRecord, LeaderRecord, MarkRecord, Offer, OfferId,
    PolicyVersion, TransferRecord,
};
use crate::request::leader_suffix;
use crate::{
    Action, Adoption, Core, ElectionName, ElectionSettings, Entry, Event, Evidence, Key, NodeName,
    Now, OpId, Outcome, Past, Request, Revision, SessionId, Settings, Stored, Timings, Token,
    Value,
};

/// What happens.
#[derive(Clone, Debug)]
pub(super) enum When {
    /// The pending request of this phrase is applied and answered.
    Applied(&'static str),
    /// It is applied, and nobody hears of it.
    AppliedUnheard(&'static str),
    /// It is rejected.
    Rejected(&'static str),
    /// It times out.
    Unknown(&'static str),
    /// Time passes, in milliseconds; beats and readings are applied meanwhile.
    After(u64),
    /// Time passes and the store answers nothing.
    Silence(u64),
    /// The policy answers with this order, or fails.
    Ranked(Result<&'static [&'static str], &'static str>),
    /// The withdrawal ends.
    Withdrawn(Result<(), &'static str>),
    /// The stop check ends.
    StopChecked(bool),
    /// The policy is loaded.
    Described,
    /// This node's fitness changes.
    Fit(bool),
    /// Another node stands as a candidate, fit or not.
    Candidate(&'static str, bool),
    /// Another node, fit, decides by another policy version.
    OtherVersion(&'static str),
    /// Another node beats.
    Beats(&'static str),
    /// Another node beats, and the watch does not tell.
    BeatsUnseen(&'static str),
    /// Another node accepts the standing offer.
    Accepts(&'static str),
    /// Another node's session is ended.
    Ended(&'static str),
    /// Another node holds the election, from now on.
    Holds(&'static str),
    /// The holder, another node, offers the term to this node.
    OffersToUs,
    /// It hands the term to this node.
    HandsOverToUs,
    /// A foreign key comes, or goes.
    Foreign(bool),
    /// Our leader key vanishes.
    LosesKey,
    /// An operator pauses, or goes on.
    Pause(bool),
    /// An operator cordons this node, or lifts it.
    Cordon(bool),
    /// An operator cordons another node.
    CordonOn(&'static str),
    /// An operator asks that the standing term move.
    Transfer(&'static str),
    /// Somebody else's record appears or changes under our name.
    Namesake(u64),
    /// The watch breaks.
    WatchBroken,
    /// The guard reached the deadline.
    GuardExpired,
    /// The daemon is told to stop.
    Stop,
}

/// One core and its outside.
pub(super) struct Scene {
    pub(super) core: Core,
    pub(super) now: Now,
    revision: u64,
    keys: BTreeMap<Key, Stored>,
    pending: Vec<(OpId, Request)>,
    ranks: Vec<OpId>,
    withdrawals: Vec<OpId>,
    stop_checks: Vec<OpId>,
    /// What the policy answered last, and answers again while time passes.
    opinion: Option<Result<&'static [&'static str], &'static str>>,
    said: Vec<String>,
}

pub(super) fn e() -> ElectionName {
    "e".into()
}

fn a() -> NodeName {
    "a".into()
}

/// Node `a`, one election, the protocol's defaults.
pub(super) fn settings() -> Settings {
    Settings {
        node: a(),
        nonce: "a-1".into(),
        boot_id: String::new(),
        addresses: Vec::new(),
        labels: BTreeMap::new(),
        version: String::new(),
        timings: Timings::default(),
        elections: BTreeMap::from([(e(), ElectionSettings::default())]),
        past: Past::default(),
    }
}

impl Scene {
    /// A core that has just been created; its first reading is under way.
    pub(super) fn created(settings: Settings) -> Self {
        Self::created_over(settings, BTreeMap::new(), 10)
    }

    fn created_over(settings: Settings, keys: BTreeMap<Key, Stored>, revision: u64) -> Self {
        let now = Now::at(1_000_000_000);
        let (core, actions) = Core::new(settings, now);
        let mut scene = Scene {
            core,
            now,
            revision,
            keys,
            pending: Vec::new(),
            ranks: Vec::new(),
            withdrawals: Vec::new(),
            stop_checks: Vec::new(),
            opinion: None,
            said: Vec::new(),
        };
        scene.run(actions);
        scene
    }

    /// The node has a session and is a candidate; nobody holds the election.
    pub(super) fn candidate(settings: Settings) -> Self {
        let mut scene = Scene::created(settings);
        scene.start();
        scene
    }

    /// As much again, while `b` holds the election.
    pub(super) fn following(settings: Settings) -> Self {
        let mut scene = Scene::created(settings);
        scene.other("b", true);
        scene.hold_by("b");
        scene.start();
        scene.step(&When::Applied("candidacy"));
        scene
    }

    /// The node leads; `b` and `c` are candidates.
    pub(super) fn leading(settings: Settings) -> Self {
        let mut scene = Scene::created(settings);
        scene.start();
        scene.step(&When::Applied("candidacy"));
        scene.step(&When::Ranked(Ok(&["a"])));
        scene.step(&When::Applied("take"));
        let led = scene.step(&When::Applied("read"));
        assert!(led.contains("lead"), "{led}");
        scene.step(&When::Ranked(Ok(&["a"])));
        scene.step(&When::Candidate("b", true));
        scene.step(&When::Ranked(Ok(&["a", "b"])));
        scene.step(&When::Candidate("c", true));
        scene.step(&When::Ranked(Ok(&["a", "b", "c"])));
        scene
    }

    /// A core whose name somebody else's record has.
    pub(super) fn created_beside(settings: Settings, nonce: &str) -> Self {
        let revision = Revision(9);
        let value = session(nonce, 0);
        let stored = Stored { create: revision, modified: revision, leased: false, value };
        Self::created_over(settings, BTreeMap::from([(Key::Session(a()), stored)]), 10)
    }

    /// A successor of a daemon that led: the same guard, the same store.
    pub(super) fn adopting(earlier: Scene, settings: Settings, with_effects: bool) -> Self {
        let terms = with_effects.then(|| (e(), earlier.token())).into_iter().collect();
        Self::adopting_terms(earlier, settings, terms)
    }

    /// As much, with effects in place for a term that the store need not know.
    pub(super) fn adopting_term(earlier: Scene, settings: Settings, token: Token) -> Self {
        Self::adopting_terms(earlier, settings, BTreeMap::from([(e(), token)]))
    }

    fn adopting_terms(
        earlier: Scene,
        settings: Settings,
        terms: BTreeMap<ElectionName, Token>,
    ) -> Self {
        let session = earlier.session_id();
        let deadline = Now::at(1_000_000_000).after(Duration::from_secs(5)).fast;
        let adopt = Some(Adoption { session, nonce: "a-1".into(), deadline, terms });
        let past = Past { adopt, ..Past::default() };
        let settings = Settings { nonce: "a-2".into(), past, ..settings };
        Self::created_over(settings, earlier.keys, earlier.revision + 1)
    }

    fn start(&mut self) {
        self.step(&When::Applied("list"));
        self.step(&When::Applied("create session"));
        self.describe();
        self.step(&When::Fit(true));
    }

    /// The policy is loaded.
    pub(super) fn describe(&mut self) {
        let policy = PolicyVersion::default();
        self.handle(Event::Described { election: e(), facts: BTreeMap::new(), policy });
    }

    pub(super) fn session_id(&self) -> SessionId {
        SessionId(self.keys[&Key::Session(a())].create.0)
    }

    pub(super) fn token(&self) -> Token {
        Token(self.keys[&Key::Leader(e(), leader_suffix(self.session_id()))].create.0)
    }

    /// The newest entry of the election's history.
    pub(super) fn history(&self) -> &HistoryRecord {
        let newest = self.keys.iter().rev().find_map(|(_, stored)| match &stored.value {
            Value::History(record) => Some(record),
            _ => None,
        });
        newest.expect("no term has ended")
    }

    /// When that entry was written.
    pub(super) fn history_written(&self) -> Revision {
        let entries = self.keys.iter().filter(|(key, _)| matches!(key, Key::History(..)));
        entries.map(|(_, stored)| stored.modified).max().expect("no term has ended")
    }

    /// Up to which write of the history the taking under way accepts it.
    pub(super) fn history_compared(&self) -> Option<Revision> {
        self.pending.iter().find_map(|(_, request)| match request {
            Request::Take { history, .. } => Some(*history),
            _ => None,
        })
    }

    /// How many requests of a phrase are under way.
    pub(super) fn under_way(&self, phrase: &str) -> usize {
        self.pending.iter().filter(|(_, request)| name(request) == phrase).count()
    }

    /// Lets something happen; what the core wants then.
    pub(super) fn step(&mut self, when: &When) -> String {
        self.said.clear();
        match when.clone() {
            When::Applied(phrase) => self.answer(phrase, |scene, request| scene.apply(request)),
            When::AppliedUnheard(phrase) => self.answer(phrase, |scene, request| {
                scene.apply(request);
                Outcome::Unknown
            }),
            When::Rejected(phrase) => self.answer(phrase, |scene, _| {
                let at = Revision(scene.revision);
                Outcome::Rejected { at, seen: scene.everything() }
            }),
            When::Unknown(phrase) => self.answer(phrase, |_, _| Outcome::Unknown),
            When::After(ms) => self.pass(ms, true),
            When::Silence(ms) => self.pass(ms, false),
            When::Ranked(result) => {
                self.opinion = Some(result);
                self.rank();
            }
            When::Withdrawn(result) => {
                let op = self.withdrawals.pop().expect("nothing is being withdrawn");
                let result = result.map_err(str::to_owned);
                self.handle(Event::Withdrawn { op, result });
            }
            When::StopChecked(stopped) => {
                let op = self.stop_checks.pop().expect("no stop check runs");
                self.handle(Event::StopChecked { op, stopped });
            }
            When::Fit(fit) => {
                let fitness = if fit { Fitness::fit() } else { Fitness::unfit("no source") };
                self.handle(Event::Fitness { election: e(), fitness });
            }
            When::Described => self.describe(),
            When::WatchBroken => self.handle(Event::WatchBroken),
            When::GuardExpired => self.handle(Event::GuardExpired),
            When::Stop => self.handle(Event::Stop),
            others => self.change(&others),
        }
        self.said.join(", ")
    }

    /// Somebody else writes the store, and the watch tells.
    fn change(&mut self, when: &When) {
        let before = self.revision;
        match when {
            When::Candidate(node, fit) => self.other(node, *fit),
            When::OtherVersion(node) => {
                let key = Key::Candidacy(e(), (*node).into());
                let Value::Candidacy(mut record) = self.keys[&key].value.clone() else { return };
                record.policy.component = "another".into();
                self.put(key, Value::Candidacy(record));
            }
            When::Beats(node) | When::BeatsUnseen(node) => {
                let session = Key::Session((*node).into());
                let value = self.keys[&session].value.clone();
                self.put(session, value);
            }
            When::Accepts(node) => self.accept(node),
            When::Ended(node) => self.delete(&Key::Session((*node).into())),
            When::Holds(node) => self.hold_by(node),
            When::OffersToUs => self.offer_us(),
            When::HandsOverToUs => self.hand_us(),
            When::Foreign(true) => self.put(Key::Leader(e(), "694d".into()), Value::Garbage),
            When::Foreign(false) => self.delete(&Key::Leader(e(), "694d".into())),
            When::LosesKey => {
                self.delete(&Key::Leader(e(), leader_suffix(self.session_id())));
            }
            When::Pause(set) => self.mark(Key::Pause(e()), *set),
            When::Cordon(set) => self.mark(Key::Cordon(e(), a()), *set),
            When::CordonOn(node) => self.mark(Key::Cordon(e(), (*node).into()), true),
            When::Transfer(to) => {
                let (token, to) = (self.token(), Some((*to).into()));
                let record = TransferRecord { token, to, note: String::new() };
                self.put(Key::Transfer(e()), Value::Transfer(record));
            }
            When::Namesake(beat) => {
                if *beat == 1 && self.core.status(self.now).session.is_some() {
                    self.delete(&Key::Session(a()));
                }
                self.put(Key::Session(a()), session("other", *beat));
            }
            _ => {}
        }
        if !matches!(when, When::BeatsUnseen(_)) {
            self.tell_since(before);
        }
    }

    fn mark(&mut self, key: Key, set: bool) {
        if set { self.put(key, Value::Mark(MarkRecord::default())) } else { self.delete(&key) }
    }

    fn tell_since(&mut self, before: u64) {
        let changed = |entry: &Entry| entry.at.0 > before;
        let mut entries: Vec<Entry> = self
            .keys
            .iter()
            .map(|(key, stored)| Entry {
                key: key.clone(),
                at: stored.modified,
                stored: Some(stored.clone()),
            })
            .filter(changed)
            .collect();
        entries.sort_by_key(|entry| entry.at);
        for key in [
            Key::Leader(e(), "694d".into()),
            Key::Pause(e()),
            Key::Cordon(e(), a()),
            Key::Session("b".into()),
        ]
        .into_iter()
        .chain(["b", "a"].map(|node| self.leader_key_once_of(node)))
        {
            if !self.keys.contains_key(&key) {
                entries.push(Entry { key, at: Revision(self.revision), stored: None });
            }
        }
        self.handle(Event::Watched { at: Revision(self.revision), entries });
    }

    fn leader_key_once_of(&self, node: &str) -> Key {
        let session = self.keys.get(&Key::Session(node.into()));
        Key::Leader(e(), leader_suffix(SessionId(session.map_or(0, |stored| stored.create.0))))
    }

    fn everything(&self) -> Vec<Entry> {
        let at = Revision(self.revision);
        let entry = |(key, stored): (&Key, &Stored)| Entry {
            key: key.clone(),
            at,
            stored: Some(stored.clone()),
        };
        let mut entries: Vec<Entry> = self.keys.iter().map(entry).collect();
        for key in [Key::Session(a()), self.leader_key_once_of("a")] {
            if !self.keys.contains_key(&key) {
                entries.push(Entry { key, at, stored: None });
            }
        }
        entries
    }

    fn other(&mut self, node: &str, fit: bool) {
        let key = Key::Session(node.into());
        if !self.keys.contains_key(&key) {
            self.put(key.clone(), session(node, 0));
        }
        let record = CandidacyRecord {
            session: SessionId(self.keys[&key].create.0),
            fitness: if fit { Fitness::fit() } else { Fitness::unfit("no source") },
            facts: BTreeMap::new(),
            policy: PolicyVersion::default(),
            accepted: None,
        };
        self.put(Key::Candidacy(e(), node.into()), Value::Candidacy(record));
    }

    fn hold_by(&mut self, node: &str) {
        let session = SessionId(self.keys[&Key::Session(node.into())].create.0);
        self.put(Key::Leader(e(), leader_suffix(session)), Value::Leader(term(node, session)));
    }

    fn accept(&mut self, node: &str) {
        let key = Key::Leader(e(), leader_suffix(self.session_id()));
        let Value::Leader(LeaderRecord { offer: Some(offer), .. }) = &self.keys[&key].value else {
            panic!("no offer stands");
        };
        let id = offer.id;
        let key = Key::Candidacy(e(), node.into());
        let Value::Candidacy(mut record) = self.keys[&key].value.clone() else { return };
        record.accepted = Some(id);
        self.put(key, Value::Candidacy(record));
    }

    fn offer_us(&mut self) {
        let key = self.leader_key_once_of("b");
        let stored = self.keys[&key].clone();
        let Value::Leader(mut record) = stored.value else { return };
        let id = OfferId { token: Token(stored.create.0), number: 1 };
        record.offer = Some(Offer { id, to: a() });
        self.put(key, Value::Leader(record));
    }

    fn hand_us(&mut self) {
        let key = self.leader_key_once_of("b");
        let token = Token(self.keys[&key].create.0);
        self.delete(&key);
        let session = self.session_id();
        let record = HistoryRecord {
            holder: "b".into(),
            successor: Some(a()),
            from_unix_ms: 0,
            to_unix_ms: 0,
            why: EndReason::Transfer,
            clean: true,
            delay_ms: 0,
            facts: BTreeMap::new(),
        };
        self.put(Key::History(e(), token), Value::History(record));
        self.put(Key::Leader(e(), leader_suffix(session)), Value::Leader(term("a", session)));
    }

    fn put(&mut self, key: Key, value: Value) {
        self.revision += 1;
        let modified = Revision(self.revision);
        let create = self.keys.get(&key).map_or(modified, |stored| stored.create);
        let leased = value == Value::Garbage;
        self.keys.insert(key, Stored { create, modified, leased, value });
    }

    fn delete(&mut self, key: &Key) {
        self.revision += 1;
        self.keys.remove(key);
    }

    fn answer(&mut self, phrase: &str, outcome: impl FnOnce(&mut Self, &Request) -> Outcome) {
        let index = self.pending.iter().position(|(_, request)| name(request) == phrase);
        let index = index.unwrap_or_else(|| panic!("no {phrase:?} is under way"));
        let (op, request) = self.pending.remove(index);
        let outcome = outcome(self, &request);
        self.handle(Event::Reply { op, outcome });
    }

    /// Does what a request asks, whatever it compares.
    fn apply(&mut self, request: &Request) -> Outcome {
        let before = self.revision;
        match request.clone() {
            Request::List | Request::ReadLeader { .. } => {
                let seen = self.everything();
                return Outcome::Applied { at: Revision(self.revision), seen };
            }
            Request::CreateSession { node, record } | Request::Beat { node, record, .. } => {
                self.put(Key::Session(node), Value::Session(record));
            }
            Request::EndSession { node, .. } => self.delete(&Key::Session(node)),
            Request::PutCandidacy { election, node, record } => {
                self.put(Key::Candidacy(election, node), Value::Candidacy(record));
            }
            Request::Take { record, .. } => self.put_leader(record),
            Request::TakeOver { holder, holder_session, evidence, ending, record, .. } => {
                self.delete(&Key::Leader(e(), leader_suffix(holder_session)));
                if let Evidence::Silent(_) = evidence {
                    self.delete(&Key::Session(holder));
                }
                self.put(Key::History(e(), ending.token), Value::History(ending.record));
                record.into_iter().for_each(|record| self.put_leader(record));
            }
            Request::HandOver { session, record, ending, .. } => {
                self.delete(&Key::Leader(e(), leader_suffix(session)));
                self.put(Key::History(e(), ending.token), Value::History(ending.record));
                self.put_leader(record);
            }
            Request::Resign { session, ending, .. } => {
                self.delete(&Key::Leader(e(), leader_suffix(session)));
                self.put(Key::History(e(), ending.token), Value::History(ending.record));
            }
            Request::RewriteLeader { record, .. } => self.put_leader(record),
            Request::Batch(_) => panic!("one election has nothing to share"),
        }
        let at = Revision(self.revision);
        let written = |stored: &Stored| stored.modified.0 > before;
        let entry = |(key, stored): (&Key, &Stored)| Entry {
            key: key.clone(),
            at,
            stored: Some(stored.clone()),
        };
        let seen = self.keys.iter().filter(|(_, stored)| written(stored)).map(entry).collect();
        Outcome::Applied { at, seen }
    }

    fn put_leader(&mut self, record: LeaderRecord) {
        self.put(Key::Leader(e(), leader_suffix(record.session)), Value::Leader(record));
    }

    fn rank(&mut self) {
        let op = self.ranks.pop().expect("nothing was asked");
        let Some(opinion) = self.opinion else { return };
        let result = opinion.map(ranking).map_err(str::to_owned);
        self.handle(Event::Ranked { op, result });
    }

    /// A deadline of the core has come. Questions that only time raises are answered as before.
    fn tick(&mut self) {
        let (asked, said) = (self.ranks.len(), self.said.len());
        self.handle(Event::Tick);
        if self.ranks.len() > asked && self.opinion.is_some() {
            self.rank();
            let late = self.said.split_off(said);
            self.said.extend(late.into_iter().filter(|phrase| phrase != "rank"));
        }
    }

    fn pass(&mut self, ms: u64, store_answers: bool) {
        let end = self.now.after(Duration::from_millis(ms));
        loop {
            if store_answers {
                self.keep_up();
            }
            let wait = self.core.next_deadline(self.now);
            match wait.map(|wait| self.now.after(wait)) {
                Some(at) if at.fast <= end.fast => self.now = at,
                _ => break,
            }
            self.tick();
        }
        self.now = end;
        self.tick();
        if store_answers {
            self.keep_up();
        }
    }

    /// Applies beats and readings.
    fn keep_up(&mut self) {
        while let Some(index) = self
            .pending
            .iter()
            .position(|(_, request)| matches!(request, Request::Beat { .. } | Request::List))
        {
            let (op, request) = self.pending.remove(index);
            let outcome = self.apply(&request);
            self.handle(Event::Reply { op, outcome });
            self.handle(Event::Watched { at: Revision(self.revision), entries: Vec::new() });
        }
    }

    fn handle(&mut self, event: Event) {
        let actions = self.core.handle(self.now, event);
        self.run(actions);
    }

    fn run(&mut self, actions: Vec<Action>) {
        for action in actions {
            if let Some(phrase) = phrase(&action) {
                self.said.push(phrase);
            }
            match action {
                Action::Send { op, request, .. } => self.pending.push((op, request)),
                Action::Rank { op, .. } => self.ranks.push(op),
                Action::Withdraw { op, .. } => self.withdrawals.push(op),
                Action::StopCheck { op, .. } => self.stop_checks.push(op),
                _ => {}
            }
        }
    }
}
