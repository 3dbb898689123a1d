//! The election core, told anything: a store that lies, policies and files that answer nonsense,
//! operators and events in any order.
//!
//! Half of what it is told is honest, from a model of the store, so that it gets as far as
//! leading and handing over; the rest is made up. Whatever it is told, it must not panic, must
//! not want endlessly much, and must keep to what depends on nobody's honesty: withdraw before
//! giving up, place nothing past the deadline, never go back to an older token.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use conclave_core::record::{
    Attributes, CandidacyRecord, EndReason, Fitness, HistoryRecord, LeaderRecord, MarkRecord,
    Offer, OfferId, PolicyVersion, SessionRecord, TransferRecord,
};
use conclave_core::request::leader_suffix;
use conclave_core::view::{Ranked, Ranking};
use conclave_core::{
    Action, Adoption, Core, ElectionName, ElectionSettings, Entry, Event, Key, NodeName, Notice,
    Now, OpId, Outcome, Past, Request, Revision, SessionId, Settings, Stored, Time, Timings, Token,
    Value,
};
use conclave_sim::ModelStore;

use crate::script::Script;

/// Longer scripts are cut off: the core must get by with a bounded amount of work.
const MOST_STEPS: usize = 400;

/// More actions in one call than any number of events of one step can justify.
const MOST_ACTIONS: usize = 500;

const NODES: [&str; 5] = ["a", "b", "c", "nobody", ""];
const ELECTIONS: [&str; 4] = ["e", "f", "unknown", ""];

/// Plays a script to a core.
pub fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let now = Now::at(1_000_000 + script.number() % 1_000_000);
    let mut store = ModelStore::default();
    let settings = settings(&mut script, now, &mut store);
    let mut judge = Judge::new(&settings);
    let (core, actions) = Core::new(settings, now);
    let mut play = Play { core, now, store, open: Vec::new(), told: Revision(0) };
    play.take(&mut judge, actions);
    for _ in 0..MOST_STEPS {
        if script.is_over() {
            break;
        }
        play.step(&mut script, &mut judge);
    }
}

fn settings(script: &mut Script<'_>, now: Now, store: &mut ModelStore) -> Settings {
    let names = [&["e"][..], &["e", "f"], &[]][script.below(3)];
    let election = |script: &mut Script<'_>| ElectionSettings {
        takeover_delay: Duration::from_millis(script.number() % 5_000),
        stop_check: script.once_in(3),
        hold_on_policy_failure: script.once_in(3),
    };
    let elections = names.iter().map(|name| ((*name).into(), election(script))).collect();
    let mut past = Past::default();
    if script.once_in(4) {
        past.revision = Revision(script.number());
        past.dead = Some(nonce(script));
        past.tokens = BTreeMap::from([(name(script), Token(script.number()))]);
    }
    if script.once_in(4) {
        let (session, terms) = match script.once_in(2) {
            true => led_before(store),
            false => {
                let terms = BTreeMap::from([(name(script), Token(script.number()))]);
                (SessionId(script.number()), terms)
            }
        };
        let deadline = now.fast + Duration::from_millis(script.number() % 4_000);
        past.adopt = Some(Adoption { session, nonce: nonce(script), deadline, terms });
    }
    let mut timings = Timings::for_ttl(Duration::from_secs(2));
    timings.minimum_term = Duration::from_secs(1);
    timings.history = script.below(4);
    Settings {
        node: "a".into(),
        nonce: "a-1".into(),
        boot_id: String::new(),
        addresses: Vec::new(),
        labels: Attributes::new(),
        version: String::new(),
        timings,
        elections,
        past,
    }
}

/// A store in which an earlier daemon of this node leads election `e`.
fn led_before(store: &mut ModelStore) -> (SessionId, BTreeMap<ElectionName, Token>) {
    store.put(Key::Session("a".into()), Value::Session(session("a-0")), false);
    let session = SessionId(store.revision().0);
    let term = LeaderRecord {
        holder: "a".into(),
        session,
        facts: Attributes::new(),
        since_unix_ms: 0,
        delay_ms: 0,
        why: String::new(),
        offer: None,
    };
    store.put(Key::Leader("e".into(), leader_suffix(session)), Value::Leader(term), false);
    (session, BTreeMap::from([("e".into(), Token(store.revision().0))]))
}

fn session(nonce: &str) -> SessionRecord {
    SessionRecord {
        nonce: nonce.into(),
        ttl_ms: 2_000,
        beat: 0,
        age_ms: 0,
        boot_id: String::new(),
        addresses: Vec::new(),
        labels: Attributes::new(),
        version: String::new(),
        format: conclave_core::record::FORMAT,
    }
}

/// A core, the world that it is told of, and what waits for an answer.
struct Play {
    core: Core,
    now: Now,
    store: ModelStore,
    open: Vec<(OpId, Asked)>,
    /// Up to which revision its watch has told it everything.
    told: Revision,
}

/// What the core waits for.
#[expect(clippy::large_enum_variant, reason = "nearly all that is asked is a request")]
enum Asked {
    Store(Request),
    Rank,
    Withdraw,
    StopCheck,
}

impl Play {
    fn step(&mut self, script: &mut Script<'_>, judge: &mut Judge) {
        self.pass_time(script);
        let mut events = vec![self.event(script)];
        while script.once_in(4) {
            events.push(self.event(script));
        }
        for event in &events {
            judge.told(event);
        }
        let actions = self.core.handle_all(self.now, events);
        self.take(judge, actions);
    }

    /// Takes in what the core wants, and looks at it from every side.
    fn take(&mut self, judge: &mut Judge, actions: Vec<Action>) {
        assert!(actions.len() <= MOST_ACTIONS, "{} actions in one call", actions.len());
        judge.wanted(self.now, &actions);
        for action in actions {
            match action {
                Action::Send { op, request, .. } => self.open.push((op, Asked::Store(request))),
                Action::Rank { op, .. } => self.open.push((op, Asked::Rank)),
                Action::Withdraw { op, .. } => self.open.push((op, Asked::Withdraw)),
                Action::StopCheck { op, .. } => self.open.push((op, Asked::StopCheck)),
                Action::Watch { after } => self.told = after,
                _ => {}
            }
        }
        let status = self.core.status(self.now);
        for election in status.elections {
            let _ = self.core.view(&election.election);
            if self.core.leading(&election.election, self.now).is_some() {
                judge.says_leading(self.now, &election.election);
            }
        }
        let _ = self.core.next_deadline(self.now);
    }

    fn pass_time(&mut self, script: &mut Script<'_>) {
        let wanted = self.core.next_deadline(self.now).unwrap_or_default();
        let span = match script.below(8) {
            0..3 => Duration::ZERO,
            3 => Duration::from_millis(script.byte().into()),
            4 => Duration::from_secs(script.byte().into()),
            _ => wanted.min(Duration::from_secs(3_600)),
        };
        self.now = self.now.after(span);
    }

    fn event(&mut self, script: &mut Script<'_>) -> Event {
        match script.below(32) {
            0..14 => self.answer(script),
            14..18 => self.watched(),
            18 => self.disturb(script),
            19 => Event::Watched { at: Revision(script.number()), entries: entries(script) },
            20 => Event::WatchBroken,
            21 => Event::Reply { op: OpId(script.number()), outcome: outcome(script) },
            22 => Event::Ranked { op: OpId(script.number()), result: Ok(ranking(script)) },
            23 => Event::Withdrawn { op: OpId(script.number()), result: Ok(()) },
            24 => Event::GuardExpired,
            25 if script.once_in(3) => Event::Stop,
            26..29 => Event::Fitness { election: name(script), fitness: fitness(script) },
            29..31 => Event::Described {
                election: name(script),
                facts: attributes(script),
                policy: policy(script),
            },
            31 => self.peer(script),
            _ => Event::Tick,
        }
    }

    /// Another node beats, stands as a candidate, and accepts what it is offered.
    fn peer(&mut self, script: &mut Script<'_>) -> Event {
        let (node, election) = (*script.choose(&["b", "c"]), ElectionName::from("e"));
        let key = Key::Session(node.into());
        self.store.put(key.clone(), Value::Session(session(node)), false);
        let session = self.store.get(&key).map_or(0, |stored| stored.create.0);
        let offers = self.store.leaders(&election).filter_map(|(_, stored)| match &stored.value {
            Value::Leader(record) => {
                record.offer.as_ref().filter(|offer| offer.to.as_str() == node)
            }
            _ => None,
        });
        let accepted = offers.map(|offer| offer.id).next();
        let record = CandidacyRecord {
            session: SessionId(session),
            fitness: Fitness::fit(),
            facts: Attributes::new(),
            policy: PolicyVersion { name: "policy".into(), ..PolicyVersion::default() },
            accepted,
        };
        let key = Key::Candidacy(election, node.into());
        self.store.put(key, Value::Candidacy(record), false);
        self.watched()
    }

    /// An answer to something that was asked, most often an honest one.
    fn answer(&mut self, script: &mut Script<'_>) -> Event {
        if self.open.is_empty() {
            return Event::Tick;
        }
        let at = script.below(self.open.len());
        let (op, asked) = self.open.swap_remove(at);
        match asked {
            Asked::Store(request) => {
                let outcome = match script.below(8) {
                    0..5 => self.store.execute(&request),
                    5 => {
                        self.store.execute(&request);
                        Outcome::Unknown
                    }
                    6 => Outcome::Unknown,
                    _ => outcome(script),
                };
                Event::Reply { op, outcome }
            }
            Asked::Rank => {
                let result = match script.once_in(4) {
                    true => Err("a policy's failure".to_owned()),
                    false => Ok(ranking(script)),
                };
                Event::Ranked { op, result }
            }
            Asked::Withdraw => {
                let result = match script.once_in(4) {
                    true => Err("a directory that is read-only".to_owned()),
                    false => Ok(()),
                };
                Event::Withdrawn { op, result }
            }
            Asked::StopCheck => Event::StopChecked { op, stopped: script.once_in(2) },
        }
    }

    /// What really changed.
    fn watched(&mut self) -> Event {
        let entries = self.store.changes(self.told);
        self.told = self.store.revision();
        Event::Watched { at: self.told, entries }
    }

    /// Somebody writes into the store, or deletes from it.
    fn disturb(&mut self, script: &mut Script<'_>) -> Event {
        let key = key(script);
        match script.once_in(3) {
            true => self.store.delete(&key),
            false => {
                let value = value(script);
                self.store.put(key, value, script.once_in(4));
            }
        }
        self.watched()
    }
}

/// Knows only what it was told and what it wanted, and holds it to its promises.
struct Judge {
    me: NodeName,
    deadline: Time,
    /// The elections with exclusive effects that were not yet withdrawn.
    placed: BTreeSet<ElectionName>,
    withdrawing: BTreeMap<OpId, ElectionName>,
    tokens: BTreeMap<ElectionName, Token>,
}

impl Judge {
    fn new(settings: &Settings) -> Self {
        let adopted = settings.past.adopt.as_ref();
        Judge {
            me: settings.node.clone(),
            deadline: adopted.map_or(Time::ZERO, |adoption| adoption.deadline),
            placed: adopted.map(|a| a.terms.keys().cloned().collect()).unwrap_or_default(),
            withdrawing: BTreeMap::new(),
            tokens: settings.past.tokens.clone(),
        }
    }

    fn told(&mut self, event: &Event) {
        if let Event::Withdrawn { op, result: Ok(()) } = event
            && let Some(election) = self.withdrawing.remove(op)
        {
            self.placed.remove(&election);
        }
    }

    fn wanted(&mut self, now: Now, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Extend { deadline, .. } => {
                    assert!(*deadline > now.fast, "a deadline in the past is kept");
                    self.deadline = *deadline;
                }
                Action::Lead { election, token, adopted } => {
                    assert!(now.fast < self.deadline, "{election} is led past the deadline");
                    let known = self.tokens.insert(election.clone(), *token);
                    assert!(known <= Some(*token), "{election}: {token} after {known:?}");
                    let fresh = self.placed.insert(election.clone());
                    assert!(fresh || *adopted, "{election} is led twice without a withdrawal");
                }
                Action::Withdraw { op, election } => {
                    self.withdrawing.insert(*op, election.clone());
                }
                Action::Send { request, .. } => self.sent(request),
                Action::Session { session: None } => {
                    assert!(self.placed.is_empty(), "a session ended under {:?}", self.placed);
                }
                Action::Notice(Notice::TermBegan { token, .. }) => assert!(token.0 > 0),
                _ => {}
            }
        }
    }

    /// What gives a term up is sent only when its effects are gone.
    fn sent(&self, request: &Request) {
        match request {
            Request::Resign { election, .. } | Request::HandOver { election, .. } => {
                assert!(!self.placed.contains(election), "{election} is given up while in place");
            }
            Request::EndSession { node, .. } if *node == self.me => {
                assert!(self.placed.is_empty(), "our session is ended under {:?}", self.placed);
            }
            Request::Batch(requests) => requests.iter().for_each(|request| self.sent(request)),
            _ => {}
        }
    }

    fn says_leading(&self, now: Now, election: &ElectionName) {
        assert!(now.fast < self.deadline, "it says that it leads {election} past its deadline");
    }
}

fn name(script: &mut Script<'_>) -> ElectionName {
    (*script.choose(&ELECTIONS)).into()
}

fn node(script: &mut Script<'_>) -> NodeName {
    (*script.choose(&NODES)).into()
}

fn nonce(script: &mut Script<'_>) -> conclave_core::Nonce {
    (*script.choose(&["a-1", "a-0", "b-1", ""])).into()
}

fn text(script: &mut Script<'_>) -> String {
    String::from_utf8_lossy(script.bytes(40)).into_owned()
}

fn attributes(script: &mut Script<'_>) -> Attributes {
    (0..script.below(3)).map(|_| (text(script), text(script))).collect()
}

fn fitness(script: &mut Script<'_>) -> Fitness {
    match script.once_in(4) {
        true => Fitness::unfit(text(script)),
        false => Fitness::fit(),
    }
}

fn policy(script: &mut Script<'_>) -> PolicyVersion {
    let name = if script.once_in(3) { text(script) } else { "policy".to_owned() };
    PolicyVersion { name, fallback: script.once_in(4), ..PolicyVersion::default() }
}

fn ranking(script: &mut Script<'_>) -> Ranking {
    let mut list = |most| -> Vec<Ranked> {
        let ranked = |script: &mut Script<'_>| Ranked { node: node(script), reason: text(script) };
        (0..script.below(most)).map(|_| ranked(script)).collect()
    };
    Ranking { order: list(6), excluded: list(3) }
}

fn offer(script: &mut Script<'_>) -> OfferId {
    OfferId { token: Token(script.number()), number: script.number() }
}

fn key(script: &mut Script<'_>) -> Key {
    match script.below(7) {
        0 => Key::Session(node(script)),
        1 => Key::Candidacy(name(script), node(script)),
        2 => Key::Pause(name(script)),
        3 => Key::Transfer(name(script)),
        4 => Key::Cordon(name(script), node(script)),
        5 => Key::History(name(script), Token(script.number())),
        _ => {
            let suffix = match script.once_in(3) {
                true => text(script),
                false => leader_suffix(SessionId(script.number())),
            };
            Key::Leader(name(script), suffix)
        }
    }
}

fn value(script: &mut Script<'_>) -> Value {
    match script.below(8) {
        0 => Value::Session(SessionRecord {
            nonce: nonce(script),
            ttl_ms: script.number(),
            beat: script.number(),
            age_ms: script.number(),
            boot_id: text(script),
            addresses: vec![text(script)],
            labels: attributes(script),
            version: text(script),
            format: conclave_core::record::FORMAT,
        }),
        1 => Value::Candidacy(CandidacyRecord {
            session: SessionId(script.number()),
            fitness: fitness(script),
            facts: attributes(script),
            policy: policy(script),
            accepted: script.once_in(2).then(|| offer(script)),
        }),
        2 => Value::Leader(leader(script)),
        3 => Value::Mark(MarkRecord {
            note: text(script),
            since_unix_ms: script.number(),
            for_ms: None,
        }),
        4 => Value::Transfer(TransferRecord {
            token: Token(script.number()),
            to: script.once_in(2).then(|| node(script)),
            note: text(script),
        }),
        5 => Value::History(HistoryRecord {
            holder: node(script),
            successor: script.once_in(2).then(|| node(script)),
            from_unix_ms: script.number(),
            to_unix_ms: script.number(),
            why: EndReason::Silent,
            clean: script.once_in(2),
            delay_ms: script.number(),
            facts: attributes(script),
        }),
        _ => Value::Garbage,
    }
}

fn leader(script: &mut Script<'_>) -> LeaderRecord {
    LeaderRecord {
        holder: node(script),
        session: SessionId(script.number()),
        facts: attributes(script),
        since_unix_ms: script.number(),
        delay_ms: script.number(),
        why: text(script),
        offer: script.once_in(2).then(|| Offer { id: offer(script), to: node(script) }),
    }
}

fn entries(script: &mut Script<'_>) -> Vec<Entry> {
    let mut entry = || {
        let stored = (!script.once_in(4)).then(|| Stored {
            create: Revision(script.number()),
            modified: Revision(script.number()),
            leased: script.once_in(6),
            value: value(script),
        });
        Entry { key: key(script), at: Revision(script.number()), stored }
    };
    let first = entry();
    vec![first, entry()]
}

fn outcome(script: &mut Script<'_>) -> Outcome {
    match script.below(3) {
        0 => Outcome::Applied { at: Revision(script.number()), seen: entries(script) },
        1 => Outcome::Rejected { at: Revision(script.number()), seen: entries(script) },
        _ => Outcome::Unknown,
    }
}
