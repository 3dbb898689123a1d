//! A policy that misbehaves on request: `{"misdeed": "loop"}` and the like.
//!
//! The policy host's tests run the built component and expect each misdeed to be caught, named
//! and without effect on the next call. What it is not asked to do wrong it does right. In a ranking
//! another candidate's label `misdeed` asks for one as well, so that it goes wrong while nodes run.

use conclave_policy_sdk::{
    Attributes, Config, Info, Manifest, Node, Placement, Policy, Problem, Ranked, Ranking, Refusal,
    Role, View, export_policy, log, placement, ranking,
};
use serde::Deserialize;

/// The policy.
pub struct Hostile;

/// Which misdeed to commit.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Empty: none.
    pub misdeed: String,
}

impl Config for Settings {}

impl Policy for Hostile {
    type Config = Settings;

    fn introduce() -> Info {
        Info {
            name: "hostile".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Misbehaves on request.\u{1b}[2J".into(),
            config_schema: String::new(),
        }
    }

    fn validate(settings: &Settings) -> Vec<Problem> {
        commit(&settings.misdeed);
        Vec::new()
    }

    fn describe(_: &Node, _: &[Manifest], settings: &Settings) -> Result<Attributes, Refusal> {
        commit(&settings.misdeed);
        let fact = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        Ok(match settings.misdeed.as_str() {
            "fact-twice" => vec![fact("flags", "1"), fact("flags", "2")],
            "fact-unnamed" => vec![fact("", "1")],
            "fact-control" => vec![fact("a\nb", "1")],
            "fact-long" => vec![fact("flags", &"x".repeat(5_000))],
            "fact-flood" => (0..65).map(|i| fact(&i.to_string(), "1")).collect(),
            "fact-heavy" => (0..8).map(|i| fact(&i.to_string(), &"x".repeat(3_000))).collect(),
            _ => vec![fact("flags", "1")],
        })
    }

    fn rank(view: &View, settings: &Settings) -> Result<Ranking, Refusal> {
        let others = view.candidates.iter().filter(|candidate| candidate.name != view.me);
        let asked = others.filter_map(|candidate| candidate.label("misdeed")).next();
        let misdeed = asked.unwrap_or(&settings.misdeed);
        commit(misdeed);
        let mut honest = ranking::sticky(view);
        let ranked = |node: &str| Ranked { node: node.into(), reason: "because".into() };
        match misdeed {
            "unknown" => honest.order.insert(0, ranked("nobody")),
            "twice" => honest.order.push(honest.order[0].clone()),
            "both" => honest.excluded.push(honest.order[0].clone()),
            "forget" => drop(honest.order.pop()),
            "empty" => honest.order.clear(),
            "terminal" => honest.order[0].reason = "\u{1b}[31mred\nline".into(),
            "long" => honest.order[0].reason = "ä".repeat(1_000),
            "huge" => honest.order[0].reason = "x".repeat(2_000_000),
            "many" => honest.order = vec![ranked("nobody"); 100_000],
            "refuse" => return Err(Refusal::Undecided("not today\u{7}".into())),
            _ => {}
        }
        Ok(honest)
    }

    fn place(
        _: &View,
        _: &Node,
        role: Role,
        manifests: &[Manifest],
        settings: &Settings,
    ) -> Result<Vec<Placement>, Refusal> {
        commit(&settings.misdeed);
        let mut honest = placement::by_role(role, manifests);
        let last = honest.len() - 1;
        let mut set = |name: &str, value: &str| {
            honest[last].variables.push((name.to_owned(), value.to_owned()));
        };
        match settings.misdeed.as_str() {
            "variable-reserved" => set("CONCLAVE_TERM", "7"),
            "variable-name" => set("2nd", "x"),
            "variable-twice" => {
                set("A", "1");
                set("A", "2");
            }
            "variable-long" => set("A", &"x".repeat(70_000)),
            "variable-by-role" => set("ROLE", if role == Role::Leader { "l" } else { "s" }),
            "ghost" => honest[0].manifest = "ghost.yaml".into(),
            "place-twice" => honest.push(honest[0].clone()),
            "place-forget" => drop(honest.pop()),
            "steal" => honest.iter_mut().for_each(|placement| placement.run = true),
            "by-role" => honest.iter_mut().for_each(|p| p.run = role == Role::Leader),
            _ => {}
        }
        Ok(honest)
    }
}

/// The misdeeds that are the same in every function.
fn commit(misdeed: &str) {
    match misdeed {
        "loop" => endless(),
        "memory" => hoard(),
        "recurse" => drop(descend(1)),
        "panic" => panic!("on request"),
        "flood" => (0..1_000).for_each(|_| log::info(&"x".repeat(1_000))),
        "shout" => log::info(&"x".repeat(2_000_000)),
        "speak" => log::warn("a word\u{1b}[2J"),
        _ => {}
    }
}

fn endless() {
    let mut count = 0_u64;
    while std::hint::black_box(count) < u64::MAX {
        count += 1;
    }
}

fn hoard() {
    let mut hoard = Vec::new();
    loop {
        hoard.push(std::hint::black_box(vec![1_u8; 1 << 20]));
    }
}

fn descend(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 4]);
    if frame[0] == 0 { 0 } else { descend(frame[1] + 1) + frame[2] }
}

export_policy!(Hostile);
