//! The fields of a case file, as they are written.
//!
//! Every field is optional here, so that what is missing is reported together with everything
//! else that is wrong. What has a short form (`leader: a`) may also be written out
//! (`leader: {name: a, held: 5m}`).

use std::collections::BTreeMap;
use std::fmt;

use conclave_yaml::{Span, section};

pub(super) use conclave_yaml::NameOr;
use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};

section! {
    Root, "the fields `policy`, `config` and `cases`" {
        policy: String,
        config: serde_json::Value,
        cases: Vec<Case>,
    }
}

section! {
    Case, "a case: `name`, one of `rank`, `place`, `describe` and `validate`, and `expect`" {
        name: String,
        config: serde_json::Value,
        rank: View,
        place: View,
        describe: Describe,
        validate: serde_json::Value,
        expect: Expect,
    }
}

section! {
    View, "a view: the fields `candidates`, `leader`, `cordoned` and so on" {
        election: String,
        me: String,
        candidates: Candidates,
        leader: NameOr<Leader>,
        cordoned: Vec<String>,
        unfit: Reasons,
        previous: NameOr<Previous>,
        transfer: NameOr<Transfer>,
        paused: bool,
        manifests: Vec<NameOr<Manifest>>,
        on: Names,
    }
}

section! {
    Candidate, "a candidate: the field `name`, and what differs from an ordinary one" {
        name: String,
        labels: BTreeMap<String, String>,
        variables: BTreeMap<String, String>,
        facts: BTreeMap<String, String>,
        fit: bool,
        reasons: Vec<String>,
        checks: BTreeMap<String, bool>,
        cordoned: bool,
        holds: Vec<String>,
        standing: Span,
    }
}

section! {
    Leader, "the leader: the field `name`, and perhaps `facts`, `held` and `candidate`" {
        name: String,
        facts: BTreeMap<String, String>,
        held: Span,
        candidate: bool,
    }
}

section! {
    Previous, "who led before: the field `name`, and perhaps `facts` and `clean`" {
        name: String,
        facts: BTreeMap<String, String>,
        clean: bool,
    }
}

section! {
    Transfer, "a transfer: the field `to`, or nothing for the best other node" {
        to: String,
    }
}

section! {
    Manifest, "a manifest: the field `name`, and perhaps `exclusive`, `content` and `source`" {
        name: String,
        exclusive: bool,
        content: String,
        source: String,
    }
}

section! {
    Describe, "a node: the fields `name`, `labels`, `variables` and `manifests`" {
        election: String,
        name: String,
        labels: BTreeMap<String, String>,
        variables: BTreeMap<String, String>,
        manifests: Vec<NameOr<Manifest>>,
    }
}

section! {
    Expect, "what is expected, such as `order`, `leads`, `runs` or `facts`" {
        order: Vec<String>,
        first: String,
        leads: String,
        excluded: Reasons,
        forgotten: Vec<String>,
        reasons: BTreeMap<String, String>,
        runs: BTreeMap<String, Vec<String>>,
        exclusive_only_on: String,
        variables: BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>>,
        facts: BTreeMap<String, String>,
        has_facts: BTreeMap<String, String>,
        problems: BTreeMap<String, String>,
        refused: String,
    }
}

/// How many candidates, or which.
#[derive(Debug)]
pub(super) enum Candidates {
    Count(u64),
    List(Vec<NameOr<Candidate>>),
}

impl<'de> Deserialize<'de> for Candidates {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Candidates;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of candidates, or how many there are")
            }

            fn visit_u64<E: de::Error>(self, count: u64) -> Result<Candidates, E> {
                Ok(Candidates::Count(count))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Candidates, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(items)).map(Candidates::List)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// Names, perhaps with what is said of each.
#[derive(Debug)]
pub(super) enum Reasons {
    Names(Vec<String>),
    Said(BTreeMap<String, String>),
}

impl<'de> Deserialize<'de> for Reasons {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Reasons;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of names, or a mapping of names to reasons")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Reasons, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(items)).map(Reasons::Names)
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Reasons, A::Error> {
                BTreeMap::deserialize(MapAccessDeserializer::new(fields)).map(Reasons::Said)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// One name or several.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) names: Vec<String>,
    pub(super) listed: bool,
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name or a list of names")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Names, E> {
                Ok(Names { names: vec![name.to_owned()], listed: false })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Names, A::Error> {
                let names = Vec::deserialize(SeqAccessDeserializer::new(items))?;
                Ok(Names { names, listed: true })
            }
        }

        deserializer.deserialize_any(Either)
    }
}
