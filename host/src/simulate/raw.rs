//! A scenario's fields, as they are written.

use std::collections::BTreeMap;

use conclave_yaml::{NameOr, Span, section};
use serde::Deserialize;

section! {
    Root, "the fields `nodes`, `duration`, `policies`, `story` and so on" {
        nodes: Vec<NameOr<Node>>,
        elections: Vec<String>,
        ttl: Span,
        minimum_term: Span,
        takeover_delay: Span,
        duration: Span,
        seed: u64,
        policies: Vec<NameOr<Policy>>,
        story: Vec<Step>,
        random: Random,
    }
}

section! {
    Node, "a node: the field `name`, and perhaps `labels`" {
        name: String,
        labels: BTreeMap<String, String>,
    }
}

section! {
    Policy, "a policy: the field `policy`, and perhaps `config` and `name`" {
        policy: String,
        config: serde_json::Value,
        name: String,
    }
}

section! {
    Step, "a step: `at` or `every`, perhaps `for`, and what happens, such as `crash: a`" {
        at: Span,
        every: Span,
        lasts: Span,
        crash: String,
        kill_daemon: String,
        suspend: String,
        cut_off: String,
        unfit: String,
        cordon: String,
        restart: String,
        store_down: bool,
        pause: bool,
        transfer_to: String,
    }
}

section! {
    Random, "what happens at random: `crash`, `restart`, `suspend`, `cut_off`, `unfit`, `store_down`" {
        crash: Rate,
        restart: Rate,
        suspend: Rate,
        cut_off: Rate,
        unfit: Rate,
        store_down: Rate,
    }
}

section! {
    Rate, "the fields `every` and `lasts`, both in the mean" {
        every: Span,
        lasts: Span,
    }
}
