//! The configuration file's fields, as they are written.
//!
//! Every field is optional here, so that what is missing is reported together with everything
//! else that is wrong, by the modules that give the fields their meaning.

use std::collections::BTreeMap;
use std::fmt;

use conclave_yaml::{Span, section};
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

section! {
    Root, "the fields `cluster`, `node`, `store`, `elections` and so on" {
        version: u32,
        cluster: String,
        node: Node,
        store: Store,
        timings: Timings,
        policies: Policies,
        state_directory: String,
        http: Http,
        elections: Vec<Election>,
    }
}

section! {
    Http, "the fields `listen`, `tls` and `token_file`" {
        listen: String,
        tls: HttpTls,
        token_file: String,
    }
}

section! {
    HttpTls, "the fields `certificate` and `key`" {
        certificate: String,
        key: String,
    }
}

section! {
    Node, "the fields `name`, `labels`, `variables` and `fitness`" {
        name: String,
        labels: BTreeMap<String, String>,
        variables: BTreeMap<String, String>,
        fitness: Vec<FitnessCheck>,
    }
}

section! {
    Store, "either `etcd` or `embedded`" {
        etcd: Etcd,
        embedded: Embedded,
    }
}

section! {
    Etcd, "the fields `endpoints`, `tls`, `user` and so on" {
        endpoints: Vec<String>,
        tls: Tls,
        user: String,
        password: String,
        password_file: String,
    }
}

section! {
    Tls, "the fields `ca`, `certificate`, `key` and `server_name`" {
        ca: String,
        certificate: String,
        key: String,
        server_name: String,
    }
}

section! {
    Embedded, "the field `path`" {
        path: String,
    }
}

section! {
    Timings, "the fields `ttl`, `beat`, `margin` and so on" {
        ttl: Span,
        allow_short_ttl: bool,
        beat: Span,
        margin: Span,
        request_timeout: Span,
        clock_rate_error: RateError,
        stagger: Span,
        minimum_term: Span,
        relist: Span,
        rescan: Span,
    }
}

section! {
    Policies, "the fields `directory`, `digests`, `limits` and `limits_of`" {
        directory: String,
        digests: BTreeMap<String, String>,
        limits: Limits,
        limits_of: BTreeMap<String, Limits>,
    }
}

section! {
    Limits, "the fields `time`, `fuel`, `memory_mib`, `answer_kib` and `log_kib`" {
        time: Span,
        fuel: u64,
        memory_mib: u32,
        answer_kib: u32,
        log_kib: u32,
    }
}

section! {
    Shadow, "the fields `policy` and `policy_config`" {
        policy: String,
        policy_config: serde_json::Value,
    }
}

section! {
    Election, "an election: the fields `name`, `policy`, `manifests` and so on" {
        name: String,
        policy: String,
        policy_config: serde_json::Value,
        on_policy_failure: OnPolicyFailure,
        shadow: Shadow,
        manifests: Vec<Manifest>,
        manifest_directory: Directory,
        fitness: Vec<FitnessCheck>,
        stop_check: StopCheck,
        takeover_delay: Span,
        overlap: Overlap,
        role_file: String,
        on_stuck: Vec<String>,
        hooks: Hooks,
    }
}

section! {
    Hooks, "the fields `gained`, `lost`, `changed` and `timeout`" {
        gained: Vec<String>,
        lost: Vec<String>,
        changed: Vec<String>,
        timeout: Span,
    }
}

/// What decides while an election's policy fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnPolicyFailure {
    /// The built-in ranking stands in, loudly.
    Builtin,
    /// An incumbent stays and nobody new is elected.
    Hold,
}

impl OnPolicyFailure {
    /// What it is unless the configuration says: the built-in ranking stands in, except where
    /// somebody whom the policy would exclude must not lead at any rate.
    pub(super) fn of_policy(policy: &str) -> Self {
        if policy == "executor-match" { Self::Hold } else { Self::Builtin }
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Overlap {
    Accepted,
}

section! {
    Manifest, "a manifest: the fields `source` and `destination`, and perhaps `name`, `exclusive`, `render` and `adopt`" {
        name: String,
        source: String,
        destination: String,
        exclusive: bool,
        render: bool,
        adopt: bool,
    }
}

section! {
    Directory, "the fields `source` and `destination`, and perhaps `exclusive`, `render` and `adopt`" {
        source: String,
        destination: String,
        exclusive: bool,
        render: bool,
        adopt: bool,
    }
}

section! {
    FitnessCheck, "a check: one of `command`, `tcp`, `http` and `file`" {
        name: String,
        command: Vec<String>,
        tcp: String,
        http: String,
        file: String,
        interval: Span,
        timeout: Span,
        rise: u32,
        fall: u32,
    }
}

section! {
    StopCheck, "a check: one of `command`, `tcp`, `http` and `file`" {
        command: Vec<String>,
        tcp: String,
        http: String,
        file: String,
        interval: Span,
        timeout: Span,
        within: Span,
    }
}

/// The bound on a clock's rate error, in parts per million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RateError(pub(super) u32);

impl RateError {
    fn parse(text: &str) -> Option<Self> {
        let (number, scale) = match text.strip_suffix('%') {
            Some(number) => (number, 10_000.0),
            None => (text.strip_suffix("ppm")?, 1.0),
        };
        let ppm = number.trim().parse::<f64>().ok()? * scale;
        // More than a million is nonsense here and keeps the conversion exact.
        (0.0..=1_000_000.0).contains(&ppm).then_some(RateError(ppm.round() as u32))
    }
}

impl<'de> Deserialize<'de> for RateError {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RateVisitor;

        impl Visitor<'_> for RateVisitor {
            type Value = RateError;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a share such as `0.1%` or `500ppm`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RateError, E> {
                RateError::parse(text)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(RateVisitor)
    }
}
